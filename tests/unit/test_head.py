"""The head: branches against MMDetection's heads, sharing, weights of the losses, inference, images without objects."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import FCOSHead, RetinaHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from date.experiments.fragments import fragment
from date.models import DualAssignmentHead
from date.models.head import final_selection

CLASSES, CHANNELS, STRIDES = 4, 16, (8, 16)
NORM = dict(type="GN", num_groups=4)


def dual_head(
    o2m: str | None = "fcos", lambda_o2o: float = 1.0, lambda_o2m: float = 1.0, **kwargs: Any
) -> DualAssignmentHead:
    dual = fragment("models/dual.py")
    branches = [dual["o2o"] | dict(quality=dual["qualities"]["poto"], loss_weight=lambda_o2o)]
    if o2m:
        branches.append(dual["o2m"][o2m] | dict(loss_weight=lambda_o2m))
        if o2m == "fcos":
            branches[1]["regress_ranges"] = ((-1, 32), (32, 1e8))
        else:
            branches[1]["anchor_generator"]["strides"] = list(STRIDES)
    torch.manual_seed(0)
    head = DualAssignmentHead(
        CLASSES, branches, CHANNELS, CHANNELS, stacked_convs=2, strides=STRIDES, norm_cfg=NORM, **kwargs
    )
    head.init_weights()
    for parameter in head.parameters():  # predictions that differ from point to point
        parameter.data += 0.1 * torch.randn_like(parameter)
    return head.double()


def batch(counts: tuple[int, ...] = (3, 5)) -> tuple[list[torch.Tensor], list[Any]]:
    generator = torch.Generator().manual_seed(1)
    size = len(counts)
    feats = [torch.randn(size, CHANNELS, 12 // k, 16 // k, generator=generator, dtype=torch.float64) for k in (1, 2)]
    samples = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 50
        extent = 8 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40
        instances = InstanceData(
            bboxes=torch.cat([corner, corner + extent], dim=-1),
            labels=torch.randint(0, CLASSES, (count,), generator=generator),
        )
        meta = dict(img_shape=(96, 120), pad_shape=(96, 128), scale_factor=(2.0, 2.0))
        samples.append(SimpleNamespace(metainfo=meta, gt_instances=instances))
    return feats, samples


def share_weights(theirs: torch.nn.Module, ours: DualAssignmentHead, names: dict[str, str]) -> None:
    state = ours.state_dict()
    theirs.load_state_dict(
        {k: state[names.get(k.split(".")[0], k.split(".")[0]) + k[k.index(".") :]] for k in theirs.state_dict()}
    )


def test_fcos_branch_equals_mmdetections_head() -> None:
    ours = dual_head("fcos")
    theirs = FCOSHead(
        CLASSES, CHANNELS, feat_channels=CHANNELS, stacked_convs=2, strides=STRIDES, norm_cfg=NORM, conv_bias=False,
        regress_ranges=((-1, 32), (32, 1e8)),
        test_cfg=ConfigDict(nms_pre=1000, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
    ).double()  # fmt: skip
    names = dict(
        conv_cls="predictors.1.conv_cls", conv_reg="predictors.1.conv_reg", conv_centerness="predictors.1.conv_ctr"
    )
    share_weights(theirs, ours, names)
    feats, samples = batch((3, 0, 5))
    mine = {k: v.item() for k, v in ours.loss(feats, samples).items() if k.startswith("o2m")}
    reference = theirs.loss_by_feat(*theirs(feats), [s.gt_instances for s in samples], [s.metainfo for s in samples])
    assert mine["o2m.loss_cls"] == pytest.approx(reference["loss_cls"].item(), rel=1e-7)
    assert mine["o2m.loss_iou"] == pytest.approx(reference["loss_bbox"].item(), rel=1e-6)  # theirs passes float32
    assert mine["o2m.loss_ctr"] == pytest.approx(reference["loss_centerness"].item(), rel=1e-7)

    ours.predict_from = 1
    ours.branch(1).test_cfg.update(score_thr=0.05)
    metas = [s.metainfo for s in samples]
    for my, their in zip(
        ours.predict(feats, samples, rescale=True),
        theirs.predict_by_feat(*theirs(feats), batch_img_metas=metas, rescale=True),
        strict=True,
    ):
        assert len(my) > 5
        torch.testing.assert_close(my.scores, their.scores)
        torch.testing.assert_close(my.bboxes, their.bboxes, rtol=1e-5, atol=1e-5)
        assert my.labels.tolist() == their.labels.tolist()


def test_retina_branch_equals_mmdetections_head() -> None:
    ours = dual_head("retinanet")
    for scale in ours.scales:
        scale.scale.data.fill_(1.0)  # MMDetection's head has no scales
    config = fragment("models/retinanet.py")["model"]
    generator = config["bbox_head"]["anchor_generator"] | dict(strides=list(STRIDES))
    theirs = RetinaHead(
        CLASSES, CHANNELS, feat_channels=CHANNELS, stacked_convs=2, norm_cfg=NORM, anchor_generator=generator,
        bbox_coder=config["bbox_head"]["bbox_coder"], loss_cls=config["bbox_head"]["loss_cls"],
        loss_bbox=config["bbox_head"]["loss_bbox"], train_cfg=ConfigDict(config["train_cfg"]),
    ).double()  # fmt: skip
    share_weights(theirs, ours, dict(retina_cls="predictors.1.conv_cls", retina_reg="predictors.1.conv_reg"))
    feats, samples = batch((3, 0, 5))
    mine = {k: v.item() for k, v in ours.loss(feats, samples).items() if k.startswith("o2m")}
    instances = [
        InstanceData(bboxes=s.gt_instances.bboxes.float(), labels=s.gt_instances.labels) for s in samples
    ]  # MMDetection's anchors are made in the predictions' precision, ours in float32
    reference = theirs.float().loss_by_feat(
        *theirs([f.float() for f in feats]), instances, [s.metainfo for s in samples]
    )
    assert mine["o2m.loss_cls"] == pytest.approx(sum(reference["loss_cls"]).item(), rel=1e-4)
    assert mine["o2m.loss_reg"] == pytest.approx(sum(reference["loss_bbox"]).item(), rel=1e-4)


def test_lambdas_multiply_every_loss_of_their_branch() -> None:
    feats, samples = batch()
    plain = dual_head().loss(feats, samples)
    weighted = dual_head(lambda_o2o=0.5, lambda_o2m=4.0).loss(feats, samples)
    for name, value in plain.items():
        factor = 0.5 if name.startswith("o2o") else 4.0
        assert weighted[name].item() == pytest.approx(factor * value.item(), rel=1e-12)


def test_both_branches_train_the_shared_parts() -> None:
    feats, samples = batch()
    for branch in ("o2o", "o2m"):
        head = dual_head()
        sum(v for k, v in head.loss(feats, samples).items() if k.startswith(branch)).backward()
        for shared in (head.cls_convs, head.reg_convs, head.scales):
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in shared.parameters()), branch


def test_unshared_towers_double_the_towers_and_keep_the_scales() -> None:
    def count(head: DualAssignmentHead) -> int:
        return sum(p.numel() for p in head.parameters())

    shared, unshared = dual_head(), dual_head(share_towers=False)
    towers = sum(p.numel() for p in [*shared.cls_convs.parameters(), *shared.reg_convs.parameters()])
    assert count(unshared) - count(shared) == towers
    assert len(unshared.scales) == len(STRIDES)
    feats, samples = batch()
    sum(v for k, v in unshared.loss(feats, samples).items() if k.startswith("o2m")).backward()
    assert all(p.grad is None for p in unshared.cls_convs.parameters())
    assert all(p.grad is not None for p in unshared.branch_cls_convs.parameters())


@pytest.mark.parametrize("o2m", ["fcos", "retinanet", None])
def test_a_batch_without_objects_has_finite_losses_and_gradients(o2m: str | None) -> None:
    head = dual_head(o2m)
    feats, samples = batch((0, 0))
    losses = head.loss(feats, samples)
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in head.parameters())
    assert losses["o2o.loss_reg"].item() == losses["o2o.loss_iou"].item() == 0


def test_initial_class_probability_is_one_percent() -> None:
    dual = fragment("models/dual.py")
    branch = dual["o2o"] | dict(quality=dual["qualities"]["poto"])
    head = DualAssignmentHead(CLASSES, [branch], CHANNELS, CHANNELS, strides=STRIDES, norm_cfg=NORM)
    head.init_weights()
    output = head([torch.zeros(1, CHANNELS, 4, 4), torch.zeros(1, CHANNELS, 2, 2)])[0]
    torch.testing.assert_close(output.cls.sigmoid(), torch.full_like(output.cls, 0.01))


def test_one_to_one_inference_is_sorted_cut_and_without_nms() -> None:
    head = dual_head("fcos")
    head.branch(0).test_cfg.update(max_per_img=7, score_thr=0.0)
    feats, samples = batch()
    result = head.predict(feats, samples, rescale=True)[0]
    every = head.candidates(feats, samples, [0])["o2o"][0]
    assert len(result) == 7
    torch.testing.assert_close(result.scores, every.scores.sort(descending=True).values[:7])
    assert result.bboxes.min() >= 0 and result.bboxes[:, 0::2].max() <= 60 and result.bboxes[:, 1::2].max() <= 48


def test_final_selection_by_hand() -> None:
    bboxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores, labels = torch.tensor([0.5, 0.9, 0.3, 0.1]), torch.tensor([0, 0, 1, 0])
    assert final_selection(bboxes, scores, labels, None, 3).tolist() == [1, 0, 2]
    assert final_selection(bboxes, scores, labels, 0.5, 100).tolist() == [1, 2, 3]


def test_config_of_a_head_is_not_changed_by_building_it() -> None:
    dual = fragment("models/dual.py")
    branches = [dual["o2o"] | dict(quality=dual["qualities"]["poto"])]
    before = copy.deepcopy(branches)
    DualAssignmentHead(CLASSES, branches, CHANNELS, CHANNELS, strides=STRIDES, norm_cfg=NORM)
    assert branches == before
