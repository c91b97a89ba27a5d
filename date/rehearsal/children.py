"""Commands in processes of their own, forked from one that has imported PyTorch: they start at once.

A child gets a session of its own, so that it can be killed with the processes that load its data. The parent must not
have touched a GPU, which its children then could not use.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

LOOK = 0.01
"""Seconds between two looks at a child."""


class TimeIsUpError(Exception):
    """A child was at work when its time was over; it was killed."""


def run(
    work: Callable[[], int | None], log: Path, deadline: float, out: Path | None = None,
    until: Callable[[], bool] = lambda: False,
) -> int | None:  # fmt: skip
    """Do some work in a child and return its exit status, or None where it was killed when ``until`` became true.

    Args:
        work: returns the exit status, None for 0.
        log: is appended what the child prints.
        deadline: by `time.monotonic`.
        out: gets what it prints on standard output instead.
        until: is asked again and again; the child is killed by SIGKILL, with its own children, once it says so.

    Raises:
        TimeIsUpError: the deadline came first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _work(work, log, out)
    try:
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if until():
                return None
            if time.monotonic() > deadline:
                raise TimeIsUpError
            time.sleep(LOOK)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # also what the child left behind
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _work(work: Callable[[], int | None], log: Path, out: Path | None) -> None:
    """Work in the child, and end it."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        written = os.open(log, flags, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(written if out is None else os.open(out, flags, 0o666), 1)
        os.dup2(written, 2)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
        status = work() or 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


@contextlib.contextmanager
def ended_politely() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that no child is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
