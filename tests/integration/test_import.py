"""A checkpoint with the official names becomes a sealed run that is evaluated like a trained one."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from safetensors.torch import load_file, save_file
from torch import Tensor

import date.models  # noqa: F401 - registers the heads
from date.catalogue import Tier, Training, load, load_tier
from date.catalogue.settings import data_root
from date.cli import main
from date.errors import UserError
from date.files import file_digest
from date.identity.config import resolve
from date.imports.checkpoint import import_checkpoint
from date.inference.evaluate import evaluate, write_evaluation
from date.reporting.report import write_report
from date.results import METRICS_SCHEMA, export_run, load_results
from date.training.processes import Processes

pytestmark = pytest.mark.slow

DATE_F, SMOKE = load().training("date_f-r50-coco-12e"), load_tier("smoke")


def random_state(training: Training, tier: Tier) -> OrderedDict[str, Tensor]:
    """Weights of a network that detects something, under the official names, which are ours."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(ConfigDict(resolve(training, tier, 0, Path())["model"]))
    model.init_weights()
    for parameter in model.bbox_head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.state_dict()


def direct_detections(state: dict[str, Tensor]) -> np.ndarray:
    """MMDetection's own inference with the weights: (D, 5) x, y, width, height and score, image by image."""
    config = resolve(DATE_F, SMOKE, 0, data_root())
    with DefaultScope.overwrite_default_scope("mmdet"), torch.no_grad():
        model = MODELS.build(ConfigDict(config["model"])).eval()
        model.load_state_dict(state)
        samples = [s for batch in Runner.build_dataloader(config["test_dataloader"]) for s in model.test_step(batch)]
    found = [sample.pred_instances for sample in samples]
    xyxy, scores = torch.cat([f.bboxes for f in found]), torch.cat([f.scores for f in found])
    return torch.cat([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2], scores[:, None]], dim=1).numpy()


def write(state: dict[str, Any], path: Path) -> Path:
    """Write a checkpoint as MMDetection 2 does."""
    meta = {"mmdet_version": "2.25.1", "CLASSES": ("disc", "square"), "epoch": 12, "iter": 87960, "hook_msgs": {}}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An own data root, in which the smoke tier's scenes are generated on first use."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("some data")
        patch.setenv("DATE_DATA_ROOT", str(folder))
        yield folder


@pytest.fixture(scope="module")
def imported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("some runs")
    state = random_state(DATE_F, SMOKE)
    file = write(state, folder / "date_f_r50_1x.pth")
    run = import_checkpoint(file, DATE_F, SMOKE, folder / "runs")
    return SimpleNamespace(state=state, file=file, runs=folder / "runs", run=run)


def test_the_run_is_sealed(imported: SimpleNamespace) -> None:
    run = imported.run
    assert run.parent == imported.runs and run.name.startswith("smoke-date_f-r50-coco-12e-s0-")
    assert {p.name for p in run.iterdir()} == {"config.py", "final.safetensors", "metrics.jsonl", "provenance.json"}
    assert [p.name for p in (imported.runs / ".work").iterdir()] == [f"{run.name}.lock"], "no work is left"
    weights = load_file(run / "final.safetensors")
    assert weights.keys() == imported.state.keys()
    assert all(torch.equal(weights[name], value) for name, value in imported.state.items())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records == [{"kind": "start", "schema_version": METRICS_SCHEMA, "imported": True, "steps": 0, "epochs": 0}]


def test_the_provenance_says_what_is_known(imported: SimpleNamespace) -> None:
    provenance = json.loads((imported.run / "provenance.json").read_text())
    assert provenance["imported"] == {"file": "date_f_r50_1x.pth", "sha256": file_digest(imported.file)}
    known = {"schema_version", "training", "tier", "seed", "run", "run_digest", "config_sha256", "data"}
    known |= {"weights_sha256", "metrics_sha256", "steps", "segments", "imported"}
    assert {key for key, value in provenance.items() if value is not None} == known
    assert (provenance["steps"], provenance["segments"]) == (0, [])
    assert provenance["data"]["splits"]["val"]["images"] == 8


def test_it_has_the_keys_of_a_trained_run(imported: SimpleNamespace) -> None:
    from date.training import run as trained

    folder = imported.run
    config = resolve(DATE_F, SMOKE, 0, None)
    planned = trained.Plan(DATE_F, SMOKE, 0, "0" * 64, config, {}, imported.runs / "trained", None)
    provenance = json.loads((folder / "provenance.json").read_text())
    assert list(provenance) == [*trained._provenance(planned, folder, Processes(0, 1, torch.device("cpu"))), "imported"]


