"""`date plan` beside the real thing: a calibration, a training that was interrupted, and Snakemake's own dry run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_pipeline import copy_project, jobs, snakemake

from date.catalogue import load, load_tier
from date.planning import calibration
from date.planning.calibration import calibrate, image_size, representatives
from date.training.interruption import RESUME_ME
from sealed import add_run, change, coco
from tests.support.command import date

NAME = "fcos-r50-coco-12e"


def plan(folder: Path, *arguments: str) -> dict[str, Any]:
    places = ("--results", folder / "results", "--runs", folder / "runs")
    return json.loads(date("plan", *arguments, "--tier", "smoke", *places, "--json", data=folder).stdout)


@pytest.mark.slow
def test_a_training_from_the_first_plan_to_the_last(tmp_path: Path) -> None:
    [job] = plan(tmp_path, NAME)["jobs"]
    assert (job["state"], job["gpu_hours"], job["basis"]) == ("new", None, "relative")

    results = ("--results", tmp_path / "results")
    date("calibrate", "--tier", "smoke", "--steps", 1, "--threads", 1, *results, data=tmp_path)
    found = json.loads((tmp_path / "results" / "smoke" / "calibration.json").read_text())
    assert set(found["trainings"]) == set(load_tier("smoke").trainings)
    assert all(e["seconds_per_step"] > 0 and e["image_size"] == [64, 64] for e in found["trainings"].values())
    [job] = plan(tmp_path, NAME)["jobs"]
    assert job["basis"] == "calibrated" and job["gpu_hours"] is not None

    manifest = tmp_path / "results" / "smoke" / "data" / "scenes-smoke.json"
    date("data", "verify", "scenes-smoke", "--output", manifest, data=tmp_path)
    train = ("train", NAME, "--tier", "smoke", "--threads", 1, "--runs", tmp_path / "runs")
    assert date(*train, "--time-budget", 0, data=tmp_path, check=False).returncode == RESUME_ME
    [job] = plan(tmp_path, NAME)["jobs"]
    assert job["state"] == "interrupted" and job["why"].startswith("interrupted: resumes from step 0 of 12")

    date(*train, "--results", tmp_path / "results" / "smoke" / NAME / "seed0", data=tmp_path)
    done = plan(tmp_path, f"{NAME}/head")
    assert [(j["kind"], j["state"]) for j in done["cached"]] == [("train", "cached")]
    assert [(j["kind"], j["why"]) for j in done["jobs"]] == [("evaluate", "never evaluated")]
    assert done["jobs"][0]["basis"] == "measured" and done["data_known"] == {"scenes-smoke": True}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["all", "table05", "figure1", "figure3", "figures", "date_f-r50-coco-12e/o2m"])
def test_plan_and_snakemake_want_the_same_jobs(target: str, tmp_path: Path) -> None:
    clone = copy_project(tmp_path / "a clone")
    wanted = jobs(snakemake(clone, "-c1", "-n", "--config", "tier=smoke", "seeds=[0,1]", "--", target))
    found = [job["kind"] for job in plan(tmp_path, target, "--seeds", "0", "1")["jobs"]]
    assert {kind: found.count(kind) for kind in ("train", "evaluate")} == {
        kind: wanted[kind] for kind in ("train", "evaluate")
    }


@pytest.mark.slow
def test_snakemake_begins_with_the_longest_path_and_evaluates_at_once(tmp_path: Path) -> None:
    clone = copy_project(tmp_path / "a clone")
    chosen = ["retinanet-r50-coco-12e", "date_f_init-r50-coco-30k"]
    output = snakemake(clone, "-c1", "--config", "tier=smoke", f"trainings={chosen}", "--", "all")
    order = re.findall(r"^Job \d+: (training|evaluating) (\S+) with", output, re.MULTILINE)
    # RetinaNet takes longer than FCOS (58 hours, 55), from which another training starts (19 more), and is first in the
    # catalogue.
    assert order == [
        ("training", "fcos-r50-coco-12e"),
        ("training", "retinanet-r50-coco-12e"),
        ("evaluating", "retinanet-r50-coco-12e"),
        ("training", "date_f_init-r50-coco-30k"),
        ("evaluating", "date_f_init-r50-coco-30k"),
    ]


def test_an_unknown_target_is_a_sentence(tmp_path: Path) -> None:
    done = date("plan", "table5", "--tier", "smoke", data=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown target 'table5'; did you mean 'table05'? Targets are ")


def test_every_kind_of_network_and_size_of_image_is_calibrated_once() -> None:
    chosen = representatives(list(load().trainings.values()))
    assert 20 <= len(chosen) <= 26 and len({t.name for t in chosen}) == len(chosen)
    assert {t.schedule for t in chosen} == {t.schedule for t in load().trainings.values()}


@pytest.mark.parametrize("said", ["CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: out of memory"])
def test_a_network_that_does_not_fit_into_the_memory_is_left_out(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def timed(training: Any, *rest: Any) -> dict[str, Any]:
        if training.name == NAME:
            raise RuntimeError(said)
        return {"seconds_per_step": 1.0}

    monkeypatch.setattr(calibration, "_timed", timed)
    trainings, smoke = [load().training(name) for name in (NAME, "date_f-r50-coco-12e")], load_tier("smoke")
    assert list(calibrate(trainings, smoke, 1, None, tmp_path)["trainings"]) == ["date_f-r50-coco-12e"]
    assert f"{NAME} does not fit into the memory of CPU" in capsys.readouterr().err
    said = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal"):
        calibrate(trainings, smoke, 1, None, tmp_path)


@pytest.mark.parametrize(
    ("name", "tier", "size"),
    [
        (NAME, "paper", (800, 1067)),
        ("fcos-r50-coco-36e", "paper", (640, 853)),  # the mean of 480 to 800
        (NAME, "mini", (128, 128)),
    ],
)
def test_typical_images(name: str, tier: str, size: tuple[int, int]) -> None:
    from date.catalogue import load_dataset
    from date.catalogue.settings import dataset_name
    from date.identity.config import resolve

    training, size_of = load().training(name), load_tier(tier)
    pipeline = resolve(training, size_of, 0, None)["train_dataloader"]["dataset"]["dataset"]["pipeline"]
    assert image_size(pipeline, load_dataset(dataset_name(training, size_of))) == size


@pytest.mark.slow
def test_snakemake_takes_the_seeds_that_would_resolve_claims(tmp_path: Path) -> None:
    """A dry run of the configfile as it is: the new seeds are trained and evaluated, and nothing else."""
    clone = copy_project(tmp_path / "a clone")
    results = clone / "results"
    for training, aps in {"date_f-r50-coco-12e": [38.0, 37.2], "onenet-r50-coco-12e": [36.6, 36.2]}.items():
        for seed, ap in enumerate(aps):
            folder = add_run(results, "mini", training, seed, {"o2o": coco(ap)})
            change(folder, imported={"kind": "detections", "detections": {"o2o": f"{training} {seed}"}})
    arguments = (
        "plan",
        "--resolve",
        "--tier",
        "mini",
        "--hours",
        1,
        "--results",
        results,
        "--output",
        clone / "next.yaml",
    )
    date(*arguments, data=tmp_path)
    config = yaml.safe_load((clone / "next.yaml").read_text())
    new = sum(len(seeds) for seeds in config["seeds_of"].values()) - 4
    assert new > 0 and config["trainings"]
    output = snakemake(clone, "-c1", "-n", "--configfile", "next.yaml", "--", "all")
    planned = jobs(output)
    assert planned["train"] == planned["evaluate"] >= new
