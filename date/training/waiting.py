"""Waiting for batches from loading processes, but never for ever.

A loading process can die, be stopped, starve, hang in a file system, or fail to hand over what it has loaded; PyTorch
notices the first of these alone. `next_batch` waits as long as samples are being loaded, and a while longer. Whatever
it waits in (a queue, or a socket by which a tensor's memory is passed on) is left by an exception from a timer's
signal, which also lets a training leave at the first SIGTERM. No result depends on anything here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.queues
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

PATIENCE = 40.0
"""Seconds without any sample loaded after which a batch is given up."""
LOOK = 0.5
"""Seconds between two looks at whether to go on waiting."""
BEATS, TEXT = 4096, 1024
"""Bytes shared with the loading processes: one for each that loads (by number), and a sentence of one that fails."""

BETWEEN_PROCESSES = (
    "DataLoader worker",
    "Pin memory thread",
    "Too many open files",
    "ancdata",
    "shared memory",
    "shm",
    "mmap",
)
"""Words by which PyTorch's errors of the communication between processes are known from all others."""

MEMORY = multiprocessing.RawArray("B", BEATS + TEXT)
"""Memory that loading processes share, the ones that are not forked by having it handed over; see `start_worker`."""
_shared = memoryview(MEMORY).cast("B")


class LoadingFailed(Exception):
    """No batch came; the message says why.

    Args:
        cause: for the sentence that ends the training.
        again: whether new loading processes may do better.
        remedy: what to do about it.
    """

    def __init__(self, cause: str, again: bool, remedy: str) -> None:
        super().__init__(cause)
        self.again, self.remedy = again, remedy


class Leave(BaseException):
    """Waiting was broken off since the training is told to leave."""


class _GiveUp(BaseException):
    """No sample was loaded for too long; no `Exception`, which PyTorch would look at first."""


def beat() -> None:
    """Tell, in a loading process, that a sample was loaded."""
    place = os.getpid() % BEATS
    _shared[place] = (_shared[place] + 1) % 256


def start_worker(memory: Any = MEMORY) -> None:
    """Make a loading process end, with its reason left behind, where it can't hand over a batch.

    Python's queue prints a traceback in such a case and goes on; whoever waits for the batch is told nothing.

    Args:
        memory: the `MEMORY` of the process that it loads for.
    """
    global _shared
    _shared = memoryview(memory).cast("B")
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_not_handed_over)  # type: ignore[attr-defined]


def _not_handed_over(error: Exception, batch: object) -> None:
    text = " ".join(f"{type(error).__name__}: {error}".split()).encode(errors="replace")[: TEXT - 1]
    _shared[BEATS : BEATS + TEXT] = text.ljust(TEXT, b"\0")
    os._exit(1)


def _reason_left_behind() -> str:
    text = bytes(_shared[BEATS : BEATS + TEXT]).rstrip(b"\0").decode(errors="replace")
    _shared[BEATS : BEATS + TEXT] = bytes(TEXT)
    return text


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system allows: each tensor on its way is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_batches(loader: Any) -> Iterator[Any]:
    """Return an iterator over a loader's batches, starting its loading processes, for `next_batch`.

    Raises:
        LoadingFailed: they can't be started.
    """
    with _as_loading_failed("can't be started"):
        batches = iter(loader)
    # PyTorch raises at the death of a worker wherever the trainer then is, be it in the middle of an update of the
    # weights. The wait for the next batch notices it as well.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return batches


def next_batch(batches: Iterator[Any], patience: float = PATIENCE, leave: Callable[[], bool] = lambda: False) -> Any:
    """Return the next batch.

    Args:
        batches: of `open_batches`.
        patience: seconds without any sample loaded after which to give up; see `PATIENCE`.
        leave: says whether to stop waiting for another reason.

    Raises:
        LoadingFailed: there will be none.
        Leave: ``leave`` says so.
        StopIteration: there are no more.
    """
    if not processes_of(batches):  # this process loads by itself
        return next(batches)
    seen, since = b"", time.monotonic()

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal seen, since
        if (now := bytes(_shared[:BEATS])) != seen:
            seen, since = now, time.monotonic()
        given_up = time.monotonic() - since > patience
        if given_up or leave():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise _GiveUp if given_up else Leave

    before = signal.signal(signal.SIGALRM, look)
    try:
        signal.setitimer(signal.ITIMER_REAL, LOOK, LOOK)
        try:
            with _as_loading_failed("die"):
                return next(batches)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    except _GiveUp:
        cause = f"no batch came for {patience:g} s ({_states(processes_of(batches))})"
        remedy = "look for what keeps them from loading (a file server, memory, a signal), or set fewer 'workers'"
        raise LoadingFailed(cause, False, remedy) from None


def all_batches(loader: Any, patience: float = PATIENCE) -> Iterator[Any]:
    """Yield all batches of a loader; see `next_batch`, which says what is raised."""
    batches = open_batches(loader)
    try:
        while True:
            try:
                batch = next_batch(batches, patience)
            except StopIteration:
                return
            yield batch
    except BaseException:
        end_processes(batches)
        raise


@contextlib.contextmanager
def _as_loading_failed(what: str) -> Iterator[None]:
    """Turn what goes wrong between processes into `LoadingFailed`, with what they do; errors of other kinds pass."""
    try:
        yield
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in BETWEEN_PROCESSES):
            raise
        if reason := _reason_left_behind():
            cause = f"the loading processes can't hand over a batch ({reason})"
        else:
            lines = str(error).strip().splitlines() or [type(error).__name__]  # with a traceback, its last line counts
            cause = f"the loading processes {what} ({lines[-1]})"
        remedy = "give the job more memory, shared memory (/dev/shm) and open files, or set fewer 'workers' in the tier"
        raise LoadingFailed(cause, True, remedy) from error


def processes_of(batches: Any) -> list[Any]:
    """Return the loading processes of PyTorch's iterator."""
    return list(getattr(batches, "_workers", ()))


def end_processes(batches: Any) -> None:
    """End the loading processes of an iterator; they ignore polite signals, and some may be stopped."""
    for process in processes_of(batches):
        process.kill()
    for process in processes_of(batches):
        process.join(5)


STATES = {"T": "stopped", "t": "stopped", "D": "waiting for a file system", "R": "working", "S": "idle", "Z": "dead"}


def _states(processes: list[Any]) -> str:
    """Return what the loading processes do, e.g. ``loading processes 17, 18 stopped``."""
    found: dict[str, list[str]] = {}
    for process in processes:
        try:
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            state = "Z"
        found.setdefault(STATES.get(state, state), []).append(str(process.pid))
    return "loading processes " + " and ".join(f"{', '.join(pids)} {state}" for state, pids in found.items())
