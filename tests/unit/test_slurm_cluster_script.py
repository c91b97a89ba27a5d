"""`tests/slurm/cluster.py` says what is wrong where its daemons live and its configuration is gone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from date.catalogue import ROOT

SCRIPT = ROOT / "tests" / "slurm" / "cluster.py"
ASKED = 'echo "$0: fatal: Could not establish a configuration source" >&2; exit 1'


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster's folder with a controller that lives, and Slurm's programs that find no configuration."""
    programs, run = tmp_path / "bin", tmp_path / "state" / "run"
    programs.mkdir()
    run.mkdir(parents=True)
    for name in ("sinfo", "squeue"):
        (programs / name).write_text(f"#!/bin/sh\n{ASKED}\n")
        (programs / name).chmod(0o755)
    controller = programs / "slurmctld"
    shutil.copy(shutil.which("sleep") or "", controller)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with subprocess.Popen([controller, "600"]) as daemon:
        (run / "slurmctld.pid").write_text(str(daemon.pid))
        yield tmp_path / "state"
        daemon.kill()


def test_status_says_that_the_controller_can_not_be_asked(state: Path) -> None:
    environment = os.environ | {"DATE_SLURM_STATE": str(state)}
    done = subprocess.run([sys.executable, SCRIPT, "status"], env=environment, capture_output=True, text=True)
    assert "slurmctld " in done.stdout and done.returncode == 2
    assert done.stderr.startswith("error: sinfo ") and "Could not establish a configuration source" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_controller_that_can_not_be_asked_is_stopped(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATE_SLURM_STATE", str(state))
    script = loaded()
    monkeypatch.setattr(script, "ETC", state / "etc")
    assert script.alive("slurmctld")
    script.stop()
    assert not script.alive("slurmctld")


def loaded() -> ModuleType:
    """Return the script as a module of its own."""
    spec = importlib.util.spec_from_file_location("cluster_under_test", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
