"""What is left for inference is OneNet's network, and it detects bit for bit what the trained network detects."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

import date.models  # noqa: F401 - registers the heads
from date.catalogue import load, load_tier
from date.errors import UserError
from date.experiments.fragments import merge
from date.identity.config import resolve
from date.inference.export import inference_network

SMOKE, PAPER = load_tier("smoke"), load_tier("paper")


def config(name: str, tier: Any = SMOKE, **head: Any) -> dict[str, Any]:
    model: dict[str, Any] = resolve(load().training(f"{name}-r50-coco-12e"), tier, 0, None)["model"]
    model["backbone"].pop("init_cfg", None)
    merge(model["bbox_head"], head)
    return model


def with_max_filter(model: dict[str, Any]) -> dict[str, Any]:
    model["bbox_head"]["branches"][0]["max_filter"] = dict(norm_cfg=dict(type="GN", num_groups=4))
    return model


def build(model: dict[str, Any]) -> nn.Module:
    """A detector in evaluation mode with weights such that it detects something."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(ConfigDict(copy.deepcopy(model)))
    detector.init_weights()
    for parameter in detector.bbox_head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return detector.eval()


def meta(model: dict[str, Any]) -> nn.Module:
    """A detector without numbers."""
    with torch.device("meta"), DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(ConfigDict(copy.deepcopy(model)))


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


@torch.no_grad()
def detect(model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    images = [torch.rand(3, 64, size, generator=torch.Generator().manual_seed(size)) * 255 for size in (64, 48)]
    samples = [
        DetDataSample(metainfo=dict(img_shape=image.shape[1:], ori_shape=image.shape[1:], scale_factor=(1.0, 1.0)))
        for image in images
    ]
    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples), False)
    found = [sample.pred_instances for sample in model(**batch, mode="predict")]
    return [(instances.bboxes, instances.scores, instances.labels) for instances in found]


def assert_same(mine: list[tuple[torch.Tensor, ...]], theirs: list[tuple[torch.Tensor, ...]]) -> None:
    for image, other in zip(mine, theirs, strict=True):
        assert len(image[0]) > 3, "detects something"
        assert all(torch.equal(a, b) for a, b in zip(image, other, strict=True))


NETWORKS = {
    "onenet": config("onenet"),
    "date_f": config("date_f"),
    "date_r": config("date_r"),
    "date_r, own towers": config("date_r", share_towers=False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_one_to_one_branch_is_onenet_and_detects_the_same(name: str) -> None:
    trained = build(NETWORKS[name])
    left = inference_network(trained)
    onenet = build(NETWORKS["onenet"])
    assert shapes(left) == shapes(onenet)
    assert list(dict(left.named_parameters())) == list(dict(onenet.named_parameters())), "in the same order"
    assert_same(detect(left), detect(trained))
    onenet.load_state_dict(left.state_dict())
    assert_same(detect(onenet), detect(trained))


@pytest.mark.parametrize("name", ["date_f", "date_r"])
@pytest.mark.parametrize("share_towers", [True, False])
@pytest.mark.parametrize("predict_from", [1, -1])
def test_the_one_to_many_branch_keeps_its_own_towers(name: str, share_towers: bool, predict_from: int) -> None:
    trained = build(config(name, share_towers=share_towers, predict_from=predict_from))
    for branch in trained.bbox_head.predictors:
        branch.test_cfg["score_thr"] = 0.0
    left = inference_network(trained)
    towers = trained.bbox_head.branch_cls_convs[0] if not share_towers else trained.bbox_head.cls_convs
    kept = left.bbox_head.cls_convs.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in towers.state_dict().items())
    names = [key for key in shapes(trained) if "predictors.0" not in key and ".branch_" not in key]
    assert set(shapes(left)) == {key.replace("predictors.1", "predictors.0") for key in names}
    assert_same(detect(left), detect(trained))


def test_the_max_filter_stays_with_its_branch() -> None:
    trained = build(with_max_filter(config("date_f")))
    left = inference_network(trained)
    assert shapes(left) == shapes(build(with_max_filter(config("onenet"))))
    assert any("max3d" in key for key in shapes(left))
    assert_same(detect(left), detect(trained))


def test_the_trained_network_is_left_as_it_is() -> None:
    trained = build(NETWORKS["date_r, own towers"])
    before, names = detect(trained), shapes(trained)
    left = inference_network(trained)
    assert not {p.data_ptr() for p in left.parameters()} & {p.data_ptr() for p in trained.parameters()}
    for parameter in left.parameters():
        parameter.data.zero_()
    assert shapes(trained) == names
    assert_same(detect(trained), before)


@pytest.mark.parametrize(("name", "head"), [("date_f", {}), ("date_r", {}), ("date_r", dict(share_towers=False))])
def test_at_the_papers_size_it_has_onenets_parameters(name: str, head: dict[str, Any]) -> None:
    trained, onenet = meta(config(name, PAPER, **head)), meta(config("onenet", PAPER))
    left = inference_network(trained)
    assert shapes(left) == shapes(onenet)
    trainable = sum(p.numel() for p in left.parameters() if p.requires_grad)
    assert round(trainable / 1e6, 1) == 32.0  # DATE Table 8
    assert trainable == sum(p.numel() for p in onenet.parameters() if p.requires_grad)
    assert sum(p.numel() for p in trained.parameters()) > sum(p.numel() for p in left.parameters())


def test_a_head_without_branches_is_refused() -> None:
    with pytest.raises(UserError, match="FCOSHead has no branch that only training needs; use the trained network"):
        inference_network(meta(config("fcos")))
