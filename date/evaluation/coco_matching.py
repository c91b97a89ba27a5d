"""COCO's matching of detections to objects, of all images and categories at once, in arrays.

The rules are pycocotools' (`COCOeval.evaluateImg`). In each image and category the best 100 detections take objects in
turn, by descending score. At a threshold of the IoU, a detection takes the free object of the range of areas with the
highest IoU that reaches the threshold; failing that, the object with the highest IoU among those that are ignored
(regions marked ``iscrowd``, which can be taken more than once and divide by the detection's own area, and objects
outside of the range of areas). Of equal IoUs the object that is annotated later wins. A detection that took an ignored
object, or none while its own area is outside of the range, counts neither as true nor as false.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from date.evaluation.coco import MAX_DETECTIONS
from date.evaluation.ground_truth import GroundTruth

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
CHUNK = 1 << 20
"""Pairs of boxes that are compared at once, which bounds the memory."""

AreaRange = tuple[float, float]
"""Smallest and largest area in square pixels, both included."""


@dataclass(frozen=True)
class Candidates:
    """The D judged detections, by category, descending score, ascending image id and input, and what they may take."""

    image: NDArray[np.int64]
    """(D,) index into the ground truth's images."""
    category: NDArray[np.int64]
    """(D,) index into the sorted ids of the categories."""
    rank: NDArray[np.int64]
    """(D,) place among the detections of the same image and category, from 0."""
    area: NDArray[np.float64]
    """(D,) in square pixels."""
    turn: NDArray[np.int64]
    """(P,) of each pair of detection and object with an IoU of 0.5 or more, ascending: lower numbers choose earlier.
    A detection's pairs are in the order of its preference: by descending IoU, of equal ones the later object."""
    detection: NDArray[np.int64]
    """(P,) place of the pair's detection among the D."""
    object: NDArray[np.int64]
    """(P,) index of the pair's object into the ground truth's boxes."""
    iou: NDArray[np.float64]
    """(P,)."""


@dataclass(frozen=True)
class Taken:
    """The E detections that took an object at a threshold, by ascending place among the D."""

    detection: NDArray[np.int64]
    """(E,) place among the D."""
    ignored: NDArray[np.bool_]
    """(E,) whether the object is an ignored one."""


def candidates(ground_truth: GroundTruth, detections: NDArray[np.float64]) -> Candidates:
    """Order the detections and find which objects each may take.

    Args:
        ground_truth: annotations.
        detections: (D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, of images of the annotations; those of
            categories that are not annotated, and those beyond an image's best 100 of a category, are left out.
    """
    category_ids = np.array(sorted(ground_truth.categories), dtype=np.float64)
    by_id = np.argsort(np.argsort(np.array(ground_truth.image_ids, dtype=np.float64), kind="stable"), kind="stable")
    category = np.searchsorted(category_ids, detections[:, 6])
    known = np.append(category_ids, np.nan)[category] == detections[:, 6]
    if not known.all():
        detections, category = detections[known], category[known]
    image = ground_truth.image_of(detections[:, 0])
    place = by_id[image]
    order = _stable(place)
    order = order[_descending(detections[order, 5])]
    order = order[_stable(category[order])]
    grouped = order[_stable(place[order])]  # by image, category, descending score and input
    group = place[grouped] * len(category_ids) + category[grouped]
    starts = np.nonzero(np.diff(group, prepend=-1))[0]
    rank = np.empty(len(order), dtype=np.int64)
    rank[grouped] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    order = order[rank[order] < MAX_DETECTIONS]
    position = np.full(len(detections), -1)
    position[order] = np.arange(len(order))
    kept = position[grouped] >= 0
    grouped = grouped[kept]
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of absurd sizes overlap nothing
        turn, taken, iou = _pairs(ground_truth, detections[grouped, 1:5], group[kept], category_ids, by_id)
        area = detections[order, 3] * detections[order, 4]
    detection = position[grouped[turn]]
    return Candidates(image[order], category[order], rank[order], area, turn, detection, taken, iou)


