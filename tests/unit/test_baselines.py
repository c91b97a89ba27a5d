"""The baselines' heads are MMDetection's: the same losses and gradients, from the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import FCOSHead as MMDetectionsFCOSHead
from mmdet.models.dense_heads import RetinaHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from date.identity.config import fragment
from date.models import FCOSHead, RetinaNetHead

CLASSES, CHANNELS, STRIDES = 4, 16, (8, 16)
NORM = dict(type="GN", num_groups=4)


def heads(name: str) -> tuple[Any, Any]:
    """Return our head and MMDetection's, with the same weights; predictions differ from point to point."""
    sizes = dict(num_classes=CLASSES, in_channels=CHANNELS, feat_channels=CHANNELS, stacked_convs=1)
    model = fragment(f"models/{name}.py")["model"]
    config = {k: v for k, v in model["bbox_head"].items() if k not in ("type", "reduce_normaliser")} | sizes
    options: dict[str, Any] = {}
    if name == "fcos":
        config |= dict(strides=STRIDES, regress_ranges=((-1, 32), (32, 1e8)), norm_cfg=NORM)
        kinds = (FCOSHead, MMDetectionsFCOSHead)
    else:
        config["anchor_generator"]["strides"] = list(STRIDES)
        options["train_cfg"] = ConfigDict(model["train_cfg"])
        kinds = (RetinaNetHead, RetinaHead)
    torch.manual_seed(0)
    mine, theirs = (kind(**config, **options) for kind in kinds)
    mine.init_weights()
    for parameter in mine.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def batch(counts: tuple[int, ...]) -> tuple[list[torch.Tensor], list[InstanceData], list[dict[str, Any]]]:
    generator = torch.Generator().manual_seed(1)
    feats = [torch.randn(len(counts), CHANNELS, 12 // k, 16 // k, generator=generator) for k in (1, 2)]
    instances = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 50
        bboxes = torch.cat([corner, corner + 8 + torch.rand(count, 2, generator=generator) * 40], dim=-1)
        instances.append(InstanceData(bboxes=bboxes, labels=torch.randint(0, CLASSES, (count,), generator=generator)))
    metas = [dict(img_shape=(96, 120), pad_shape=(96, 128) if i % 2 else (64, 128)) for i in range(len(counts))]
    return feats, instances, metas


@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0), (1,)], ids=str)
@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_losses_and_gradients(name: str, counts: tuple[int, ...]) -> None:
    feats, *annotations = batch(counts)
    found = []
    for head in heads(name):
        losses = head.loss_by_feat(*head(feats), *annotations)
        totals = {k: sum(v) if isinstance(v, list) else v for k, v in losses.items()}
        sum(totals.values()).backward()  # type: ignore[union-attr]
        found.append((totals, {k: p.grad for k, p in head.named_parameters()}))
    (mine, my_gradients), (theirs, their_gradients) = found
    assert {k: v.item() for k, v in mine.items()} == pytest.approx({k: v.item() for k, v in theirs.items()}, rel=1e-5)
    for parameter, gradient in my_gradients.items():
        assert gradient is not None, parameter
        expected = their_gradients[parameter]
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if expected is None else expected)


@pytest.mark.parametrize("option", ["center_sampling", "norm_on_bbox", "centerness_on_reg"])
def test_variants_of_fcos_that_it_does_not_compute_are_left_to_mmdetections(option: str) -> None:
    options = dict(feat_channels=CHANNELS, stacked_convs=1, strides=STRIDES, norm_cfg=NORM, **{option: True})
    options["regress_ranges"] = ((-1, 32), (32, 1e8))
    feats, *annotations = batch((3, 0))
    found = []
    for kind in (FCOSHead, MMDetectionsFCOSHead):
        torch.manual_seed(0)
        head = kind(CLASSES, CHANNELS, **options)
        head.init_weights()
        found.append({k: v.item() for k, v in head.loss_by_feat(*head(feats), *annotations).items()})
    assert found[0] == found[1]
