"""A second paper, of which no line of the engine knows: two of MMDetection's own dense heads, in tests/papers/dense."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from date.catalogue import ROOT, load, load_tier
from date.errors import UserError
from date.experiments.folders import VARIABLE
from date.families import family_of
from date.identity.config import resolve
from date.models.head import final_selection

PAPER = ROOT / "tests" / "papers" / "dense"
OWN = Path("papers", "tests", "papers", "dense")
"""Where another paper's results, runs, reports and logs lie in the folders of that name."""


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(PAPER))


def copy_project(folder: Path) -> Path:
    for part in ("date", "experiments", "slurm", "workflow", "tests/papers"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after ``snakemake all`` of the second paper, whose config.yaml names the tier ``quick``."""
    folder = copy_project(tmp_path_factory.mktemp("another paper"))
    environment = {k: v for k, v in os.environ.items() if k != "DATE_DATA_ROOT"} | {"OMP_NUM_THREADS": "1"}
    words = ["--profile", "workflow/profiles/local", "--config", "experiments=[tests/papers/dense]", "--", "all"]
    command = [Path(sys.executable).with_name("snakemake"), *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_whole_dag(finished: Path) -> None:
    report = finished / "reports" / OWN / "quick"
    with (report / "tables" / "table01.csv").open() as stream:
        lines = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    assert {line["label"] for line in lines} == {"ATSS", "GFL", "DETR"}
    claims = (report / "claims.md").read_text()
    assert "(gfl_is_better, Table 1)" in claims and "the paper +0.8" in claims
    page = (report / "index.html").read_text()
    assert "Two Dense Heads Compared: ATSS and GFL" in page and "DATE" not in re.sub(r"data-|DATE_", "", page)
    assert {path.stem for path in (report / "figures").glob("*.svg")} == {"convergence", "figure2", "heads"}
    pictures = json.loads((finished / "results" / OWN / "quick" / "atss" / "seed0" / "pictures.json").read_text())
    assert (
        pictures["images"][0]["branches"]["head"]["boxes"]
        and not pictures["images"][0]["branches"]["head"]["positives"]
    )
    counted = json.loads((finished / "results" / OWN / "complexity.json").read_text())["networks"]
    assert [(n["label"], n["trainings"]) for n in counted] == [("ATSS", ["atss"]), ("GFL", ["gfl"]), ("DETR", ["detr"])]
    assert all(n["params"] > 1e6 and n["macs"] > 1e9 for n in counted)
    for name in ("atss", "gfl", "detr"):
        provenance = json.loads((finished / "results" / OWN / "quick" / name / "seed0" / "provenance.json").read_text())
        assert provenance["steps"] == 8 and "modules" not in provenance
        assert provenance["experiments"] == [str(PAPER.relative_to(ROOT))]


def test_nothing_of_the_second_paper_lies_where_the_first_keeps_its_own(finished: Path) -> None:
    for kind in ("results", "runs", "reports", "logs", ".snakemake/date"):
        assert [path.name for path in (finished / kind).iterdir()] == ["papers"], kind
        assert list((finished / kind / OWN).iterdir())


def test_commands_on_a_run_of_the_second_paper_read_its_folder_themselves(finished: Path) -> None:
    (run,) = (finished / "runs" / OWN).glob("quick-atss-s0-*")
    for command in (
        ["evaluate", run],
        ["export", run, "--format", "safetensors", "--out", finished / "atss.safetensors"],
    ):
        words = [sys.executable, "-m", "date", *map(str, command)]
        done = subprocess.run(words, cwd=finished, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if command[0] == "evaluate":
            known = json.loads((finished / "results" / OWN / "quick/atss/seed0/evaluation.json").read_text())
            assert known["variants"]
            for name, variant in known["variants"].items():
                assert f"atss/{name}: AP {variant['metrics']['AP']:.1f}" in done.stdout
    card = (finished / "atss.safetensors.card.md").read_text()
    assert "AP50" in card, "the card finds the evaluation among the paper's own results"


def test_a_remedy_names_the_folder_that_was_named(finished: Path) -> None:
    words = [sys.executable, "-m", "date", "--experiments", "tests/papers/dense", "report", "--where", "--tier", "full"]
    done = subprocess.run(words, cwd=finished, capture_output=True, text=True)
    assert done.returncode == 2
    assert "run: python -m date --experiments tests/papers/dense report --tier full" in done.stderr


@pytest.mark.parametrize("name", ["atss", "gfl", "detr"])
def test_detections_are_those_of_mmdetections_own_inference(paper: None, name: str) -> None:
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model: Any = MODELS.build(ConfigDict(resolve(load().training(name), load_tier("quick"), 0, None)["model"])).eval()
    meta = dict(
        img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64), scale_factor=(1.0, 1.0)
    )
    model.init_weights()
    inputs = torch.randn(2, 3, 64, 64)
    samples = [DetDataSample(metainfo=meta) for _ in range(2)]
    with torch.no_grad():
        expected = [sample.pred_instances for sample in model.predict(inputs, samples)]
        found = family_of(model.bbox_head).candidates(model, inputs, samples, [("head", 0.0)], lambda *_: None)
    for theirs, ours in zip(expected, found["head", 0.0], strict=True):
        nms = None if name == "detr" else 0.6
        keep = final_selection(ours.bboxes, ours.scores, ours.labels, nms, 100)
        assert len(keep) == len(theirs.scores) > 5
        assert torch.equal(ours.scores[keep], theirs.scores) and torch.equal(ours.bboxes[keep], theirs.bboxes)


def test_what_a_detector_with_queries_cannot_do_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(PAPER), str(tmp_path)]))
    view = {"label": "DETR", "shows": "before_nms", "training": "detr", "branch": "head", "score": 0.1}
    sheet = {"sheets": {"queries": {"title": "", "caption": "", "views": [view]}}}
    (tmp_path / "pictures.yaml").write_text(json.dumps(sheet))
    with pytest.raises(UserError, match="evaluations of detr record no pictures; name another training"):
        load()
    (tmp_path / "pictures.yaml").unlink()
    mine = {"mine": {"model": "atss", "schedule": "short", "why": "", "init": "detr"}}
    (tmp_path / "trainings.yaml").write_text(json.dumps(mine))
    load.__globals__["_load"].cache_clear()
    with pytest.raises(UserError, match="the network of detr has no pair of towers to start from"):
        load()


def test_a_head_that_no_family_knows_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="no family of networks can judge a Linear; it needs"):
        family_of(torch.nn.Linear(1, 1))


def test_the_names_of_the_second_paper_are_not_the_engines(paper: None) -> None:
    from tests.unit.test_engine_names import ENGINE, names, relapses

    assert names()["training"] == {"atss", "gfl", "detr"} and names()["part"] == {"shapes"}
    assert relapses(ENGINE) == []


@pytest.mark.parametrize("command", [["list", "trainings"], ["plan"], ["status"], ["config", "gfl"], ["lint-paper"]])
def test_commands_know_the_second_paper_alone(tmp_path: Path, command: list[str]) -> None:
    words = [sys.executable, "-m", "date", "--experiments", str(PAPER), *command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "onenet" not in done.stdout.lower() and "date_f" not in done.stdout.lower()
