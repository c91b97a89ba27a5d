"""No network loses a gradient where a process or a pass has no objects: see `tests.support.divided`, which this runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from date.catalogue import ROOT, load


@pytest.mark.slow
def test_parts_without_objects_give_the_losses_and_gradients_of_the_whole() -> None:
    command = [sys.executable, "-m", "tests.support.divided"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(name for names in found["networks"].values() for name in names) == sorted(load().trainings)
    assert len(found["differences"]) == 5 * len(found["networks"]), (
        "passes of 1; 2 and 3 processes, in 1 or more passes"
    )
    assert {key: value for key, value in found["differences"].items() if not value < 1e-8} == {}
