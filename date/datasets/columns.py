"""Values of untrusted JSON records as arrays: fast where all are of the right type, one by one where any is not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_ID = 2**53
"""Detections carry ids as 64-bit floats."""
SPARSE = 64
"""Up to so many times as large as they are many, ids are looked up in a table, which is faster than a search."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def is_file_name(value: Any) -> bool:
    """Return whether a JSON value names a file below a folder: relative, without ``..``, and encodable."""
    if not isinstance(value, str) or value.startswith("/") or "\0" in value:
        return False
    parts = value.split("/")
    return (
        parts[-1] not in ("", ".")
        and ".." not in parts
        and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))
    )


def integers(values: list[Any], least: int) -> Integers:
    """Return integers as (N,) int64; what is none, is below ``least`` or above `LARGEST_ID` becomes ``least - 1``."""
    if set(map(type, values)) <= {int}:
        try:
            found = np.array(values, dtype=np.int64)
        except OverflowError:
            pass
        else:
            return np.where((found >= least) & (found <= LARGEST_ID), found, least - 1)
    fits = (v if type(v) is int and least <= v <= LARGEST_ID else least - 1 for v in values)
    return np.fromiter(fits, dtype=np.int64, count=len(values))


def exact_integers(values: Sequence[int]) -> Integers | None:
    """Return integers as (N,) int64; None where a double does not hold one exactly."""
    try:
        found = np.fromiter(values, np.int64, count=len(values))
    except OverflowError:
        return None
    return found if np.abs(found).max(initial=0) < LARGEST_ID and found.min(initial=0) > -LARGEST_ID else None


def positions(ids: Integers, wanted: Integers) -> Integers:
    """Return the index in ``ids`` (N,) of each of ``wanted`` (M,), all of which are among them; (M,).

    Args:
        ids: different ones, not negative, in any order.
        wanted: what to look up.
    """
    largest = int(ids.max(initial=0))
    if largest <= SPARSE * len(ids):
        table = np.zeros(largest + 1, dtype=np.int64)
        table[ids] = np.arange(len(ids))
        return table[wanted]
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def floats(values: list[Any]) -> Floats:
    """Return numbers as (N,) float64; NaN stands for what is none, infinity for what is too large."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            pass
    return np.fromiter(map(_float, values), dtype=np.float64, count=len(values))


def _float(value: Any) -> float:
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def boxes(values: list[Any]) -> Floats:
    """Return boxes as (N, 4) float64; a row of NaN stands for what is not a list of four."""
    if not (set(map(type, values)) <= {list} and set(map(len, values)) <= {4}):
        values = [v if type(v) is list and len(v) == 4 else [math.nan] * 4 for v in values]
    return floats(list(itertools.chain.from_iterable(values))).reshape(-1, 4)
