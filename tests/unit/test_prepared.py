"""A network made ready to detect computes the same bits as the one that was trained, for every kind of network."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import nn

import date.models  # noqa: F401 - registers the backbone
from date.catalogue import Training, load, load_tier
from date.families import family_of
from date.identity.config import resolve
from date.inference.prepared import FoldedConv, PlainConvModule, PreparedBackbone, prepared
from date.models.efficientnet_lite import EfficientNetLite
from tests.unit.test_efficientnet_lite import pretrained


def kinds() -> dict[str, Training]:
    """A training of each kind of network: head, branches, 3D max filtering, towers; and of each backbone."""
    found: dict[Any, Training] = {}
    for training in load().trainings.values():
        found.setdefault((training.model, *training.network.cost), training)
        found.setdefault(training.backbone, training)
    return {training.name: training for training in found.values()}


KINDS = kinds()


@cache
def network(name: str) -> Any:
    """An untrained detector of mini on a pretrained backbone."""
    torch.manual_seed(0)
    config = resolve(KINDS[name], load_tier("mini"), 0, Path())["model"]
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    return model.eval()


def outputs(model: Any, inputs: torch.Tensor) -> list[torch.Tensor]:
    """All tensors of a network's head, the neck's levels before."""
    with torch.inference_mode():
        feats = model.extract_feat(inputs)
        found: list[torch.Tensor] = list(feats)

        def gather(value: Any) -> None:
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, dict):
                list(map(gather, value.values()))
            elif isinstance(value, list | tuple):
                list(map(gather, value))
            elif hasattr(value, "reg"):
                list(map(gather, (value.cls, value.reg, value.extra)))

        gather(model.bbox_head(feats))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_every_network_computes_the_same_bits(name: str) -> None:
    model = network(name)
    ready = prepared(model)
    assert isinstance(ready.backbone, PreparedBackbone) and ready.backbone.blocked
    assert family_of(ready.bbox_head) is family_of(model.bbox_head)
    assert any(isinstance(module, PlainConvModule) for module in ready.bbox_head.modules())
    for size in ((1, 3, 128, 160), (3, 3, 96, 64)):
        inputs = torch.randn(size, generator=torch.Generator().manual_seed(size[0]))
        mine, theirs = outputs(ready, inputs), outputs(model, inputs)
        assert len(mine) == len(theirs) >= 5
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_trained_network_is_left_as_it_is_and_shares_its_parameters() -> None:
    model = network(next(iter(KINDS)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ready = prepared(model)
    assert isinstance(model.backbone, EfficientNetLite)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], value) for key, value in before.items())
    mine = {parameter.data_ptr() for parameter in model.bbox_head.parameters()}
    assert mine == {parameter.data_ptr() for parameter in ready.bbox_head.parameters()}


@pytest.mark.parametrize(
    ("keys", "folded", "blocked"),
    [
        (dict(norm_cfg=dict(type="BN", requires_grad=False)), True, True),
        (dict(norm_cfg=dict(type="BN", requires_grad=True)), True, False),
        (dict(norm_cfg=dict(type="GN", num_groups=8, eps=1e-5)), False, False),
    ],
    ids=["frozen", "trained", "group"],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_what_cannot_stay_in_onednns_layout_does_not(
    keys: dict[str, Any], folded: bool, blocked: bool, batch: int
) -> None:
    torch.manual_seed(0)
    backbone = EfficientNetLite("lite0", out_indices=(0, 1), **keys).eval()
    ready = PreparedBackbone(copy.deepcopy(backbone))
    assert any(isinstance(module, FoldedConv) for module in ready.modules()) == folded
    assert ready.blocked == blocked
    inputs = torch.randn(batch, 3, 64, 96)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(ready(inputs), backbone(inputs), strict=True))


def test_statistics_of_the_batch_are_not_folded() -> None:
    backbone = pretrained("lite0", out_indices=(0, 1)).train()
    ready = PreparedBackbone(copy.deepcopy(backbone))
    assert not any(isinstance(module, FoldedConv) for module in ready.modules())


def test_layers_that_do_more_stay_mmcvs() -> None:
    from mmcv.cnn import ConvModule

    class Detector(nn.Module):
        def __init__(self, **keys: Any) -> None:
            super().__init__()
            self.layer = ConvModule(8, 8, 3, padding=1, **keys)

    group = dict(type="GN", num_groups=2)
    plain: list[dict[str, Any]] = [
        dict(norm_cfg=group),
        dict(act_cfg=None),
        dict(stride=2, bias=True),
        dict(dilation=2),
    ]
    more: list[dict[str, Any]] = [
        dict(norm_cfg=dict(type="BN")), dict(act_cfg=dict(type="LeakyReLU")), dict(padding_mode="reflect"),
        dict(order=("act", "conv", "norm"), norm_cfg=group), dict(with_spectral_norm=True),
        dict(conv_cfg=dict(type="Conv2dAdaptivePadding")),
    ]  # fmt: skip
    x = torch.randn(2, 8, 9, 7)
    for keys in (*plain, *more):
        detector = Detector(**keys).eval()
        ready = prepared(detector)
        assert isinstance(ready.layer, PlainConvModule) == (keys in plain), keys
        with torch.inference_mode():
            assert torch.equal(ready.layer(x.clone()), detector.layer(x.clone()))
