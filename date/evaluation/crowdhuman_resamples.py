"""CrowdHuman's numbers on many resamples of the images at once; see `date.evaluation.coco_resamples`.

A sorted list of detections is read as if each stood there as often as its image was drawn. The area under the raw
precision-recall points grows at true detections only; between them, false ones enter through sums of weights. The list
is worked on in pieces that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from date.evaluation.crowdhuman import METRICS, REFERENCE_FPPI, Ranked
from date.evaluation.drawn import Array, Drawn, Room, prefix_sums
from date.evaluation.ground_truth import GroundTruth

BLOCK = 1 << 17
"""Numbers of an array that are worked on at once, 1 MiB."""


def crowdhuman_resamples(
    ground_truth: GroundTruth,
    detections: Ranked,
    weights: NDArray[np.integer],
    names: Collection[str] = METRICS,
) -> dict[str, NDArray[np.float64]]:
    """Return AP, mMR and Recall in percent for each resample, (R,); NaN where a resample has no valid object.

    Args:
        ground_truth: annotations of one category.
        detections: matched, see `date.evaluation.crowdhuman.ranked`.
        weights: (R, I) how often each resample has each image of the annotations.
        names: of the metrics that are wanted.
    """
    by_image = np.bincount(ground_truth.image[~ground_truth.ignored], minlength=len(ground_truth.image_ids))
    objects = (weights @ by_image).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples of no image
        needed = _needed(weights)
    area, total, false = (np.zeros(len(weights)) for _ in range(3))
    true_before = np.zeros(needed.shape)
    for piece in _pieces(detections, Drawn.of(weights)):
        area += piece.area()
        piece.add_true_before(needed, true_before)
        total += piece.steps.sum(axis=0)
        false = piece.false_at_end
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.exp(np.log(1 - true_before / objects).mean(axis=0))
        mean[total + false == 0] = 1.0
        values = dict(zip(METRICS, (area / objects, mean, total / objects), strict=True))
    undefined = objects == 0
    return {name: np.where(undefined, np.nan, 100 * values[name]) for name in names}


@dataclass(frozen=True)
class _Piece:
    """Some neighbours among the true detections by descending score, E rows, on R resamples."""

    steps: Array
    """(E, R) how often each stands there."""
    before: Array
    """(E, R) true ones before it."""
    false: Array
    """(E, R) false ones before it."""
    false_at_end: Array
    """(R,) false ones before the next piece, or at the end of the list."""

    def area(self) -> Array:
        """Return what these detections add to the area, by numbers of true detections, (R,): a trapezium a copy."""
        points = self.before + self.false
        first = points == 0  # no point before it: the area begins at its own
        points[first] = 1.0
        reached = self.before + 1
        grown = reached / (reached + self.false)
        grown += self.before / points
        grown[first] = 0.0
        grown[self.steps == 0] = 0.0
        flat = grown.ravel()
        copy, at = 1, np.flatnonzero(self.steps > 1)
        steps, before, false = (each.ravel()[at] for each in (self.steps, self.before, self.false))
        while len(at):
            reached = before + copy
            flat[at] += reached / (reached + false) + (reached + 1) / (reached + 1 + false)
            copy += 1
            more = np.flatnonzero(steps > copy)
            at, steps, before, false = at[more], steps[more], before[more], false[more]
        return grown.sum(axis=0) / 2

    def add_true_before(self, needed: NDArray[np.int64], sums: Array) -> None:
        """Add to the sums, (N, R), how many of these come before so many false ones, (N, R)."""
        for number, total in zip(needed, sums, strict=True):
            if (self.false[:1] < number).any():
                total += np.where(self.false < number, self.steps, 0.0).sum(axis=0)


def _pieces(detections: Ranked, drawn: Drawn) -> Iterator[_Piece]:
    """Return the true detections in pieces; without any, one piece that is empty."""
    true_at, wrong = np.nonzero(detections.found)[0], np.nonzero(~detections.found)[0]
    wrong_before = np.append(np.searchsorted(wrong, true_at), len(wrong))
    size = max(1, BLOCK // drawn.resamples)
    room = Room()
    true, false = np.zeros(drawn.resamples), np.zeros(drawn.resamples)
    begun = 0
    for start in range(0, max(1, len(true_at)), size):
        rows = true_at[start : start + size]
        ends = wrong_before[start : start + len(rows) + 1]
        between = drawn.until(detections.image[wrong[begun : ends[-1]]], ends - begun, room)
        between += false
        steps = drawn.counts[detections.image[rows]].astype(np.float64)
        up_to = np.concatenate([true[None], steps])
        prefix_sums(up_to)
        false, true, begun = between[-1], up_to[-1], int(ends[-1])
        yield _Piece(steps, up_to[:-1], between[:-1], false)


def _needed(weights: NDArray) -> NDArray[np.int64]:
    """Return how many false detections reach each of the nine numbers per image, (9, R)."""
    images = weights.sum(axis=1)
    needed = []
    for reference in REFERENCE_FPPI:
        count = np.ceil(reference * images).astype(np.int64)
        count = np.where((count - 1) / images >= reference, count - 1, count)
        needed.append(np.where(count / images < reference, count + 1, count))
    return np.stack(needed)
