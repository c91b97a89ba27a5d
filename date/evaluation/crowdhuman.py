"""CrowdHuman's evaluation: AP, log-average miss rate (mMR) and Recall of one category, by the official tool's rules.

The protocol (CrowdHuman's own evaluation code, also in cvpods; DATE sec. 4.5):

1. Detections and annotations are clipped to the image: x1 and y1 to [0, W-1] and [0, H-1], x2 and y2 to [0, W] and
   [0, H]. Images of unknown size are not clipped.
2. In each image, detections are taken by descending score. A detection takes the valid object, among those not yet
   taken, with the highest IoU strictly over 0.5. Failing that, an ignored region that covers more than 0.5 of the
   detection's own area absorbs it: it counts neither way, and the region can absorb more. Failing that, it is false.
3. What was not absorbed is pooled and sorted by score. AP is the area under the raw precision-recall points by the
   trapezoid rule, from the first point (not from recall 0) and without an envelope. Recall is that of all detections.
   mMR is the geometric mean of the miss rates at nine false positives per image (FPPI) from 0.01 to 1, each at the
   first detection that reaches the FPPI, or at the last one.

Ties are broken as by the official tool's stable sorts: equal scores by the images' order in the annotation file, then
by the detections' order in the input; equal IoUs in favour of the object that is annotated first. The same input gives
the same numbers.

A miss rate of 0 at any of the nine points makes mMR 0, as log 0 does in the official tool. Without any detection that
counts, AP and Recall are 0 and mMR is 100 (every miss rate is 1), where the official tool's mMR is NaN. Without valid
objects nothing is defined.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from date.errors import UserError
from date.evaluation.ground_truth import GroundTruth, read_ground_truth

METRICS = ("AP", "mMR", "Recall")
"""Names of the three; AP is at IoU 0.5, and a lower mMR is better."""

THRESHOLD = 0.5
"""IoU with an object, or share of a detection inside an ignored region, that has to be exceeded."""
EPS = 1e-6
"""Added to the areas that are divided by, in square pixels."""
REFERENCE_FPPI = (0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.000)
"""False positives per image at which miss rates are taken, with the official tool's digits."""


@dataclass(frozen=True)
class Ranked:
    """The K detections that count, of all images, by descending score."""

    found: NDArray[np.bool_]
    """(K,) whether each found an object."""
    image: NDArray[np.int64]
    """(K,) index into the ground truth's images."""


def crowdhuman_metrics(ground_truth: GroundTruth | Path, detections: NDArray[np.float64]) -> dict[str, float | None]:
    """Return AP, mMR and Recall in percent; None without valid objects.

    Args:
        ground_truth: annotations of one category, or their file.
        detections: (D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, of images of the annotations; the category
            is not looked at.

    Raises:
        UserError: annotations of several categories.
    """
    if isinstance(ground_truth, Path):
        ground_truth = read_ground_truth(ground_truth)
    return ranked_metrics(ground_truth, ranked(ground_truth, detections))


def ranked_metrics(ground_truth: GroundTruth, detections: Ranked) -> dict[str, float | None]:
    """Return AP, mMR and Recall in percent of matched detections; None without valid objects."""
    valid = int((~ground_truth.ignored).sum())
    if valid == 0:
        return dict.fromkeys(METRICS)
    return curve_metrics(detections.found, valid, len(ground_truth.image_ids))


def curve_metrics(found: NDArray[np.bool_], objects: int, images: int) -> dict[str, float | None]:
    """Return the metrics in percent of detections sorted by descending score.

    Args:
        found: (K,) whether each found an object.
        objects: number of valid objects, not 0.
        images: number of images.
    """
    if len(found) == 0:
        return {"AP": 0.0, "mMR": 100.0, "Recall": 0.0}
    true, false = np.cumsum(found), np.cumsum(~found)
    recall, precision = true / objects, true / (true + false)
    area = np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2)
    reached = np.searchsorted(false / images, REFERENCE_FPPI, side="left")
    miss_rates = 1 - recall[np.minimum(reached, len(found) - 1)]
    with np.errstate(divide="ignore"):
        mean = np.exp(np.log(miss_rates).mean())
    return {"AP": 100 * float(area), "mMR": 100 * float(mean), "Recall": 100 * float(recall[-1])}


