"""COCO's numbers on many resamples of the images at once.

A resample draws images with replacement; an image that is drawn w times counts as w images. Matching happens within an
image and does not depend on the weights, so it is done once. With weights, a sorted list of detections is read as if
each stood there w times in a row, and every number is that of pycocotools on images that are really duplicated under
new ids (of detections of one image with exactly equal scores, copies stay together).

Precision matters at true detections only: COCO takes the highest precision at or after a recall, and between two true
detections precision falls. Hence the cost is that of the objects that were found times the resamples; all other
detections enter through sums of weights between two true ones, a sparse matrix times the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS
from date.evaluation.coco import METRICS
from date.evaluation.coco_matching import IOU_THRESHOLDS, AreaRange, Candidates, Taken, candidates, match, outside
from date.evaluation.ground_truth import GroundTruth

RECALLS = np.linspace(0.0, 1.0, 101)
"""At which COCO reads the precision."""
SMALLEST = np.spacing(1)
"""Added to the number of detections that is divided by, as in pycocotools."""
EVERYTHING = 1e5**2
"""Largest area of all ranges, in square pixels."""
CEILINGS = {"AR1": 1, "AR10": 10}
"""Detections of an image and category that a recall is of."""
BLOCK = 1 << 18
"""Numbers of an array that are worked on at once, 2 MiB: they stay in a core's cache."""
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
    by_image = np.ascontiguousarray(weights.T, dtype=np.float64)  # (I, R)
    results: dict[str, NDArray[np.float64]] = {}
    for part, area_range in enumerate(ranges):
        wanted = [name for name in names if PARTS.get(name[-1], 0) == part]
        if wanted:
            taken = match(found, ground_truth, area_range)
            results |= _Range(ground_truth, found, taken, area_range, by_image).metrics(wanted)
    return {name: results[name] for name in names}


