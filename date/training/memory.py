"""The memory allocator of a process that trains or evaluates."""

from __future__ import annotations

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
KEPT = 1 << 30


def keep_memory() -> None:
    """Let the allocator keep what is freed, where it is glibc's.

    By default it hands large blocks back to the system at once. On a CPU, every step of a training takes and frees the
    same blocks of some megabytes, and the system would clear their pages each time. The peak stays the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, KEPT)
