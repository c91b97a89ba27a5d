"""What long commands say on standard error while they work; what takes a moment says nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from date.formatting import format_duration

QUIET = 3.0
"""Seconds that a step may take without a word."""
EVERY = 5.0
"""Seconds between two lines of a count."""


def progress_lines(title: str) -> Callable[[int, int], None]:
    """Return a callback that takes the numbers of images done and in all.

    It writes a line at once for none done, then every `EVERY` seconds, and at the end of what took longer.
    """
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == 0 and total:
            say(f"{title}: {total:,} images")
        elif now - last >= EVERY or (done == total and now - began >= EVERY):
            last = now
            say(f"{title}: {done:,}/{total:,} images")

    return report


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say after `QUIET` seconds what is being done, and at its end how long it took.

    Args:
        what: e.g. ``"opening runs/x"``.
    """
    began = time.monotonic()
    timer = threading.Timer(QUIET, say, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if (took := time.monotonic() - began) >= QUIET:
        say(f"{what}: {format_duration(took)}")


def say(line: str) -> None:
    """Write a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)
