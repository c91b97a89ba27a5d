"""The cluster that the tests run on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cluster as slurm
from clones import Undisturbed, slow_clone


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run without Slurm that the disturbed ones are compared with."""
    return Undisturbed(slow_clone(tmp_path_factory.mktemp("undisturbed") / "quiet"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A real Slurm; skips, saying why, where it can't be run. One that ran before is left running."""
    if (why := slurm.obstacle()) is not None:
        pytest.skip(why)
    was_up = slurm.alive("slurmctld")
    slurm.start()
    yield
    if not was_up:
        slurm.stop()
