"""COCO's numbers on many resamples of the images at once.

A resample draws images with replacement; an image that is drawn w times counts as w images. Matching happens within an
image and does not depend on the weights, so it is done once. With weights, a sorted list of detections is read as if
each stood there w times in a row, and every number is that of pycocotools on images that are really duplicated under
new ids (of detections of one image with exactly equal scores, copies stay together).

Precision matters at true detections only: COCO takes the highest precision at or after a recall, and between two true
detections precision falls. Hence the cost is that of the objects that were found times the resamples
(`date.evaluation.coco_curves`); all other detections enter through sums of weights between two true ones, a sparse
matrix times the weights. A recall is a sum of weights of true detections, another sparse matrix times the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS
from date.evaluation.coco import METRICS
from date.evaluation.coco_curves import Curve, Curves, Recalls
from date.evaluation.coco_matching import AreaRange, Candidates, Taken, candidates, match, outside
from date.evaluation.drawn import LENGTH, Array, Drawn, Indices, Room
from date.evaluation.ground_truth import GroundTruth

EVERYTHING = 1e5**2
"""Largest area of all ranges, in square pixels."""
CEILINGS = {"AR1": 1, "AR10": 10}
"""Detections of an image and category that a recall is of."""
BLOCK = 1 << 17
"""Numbers of an array that are worked on at once, 1 MiB."""
FEWEST = 32
"""Resamples that are worked on at once at least."""
PARTS = {"s": 1, "m": 2, "l": 3}
"""Ranges of areas by the last letter of a metric's name; the range 0 is everything."""


def coco_resamples(
    ground_truth: GroundTruth,
    detections: NDArray[np.float64],
    weights: NDArray[np.integer],
    names: Collection[str] = METRICS,
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
) -> dict[str, NDArray[np.float64]]:
    """Return COCO's box metrics in percent for each resample, (R,); NaN where no object falls in the range.

    Args:
        ground_truth: annotations.
        detections: (D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, of images of the annotations.
        weights: (R, I) how often each resample has each image of the annotations.
        names: of the metrics that are wanted, among `date.evaluation.coco.METRICS`.
        area_thresholds: square roots of the areas that part small, medium and large.
    """
    small, medium = (float(t) ** 2 for t in area_thresholds)
    ranges = ((0.0, EVERYTHING), (0.0, small), (small, medium), (medium, EVERYTHING))
    found = candidates(ground_truth, detections)
    drawn = Drawn.of(weights)
    room = Room()
    results: dict[str, NDArray[np.float64]] = {}
    for part, area_range in enumerate(ranges):
        wanted = [name for name in names if PARTS.get(name[-1], 0) == part]
        if wanted:
            taken = match(found, ground_truth, area_range)
            results |= _Range(ground_truth, found, taken, area_range, drawn, room).metrics(wanted)
    return {name: results[name] for name in names}


@dataclass(frozen=True)
class _Threshold:
    """What was taken at a threshold of the IoU, all categories one after the other."""

    rows: Indices
    """(E,) places of the true detections among the candidates."""
    borders: Indices
    """(K + 1,) where each category's begin."""
    changed: Indices
    """(C,) places of the detections that took something and count other than by their own area."""
    change: Array
    """(C,) 1 for those out of range that took an object in range, -1 for the reverse."""
    changed_borders: Indices
    """(K + 1,)."""
    changes: Indices
    """(E,) how many of the category's changed detections come up to each row."""

    @classmethod
    def of(cls, taken: Taken, judged: NDArray[np.bool_], borders: Indices) -> _Threshold:
        """Sort out what was taken.

        Args:
            taken: by the matching.
            judged: (D,) whether a candidate's own area is in range.
            borders: (K + 1,) where each category's candidates begin.
        """
        rows = taken.detection[~taken.ignored]
        change = (~taken.ignored).astype(np.float64) - judged[taken.detection]
        changed = taken.detection[change != 0]
        own, others = np.searchsorted(rows, borders), np.searchsorted(changed, borders)
        changes = np.searchsorted(changed, rows, side="right") - np.repeat(others[:-1], np.diff(own))
        return cls(rows, own, changed, change[change != 0], others, changes)


