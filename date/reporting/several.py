"""Work that is done for each of several names at a time, in forks of this process, which have all that it has read."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_inherited: list[Callable[[str], Any]] = []
"""What the forks do, the last one first; it need not be pickled, as its results are."""


def _do(name: str) -> Any:
    return _inherited[-1](name)


@contextlib.contextmanager
def begun(work: Callable[[str], T], names: Sequence[str]) -> Iterator[Callable[[], list[T]]]:
    """Begin to do some work for each name, in as many processes as there are cores.

    Args:
        work: for one name; what it returns is pickled.
        names: of the work, in the order of the results.

    Yields:
        A function that waits for all work and returns the results, or raises the first error.
    """
    processes = min(len(names), len(os.sched_getaffinity(0)))
    if processes < 2:
        yield lambda: [work(name) for name in names]
        return
    _inherited.append(work)
    try:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
            results = pool.map(_do, names)
            yield lambda: list(results)
    finally:
        _inherited.pop()
