"""Fixtures shared by tests that train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.alone import alone
from tests.support.command import date


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all runs of a module, which share the data root in it and train on one thread."""
    folder = tmp_path_factory.mktemp("some runs")
    with alone(folder / "data"):
        yield folder


@dataclass(frozen=True)
class Place:
    """Trained networks with their evaluations, and the images that these saw."""

    root: Path
    """With a folder of results by training."""
    data: Path
    """The data root."""
    runs: dict[str, Path]
    """Sealed runs by training."""
    annotations: Path
    images: Path


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Smoke trainings of DATE-F and FCOS, evaluated; to be left as they are."""
    root = tmp_path_factory.mktemp("for use")
    data, found = root / "data", {}
    for name in ("date_f-r50-coco-12e", "fcos-r50-coco-12e"):
        done = date("train", name, "--tier", "smoke", "--runs", root / "runs", data=data)
        found[name] = Path(done.stdout.splitlines()[-1])
        date("evaluate", found[name], "--results", root / name, data=data)
    scenes = next(data.glob("scenes-smoke*"))
    return Place(root, data, found, scenes / "annotations" / "instances_val.json", scenes / "val")