def test_it_is_evaluated_like_any_run(imported: SimpleNamespace, tmp_path: Path) -> None:
    record, detections, _ = evaluate(imported.run, threads=1)
    provenance = json.loads((imported.run / "provenance.json").read_text())
    assert record["run_digest"] == provenance["run_digest"]
    assert record["images"] == 8
    assert list(record["variants"]) == ["o2o", "o2o_nms50", "o2m", "o2o_nms60", "o2o_nms70"]
    assert all(0 <= variant["metrics"]["AP"] <= 100 for variant in record["variants"].values())
    assert not np.array_equal(detections["o2o"], detections["o2o_nms50"])
    for found, expected in zip(detections["o2o"], direct_detections(imported.state), strict=True):
        np.testing.assert_allclose(found[1:6], expected, rtol=1e-5, atol=1e-4)

    save_file(load_file(imported.run / "final.safetensors"), tmp_path / "plain.safetensors")
    again = import_checkpoint(tmp_path / "plain.safetensors", DATE_F, SMOKE, imported.runs)
    assert again != imported.run, "another file is another run"
    _, same, _ = evaluate(again, threads=1)
    assert all(np.array_equal(same[name], found) for name, found in detections.items())


def test_results_are_read_like_a_trained_runs(imported: SimpleNamespace, tmp_path: Path) -> None:
    export_run(imported.run, tmp_path / "smoke" / DATE_F.name / "seed0")
    (result,) = load_results(tmp_path, "smoke")
    assert (result.training, result.seed, result.curve("AP")) == (DATE_F.name, 0, [])


