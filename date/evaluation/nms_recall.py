"""The share of annotated objects that greedy NMS keeps: the ceiling of any detector with NMS (DATE Table 4, row 1).

The annotated boxes themselves go through class-wise NMS image by image, all with score 1, in the file's order: a box
survives unless an earlier survivor of its class overlaps it by an IoU over the threshold. Ignored regions take no part.
Recall is the share of survivors, each of which finds its own object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from date.errors import UserError
from date.evaluation.crowdhuman import box_areas, clipped, intersections
from date.evaluation.ground_truth import GroundTruth

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7)
ROWS = 256
"""Boxes that are compared with others at once, which bounds the memory."""


def nms_recall(
    ground_truth: GroundTruth, thresholds: Sequence[float] = THRESHOLDS, clip: bool = False
) -> dict[str, Any]:
    """Return the recall in percent at each IoU threshold, of all objects and of each category.

    Args:
        ground_truth: the annotations.
        thresholds: of the IoU, each over 0 and at most 1.
        clip: clip the boxes to their images first, as CrowdHuman's protocol does; as annotated by default.

    Returns:
        ``{"clipped": bool, "objects": N, "recall": {"0.5": ...}, "classes": {name: {"objects": n, "recall": ...}}}``;
        a recall is None where there are no objects.

    Raises:
        UserError: the boxes are to be clipped, but sizes of images are unknown.
    """
    valid = ~ground_truth.ignored
    categories = ground_truth.category_ids[valid]
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of absurd sizes overlap nothing
        bboxes = _corners(ground_truth, clip)[valid]
        kept = nms_survivors(bboxes, ground_truth.image[valid], categories, thresholds)
    names = [f"{threshold:g}" for threshold in thresholds]

    def part(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        number = int(chosen.sum())
        recalls = [100 * float(k[chosen].mean()) if number else None for k in kept]
        return {"objects": number, "recall": dict(zip(names, recalls, strict=True))}

    shared = [name for name, count in Counter(ground_truth.categories.values()).items() if count > 1]
    classes = {
        f"{name} ({category})" if name in shared else name: part(categories == category)
        for category, name in ground_truth.categories.items()
    }
    return {"clipped": clip, **part(np.ones(len(bboxes), dtype=bool)), "classes": classes}


def _corners(ground_truth: GroundTruth, clip: bool) -> NDArray[np.float64]:
    sizes = ground_truth.sizes
    if not clip:
        sizes = np.full_like(sizes, np.nan)
    elif unknown := int(np.isnan(sizes[:, 0]).sum()):
        raise UserError(
            f"{ground_truth.path} lacks the size of {unknown} images, to which boxes are to be clipped; name the "
            f"folder of the images by --images, or leave --clip out."
        )
    return clipped(ground_truth.bboxes, sizes[ground_truth.image])


def nms_survivors(
    bboxes: NDArray[np.float64],
    images: NDArray[np.int64],
    categories: NDArray[np.int64],
    thresholds: Sequence[float],
) -> list[NDArray[np.bool_]]:
    """Return which boxes survive greedy NMS in the given order, (N,), for each threshold.

    Args:
        bboxes: (N, 4) x1, y1, x2, y2.
        images: (N,) image of each box.
        categories: (N,) category of each box; boxes of different ones do not compete.
        thresholds: a box goes if its IoU with an earlier survivor is higher.
    """
    order = np.lexsort((categories, images))  # stable: the given order within image and category
    keys = np.stack([images[order], categories[order]])
    borders = np.nonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0))[0] + 1
    groups = [group for group in np.split(order, borders) if len(group) > 1]
    pairs = [(group, overlapping_pairs(bboxes[group], min(thresholds))) for group in groups]
    kept = []
    for threshold in thresholds:
        survives = [True] * len(bboxes)
        # Pairs come by ascending first box, so whether that one survives is settled when its turn comes.
        for group, (first, second, iou) in pairs:
            over = iou > threshold
            for earlier, later in zip(group[first[over]].tolist(), group[second[over]].tolist(), strict=True):
                if survives[earlier]:
                    survives[later] = False
        kept.append(np.array(survives, dtype=bool))
    return kept


def overlapping_pairs(
    bboxes: NDArray[np.float64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of boxes with an IoU over the threshold: (P,) indices i < j by ascending i, and the IoUs.

    Boxes are compared from left to right, each only with those that begin before it ends.

    Args:
        bboxes: (N, 4) x1, y1, x2, y2.
        threshold: not negative.
    """
    order = np.argsort(bboxes[:, 0], kind="stable")
    ordered = bboxes[order]
    found = []
    for start in range(0, len(ordered), ROWS):
        rows = ordered[start : start + ROWS]
        end = np.searchsorted(ordered[:, 0], rows[:, 2].max())
        others = ordered[start : max(end, start + len(rows))]
        shared, areas = intersections(rows, others)
        union = areas[:, None] + box_areas(others)[None] - shared
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        one, other = np.nonzero(np.triu(iou > threshold, 1))
        found.append((order[start + one], order[start + other], iou[one, other]))
    one, other, iou = (np.concatenate(parts) for parts in zip(*found, strict=True))
    first, second = np.minimum(one, other), np.maximum(one, other)
    by_first = np.lexsort((second, first))
    return first[by_first], second[by_first], iou[by_first]
