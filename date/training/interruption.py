"""Requests to stop, by signals or the end of a time budget, noticed between steps."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

RESUME_ME = 75
"""Exit status of a training that saved its state and left before its end: run the same command again (EX_TEMPFAIL)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
REPEATED = 1.0
"""Seconds within which a signal that comes again is the same one."""


class Interrupted(Exception):
    """The training has to leave; its state is saved, and the same command resumes it.

    Args:
        reason: see `Interruption.reason`.
        step: that the saved state stands after.
    """

    def __init__(self, reason: str, step: int) -> None:
        super().__init__(f"interrupted after step {step} ({reason}); the state is saved, the same command resumes it")
        self.reason, self.step = reason, step


class Interruption:
    """Notices SIGTERM, SIGUSR1, SIGINT (Ctrl-C) and the end of a time budget while it is entered.

    The first signal is remembered for `reason`; a second one ends the process at once, with 128 plus its number. It is
    no second one when it comes again within `REPEATED` seconds: at a time limit and on preemption, Slurm sends SIGTERM
    twice within milliseconds.

    Args:
        budget: seconds from now after which the process has to be gone, or None.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.deadline = None if budget is None else time.monotonic() + budget
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is None:
            self.received, self._received_at = name, time.monotonic()
        elif name != self.received or time.monotonic() - self._received_at >= REPEATED:
            os._exit(128 + number)

    def reason(self, margin: float = 0.0) -> str | None:
        """Return why to leave now: a signal's name or ``time budget``; None to go on.

        Args:
            margin: seconds that leaving takes, e.g. to write a checkpoint; the budget's end is that much earlier.
        """
        if self.received is not None:
            return self.received
        if self.deadline is not None and time.monotonic() + margin >= self.deadline:
            return "time budget"
        return None
