"""A step of every kind of network on the stand-in for a GPU: device mismatches, determinism, waits, kernels, memory.

And the first hour on a GPU: rehearsal, calibration and benchmark, by their own commands.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.throughput import AS_IT_COMES, OURS, TF32_OFF
from date.catalogue import load
from date.planning.durations import kind
from date.planning.memory import BESIDES, FAST, memory
from tests.cuda.standin import NoStandIn, build, run

LIMITS = {  # waits for the device, and kernels of PyTorch's own, with `POSITIVES` positives a branch
    "date_f-r50-coco-12e": (2, 1290),
    "date_f_hungarian-r50-coco-12e": (2, 1300),
    "onenet-r50-coco-12e": (1, 1100),
    "fcos-r50-coco-12e": (1, 1050),
    "date_r-r50-coco-12e": (2, 1300),
}
SMALL = (160, 224)


def kinds() -> list[str]:
    found: dict[Any, str] = {}
    for training in load().trainings.values():
        found.setdefault(kind(training), training.name)
    return list(found.values())


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-in")
    try:
        build(folder)
    except NoStandIn as reason:
        pytest.skip(str(reason))
    return folder


def measured(standin: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = run(standin, ["tests.cuda.measure", json.dumps(cases)], 900).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.slow
def test_waits_kernels_and_memory_at_the_papers_size(standin: Path) -> None:
    cases = [dict(training=name, batch=16, evaluate=True) for name in LIMITS]
    for found in measured(standin, cases):
        waits, kernels = LIMITS[found["training"]]
        step = found["step"]
        assert step["waits"] <= waits and step["launches"] <= kernels, found["parts"]
        assert step["to_host"] == step["waits"] and step["unpinned"] == 0, "all that goes over is pinned"
        losses = found["parts"]["forward and losses"]
        assert losses["to_device"] == (2 if "date" in found["training"] or "onenet" in found["training"] else 1), (
            "images and sizes of the objects; matches"
        )
        assert found["evaluation_mib"] < found["memory_mib"]
        training = load().training(found["training"])
        expected = memory(training, _paper(), 16)
        assert expected is not None
        assert found["memory_mib"] == pytest.approx(expected - BESIDES, rel=0.02), (
            "python -m tests.cuda.table renews it"
        )


def _paper() -> Any:
    from date.catalogue import load_tier

    return load_tier("paper")


@pytest.mark.slow
def test_every_kind_of_network_takes_deterministic_steps_and_fast_ones(standin: Path) -> None:
    """Each operation is asked whether its tensors are on one device, and whether it gives the same bits every time."""
    options = ({"deterministic": True}, FAST)
    cases = [
        dict(training=name, batch=2, size=SMALL, compute=compute, evaluate=True)
        for name in kinds()
        if "r101" not in name and "crowdhuman" not in name  # the same operations
        for compute in options
    ]
    found = measured(standin, cases)
    assert [(each["training"], each["compute"]) for each in found] == [(c["training"], c["compute"]) for c in cases]
    assert all(each["step"]["unpinned"] == 0 for each in found)


@pytest.mark.slow
def test_the_stand_in_sees_what_it_is_for(standin: Path) -> None:
    """A tensor left on the CPU, a kernel without a deterministic form, a wait and too little memory are noticed."""
    assert run(standin, ["tests.cuda.noticed"], 300, gigabytes=2).splitlines()[-1] == "all noticed"


@pytest.mark.slow
def test_the_benchmark_runs_in_every_setting_that_needs_no_compiler(standin: Path, tmp_path: Path) -> None:
    """Triton, which compiles for a GPU, can't be there."""
    rows = [AS_IT_COMES, TF32_OFF, *(name for name, (_, compute) in OURS.items() if not compute.compile)]
    small = ["--height", 96, "--width", 160, "--batch", 2, "--rounds", 2, "--steps", 2, "--warm-up", 1]
    kept = tmp_path / "throughput.json"
    said = run(standin, ["tests.cuda.command", "benchmarks.throughput", *small, "--json", kept, "--only", *rows], 900)
    assert said.startswith("stand-in, 96x160, batch 2, 2 rounds, ")
    found = json.loads(kept.read_text())["rows"]
    assert list(found) == rows and len(rows) == 7
    for name, row in found.items():
        assert not row["problem"] and row["gib"] > 0, name
        assert row["all_seconds"] == [0.001] * 4, "two rounds of two steps, by the device's clock"
        assert (row["paper_hours"] is None) == ("FCOS" in name), name


@pytest.mark.slow
def test_the_cost_of_dual_assignment_is_measured_on_a_gpu(standin: Path, tmp_path: Path) -> None:
    small = ["--device", "cuda", "--size", 64, "--batch", 2, "--steps", 1, "--json", tmp_path / "steps.json"]
    run(standin, ["tests.cuda.command", "benchmarks.training_step", *small], 900)
    found = json.loads((tmp_path / "steps.json").read_text())["seconds"]
    assert len(found) == 5 and all(len(times) == 1 for times in found.values())


@pytest.mark.slow
def test_a_rehearsal_on_a_gpu_and_the_plan_that_it_feeds(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent can't ask for the GPU without touching it here, so each command begins in a new Python."""
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path / "data"))
    names = ["fcos-r50-coco-12e", "date_f-r50-coco-12e"]
    places = ["--runs", tmp_path / "runs", "--results", tmp_path / "results", "--threads", 1]
    words = ["tests.cuda.command", "rehearse", *names, "--tier", "smoke", "--minutes", 30, *places]
    machine, data, *lines = run(standin, words, 1800).splitlines()
    assert re.fullmatch(r"stand-in, 80\.0 GiB, \d+ CPUs", machine) and data.startswith("scenes-smoke: 24 + 8 images")
    pattern = r"(\S+) +[\d.]+ images/s  [\d.]+ of 80\.0 GiB  data +\d+ %.*  ok.*"
    assert sorted(re.fullmatch(pattern, line)[1] for line in lines) == sorted(names)  # type: ignore[index]
    kept = json.loads((tmp_path / "results/smoke/calibration.json").read_text())
    assert kept["device"] == "stand-in" and sorted(kept["trainings"]) == sorted(names)


@pytest.mark.slow
def test_calibration_on_a_gpu(standin: Path, tmp_path: Path) -> None:
    run(standin, ["tests.cuda.command", "calibrate", "--tier", "smoke", "--steps", 2, "--results", tmp_path], 900)
    kept = json.loads((tmp_path / "smoke/calibration.json").read_text())
    assert kept["device"] == "stand-in" and len(kept["trainings"]) == 4
    assert all(entry["seconds_per_step"] > 0 for entry in kept["trainings"].values())
