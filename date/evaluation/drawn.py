"""Sums of weights along lists of detections, on many resamples of the images at once.

A resample draws images with replacement, and a detection weighs as much as its image: as often as it was drawn. The
rows of an array are detections, its columns the resamples. NumPy's own sums along the rows take each number after the
one before it, at 3.5 ns each. So rows are laid out in blocks, `LENGTH` of them each, as an array (LENGTH, blocks, R):
row j of all blocks is contiguous and is added to row j + 1 of all blocks at once, in bytes at 0.06 ns a number; what
remains is one row a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 16
"""Rows of a block."""
PIECE = 1 << 23
"""Numbers of a list of detections that are held at once, which bounds the memory."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class Room:
    """Arrays that are used again and again: fresh memory costs more than most of what is done with it."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, str], NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
        """Return an array of a shape with arbitrary values, which holds until the next call with its name and type."""
        size, key = math.prod(shape), (name, np.dtype(dtype).str)
        flat = self._flat.get(key)
        if flat is None or len(flat) < size:
            flat = self._flat[key] = np.empty(size, dtype)
        return flat[:size].reshape(shape)


class Drawn:
    """How often each resample has each image."""

    def __init__(self, counts: NDArray[Any]) -> None:
        """Take (I + 1, R) counts by image; the last row is of no image and 0. See `of`."""
        self.counts = counts
        """In the smallest type that holds the sum of a block."""
        self.nothing = len(counts) - 1
        """Index of the row of no image."""
        self.resamples = counts.shape[1]

    @classmethod
    def of(cls, weights: NDArray[np.integer]) -> Drawn:
        """Arrange (R, I) weights, none of them negative."""
        kind = np.min_scalar_type(LENGTH * int(weights.max(initial=0)))
        counts = np.zeros((weights.shape[1] + 1, weights.shape[0]), dtype=kind)
        counts[:-1] = weights.T
        return cls(counts)

    def part(self, columns: slice) -> Drawn:
        """Return some of the resamples."""
        return self if columns == slice(0, self.resamples) else Drawn(np.ascontiguousarray(self.counts[:, columns]))

    def within_blocks(self, image: Indices, room: Room) -> NDArray[Any]:
        """Return the sums of weights within each block up to each row and with it, (LENGTH, blocks, R).

        Args:
            image: of each row, as `lay_out` returns them.
            room: whose array ``within`` is used.
        """
        flat = room.array("within", (len(image), self.resamples), self.counts.dtype)
        self.counts.take(image, axis=0, out=flat, mode="clip")
        within = flat.reshape(LENGTH, -1, self.resamples)
        for row in range(1, LENGTH):
            within[row] += within[row - 1]
        return within

    def until(self, image: Indices, ends: Indices, room: Room) -> Array:
        """Return the sum of weights of the first images of a list, (P, R).

        Args:
            image: (M,) indices of images.
            ends: (P,) how many of these to add up, ascending.
            room: see `within_blocks`.
        """
        sums = np.zeros((len(ends), self.resamples))
        size = max(1, PIECE // (LENGTH * self.resamples)) * LENGTH
        carry = np.zeros(self.resamples)
        for start in range(0, int(ends[-1]) if len(ends) else 0, size):
            some = slice(*np.searchsorted(ends, (start, start + size), side="right"))
            within = self.within_blocks(lay_out([image[start : start + size]], [self.nothing]), room)
            before = np.empty((within.shape[1] + 1, self.resamples))
            before[0], before[1:] = carry, within[-1]
            prefix_sums(before)
            block, row = np.divmod(ends[some] - start - 1, LENGTH)
            before.take(block, axis=0, out=sums[some], mode="clip")
            sums[some] += within[row, block]
            carry = before[-1]
        return sums


def blocks_of(rows: int) -> int:
    """Return how many blocks so many rows take, the last one filled up."""
    return -(-rows // LENGTH)


def lay_out(lists: Sequence[Indices], fill: Sequence[int]) -> Indices:
    """Return the numbers of several lists in the layout of blocks, flat; each list begins with a block of its own.

    Args:
        lists: of any lengths.
        fill: number for the rows beyond each list's last.
    """
    sizes = [blocks_of(len(numbers)) * LENGTH for numbers in lists]
    rows = np.repeat(np.array(fill, dtype=np.int64), sizes)
    for end, size, numbers in zip(np.cumsum(sizes).tolist(), sizes, lists, strict=True):
        rows[end - size : end - size + len(numbers)] = numbers
    return rows.reshape(-1, LENGTH).T.ravel()


def prefix_sums(rows: Array) -> None:
    """Add to each of (E, R) rows all rows before it, in place."""
    if len(rows) < 4 * LENGTH:
        np.cumsum(rows, axis=0, out=rows)
        return
    whole = len(rows) // LENGTH * LENGTH
    blocks = rows[:whole].reshape(-1, LENGTH, rows.shape[1])
    for row in range(1, LENGTH):
        blocks[:, row] += blocks[:, row - 1]
    blocks[1:] += np.cumsum(blocks[:-1, -1], axis=0)[:, None]
    for row in range(whole, len(rows)):
        rows[row] += rows[row - 1]
