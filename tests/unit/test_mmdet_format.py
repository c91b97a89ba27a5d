"""MMDetection's EfficientNet with the written weights computes what EfficientNet-Lite does."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from date.inference.mmdet_format import as_efficientnet
from date.models.efficientnet_lite import SCALES, EfficientNetLite


@pytest.mark.parametrize("arch", SCALES)
@pytest.mark.parametrize(
    "keys", [{}, dict(out_indices=(0, 1), norm_cfg=dict(type="BN", eps=1e-2, requires_grad=False))]
)
def test_mmdetections_efficientnet_holds_every_efficientnet_lite(arch: str, keys: dict[str, Any]) -> None:
    torch.manual_seed(0)
    lite = EfficientNetLite(arch, **keys).eval()
    for name, value in lite.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    state = {f"backbone.{name}": value for name, value in lite.state_dict().items()}
    given = dict(backbone=dict(type="EfficientNetLite", arch=arch, frozen_stages=1, **keys), neck=dict(type="FPN"))
    config, written = as_efficientnet(copy.deepcopy(given), state | {"neck.x": torch.ones(2)})
    assert config["neck"] == given["neck"] and torch.equal(written.pop("neck.x"), torch.ones(2))
    with DefaultScope.overwrite_default_scope("mmdet"):
        theirs = MODELS.build(config["backbone"])
    assert type(theirs).__module__.startswith("mmdet.")
    theirs.load_state_dict({name.removeprefix("backbone."): value for name, value in written.items()})
    theirs.eval()  # returns nothing
    images = torch.randn(2, 3, 71, 90)  # odd sides, which TensorFlow's padding treats in its own way
    with torch.no_grad():
        mine, found = lite(images), theirs(images)
    assert len(mine) == len(found) == len(keys.get("out_indices", range(4)))
    for index, (a, b) in enumerate(zip(mine, found, strict=True)):
        assert a.shape[2:] == tuple(math.ceil(side / 2 ** (index + 2)) for side in (71, 90))
        torch.testing.assert_close(b, a, rtol=0, atol=1e-5 * float(a.abs().max()))