def _stable(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stable order of small non-negative integers; NumPy sorts those of 16 bits in linear time."""
    return np.argsort(keys.astype(np.uint16) if len(keys) and keys.max() < 1 << 16 else keys, kind="stable")


def _descending(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the stable order of descending scores: ties are sorted after NumPy's quicker sort, which is not stable."""
    order = np.argsort(-scores)
    found = scores[order]
    equal = np.nonzero(found[1:] == found[:-1])[0]
    if len(equal):
        tied = np.union1d(equal, equal + 1)
        run = np.cumsum(np.append(True, found[tied][1:] != found[tied][:-1]))
        order[tied] = order[tied][np.lexsort((order[tied], run))]
    return order


def _pairs(
    ground_truth: GroundTruth,
    bboxes: NDArray[np.float64],
    group: NDArray[np.int64],
    category_ids: NDArray[np.float64],
    by_id: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return turn, object and IoU of the pairs of one image and category that reach an IoU of 0.5.

    Args:
        ground_truth: annotations.
        bboxes: (D, 4) x, y, width, height of the detections in turn.
        group: (D,) number of each one's image and category, ascending.
        category_ids: sorted.
        by_id: (I,) place of each image among the sorted ids.
    """
    keys = by_id[ground_truth.image] * len(category_ids) + np.searchsorted(category_ids, ground_truth.category_ids)
    objects = np.argsort(keys, kind="stable")
    keys, crowd = keys[objects], ground_truth.ignored[objects]
    theirs = ground_truth.bboxes[objects]
    first = np.searchsorted(keys, group, side="left")
    counts = np.searchsorted(keys, group, side="right") - first
    choosing = np.nonzero(counts)[0]
    ends = np.cumsum(counts[choosing])
    found = []
    cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1] if len(ends) else 0, CHUNK))
    for rows in np.split(choosing, cuts):
        turn = np.repeat(rows, counts[rows])
        starts = np.cumsum(counts[rows]) - counts[rows]
        taken = np.arange(len(turn)) + np.repeat(first[rows] - starts, counts[rows])
        iou = box_ious(bboxes.take(turn, axis=0), theirs.take(taken, axis=0), crowd[taken])
        near = np.nonzero(iou >= IOU_THRESHOLDS[0])[0]
        found.append((turn[near], objects[taken[near]], iou[near]))
    turn, taken, iou = (np.concatenate(parts) for parts in zip(*found, strict=True))
    several = np.zeros(len(turn) + 1, dtype=bool)  # pairs of detections that have several
    several[1:-1] = turn[1:] == turn[:-1]
    choice = np.nonzero(several[1:] | several[:-1])[0]
    order = choice[np.lexsort((-taken[choice], -iou[choice], turn[choice]))]
    taken[choice], iou[choice] = taken[order], iou[order]
    return turn, taken, iou


def box_ious(
    bboxes: NDArray[np.float64], objects: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the IoU of each box with its object, (P,); with a crowd region, the share of the box that is in it.

    Args:
        bboxes: (P, 4) x, y, width, height.
        objects: (P, 4) likewise.
        crowd: (P,) whether the object is a crowd region.
    """
    sides = []
    for axis in (0, 1):
        end = np.minimum(bboxes[:, axis] + bboxes[:, axis + 2], objects[:, axis] + objects[:, axis + 2])
        sides.append(end - np.maximum(bboxes[:, axis], objects[:, axis]))
    shared = np.where((sides[0] > 0) & (sides[1] > 0), sides[0] * sides[1], 0.0)
    own = bboxes[:, 2] * bboxes[:, 3]
    whole = np.where(crowd, own, own + objects[:, 2] * objects[:, 3] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def outside(areas: NDArray[np.float64], area_range: AreaRange) -> NDArray[np.bool_]:
    """Return which areas lie outside of a range, (N,)."""
    return (areas < area_range[0]) | (areas > area_range[1])


def match(found: Candidates, ground_truth: GroundTruth, area_range: AreaRange) -> list[Taken]:
    """Let the detections take objects: one result for each of `IOU_THRESHOLDS`."""
    ignored = ground_truth.ignored | outside(ground_truth.areas, area_range)
    order = np.argsort(2 * found.turn + ignored[found.object], kind="stable")  # ignored objects last
    turn, detection, wanted = (column[order] for column in (found.turn, found.detection, found.object))
    iou = found.iou[order]
    # A crowd region refuses nobody, as if each pair had a region of its own.
    crowd = ground_truth.ignored[wanted]
    target = np.where(crowd, len(ignored) + np.arange(len(wanted)), wanted)
    secondary = ignored[wanted]
    holder = np.empty(len(ignored) + len(wanted), dtype=np.int64)
    results = []
    for threshold in IOU_THRESHOLDS:
        near = np.nonzero(iou >= min(threshold, 1 - 1e-10))[0]
        if len(near) < len(iou):
            turn, detection, target = turn[near], detection[near], target[near]
            iou, secondary = iou[near], secondary[near]
        taken = _take_turns(turn, target, holder)
        keys = np.sort(2 * detection[taken] + secondary[taken])
        results.append(Taken(keys // 2, keys % 2 == 1))
    return results


def _take_turns(turn: NDArray[np.int64], target: NDArray[np.int64], holder: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which pairs come about if each detection in turn takes the first free one of its objects, (E,).

    All at once: each detection without an object asks for the first that has not refused it, and an object goes to the
    foremost that asked. As all objects prefer the foremost, that ends in the same pairs as taking turns (the stable
    matching under one common order is unique).

    Args:
        turn: (P,) of each pair, ascending; a detection's pairs in the order of its preference.
        target: (P,) the object.
        holder: room for one number an object, overwritten.
    """
    wish = np.nonzero(np.diff(turn, prepend=-1))[0]
    asking, end = turn[wish], np.append(wish[1:], len(turn))
    holder.fill(np.iinfo(np.int64).max)
    while True:
        wanted = target[wish]
        nearer = np.nonzero(asking < holder[wanted])[0][::-1]
        holder[wanted[nearer]] = asking[nearer]  # of several, the foremost is written last
        refused = holder[wanted] != asking
        if not refused.any():
            return wish
        wish += refused
        left = np.nonzero(wish < end)[0]
        asking, wish, end = asking[left], wish[left], end[left]