class _Range:
    """The metrics of a range of areas, category by category."""

    def __init__(
        self,
        ground_truth: GroundTruth,
        found: Candidates,
        taken: list[Taken],
        area_range: AreaRange,
        by_image: NDArray[np.float64],
    ) -> None:
        from scipy.sparse import csr_array

        self.found, self.taken, self.by_image = found, taken, by_image
        self.judged = ~outside(found.area, area_range)
        self.resamples = by_image.shape[1]
        counted = ~(ground_truth.ignored | outside(ground_truth.areas, area_range))
        categories = np.array(sorted(ground_truth.categories))
        images, kinds = len(ground_truth.image_ids), len(categories)
        kind = np.searchsorted(categories, ground_truth.category_ids[counted])
        image = ground_truth.image[counted]
        table = csr_array((np.ones(len(kind)), (kind, image)), shape=(kinds, images))
        self.objects = (table @ by_image).astype(np.int64)
        """(K, R) objects of each category in each resample."""
        self.borders = np.searchsorted(found.category, np.arange(kinds + 1))

    def metrics(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        precise = [name for name in names if name.startswith("AP")]
        recalls = [name for name in names if name.startswith("AR")]
        sums = {name: np.zeros(self.resamples) for name in names}
        for kind, objects in enumerate(self.objects):
            if not objects.any():
                continue
            precisions, recalled = self._category(kind, objects, bool(precise), recalls)
            for name in precise:
                at = {"AP50": slice(0, 1), "AP75": slice(5, 6)}.get(name, slice(None))
                sums[name] += precisions[at].mean(axis=0)
            for name in recalls:
                sums[name] += recalled[name]
        with np.errstate(invalid="ignore"):
            return {name: 100 * total / (self.objects > 0).sum(axis=0) for name, total in sums.items()}

    def _category(
        self, kind: int, objects: NDArray[np.int64], precise: bool, recalls: Sequence[str]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Return average precision by threshold and resample, (T, R), and mean recalls, (R,); 0 without objects."""
        start, end = self.borders[kind : kind + 2]
        slices = [slice(*np.searchsorted(taken.detection, (start, end))) for taken in self.taken]
        rows = [taken.detection[s][~taken.ignored[s]] for taken, s in zip(self.taken, slices, strict=True)]
        places = np.unique(np.concatenate(rows))
        precisions = np.zeros((len(IOU_THRESHOLDS), self.resamples))
        recalled = {name: np.zeros(self.resamples) for name in recalls}
        if not len(places):
            return precisions, recalled
        columns = max(16, BLOCK // len(places))
        for first in range(0, self.resamples, columns):
            some = slice(first, first + columns)
            by_image = self.by_image if columns >= self.resamples else np.ascontiguousarray(self.by_image[:, some])
            before = self._in_range_until(start, places, by_image) if precise else None
            weights = by_image[self.found.image[places]]
            steps = _recall_steps(objects[some]) if precise else None
            for t, (taken, s) in enumerate(zip(self.taken, slices, strict=True)):
                if not len(rows[t]):
                    continue
                here = np.searchsorted(places, rows[t])
                found = weights if len(here) == len(places) else weights[here]
                for name in recalls:
                    under = found[self.found.rank[rows[t]] < CEILINGS[name]] if name in CEILINGS else found
                    recalled[name][some] += under.sum(axis=0) / np.maximum(objects[some], 1) / len(self.taken)
                if before is not None and steps is not None:
                    total = before[here]
                    self._correct(total, rows[t], Taken(taken.detection[s], taken.ignored[s]), by_image)
                    precisions[t, some] = _average_precision(found, total, steps)
        return precisions, recalled

    def _in_range_until(
        self, start: int, places: NDArray[np.int64], by_image: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the weight of the category's detections in range up to each of (E,) places, included, (E, R)."""
        from scipy.sparse import csr_array

        kept = start + np.nonzero(self.judged[start : places[-1] + 1])[0]
        indptr = np.append(0, np.searchsorted(kept, places, side="right"))
        between = csr_array((np.ones(len(kept)), self.found.image[kept], indptr), shape=(len(places), len(by_image)))
        weights = between @ by_image
        return np.cumsum(weights, axis=0, out=weights)

    def _correct(
        self, total: NDArray[np.float64], rows: NDArray[np.int64], taken: Taken, by_image: NDArray[np.float64]
    ) -> None:
        """Count, of the detections that took something, those that took an object, whatever their own area."""
        change = (~taken.ignored).astype(np.float64) - self.judged[taken.detection]
        changed = np.nonzero(change)[0]
        if len(changed):
            sums = np.zeros((len(changed) + 1, by_image.shape[1]))
            weights = change[changed, None] * by_image[self.found.image[taken.detection[changed]]]
            np.cumsum(weights, axis=0, out=sums[1:])
            total += sums[np.searchsorted(taken.detection[changed], rows, side="right")]


def _recall_steps(objects: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many of `RECALLS` each number of true detections reaches, flat by resample, and the offsets."""
    width = int(objects.max()) + 1
    some = np.maximum(objects, 1)[:, None]
    needed = np.maximum(np.floor(RECALLS * some) - 1, 0.0)
    for _ in range(3):
        needed += needed / some < RECALLS
    offsets = np.arange(0.0, len(objects)) * width
    at = np.bincount((needed + offsets[:, None]).astype(np.int64).ravel(), minlength=len(objects) * width)
    reached = np.cumsum(at.reshape(len(objects), width), axis=1, dtype=np.float64)
    return reached.ravel(), offsets


def _average_precision(
    found: NDArray[np.float64], total: NDArray[np.float64], steps: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the mean over `RECALLS` of the highest precision at or after each, (R,).

    Args:
        found: (E, R) weights of the true detections by descending score.
        total: (E, R) weights of all detections that count, up to each true one and with it; overwritten.
        steps: see `_recall_steps`.
    """
    true = np.cumsum(found, axis=0)
    total += SMALLEST
    precision = np.divide(true, total, out=total)
    highest = precision[::-1]
    np.maximum.accumulate(highest, axis=0, out=highest)
    true += steps[1]
    reached = steps[0].take(true.astype(np.int64))
    area = precision[0] * reached[0]
    more = np.subtract(reached[1:], reached[:-1], out=true[1:])
    return (area + np.einsum("er,er->r", precision[1:], more)) / len(RECALLS)