class _Range:
    """The metrics of a range of areas, category by category."""

    def __init__(
        self,
        ground_truth: GroundTruth,
        found: Candidates,
        taken: list[Taken],
        area_range: AreaRange,
        drawn: Drawn,
        room: Room,
    ) -> None:
        self.found, self.drawn, self.room = found, drawn, room
        self.judged = ~outside(found.area, area_range)
        counted = ~(ground_truth.ignored | outside(ground_truth.areas, area_range))
        categories = np.array(sorted(ground_truth.categories))
        self.kinds = len(categories)
        kind = np.searchsorted(categories, ground_truth.category_ids[counted])
        order = np.argsort(kind, kind="stable")
        borders = np.searchsorted(kind[order], np.arange(self.kinds + 1))
        self.objects = self._sums(ground_truth.image[counted][order], borders).astype(np.int64)
        """(K, R) objects of each category in each resample."""
        self.recalls = Recalls(self.objects)
        self.borders = np.searchsorted(found.category, np.arange(self.kinds + 1))
        self.thresholds = [_Threshold.of(each, self.judged, self.borders) for each in taken]
        true = np.zeros(len(found.image), dtype=bool)
        for threshold in self.thresholds:
            true[threshold.rows] = True
        self.places = np.nonzero(true)[0]
        """(P,) candidates that are true at some threshold."""
        self.place = np.cumsum(true) - 1
        """(D,) index into these."""
        self.place_borders = np.searchsorted(self.places, self.borders)

    def metrics(self, names: Sequence[str]) -> dict[str, Array]:
        precise = [name for name in names if name.startswith("AP")]
        sums = {name: np.zeros(self.drawn.resamples) for name in precise}
        for kind in range(self.kinds if precise else 0):
            if self.objects[kind].any() and self.place_borders[kind] < self.place_borders[kind + 1]:
                precisions = self._precisions(kind)
                for name in precise:
                    at = {"AP50": slice(0, 1), "AP75": slice(5, 6)}.get(name, slice(None))
                    sums[name] += precisions[at].mean(axis=0)
        sums |= {name: self._recall(CEILINGS.get(name)) for name in names if name.startswith("AR")}
        with np.errstate(invalid="ignore"):
            return {name: 100 * sums[name] / (self.objects > 0).sum(axis=0) for name in names}

    def _recall(self, ceiling: int | None) -> Array:
        """Return the sum over categories of the mean recall over thresholds, (R,)."""
        true = np.zeros((self.kinds, self.drawn.resamples))
        for threshold in self.thresholds:
            rows, borders = threshold.rows, threshold.borders
            if ceiling is not None:
                kept = np.nonzero(self.found.rank[rows] < ceiling)[0]
                rows, borders = rows[kept], np.searchsorted(kept, borders)
            true += self._sums(self.found.image[rows], borders)
        return (true / np.maximum(self.objects, 1)).sum(axis=0) / len(self.thresholds)

    def _sums(self, image: Indices, borders: Indices) -> Array:
        """Return the weights of some images, summed from each border to the next, (K, R)."""
        return np.diff(self.drawn.until(image, borders, self.room), axis=0)

    def _precisions(self, kind: int) -> Array:
        """Return a category's average precision by threshold and resample, (T, R)."""
        curves = [self._curve(threshold, kind) for threshold in self.thresholds]
        longest = max(curve.blocks for curve in curves) * LENGTH
        parts = -(-self.drawn.resamples // max(FEWEST, BLOCK // longest))
        precisions = np.zeros((len(curves), self.drawn.resamples))
        some = np.array_split(np.arange(self.drawn.resamples), parts)
        groups = [
            (chosen, Curves([curves[t] for t in chosen], self.drawn.nothing))
            for chosen in _groups(curves, BLOCK // (LENGTH * len(some[0])))
        ]
        for columns in (slice(each[0], each[-1] + 1) for each in some):
            drawn = self.drawn.part(columns)
            before = self._in_range_until(kind, drawn)
            reached = self.recalls.table(kind, columns)
            for chosen, group in groups:
                precisions[chosen, columns] = group.average_precisions(drawn, before, reached, self.room)
        return precisions

    def _curve(self, threshold: _Threshold, kind: int) -> Curve:
        own = slice(*threshold.borders[kind : kind + 2])
        changed = slice(*threshold.changed_borders[kind : kind + 2])
        rows = threshold.rows[own]
        return Curve(
            image=self.found.image[rows],
            place=self.place[rows] - self.place_borders[kind],
            changed=self.found.image[threshold.changed[changed]],
            change=threshold.change[changed],
            changes=threshold.changes[own],
        )

    def _in_range_until(self, kind: int, drawn: Drawn) -> Array:
        """Return the weight of the category's detections in range up to each of its (P,) places, included, (P, R)."""
        start = self.borders[kind]
        places = self.places[slice(*self.place_borders[kind : kind + 2])]
        kept = start + np.nonzero(self.judged[start : places[-1] + 1])[0]
        return drawn.until(self.found.image[kept], np.searchsorted(kept, places, side="right"), self.room)


def _groups(curves: Sequence[Curve], blocks: int) -> Iterator[list[int]]:
    """Return curves that are worked on together: neighbours of so many blocks, or one alone; without empty ones."""
    group: list[int] = []
    size = 0
    for t, own in enumerate(curve.blocks for curve in curves):
        if group and size + own > blocks:
            yield group
            group, size = [], 0
        if own:
            group.append(t)
            size += own
    if group:
        yield group
