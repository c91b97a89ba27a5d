"""Signals and time budgets: remembered, told between steps, and what was there before is put back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from date.catalogue import ROOT
from date.training import interruption as module
from date.training.interruption import REPEATED, RESUME_ME, SIGNALS, Interrupted, Interruption


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in SIGNALS}
    with Interruption() as interruption:
        assert interruption.reason() is None
        os.kill(os.getpid(), number)
        assert interruption.reason() == interruption.reason(1e9) == number.name
    assert {n: signal.getsignal(n) for n in SIGNALS} == before


def test_the_time_budget_ends_earlier_by_the_margin(clock: Clock) -> None:
    interruption = Interruption(100)
    for now, margin, reason in [
        (1000, 0, None),
        (1099, 0, None),
        (1099, 0.5, None),
        (1099, 1, "time budget"),
        (1050, 50, "time budget"),
        (1100, 0, "time budget"),
        (5000, 0, "time budget"),
    ]:
        clock.now = now
        assert interruption.reason(margin) == reason


def test_without_a_budget_time_does_not_matter(clock: Clock) -> None:
    interruption = Interruption()
    clock.now = 1e12
    assert interruption.reason(1e12) is None


def test_a_signal_counts_before_the_budget(clock: Clock) -> None:
    with Interruption(0) as interruption:
        assert interruption.reason() == "time budget"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.reason() == "SIGUSR1"


def test_the_echo_of_a_signal_is_no_second_one(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sends SIGTERM twice, and torchrun passes on what Slurm sent to every process of a job."""
    left: list[int] = []
    monkeypatch.setattr(module.os, "_exit", left.append)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        clock.now += REPEATED - 0.1
        os.kill(os.getpid(), signal.SIGTERM)
        assert left == [] and interruption.reason() == "SIGTERM"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert left == [128 + signal.SIGUSR1], "another signal is a second one at once"
        clock.now += 0.1
        os.kill(os.getpid(), signal.SIGTERM)
        assert left[1:] == [128 + signal.SIGTERM], "and so is the same one later"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_a_process_at_once(number: signal.Signals) -> None:
    code = f"""
import os, signal
from date.training.interruption import Interruption
with Interruption():
    try:
        os.kill(os.getpid(), {int(set(SIGNALS).difference([number]).pop())})
        os.kill(os.getpid(), {int(number)})
    finally:
        print("tidied up", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + number, "")


def test_what_a_user_reads() -> None:
    assert RESUME_ME == os.EX_TEMPFAIL
    interrupted = Interrupted("SIGTERM", 17)
    assert str(interrupted) == (
        "interrupted after step 17 (SIGTERM); the state is saved, the same command resumes it"
    ) and (interrupted.reason, interrupted.step) == ("SIGTERM", 17)
