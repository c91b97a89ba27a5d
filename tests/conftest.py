"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from date import compat

gc.set_threshold(10_000)  # as in `date.__main__`: what is imported now is no garbage
compat.activate()  # before any test imports MMDetection

ROOT = Path(__file__).resolve().parent.parent

ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""No test fails because the machine is busy."""
settings.register_profile("repeatable", ANY_SPEED, derandomize=True)
settings.register_profile("explore", ANY_SPEED, max_examples=2500, print_blob=True)
settings.load_profile("repeatable")  # before any test module makes settings of its own, which build on it


def pytest_configure() -> None:
    """Let the examples of a test depend on nothing but the test.

    Hypothesis puts constants into them that it finds in the project's modules, those that happen to be imported by then.
    """
    if settings.get_current_profile_name() == "repeatable":
        providers._get_local_constants = providers.Constants


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through all that was imported: a quarter of a small training's time went there."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin every test, and the fixtures that it is the first to need, with the same random numbers."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared real data: DATE_SHARED_DATA, or ``shared/data`` beside the project; skips where absent."""
    folder = Path(os.environ.get("DATE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the shared real data are absent ({folder}); set DATE_SHARED_DATA to test with them")
    return folder
