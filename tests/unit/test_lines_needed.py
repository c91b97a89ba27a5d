"""How many lines a new part takes outside of the engine, which needs none: docs/own-experiments.md states the numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import date.models  # noqa: F401 - registers the heads
from date.catalogue import ROOT, load, load_dataset, load_tier
from date.catalogue.modules import import_modules
from date.experiments.folders import VARIABLE
from date.identity.config import resolve

HEAD = {
    "models/atss.py": """
model = dict(
    type="ATSS",
    bbox_head=dict(
        type="ATSSHead",
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True),
    ),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=1000, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100),
)
""",
    "trainings.yaml": "mine: {model: atss, schedule: 12e, why: to see}\n",
    "evaluations.yaml": "evaluations: {mine: [head]}\n",
}
BRANCH = {
    "modules/own_branch.py": '''
from mmdet.registry import MODELS
from date.models import FCOSBranch


@MODELS.register_module()
class CentresAlone(FCOSBranch):
    """An FCOS-style branch that learns no centre-ness."""

    def loss(self, output, batch_objects):
        losses = super().loss(output, batch_objects)
        return {name: value for name, value in losses.items() if name != "loss_ctr"}
''',
    "models/own_dual.py": '''
base = "dual"
modules = ["own_branch"]
o2m = dict(centres=dict(type="CentresAlone", regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)),
    test_cfg=dict(score_thr=0.05, nms_pre=1000, nms=0.5, max_per_img=100)))
''',
    "trainings.yaml": "mine: {model: own_dual, options: {quality: poto, o2m: centres}, schedule: 12e, why: to see}\n",
    "evaluations.yaml": "evaluations: {mine: [o2o, o2m]}\n",
}  # fmt: skip
DATASET = {
    "datasets/pets.yaml": """
classes: [cat, dog]
root: pets
train: {annotations: train.json, images: images}
val: {annotations: val.json, images: images}
obtain: where a colleague gets it
""",
    "tiers/pets.yaml": """
extends: smoke
datasets: {coco: pets}
watermark: pets
steps_per_epoch: {coco: 10}
""",
}
TABLE = {
    "tables/mine.yaml": """
title: OneNet and DATE
metrics: [AP, AP50]
groups:
  - - {label: OneNet, evaluation: onenet-r50-coco-12e/o2o}
    - {label: DATE-F, evaluation: date_f-r50-coco-12e/o2o}
""",
}
PARTS = {
    "a dense head of MMDetection": HEAD, "a branch": BRANCH, "a dataset, and a tier with it": DATASET, "a table": TABLE,
}  # fmt: skip


def count(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def lines(files: dict[str, str]) -> int:
    return sum(map(count, files.values()))


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts files beside the paper's."""

    def put(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setenv(VARIABLE, os.pathsep.join([str(ROOT / "experiments"), str(tmp_path)]))

    return put


def losses(name: str) -> dict[str, Any]:
    """Return the losses of a training's network at smoke, on noise with an object."""
    init_default_scope("mmdet")
    training = load().training(name)
    import_modules(training.modules)
    torch.manual_seed(0)
    model: Any = MODELS.build(ConfigDict(resolve(training, load_tier("smoke"), 0, None)["model"])).train()
    meta = dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64), scale_factor=(1.0, 1.0))
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 30.0]]), labels=torch.tensor([0]))
    return model.loss(torch.randn(1, 3, 64, 64), [sample])


def test_a_dense_head(use: Any) -> None:
    use(HEAD)
    assert {"loss_cls", "loss_bbox", "loss_centerness"} <= losses("mine").keys()
    assert load().evaluations["mine/head"]


def test_a_branch(use: Any) -> None:
    use(BRANCH)
    found = losses("mine")
    assert {"o2m.loss_cls", "o2m.loss_iou", "o2o.loss_cls"} <= found.keys() and "o2m.loss_ctr" not in found
    assert set(load().training("mine").branches) == {"o2o", "o2m"}


def test_a_dataset(use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(DATASET)
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    config = resolve(load().training("onenet-r50-coco-12e"), load_tier("pets"), 0, None)
    assert config["train_dataloader"]["dataset"]["dataset"]["metainfo"]["classes"] == ("cat", "dog")
    assert load_dataset("pets").classes == ["cat", "dog"]


def test_a_table(use: Any) -> None:
    use(TABLE)
    assert load().tables["mine"].evaluations == ["onenet-r50-coco-12e/o2o", "date_f-r50-coco-12e/o2o"]


def test_the_documented_numbers() -> None:
    paper = [path for path in (ROOT / "tests" / "papers" / "dense").rglob("*") if path.suffix in (".py", ".yaml")]
    measured = {name: lines(files) for name, files in PARTS.items()}
    measured["a paper"] = sum(count(path.read_text()) for path in paper)
    page = (ROOT / "docs" / "own-experiments.md").read_text()
    stated = {name: int(number) for name, number in re.findall(r"^\| (a[^|]+) \| (\d+) \| 0 \|", page, re.MULTILINE)}
    assert stated == measured
