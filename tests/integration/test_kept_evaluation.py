"""The process that trains also evaluates: the same bytes as a process of its own, taken once, and only where still true."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import ROOT
from date.inference import kept
from date.inference.evaluate import Evaluated
from tests.integration.conftest import Place
from tests.support.command import date_process

TRAINING = "date_f-r50-coco-12e"
WITHOUT_TORCH = (
    "import sys; from date.cli import main; assert main(sys.argv[1:]) in (None, 0); assert 'torch' not in sys.modules"
)


@pytest.mark.slow
def test_the_training_process_gives_the_bytes_of_a_process_of_its_own(tmp_path: Path) -> None:
    data, first, second = tmp_path / "data", tmp_path / "first", tmp_path / "second"
    options = ("--tier", "smoke", "--seed", "2", "--threads", "1", "--runs", str(tmp_path / "runs"))
    trained = date_process("train", TRAINING, *options, "--job", "0", "--results", first, data=data)
    run = Path(trained.stdout.splitlines()[-1])
    waiting = run.parent / kept.KEPT / run.name
    assert {path.name for path in waiting.iterdir()} == {*kept.FILES, kept.DECIDED}
    assert not set(kept.FILES) & {path.name for path in first.iterdir()}, "the DAG's next job writes them"

    command = [sys.executable, "-c", WITHOUT_TORCH, "evaluate", TRAINING, *options, "--job", "--results", first]
    environment = {**os.environ, "DATE_DATA_ROOT": str(data), "OMP_NUM_THREADS": "1"}
    taken = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert taken.returncode == 0, taken.stderr
    assert f"{run.name} was evaluated by the process that trained it" in taken.stderr
    assert not waiting.exists(), "a second evaluation computes"
    computed = date_process("evaluate", TRAINING, *options, "--job", "--results", second, data=data)
    assert "by the process that trained it" not in computed.stderr
    assert computed.stdout == taken.stdout
    for name in kept.FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.fixture
def run(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a sealed run, whose evaluation is that of before."""
    monkeypatch.setenv("DATE_DATA_ROOT", str(place.data))
    sealed = place.runs[TRAINING]
    files = {name: (place.root / TRAINING / name).read_bytes() for name in kept.FILES}

    def write(record: Any, detections: Any, pictures: Any, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    monkeypatch.setattr(kept, "evaluate", lambda *_: Evaluated({}, {}, {}))
    monkeypatch.setattr(kept, "write_evaluation", write)
    return Path(shutil.copytree(sealed, tmp_path / "runs" / sealed.name))


def test_what_was_kept_is_taken_once(run: Path, place: Place, tmp_path: Path) -> None:
    killed = run.parent / kept.KEPT / f".{run.name}.12345"
    killed.mkdir(parents=True)
    kept.keep(run, "smoke", 1, None)
    assert not killed.exists()
    record = kept.take(run, "smoke", 1, tmp_path / "results")
    assert record == json.loads((place.root / TRAINING / "evaluation.json").read_text())
    for name in kept.FILES:
        assert (tmp_path / "results" / name).read_bytes() == (place.root / TRAINING / name).read_bytes()
    assert kept.take(run, "smoke", 1, tmp_path / "results") is None


@pytest.mark.parametrize("changed", ["threads", "code", "versions", "variants", "damage", "part"])
def test_what_is_no_longer_true_is_not_taken(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    kept.keep(run, "smoke", 1, None)
    folder = run.parent / kept.KEPT / run.name
    if changed == "code":
        monkeypatch.setattr(kept, "_code_digest", lambda: "another")
    elif changed == "versions":
        monkeypatch.setattr(kept, "SOFTWARE", kept.SOFTWARE[1:])
    elif changed == "variants":
        catalogue = kept.load()
        name = catalogue.evaluations_of(TRAINING)[0].variant
        other = catalogue.variants[name].model_copy(update={"score_thr": 0.123})
        monkeypatch.setitem(catalogue.variants, name, other)
    elif changed == "damage":
        content = bytearray((folder / "detections.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "detections.npz").write_bytes(content)
    elif changed == "part":
        (folder / "pictures.json").unlink()
    assert kept.take(run, "smoke", 2 if changed == "threads" else 1, tmp_path / "results") is None
    assert not (tmp_path / "results").exists()


@pytest.mark.timed
@pytest.mark.parametrize("how", ["time is up", "SIGTERM", "error", "no time", "several processes"])
def test_a_process_that_has_to_end_keeps_nothing_and_does_not_fail(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    def evaluate(*_: Any) -> Evaluated:
        if how == "error":
            raise RuntimeError("out of memory")
        if how == "SIGTERM":
            threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM)).start()
        for _ in range(1000):
            time.sleep(0.01)
        raise AssertionError("nothing stopped it")

    monkeypatch.setattr(kept, "evaluate", evaluate)
    if how == "several processes":
        monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    kept.keep(run, "smoke", 1, {"time is up": 0.2, "no time": 0.0}.get(how))
    assert signal.getsignal(signal.SIGTERM) is before and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert not (run.parent / kept.KEPT / run.name).exists()
    why = {"time is up": "(it has to end)", "SIGTERM": "(it has to end)", "error": "(RuntimeError: out of memory)"}
    assert (f"{why.get(how)}; its own job does it" in capsys.readouterr().err) is (how in why)
    assert list(run.parent.glob(f"{kept.KEPT}/*")) == []
