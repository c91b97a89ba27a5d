"""Interrupted trainings end in the weights and records of undisturbed ones, wherever and however they were stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import load, load_tier
from date.errors import UserError
from date.training import checkpoint
from date.training.interruption import RESUME_ME, Interrupted
from date.training.loop import Trainer
from date.training.options import Options
from date.training.run import train
from tests.support.forking import Commands, kill

TRAINING = "date_f-r50-coco-12e"
TIMES = {"time", "seconds", "seconds_per_step", "memory_mb"}
TIER = """
extends: smoke
epoch_scale: 0.5        # 6 epochs of 6 steps; the learning rate drops after the 4th and within the 6th
weights: {}
backbones:              # batch statistics are part of what is resumed
  r50: {depth: 18, base_channels: 8, stage_channels: [8, 16, 32, 64], frozen_stages: -1, norm_eval: false,
    norm_cfg: {type: BN, requires_grad: true}, style: pytorch}
warmup_iters: 8
log_interval: 4         # no divisor of what follows, so that lines span interruptions
"""
LONG = TIER.replace("epoch_scale: 0.5", "epoch_scale: 2.5")  # 30 epochs
Result = tuple[bytes, list[dict[str, Any]]]


def sealed(runs: Path) -> Path:
    (run,) = (path for path in runs.iterdir() if path.name != ".work")
    return run


def work(runs: Path) -> Path:
    (folder,) = (path for path in (runs / ".work").iterdir() if path.is_dir())
    return folder


def result(runs: Path) -> Result:
    """Return the weights' bytes and the records without their times."""
    lines = (sealed(runs) / "metrics.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    return (sealed(runs) / "final.safetensors").read_bytes(), records


def segments(runs: Path) -> list[dict[str, Any]]:
    return json.loads((sealed(runs) / "provenance.json").read_text())["segments"]


@pytest.fixture(scope="module", autouse=True)
def tiers(folder: Path) -> None:
    (folder / "short.yaml").write_text(TIER)
    (folder / "long.yaml").write_text(LONG)


def go(runs: Path, **options: Any) -> Path:
    """Train in this process until the end or an interruption."""
    tier = load_tier(str(runs.parent / "short.yaml"))
    return train(load().training(TRAINING), tier, 0, runs, 1, Options(**options))


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Result:
    go(folder / "undisturbed")
    return result(folder / "undisturbed")


def after(method: str, step: int, act: Callable[[], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Let the trainer do something once, after a method that it calls with a number of steps."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original, done = getattr(Trainer, method), []

        def patched(trainer: Trainer, at: int, *rest: Any) -> Any:
            answer = original(trainer, at, *rest)
            if at == step and not done:
                done.append(at)
                act()
            return answer

        monkeypatch.setattr(Trainer, method, patched)

    return patch


def signalled(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal come after the first batch of the second evaluation."""
    from date.training.metric import CocoDetectionMetric

    original, calls = CocoDetectionMetric.process, []

    def patched(metric: Any, *arguments: Any) -> None:
        original(metric, *arguments)
        calls.append(1)
        if len(calls) == 3:  # two batches an evaluation
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CocoDetectionMetric, "process", patched)


MOMENTS = {
    "in the warm-up": after("_step", 2, signalled(signal.SIGTERM)),
    "in mid-epoch": after("_step", 14, signalled(signal.SIGUSR1)),
    "at an epoch's end": after("_step", 11, signalled(signal.SIGTERM)),
    "at a step of the learning rate": after("_step", 23, signalled(signal.SIGTERM)),
    "just after it": after("_step", 24, signalled(signal.SIGTERM)),
    "at the last step": after("_step", 35, signalled(signal.SIGTERM)),
    "in an evaluation": in_evaluation,
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_by_a_signal(moment: str, folder: Path, undisturbed: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = folder / moment
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(Interrupted, match="the same command resumes it"):
            go(runs)
    assert not list(runs.glob("short-*")), "nothing sealed yet"
    go(runs)
    assert result(runs) == undisturbed
    reasons = [segment["reason"] for segment in segments(runs)]
    assert reasons == ["SIGUSR1" if moment == "in mid-epoch" else "SIGTERM", "finished"]
    assert not (runs / ".work" / sealed(runs).name).exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it and tidy up."""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["torch.save", "os.fsync", "pathlib.Path.rename"])
def test_killed_while_a_checkpoint_is_written(
    call: str, folder: Path, undisturbed: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = folder / call
    saves = []
    original = checkpoint.save

    def save(*arguments: Any) -> Path:
        saves.append(1)
        if len(saves) < 3:
            return original(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(call, lambda *_: (_ for _ in ()).throw(Killed))
            return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(Killed):
            go(runs)
    kept = checkpoint.steps(work(runs) / "checkpoints")
    assert [step for step, _ in kept] == [12, 6], "the third was not finished"
    go(runs)
    assert result(runs) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_passed_over(
    damage: str, folder: Path, undisturbed: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = folder / damage
    with monkeypatch.context() as patch:
        after("_step", 14, signalled(signal.SIGTERM))(patch)
        with pytest.raises(Interrupted):
            go(runs)
    (step, newest), (before, _) = checkpoint.steps(work(runs) / "checkpoints")
    assert (step, before) == (15, 12)
    data = bytearray(newest.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    newest.write_bytes(
        {"truncated": data[:-100], "flipped": data, "empty": b"", "foreign": b"not a checkpoint"}[damage]
    )
    capsys.readouterr()
    go(runs)
    said = capsys.readouterr().err
    assert f"{newest.name} is damaged" in said
    assert "going on from the checkpoint before it, of step 12" in said
    assert "resuming after step 12 of 36" in said
    assert result(runs) == undisturbed


@pytest.mark.slow
def test_without_a_good_checkpoint_nothing_starts_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = folder / "hopeless"
    with monkeypatch.context() as patch:
        after("_step", 14, signalled(signal.SIGTERM))(patch)
        with pytest.raises(Interrupted):
            go(runs)
    for _, path in checkpoint.steps(work(runs) / "checkpoints"):
        path.write_bytes(b"")
    before = (work(runs) / "metrics.jsonl").read_bytes()
    with pytest.raises(
        UserError, match=r"no checkpoint in .* can be used .*; restore one, or delete .* from the beginning"
    ):
        go(runs)
    assert (work(runs) / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_the_end_of_the_time_budget(folder: Path, undisturbed: Result) -> None:
    """Slices: each process leaves in time with the status that means "resume me", until one finishes.

    A budget that was too short for this machine, as busy as it is, to take a few steps is made longer.
    """
    runs, statuses, budget, steps = folder / "slices", [], 0.3, [0]
    with Commands(folder / "data", folder / "slices.log") as commands:
        while not statuses or statuses[-1] == RESUME_ME:
            began = time.monotonic()
            arguments = ("train", TRAINING, "--tier", folder / "short.yaml", "--runs", runs, "--time-budget", budget)
            statuses.append(commands.run(*arguments))
            assert statuses[-1] == 0 or time.monotonic() - began < budget + 60
            if statuses[-1] == RESUME_ME:
                steps.append(checkpoint.steps(work(runs) / "checkpoints")[0][0])
                budget *= 1.3 if steps[-1] < steps[-2] + 4 else 1
            assert len(statuses) < 60, commands.said()
        assert statuses[-1] == 0, commands.said()
        assert steps[-1] > 0, "interrupted in mid-training"
        assert "interrupted after step" in commands.said() and "(time budget)" in commands.said()
    assert result(runs) == undisturbed
    assert [s["reason"] for s in segments(runs)] == ["time budget"] * (len(statuses) - 1) + ["finished"]


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(folder: Path) -> None:
    with Commands(folder / "data", folder / "second.log") as commands:
        pid = commands.start(("train", TRAINING, "--tier", folder / "long.yaml", "--runs", folder / "second"))
        wait_for(folder / "second", 3, pid)
        kill(pid, signal.SIGSTOP)  # so that both signals are pending when it goes on
        kill(pid, signal.SIGTERM)
        kill(pid, signal.SIGUSR1)
        kill(pid, signal.SIGCONT)
        assert commands.wait() in (128 + signal.SIGTERM, 128 + signal.SIGUSR1)


@pytest.mark.slow
def test_a_signal_that_comes_twice_at_once_is_one(folder: Path) -> None:
    """As from Slurm at a time limit; to every process that loads data too."""
    with Commands(folder / "data", folder / "twice.log") as commands:
        tier = folder / "workers.yaml"
        tier.write_text(f"extends: {folder / 'long.yaml'}\nworkers: 2\n")
        pid = commands.start(("train", TRAINING, "--tier", tier, "--runs", folder / "twice"))
        wait_for(folder / "twice", 3, pid)
        for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            kill(int(worker), signal.SIGTERM)
        kill(pid, signal.SIGTERM)
        time.sleep(0.02)
        kill(pid, signal.SIGTERM)
        assert commands.wait() == RESUME_ME, commands.said()
        assert "(SIGTERM); the state is saved" in commands.said()


def lines(runs: Path) -> int:
    """Return how many lines the training under way has recorded."""
    return sum(path.read_bytes().count(b"\n") for path in runs.glob(".work/*/metrics.jsonl"))


def wait_for(runs: Path, count: int, pid: int) -> None:
    """Wait until a training has recorded so many lines, or has ended."""
    deadline = time.monotonic() + 600
    while lines(runs) < count and Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} neither ends nor goes on"
        time.sleep(0.01)


def train_with_kills(
    folder: Path, runs: Path, kills: int, between: Callable[[int], None] = lambda _: None
) -> tuple[int, str]:
    """Kill a training at random moments, in start-up and in training; return how often, and what it said."""
    rng, done = random.Random(0), 0
    arguments = ("train", TRAINING, "--tier", folder / "long.yaml", "--runs", runs, "--checkpoint-interval", "0.1")
    with Commands(folder / "data", folder / f"{runs.name}.log") as commands:
        for number in range(kills):
            before, pid = lines(runs), commands.start(arguments)
            if rng.random() < 0.75:
                # Progress is counted in lines, of which there are 75, and not in time: on any machine it suffices.
                wait_for(runs, before + rng.randint(1, 2), pid)
                time.sleep(rng.uniform(0.0, 0.1))
            else:  # wherever the start-up is
                time.sleep(rng.uniform(0.0, 0.3))
            kill(pid)
            status = commands.wait()
            assert status in (-signal.SIGKILL, 0, 2), commands.said()
            done += status == -signal.SIGKILL
            between(number)
        assert commands.run(*arguments) == 0, commands.said()
        return done, commands.said()


@pytest.fixture(scope="module")
def undisturbed_long(folder: Path) -> Result:
    runs = folder / "undisturbed long"
    train(load().training(TRAINING), load_tier(str(folder / "long.yaml")), 0, runs, 1)
    return result(runs)


@pytest.mark.slow
def test_soak(folder: Path, undisturbed_long: Result) -> None:
    kills, said = train_with_kills(folder, folder / "killed", 27)
    assert kills >= 25, said
    assert result(folder / "killed") == undisturbed_long
    reasons = [segment["reason"] for segment in segments(folder / "killed")]
    assert reasons.count("killed") > 15 and reasons[-1] == "finished"


@pytest.mark.slow
def test_soak_on_a_disk_that_fills_up(folder: Path, undisturbed_long: Result) -> None:
    """The runs lie on a small file system that is more or less full every other time, and not at the end."""
    runs = folder / "small disk"
    runs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", runs], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()})")
    ballast = runs / "ballast"

    def fill(number: int) -> None:
        if number % 2:
            ballast.unlink(missing_ok=True)
            return
        free = shutil.disk_usage(runs).free
        ballast.write_bytes(b"\0" * max(0, free - (number % 8) * 1_000_000))

    try:
        _, said = train_with_kills(folder, runs, 26, fill)
        assert "No space left on device" in said
        outcome = result(runs)
    finally:
        subprocess.run(["umount", runs], check=True)
    assert outcome == undisturbed_long
