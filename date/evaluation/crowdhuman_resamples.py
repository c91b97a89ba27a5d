"""CrowdHuman's numbers on many resamples of the images at once; see `date.evaluation.coco_resamples`.

A sorted list of detections is read as if each stood there as often as its image was drawn. The area under the raw
precision-recall points grows at true detections only; between them, false ones enter through sums of weights.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from date.evaluation.crowdhuman import METRICS, REFERENCE_FPPI, judge
from date.evaluation.ground_truth import GroundTruth

BLOCK = 1 << 23
"""Numbers of an array that are held at once, which bounds the memory."""


def crowdhuman_resamples(
    ground_truth: GroundTruth,
    detections: NDArray[np.float64],
    weights: NDArray[np.integer],
    names: Collection[str] = METRICS,
) -> dict[str, NDArray[np.float64]]:
    """Return AP, mMR and Recall in percent for each resample, (R,); NaN where a resample has no valid object.

    Args:
        ground_truth: annotations of one category.
        detections: (D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, of images of the annotations.
        weights: (R, I) how often each resample has each image of the annotations.
        names: of the metrics that are wanted.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of absurd sizes overlap nothing
        found, absorbed, scores = judge(ground_truth, detections)
    image = ground_truth.image_of(detections[:, 0])
    image = image[np.lexsort((-detections[:, 5], image))]  # the order of `judge`
    order = np.nonzero(~absorbed)[0]
    order = order[np.argsort(-scores[order], kind="stable")]
    found, image = found[order], image[order]
    images = len(ground_truth.image_ids)
    by_image = np.bincount(ground_truth.image[~ground_truth.ignored], minlength=images)
    size = max(1, BLOCK // max(1, int(found.sum())))
    blocks = [_block(found, image, by_image, weights[i : i + size]) for i in range(0, len(weights), size)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}


def _block(
    found: NDArray[np.bool_], image: NDArray[np.int64], objects_by_image: NDArray[np.int64], weights: NDArray
) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of some resamples, from detections by descending score."""
    from scipy.sparse import csr_array

    by_image = np.ascontiguousarray(weights.T, dtype=np.float64)
    objects = (weights @ objects_by_image).astype(np.float64)
    true_at = np.nonzero(found)[0]
    wrong = np.nonzero(~found)[0]
    indptr = np.append(0, np.searchsorted(wrong, np.append(true_at, len(found))))
    between = csr_array(
        (np.ones(len(wrong), dtype=np.float64), image[wrong], indptr), shape=(len(true_at) + 1, len(by_image))
    )
    false = np.cumsum(between @ by_image, axis=0, dtype=np.float64)  # before each true one, and at the end
    steps = by_image[image[true_at]]
    true = np.cumsum(steps, axis=0, dtype=np.float64)
    total = true[-1] if len(true) else np.zeros(len(weights))
    with np.errstate(divide="ignore", invalid="ignore"):
        area = _area(true, steps, false[:-1]) / objects
        recall = total / objects
        miss = np.stack([1 - _true_before(true, false[:-1], need) / objects for need in _needed(weights)])
        mean = np.exp(np.log(miss).mean(axis=0))
    nothing = total + false[-1] == 0
    mean[nothing] = 1.0
    undefined = objects == 0
    return {
        name: np.where(undefined, np.nan, 100 * value)
        for name, value in zip(METRICS, (area, mean, recall), strict=True)
    }


def _area(true: NDArray[np.float64], steps: NDArray[np.float64], false: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the raw points, by numbers of true detections, (R,): a trapezium for each copy.

    Args:
        true: (E, R) true ones up to each true detection and with it.
        steps: (E, R) copies of the detection.
        false: (E, R) false ones before it.
    """
    before = true - steps
    points = before + false
    first = points == 0  # no point before it: the area begins at its own
    precision = np.divide(before, points, out=np.zeros_like(before), where=~first)
    area = np.zeros(true.shape[1])
    row, column = np.nonzero(steps)
    for copy in range(int(steps.max(initial=0))):
        if copy:
            more = steps[row, column] > copy
            row, column = row[more], column[more]
        after = before[row, column] + (copy + 1)
        reached = after / (after + false[row, column])
        grown = precision[row, column] + reached
        if copy == 0:
            grown[first[row, column]] = 0.0
        area += np.bincount(column, grown, minlength=len(area)) / 2
        precision[row, column] = reached
    return area


def _needed(weights: NDArray) -> list[NDArray[np.int64]]:
    """Return how many false detections reach each of the nine numbers per image, (R,) each."""
    images = weights.sum(axis=1)
    needed = []
    for reference in REFERENCE_FPPI:
        count = np.ceil(reference * images).astype(np.int64)
        count = np.where((count - 1) / images >= reference, count - 1, count)
        needed.append(np.where(count / images < reference, count + 1, count))
    return needed


def _true_before(
    true: NDArray[np.float64], false: NDArray[np.float64], needed: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how many true detections come before a number of false ones, or all of them, (R,)."""
    up_to = np.concatenate([np.zeros((1, len(needed))), true])
    return up_to[(false < needed).sum(axis=0), np.arange(len(needed))]
