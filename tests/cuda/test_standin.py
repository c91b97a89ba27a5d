"""A step of every kind of network on the stand-in for a GPU: device mismatches, determinism, waits, kernels, memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import load
from date.planning.durations import kind
from date.planning.memory import BESIDES, FAST, memory
from tests.cuda.standin import NoStandIn, build, run

LIMITS = {  # waits for the device, and kernels of PyTorch's own, without positives as notes and issue count them
    "date_f-r50-coco-12e": (6, 1300),
    "onenet-r50-coco-12e": (6, 1300),
    "fcos-r50-coco-12e": (6, 1300),
    "date_r-r50-coco-12e": (10, 2000),
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
    cases = [dict(training=name, batch=16, positives=0, evaluate=True) for name in LIMITS]
    for found in measured(standin, cases):
        waits, kernels = LIMITS[found["training"]]
        step = found["step"]
        assert step["waits"] <= waits and step["launches"] <= kernels, found["parts"]
        assert step["to_host"] <= waits and step["unpinned"] == 0, "all that goes over is pinned"
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
