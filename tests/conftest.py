"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from date import compat

compat.activate()  # before any test imports MMDetection

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared real data: DATE_SHARED_DATA, or ``shared/data`` beside the project; skips where absent."""
    folder = Path(os.environ.get("DATE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the shared real data are absent ({folder}); set DATE_SHARED_DATA to test with them")
    return folder