def test_the_report_names_it_as_imported(imported: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "smoke" / DATE_F.name / "seed0"
    export_run(imported.run, folder)
    record, detections, pictures = evaluate(imported.run, threads=1)
    write_evaluation(record, detections, pictures, folder)
    page = write_report("smoke", tmp_path / "results", tmp_path / "reports").read_text()
    assert f"trained elsewhere with unknown code and seeds: {DATE_F.name} (seed 0)" in page
    assert "<td>imported</td>" in page
    assert "0 s in 0 runs" in page


def test_the_command_line_imports(data: Path, imported: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tier", "smoke", "--runs", str(imported.runs)]
    assert main(["import-checkpoint", str(imported.file), "--training", DATE_F.name, *options]) == 0
    assert capsys.readouterr().out == f"{imported.run}\n"
    assert main(["import-checkpoint", str(imported.file), "--training", "onenet-r50-coco-12e", *options]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_same_file_is_the_same_run(
    imported: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (imported.run / "final.safetensors").stat().st_mtime_ns
    renamed = tmp_path / "renamed.pth"
    renamed.write_bytes(imported.file.read_bytes())
    assert import_checkpoint(renamed, DATE_F, SMOKE, imported.runs) == imported.run
    assert "is imported already" in capsys.readouterr().err
    assert (imported.run / "final.safetensors").stat().st_mtime_ns == before
    assert import_checkpoint(renamed, DATE_F, SMOKE, imported.runs, seed=1).name.startswith(f"smoke-{DATE_F.name}-s1-")


def test_counters_of_batches_may_be_absent(imported: SimpleNamespace, tmp_path: Path) -> None:
    old = {k: v for k, v in imported.state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(imported.state)
    run = import_checkpoint(write(old, tmp_path / "old.pth"), DATE_F, SMOKE, tmp_path / "runs")
    weights = load_file(run / "final.safetensors")
    assert weights.keys() == imported.state.keys()
    assert weights["backbone.stem.norm.num_batches_tracked"].item() == 0
    assert evaluate(run, ["o2o"], threads=1)[0]["variants"].keys() == {"o2o"}


def remove(state: dict[str, Tensor]) -> list[str]:
    names = ["backbone.stem.norm.running_mean", "bbox_head.predictors.1.conv_ctr.bias", "neck.fpn_convs.0.conv.weight"]
    for name in names:
        del state[name]
    return [f"missing: {name}" for name in names]


def add(state: dict[str, Tensor]) -> list[str]:
    names = ["bbox_head.predictors.0.filter.weight", "bbox_head.scales.3.scale", "neck.bn.num_batches_tracked"]
    state.update({name: torch.zeros(1) for name in names})
    return [f"not in the network: {name}" for name in names]


def reshape(state: dict[str, Tensor]) -> list[str]:
    weight = "bbox_head.predictors.0.conv_cls.weight"
    state[weight] = torch.zeros(80, 32, 3, 3)
    state["bbox_head.scales.0.scale"] = torch.zeros(1)
    return [f"{weight} is (80, 32, 3, 3) instead of (6, 32, 3, 3)", "bbox_head.scales.0.scale is (1,) instead of ()"]


@pytest.mark.parametrize("changes", [[remove], [add], [reshape], [remove, add, reshape]])
def test_differences_are_all_listed_and_nothing_is_written(
    changes: list[Callable[[dict[str, Tensor]], list[str]]], imported: SimpleNamespace, tmp_path: Path
) -> None:
    state = dict(imported.state)
    expected = [difference for change in changes for difference in change(state)]
    with pytest.raises(UserError) as error:
        import_checkpoint(write(state, tmp_path / "a.pth"), DATE_F, SMOKE, tmp_path / "runs")
    listed = re.search(
        r"is not a checkpoint of date_f-r50-coco-12e at tier 'smoke' \((.*)\); name the", str(error.value)
    )
    assert listed is not None, error.value
    assert sorted(listed[1].split("; ")) == sorted(expected)
    assert not (tmp_path / "runs").exists()


def test_another_training_is_refused(imported: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not in the network: bbox_head\.predictors\.1\.conv_cls\.bias"):
        import_checkpoint(imported.file, load().training("onenet-r50-coco-12e"), SMOKE, tmp_path / "runs")


class Payload:
    """Pickles as the making of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


def test_weights_that_are_not_finite_are_refused(imported: SimpleNamespace, tmp_path: Path) -> None:
    state = dict(imported.state)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(
        UserError, match=rf"has weights that are not finite: {re.escape(name)}; give an earlier checkpoint"
    ):
        import_checkpoint(tmp_path / "nan.pth", DATE_F, SMOKE, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_authors_names_of_towers_of_each_branch(data: Path, tmp_path: Path) -> None:
    """They keep a list of towers, one for each branch, in one module, where we have the first one and the others."""
    training = load().training("date_r_unshared-r50-coco-12e")
    state = random_state(training, SMOKE)
    theirs = {}
    for name, value in state.items():
        name = re.sub(r"branch_(cls|reg)_convs\.(\d+)\.", lambda m: f"{m[1]}_convs.{int(m[2]) + 1}.", name)
        theirs[re.sub(r"bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)", r"bbox_head.\1_convs.0.\2.\3", name)] = value
    assert sum(name.startswith("bbox_head.cls_convs.1.0.") for name in theirs) > 0 and theirs.keys() != state.keys()
    torch.save({"state_dict": theirs}, tmp_path / "authors.pth")
    run = import_checkpoint(tmp_path / "authors.pth", training, SMOKE, tmp_path / "runs")
    found = load_file(run / "final.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def test_a_malicious_file_is_refused_and_does_nothing(imported: SimpleNamespace, tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"state_dict": dict(imported.state), "meta": Payload(made)}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth is refused: .* could execute code"):
        import_checkpoint(tmp_path / "evil.pth", DATE_F, SMOKE, tmp_path / "runs")
    assert not made.exists()
    assert not (tmp_path / "runs").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert made.exists()  # it would have worked


def test_a_missing_file_and_missing_data(data: Path, imported: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth is not a file"):
        import_checkpoint(tmp_path / "gone.pth", DATE_F, SMOKE, tmp_path / "runs")
    with pytest.raises(UserError, match="dataset 'coco2017' is not complete below"):
        import_checkpoint(imported.file, DATE_F, load_tier("paper"), tmp_path / "runs")


@pytest.mark.shared
@pytest.mark.parametrize(("case", "training"), [("date_f", "date_f"), ("date_r", "date_r"), ("onenet", "onenet")])
def test_the_authors_heads_fit(case: str, training: str, data: Path, shared_data: Path, tmp_path: Path) -> None:
    """Heads as the official code saves them: 64 channels, five levels, six classes."""
    reference = np.load(shared_data / "official_reference" / f"{case}_11.npz")
    tier_file = tmp_path / "official.yaml"
    tier_file.write_text("extends: smoke\nchannels: 64\nlevels: 5\n")
    tier, chosen = load_tier(str(tier_file)), load().training(f"{training}-r50-coco-12e")
    head = {
        f"bbox_head.{name.removeprefix('weight/')}": torch.from_numpy(reference[name])
        for name in reference.files
        if name.startswith("weight/")
    }
    state = {name: value for name, value in random_state(chosen, tier).items() if not name.startswith("bbox_head.")}
    run = import_checkpoint(write(state | head, tmp_path / "official.pth"), chosen, tier, tmp_path / "runs")
    weights = load_file(run / "final.safetensors")
    assert weights.keys() == state.keys() | head.keys()
    assert all(torch.equal(weights[name], value.float()) for name, value in head.items())
    record, _, _ = evaluate(run, ["o2o"], threads=1, tier_name=str(tier_file))
    assert record["tier"] == "official"