def ranked(ground_truth: GroundTruth, detections: NDArray[np.float64]) -> Ranked:
    """Match the detections of all images, leave out those that an ignored region absorbed, and sort the others.

    Args:
        ground_truth: annotations of one category.
        detections: see `crowdhuman_metrics`.

    Raises:
        UserError: annotations of several categories.
    """
    if len(ground_truth.categories) != 1:
        raise UserError(
            f"CrowdHuman's protocol judges one category, but {ground_truth.path} has {len(ground_truth.categories)}; "
            f"use the protocol 'coco', or annotations of one category."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of absurd sizes overlap nothing
        found, absorbed, scores, image = _judge(ground_truth, detections)
    order = np.nonzero(~absorbed)[0]
    order = order[np.argsort(-scores[order], kind="stable")]
    return Ranked(found[order], image[order])


def _judge(
    ground_truth: GroundTruth, detections: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Match the detections of all images.

    Returns:
        For the D detections in the order of image, descending score and input: whether each found an object, whether
        an ignored region absorbed it, its score, and the index of its image.
    """
    image = ground_truth.image_of(detections[:, 0])
    order = np.lexsort((-detections[:, 5], image))  # stable
    image, scores = image[order], detections[order, 5]
    bboxes = clipped(detections[order, 1:5], ground_truth.sizes[image])
    objects = clipped(ground_truth.bboxes, ground_truth.sizes[ground_truth.image])
    by_image = np.argsort(ground_truth.image, kind="stable")
    images = np.arange(len(ground_truth.image_ids))
    first_box, end_box = (np.searchsorted(image, images, side=side) for side in ("left", "right"))
    sorted_image = ground_truth.image[by_image]
    first_object, end_object = (np.searchsorted(sorted_image, images, side=side) for side in ("left", "right"))

    covered = np.zeros(len(image), dtype=bool)
    pairs: list[tuple[NDArray, NDArray, NDArray]] = []
    for i in images[(end_box > first_box) & (end_object > first_object)]:
        mine = by_image[first_object[i] : end_object[i]]
        boxes = slice(first_box[i], end_box[i])
        shared, areas = intersections(bboxes[boxes], objects[mine])
        ignored = ground_truth.ignored[mine]
        if ignored.any():
            covered[boxes] = (shared[:, ignored] / (areas[:, None] + EPS) > THRESHOLD).any(axis=1)
            mine, shared = mine[~ignored], shared[:, ~ignored]
        own = box_areas(objects[mine])
        iou = shared / (areas[:, None] + own[None] - shared + EPS)
        detection, candidate = np.nonzero(iou > THRESHOLD)
        pairs.append((detection + first_box[i], mine[candidate], iou[detection, candidate]))
    found = np.zeros(len(image), dtype=bool)
    if pairs:
        detection, candidate, overlap = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        found = greedy_matches(detection, candidate, overlap, len(image), len(objects))
    return found, covered & ~found, scores, image


def greedy_matches(
    detection: NDArray[np.int64],
    candidate: NDArray[np.int64],
    overlap: NDArray[np.float64],
    num_detections: int,
    num_objects: int,
) -> NDArray[np.bool_]:
    """Return which detections take an object, (num_detections,), if each in turn takes its best of those left.

    All images at once: every unplaced detection asks for the best object that has not refused it, and an object goes
    to the foremost detection that asked, refusing the others, also one that had it before. Since all objects prefer
    the foremost, this ends in the same matches as taking turns (a stable matching under one common order is unique).

    Args:
        detection: (P,) of each admissible pair; a lower number has its turn earlier.
        candidate: (P,) the object of the pair.
        overlap: (P,) by which a detection prefers objects; equal ones by the lower number.
        num_detections: of all detections.
        num_objects: of all objects.
    """
    order = np.lexsort((candidate, -overlap, detection))
    detection, candidate = detection[order], candidate[order]
    asking, first = np.unique(detection, return_index=True)
    wish, end = first.copy(), np.append(first[1:], len(detection))
    nobody = num_detections
    holder = np.full(num_objects, nobody)
    rows = np.arange(len(asking))
    while len(rows):
        np.minimum.at(holder, candidate[wish[rows]], asking[rows])
        # Holders that were displaced ask again, which the rows of this round alone would not tell.
        placed = holder[candidate[np.minimum(wish, end - 1)]] == asking
        rows = np.nonzero(~placed & (wish < end))[0]
        wish[rows] += 1
        rows = rows[wish[rows] < end[rows]]
    found = np.zeros(num_detections, dtype=bool)
    found[holder[holder < nobody]] = True
    return found


def clipped(bboxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x, y, width, height boxes (K, 4) as x1, y1, x2, y2, clipped to images of (K, 2) width and height.

    NaN as a size leaves a box as it is.
    """
    corners = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    unknown = np.isnan(sizes)
    low = np.where(unknown, -np.inf, 0.0) if unknown.any() else 0.0
    corners[:, :2] = np.fmin(np.maximum(corners[:, :2], low), sizes - 1)  # fmin: nothing is cut where a size is NaN
    corners[:, 2:] = np.maximum(np.fmin(corners[:, 2:], sizes), low)
    return corners


def intersections(
    bboxes: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the areas shared by x1, y1, x2, y2 boxes (K, 4) and (L, 4) as (K, L), and the former's own, (K,)."""
    shared = np.minimum(bboxes[:, None, 2], others[None, :, 2])
    shared -= np.maximum(bboxes[:, None, 0], others[None, :, 0])
    height = np.minimum(bboxes[:, None, 3], others[None, :, 3])
    height -= np.maximum(bboxes[:, None, 1], others[None, :, 1])
    np.maximum(shared, 0, out=shared)
    np.maximum(height, 0, out=height)
    shared *= height
    return shared, box_areas(bboxes)


def box_areas(bboxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas of x1, y1, x2, y2 boxes (K, 4), (K,)."""
    return (bboxes[:, 2] - bboxes[:, 0]) * (bboxes[:, 3] - bboxes[:, 1])
