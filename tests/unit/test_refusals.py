"""What a component refuses is told with the file, the key and the nearest one, whoever registered it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from date.catalogue import ROOT, Training, load, load_tier
from date.cli import main
from date.doctor import components
from date.errors import UserError
from date.experiments.folders import VARIABLE
from date.experiments.refusals import understood
from date.identity.config import resolve
from date.training.trial import build_components

HEAD = "model, bbox_head"
OWN_LOSS = """
from torch import nn

from mmdet.registry import MODELS


@MODELS.register_module(force=True)
class RefusalsLoss(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = {2: "two"}[weight]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of own experiments that is in use."""
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(ROOT / "experiments"), str(tmp_path)]))
    return tmp_path


def write(folder: Path, files: dict[str, str], training: str = "model: mine, schedule: 12e, gpu_hours: 1") -> None:
    files = files | {"trainings.yaml": f"mine: {{{training}, why: to see}}\n"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def build() -> None:
    training, tier = load().training("mine"), load_tier("smoke")
    build_components(training, resolve(training, tier, 0, None))


def said(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        build()
    return str(error.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            "loss_bbox=dict(type='IoULoss', los_weight=2)",
            f"{HEAD}, loss_bbox: unknown key of IoULoss 'los_weight'; did you mean 'loss_weight'?",
        ),
        ("loss_bbx=dict(type='IoULoss')", f"{HEAD}: unknown key of FCOSHead 'loss_bbx'; did you mean 'loss_bbox'?"),
        ("loss_bbox=dict(type='IouLoss')", f"{HEAD}, loss_bbox: unknown type 'IouLoss'; did you mean 'IoULoss'?"),
        ("loss_bbox=dict(_delete_=True, loss_weight=3)", f"{HEAD}, loss_bbox: the key 'type' is missing; add it."),
        (
            "norm_cfg=dict(type='GN', num_group=4)",
            f"{HEAD}, norm_cfg: unknown key of GroupNorm 'num_group'; did you mean 'num_groups'?",
        ),
        ("conv_cfg=dict(type='Conv22d')", f"{HEAD}, conv_cfg: unknown type 'Conv22d'; did you mean 'Conv2d'?"),
    ],
)
def test_a_key_or_type_that_mmdetection_does_not_have(folder: Path, model: str, sentence: str) -> None:
    write(folder, {"models/mine.py": f"base = 'fcos'\nmodel = dict(bbox_head=dict({model}))\n"})
    assert said(folder) == f"models/mine.py, {sentence}"


def test_a_value_that_mmdetection_does_not_take(folder: Path) -> None:
    write(folder, {"models/mine.py": "base = 'fcos'\nmodel = dict(bbox_head=dict(loss_bbox=dict(mode='cubic')))\n"})
    start = f"models/mine.py, {HEAD}, loss_bbox: IoULoss refuses its settings: AssertionError: assert mode in ["
    assert said(folder).startswith(start) and said(folder).endswith("; correct them.")


def test_a_part_that_no_detector_has(folder: Path) -> None:
    write(folder, {"models/mine.py": "base = 'fcos'\nmodel = dict(bbox_hed=dict())\n"})
    assert said(folder) == "models/mine.py, model: unknown key of FCOS 'bbox_hed'; did you mean 'bbox_head'?"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("weights=2", "unknown key of RefusalsLoss 'weights'; did you mean 'weight'?"),
        ("", "RefusalsLoss needs 'weight'; add it."),
        (
            "weight=3",
            "RefusalsLoss refuses its settings: KeyError: 3 (modules/refusals_loss.py, line 11); correct them.",
        ),
    ],
)
def test_a_component_of_an_own_module(folder: Path, monkeypatch: pytest.MonkeyPatch, keys: str, sentence: str) -> None:
    monkeypatch.delitem(sys.modules, "refusals_loss", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loss = f"loss_bbox=dict(_delete_=True, type='RefusalsLoss', {keys})"
    text = f"base = 'fcos'\nmodules = ['refusals_loss']\nmodel = dict(bbox_head=dict({loss}))\n"
    write(folder, {"models/mine.py": text, "modules/refusals_loss.py": OWN_LOSS})
    assert said(folder) == f"models/mine.py, {HEAD}, loss_bbox: {sentence}"


def test_a_branch_that_trainings_choose(folder: Path) -> None:
    text = "base = 'dual'\no2m = dict(fcos=dict(type='FCOSBranch', regres_ranges=1))\n"
    write(folder, {"models/mine.py": text}, "model: mine, options: {quality: poto, o2m: fcos}, schedule: 12e")
    sentence = "unknown key of FCOSBranch 'regres_ranges'; did you mean 'regress_ranges'?"
    assert said(folder) == f"models/mine.py, o2m, fcos: {sentence}"


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        (
            "optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentun=0.9))",
            "optim_wrapper, optimizer: unknown key of SGD 'momentun'; did you mean 'momentum'?",
        ),
        (
            "train_pipeline = [dict(type='RandomFlip', probe=0.5)]",
            "train_pipeline, 0: unknown key of RandomFlip 'probe'; did you mean 'prob'?",
        ),
        ("test_pipeline = [dict(type='Resise')]", "test_pipeline, 0: unknown type 'Resise'; did you mean 'Resize'?"),
    ],
)
def test_optimisers_and_transforms_of_a_schedule(folder: Path, schedule: str, sentence: str) -> None:
    write(folder, {"schedules/brief.py": f"base = '12e'\n{schedule}\n"}, "model: fcos, schedule: brief, gpu_hours: 1")
    assert said(folder) == f"schedules/brief.py, {sentence}"


def test_right_settings_are_built(folder: Path) -> None:
    write(folder, {"models/mine.py": "base = 'fcos'\nmodel = dict(bbox_head=dict(loss_bbox=dict(loss_weight=2.0)))\n"})
    build()
    assert list(components.refused([load().training("fcos-r50-coco-12e")], load_tier("smoke"))) == []


def test_commands_say_it_in_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, {"models/mine.py": "base = 'fcos'\nmodel = dict(bbox_head=dict(loss_bbox=dict(los_weight=2)))\n"})
    sentence = (
        f"{folder}/models/mine.py, {HEAD}, loss_bbox: unknown key of IoULoss 'los_weight'; did you mean 'loss_weight'?"
    )
    for words in (["config", "mine", "--tier", "smoke"], ["plan", "mine", "--tier", "smoke"]):
        assert main(words) == 2
        assert capsys.readouterr().err.endswith(f"error: {sentence}\n"), "after what a slow machine says it is doing"
    assert list(components.refused([load().training("mine")], load_tier("smoke"))) == [sentence]


def test_all_own_networks_are_built_in_one_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "base = 'fcos'\nmodel = dict(bbox_head=dict(loss_bbox=dict({key}=2)))\n"
    files = {f"models/own{i}.py": wrong.format(key=key) for i, key in enumerate(["los_weight", "loss_weight", "weigt"])}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    trainings = [f"own{i}: {{model: own{i}, schedule: 12e, gpu_hours: 1, why: ''}}\n" for i in range(3)]
    (folder / "trainings.yaml").write_text("".join(trainings))
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **options: started.append(words) or run(words, **options))
    found = components.refused([load().training(f"own{i}") for i in range(3)], load_tier("smoke"))
    assert [sentence.partition(",")[0] for sentence in found] == [f"{folder}/models/own{i}.py" for i in (0, 2)]
    assert "unknown key of IoULoss 'los_weight'" in found[0] and "unknown key of IoULoss 'weigt'" in found[1]
    assert len(started) == 1
    monkeypatch.setattr(Training, "modules", property(lambda training: (training.name,)))
    components.refused([load().training(f"own{i}") for i in range(2)], load_tier("smoke"))
    assert len(started) == 3, "modules of different networks may register components of one name"


def test_a_network_that_ends_in_a_traceback_hides_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "modules/refusals_odd.py": OWN_LOSS.replace('{2: "two"}[weight]', "1 / (weight - 2)").replace("Loss(", "Odd("),
        "models/own0.py": "base = 'fcos'\nmodules = ['refusals_odd']\n"
        "model = dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='RefusalsOdd', weight=2)))\n",
        "models/own1.py": "base = 'fcos'\nmodules = ['refusals_odd']\n"
        "model = dict(bbox_head=dict(loss_bbox=dict(los_weight=2)))\n",
    }
    write(folder, files)
    trainings = [f"own{i}: {{model: own{i}, schedule: 12e, gpu_hours: 1, why: ''}}\n" for i in range(2)]
    (folder / "trainings.yaml").write_text("".join(trainings))
    first, second = components.refused([load().training(f"own{i}") for i in range(2)], load_tier("smoke"))
    assert first == "own0 can't be built (ZeroDivisionError: division by zero); the traceback names the line."
    assert "unknown key of IoULoss 'los_weight'" in second
    assert main(["config", "own0", "--tier", "smoke"]) == 2
    said = capsys.readouterr().err
    assert f'File "{folder}/modules/refusals_odd.py", line 11' in said and said.endswith(f"error: {first}\n")


def test_errors_of_other_code_stay_what_they_are() -> None:
    with pytest.raises(TypeError), understood():
        raise TypeError("IoULoss.__init__() got an unexpected keyword argument 'los_weight'")


def test_nothing_of_it_imports_pytorch() -> None:
    code = "import sys, date.experiments.refusals, date.doctor.components; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
