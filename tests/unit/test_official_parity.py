"""Given the authors' weights, features and objects, the head returns what the authors' implementation returned.

The reference figures were computed in double precision by the official DATE code (64 channels, 6 classes, five levels).
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from date.experiments.fragments import fragment
from date.models import DualAssignmentHead
from date.models.objects import objects_of

pytestmark = pytest.mark.shared

DUAL = fragment("models/dual.py")
CASES = {
    "onenet": ("hungarian", None, 1.0),
    "onenet_poto": ("poto", None, 1.0),
    "date_f": ("poto", "fcos", 1.0),
    "date_r": ("poto", "retinanet", 2.0),
    "date_f_3dmf": ("poto", "fcos", 1.0),
}
LOSS_NAMES = {
    "o2o.loss_cls": ["loss.0.loss_o2o_cls"],
    "o2o.loss_reg": ["loss.0.loss_o2o_box"],
    "o2o.loss_iou": ["loss.0.loss_o2o_iou"],
    "o2m.loss_cls": ["loss.1.loss_fcos_cls", "loss.1.loss_cls"],
    "o2m.loss_iou": ["loss.1.loss_fcos_iou"],
    "o2m.loss_ctr": ["loss.1.loss_fcos_ctr"],
    "o2m.loss_reg": ["loss.1.loss_box"],
}


def build(case: str) -> DualAssignmentHead:
    quality, o2m, lambda_o2m = CASES[case]
    dual = copy.deepcopy(DUAL)
    o2o = dual["o2o"] | dict(quality=dual["qualities"][quality])
    if case.endswith("3dmf"):
        o2o["max_filter"] = dict(norm_cfg=dict(type="GN", num_groups=32), eps=1e-5)
    branches = [o2o] + ([dual["o2m"][o2m] | dict(loss_weight=lambda_o2m)] if o2m else [])
    config = {k: v for k, v in dual["model"]["bbox_head"].items() if k != "type"}
    config.update(num_classes=6, in_channels=64, feat_channels=64, branches=branches)
    return DualAssignmentHead(**config)


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, shared_data: Any) -> SimpleNamespace:
    """A head with the authors' weights, and the reference figures."""
    path = shared_data / "official_reference" / f"{request.param}_11.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    reference = dict(np.load(path))
    head = build(request.param)
    weights = {k.removeprefix("weight/"): torch.from_numpy(v) for k, v in reference.items() if k.startswith("weight/")}
    head.load_state_dict(weights)  # strict: our parameter names and shapes are the official ones
    head.double().eval()
    samples = [
        SimpleNamespace(
            metainfo=dict(img_shape=tuple(reference[f"img_shape/{i}"]), pad_shape=(160, 224), scale_factor=(1.0, 1.0)),
            gt_instances=InstanceData(
                bboxes=torch.from_numpy(reference[f"gt_bboxes/{i}"]).double(),
                labels=torch.from_numpy(reference[f"gt_labels/{i}"]),
            ),
        )
        for i in range(2)
    ]
    feats = [torch.from_numpy(reference[f"feat/{level}"]).double() for level in range(5)]
    return SimpleNamespace(name=request.param, head=head, reference=reference, samples=samples, feats=feats)


def test_predictions(case: SimpleNamespace) -> None:
    outputs = case.head(case.feats)
    for index, output in outputs.items():
        for part, mine in enumerate((output.cls, output.reg, output.extra)):
            if mine is None:
                continue
            start = 0
            for level, size in enumerate(output.level_sizes):
                theirs = case.reference[f"pred/{index}/{part}/{level}"]
                per_cell = size // (theirs.shape[2] * theirs.shape[3])
                channels = theirs.shape[1] // per_cell
                theirs = theirs.reshape(2, per_cell, channels, -1).transpose(0, 2, 3, 1).reshape(2, channels, size)
                np.testing.assert_allclose(mine[..., start : start + size].detach(), theirs, rtol=2e-5, atol=2e-6)
                start += size


def test_matches(case: SimpleNamespace) -> None:
    output = case.head(case.feats, [0])[0]
    matches = case.head.branch(0).match(output, objects_of(case.samples))
    for i, match in enumerate(matches):
        assert match.tolist() == case.reference[f"match/{i}"].tolist()


def test_losses_and_gradients(case: SimpleNamespace) -> None:
    case.head.zero_grad()
    losses = case.head.loss(case.feats, case.samples)
    known = {k for k in case.reference if k.startswith("loss/")}
    for name, value in losses.items():
        key = next(f"loss/{n}" for n in LOSS_NAMES[name] if f"loss/{n}" in known)
        known.remove(key)
        assert value.item() == pytest.approx(float(case.reference[key]), rel=1e-6), name
    assert not known, "losses that ours does not have"
    sum(losses.values()).backward()
    for name, parameter in case.head.named_parameters():
        norm = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        assert norm == pytest.approx(float(case.reference[f"grad_norm/{name}"]), rel=1e-6, abs=1e-12), name


def test_detections(case: SimpleNamespace) -> None:
    with torch.no_grad():
        results = case.head.predict(case.feats, case.samples)
    for i, result in enumerate(results):
        theirs = case.reference[f"det/{i}/bboxes"]
        assert result.labels.tolist() == case.reference[f"det/{i}/labels"].tolist()
        np.testing.assert_allclose(result.bboxes, theirs[:, :4], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.scores, theirs[:, 4], rtol=1e-9)
