"""Fixtures shared by tests that train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.alone import alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all runs of a module, which share the data root in it and train on one thread."""
    folder = tmp_path_factory.mktemp("some runs")
    with alone(folder / "data"):
        yield folder
