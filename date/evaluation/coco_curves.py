"""The area under COCO's precision-recall curves on many resamples of the images at once.

A curve's rows are its true detections by descending score, its columns are the resamples. The rows are laid out in
blocks, see `date.evaluation.drawn`; curves follow one another in the same array, each one in blocks of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from date.evaluation.drawn import LENGTH, Array, Drawn, Indices, Room, blocks_of, lay_out, prefix_sums

RECALLS = np.linspace(0.0, 1.0, 101)
"""At which COCO reads the precision."""
SMALLEST = np.spacing(1)
"""Added to the number of detections that is divided by, as in pycocotools."""


@dataclass(frozen=True)
class Curve:
    """The E true detections of a category at a threshold, by descending score."""

    image: Indices
    """(E,) index of the image."""
    place: Indices
    """(E,) row of the sums of weights up to here."""
    changed: Indices
    """(C,) images of the detections that those sums count wrongly, by descending score."""
    change: Array
    """(C,) by what to correct them."""
    changes: Indices
    """(E,) how many of these come up to here."""

    @property
    def blocks(self) -> int:
        """How many blocks its rows take, the last one filled up."""
        return blocks_of(len(self.image))


class Recalls:
    """How many of `RECALLS` each number of true detections reaches, by the number of objects."""

    def __init__(self, objects: Indices) -> None:
        """Prepare for numbers of objects, (K, R) by category and resample."""
        distinct, which = np.unique(objects, return_inverse=True)
        some = np.maximum(distinct, 1)[:, None]
        needed = np.maximum(np.floor(RECALLS * some) - 1, 0.0)
        for _ in range(3):
            needed += needed / some < RECALLS
        self.needed = needed.astype(np.int64)
        self.which = which.reshape(objects.shape)
        self.objects = objects

    def table(self, kind: int, columns: slice) -> tuple[NDArray[np.uint8], Indices]:
        """Return how many recalls each number of true detections reaches, flat by resample, and the offsets.

        Args:
            kind: of the category.
            columns: of the resamples.
        """
        width = int(self.objects[kind, columns].max()) + 1
        needed = self.needed[self.which[kind, columns]]
        counts = np.empty((len(needed), len(RECALLS) + 1), dtype=np.int64)
        counts[:, 0] = needed[:, 0]
        np.subtract(needed[:, 1:], needed[:, :-1], out=counts[:, 1:-1])
        counts[:, -1] = width - needed[:, -1]
        reached = np.repeat(np.tile(np.arange(len(RECALLS) + 1, dtype=np.uint8), len(needed)), counts.ravel())
        return reached, np.arange(len(needed)) * width


class Curves:
    """Some curves of one category in the layout of blocks."""

    def __init__(self, curves: Sequence[Curve], nothing: int) -> None:
        """Lay out curves, at least one and none of them empty.

        Args:
            curves: to lay out.
            nothing: index of an image of weight 0.
        """
        ends = np.cumsum([curve.blocks for curve in curves])
        self.starts = np.append(0, ends[:-1])
        """Each curve's first block."""
        self.parts = [slice(*each) for each in zip(self.starts, ends, strict=True)]
        self.blocks = int(ends[-1])
        self.image = lay_out([curve.image for curve in curves], [nothing] * len(curves))
        self.place = lay_out([curve.place for curve in curves], [curve.place[-1] for curve in curves])
        # The changes of a curve begin with a row of 0.
        self.changed = np.concatenate([np.append(nothing, curve.changed) for curve in curves])
        self.change = np.concatenate([np.append(0.0, curve.change) for curve in curves])[:, None]
        ends = np.cumsum([1 + len(curve.changed) for curve in curves])
        self.change_parts = [slice(*each) for each in zip([0, *ends[:-1]], ends, strict=True)]
        changes = [part.start + curve.changes for part, curve in zip(self.change_parts, curves, strict=True)]
        self.changes = lay_out(changes, [each[-1] for each in changes])

    def average_precisions(
        self, drawn: Drawn, before: Array, reached: tuple[NDArray[np.uint8], Indices], room: Room
    ) -> Array:
        """Return the mean over `RECALLS` of the highest precision at or after each, (curves, R).

        Args:
            drawn: how often each resample has each image.
            before: (P, R) weights of the category's detections up to each place and with it.
            reached: see `Recalls.table`.
            room: arrays to use again.
        """
        within = drawn.within_blocks(self.image, room)
        carried = np.zeros(within.shape[1:])
        for part in self.parts:
            carried[part][1:] = within[-1, part][:-1]
            prefix_sums(carried[part])
        true, spare = room.array("true", within.shape), room.array("spare", within.shape)
        np.copyto(true, within)
        true += carried
        precision = self._total(drawn, before, room.array("total", within.shape), spare)
        np.divide(true, precision, out=precision)
        self._highest_from_here(precision)
        table, offsets = reached
        index = spare.view(np.int64)
        np.copyto(index, within)
        index += carried.astype(np.int64) + offsets
        precision *= self._first_reached(
            table.take(index, out=room.array("reached", within.shape, np.uint8), mode="clip"), room
        )
        return np.add.reduceat(precision.sum(axis=0), self.starts, axis=0) / len(RECALLS)

    def _total(self, drawn: Drawn, before: Array, total: Array, spare: Array) -> Array:
        """Return the number of detections that count up to each row and with it, (LENGTH, blocks, R)."""
        before.take(self.place, axis=0, out=total.reshape(len(self.place), -1), mode="clip")
        if len(self.change) > len(self.parts):
            sums = self.change * drawn.counts[self.changed]
            for part in self.change_parts:
                prefix_sums(sums[part])
            sums.take(self.changes, axis=0, out=spare.reshape(len(self.changes), -1), mode="clip")
            total += spare
        total += SMALLEST
        return total

    def _highest_from_here(self, precision: Array) -> None:
        """Replace the precision at each row by the highest of its curve at the row or after it."""
        for row in range(LENGTH - 2, -1, -1):
            np.maximum(precision[row], precision[row + 1], out=precision[row])
        later = np.zeros_like(precision[0])
        for part in self.parts:
            np.maximum.accumulate(precision[0, part][:0:-1], axis=0, out=later[part][-2::-1])
        np.maximum(precision, later, out=precision)

    def _first_reached(self, reached: NDArray[np.uint8], room: Room) -> NDArray[np.uint8]:
        """Return how many recalls each row is the first of its curve to reach, from those reached at each row."""
        more = room.array("more", reached.shape, np.uint8)
        np.subtract(reached[1:], reached[:-1], out=more[1:])
        np.subtract(reached[0, 1:], reached[-1, :-1], out=more[0, 1:])
        more[0, self.starts] = reached[0, self.starts]
        return more
