"""COCO's twelve numbers from arrays of detections.

Judged as by pycocotools, which the default engine, hotcoco, is tested against. Both get annotations and detections in
the same plain form, which leaves no room for what is known to differ or to go wrong in them: images, categories and
annotations are numbered from 1 (an annotation with the id 0 counts as not found in pycocotools, of two with one id the
first is lost, and hotcoco takes no negative ids), ``iscrowd`` is always there (pycocotools fails without it) and the
only reason to ignore an annotation, the area is the box's where the file has none, and all numbers are finite (the two
treat NaN differently). Detections of categories that are not annotated count nowhere. Equal scores keep their order:
images by ascending id, then the order of the input.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS
from date.evaluation.ground_truth import GroundTruth, read_ground_truth

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Names of the twelve, in COCO's order."""

MAX_DETECTIONS = 100
"""Detections of an image and category that are judged, the best ones."""

DETECTION_COLUMNS = ("image_id", "x", "y", "width", "height", "score", "category_id")
"""Columns of a detection array; boxes in pixels of the original image."""

Engine = Literal["hotcoco", "pycocotools"]

AreaRange = tuple[float, float]
"""Smallest and largest area in square pixels, both included."""


def coco_metrics(
    ground_truth: GroundTruth | Path,
    detections: NDArray[np.float64],
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
    engine: Engine = "hotcoco",
) -> dict[str, float | None]:
    """Return COCO's twelve box metrics in percent; None where no object falls in the range.

    Args:
        ground_truth: annotations, or their file.
        detections: (D, 7) with `DETECTION_COLUMNS`, of images of the annotations.
        area_thresholds: square roots of the areas that part small, medium and large; COCO's by default.
        engine: hotcoco, or pycocotools, the reference that it is tested against.
    """
    if isinstance(ground_truth, Path):
        ground_truth = read_ground_truth(ground_truth)
    small, medium = (float(threshold) ** 2 for threshold in area_thresholds)
    everything = 1e5**2
    ranges = ((0.0, everything), (0.0, small), (small, medium), (medium, everything))
    annotated = _Numbered.of(
        ground_truth, np.array(ground_truth.image_ids)[ground_truth.image], ground_truth.category_ids
    )
    known = ground_truth.category_of(detections[:, 6]) >= 0
    detections = detections if known.all() else detections[known]
    found = _Numbered.of(ground_truth, detections[:, 0], detections[:, 6])
    evaluate = _by_hotcoco if engine == "hotcoco" else _by_pycocotools
    return _summary(*evaluate(ground_truth, annotated, detections, found, ranges))


def beyond_limit(detections: NDArray[np.float64], ground_truth: GroundTruth) -> int:
    """Return how many detections come after the best `MAX_DETECTIONS` of their image and category and do not count.

    All are of images and categories of the annotations.
    """
    images, categories = ground_truth.image_of(detections[:, 0]), ground_truth.category_of(detections[:, 6])
    crowded = np.bincount(images, minlength=1)[images] > MAX_DETECTIONS
    _, counts = np.unique((images * len(ground_truth.categories) + categories)[crowded], return_counts=True)
    return int(np.maximum(counts - MAX_DETECTIONS, 0).sum())


class _Numbered(NamedTuple):
    """Images and categories of some boxes by number from 1, in the order of their ids."""

    images: NDArray[np.int64]
    categories: NDArray[np.int64]

    @classmethod
    def of(cls, ground_truth: GroundTruth, image_ids: NDArray[Any], category_ids: NDArray[Any]) -> _Numbered:
        """Return the numbers of ids of the annotation file."""
        return cls(
            np.searchsorted(np.sort(np.array(ground_truth.image_ids, dtype=np.float64)), image_ids) + 1,
            np.searchsorted(np.sort(np.array(list(ground_truth.categories), dtype=np.float64)), category_ids) + 1,
        )


_Evaluated = tuple[NDArray[np.float64], NDArray[np.float64]]
"""pycocotools' arrays: precision by IoU, recall, category, area and limit; recall by IoU, category, area and limit."""


def _by_hotcoco(
    ground_truth: GroundTruth,
    annotated: _Numbered,
    detections: NDArray[np.float64],
    found: _Numbered,
    ranges: Sequence[AreaRange],
) -> _Evaluated:
    from hotcoco import COCO, COCOeval

    _refuse_fork()
    images = [{"id": number} for number in range(1, len(ground_truth.image_ids) + 1)]
    categories = [{"id": number, "name": str(number)} for number in range(1, len(ground_truth.categories) + 1)]
    gt = COCO.from_arrays(
        images, categories, annotated.images, annotated.categories, ground_truth.bboxes,
        area=ground_truth.areas, iscrowd=ground_truth.ignored.astype(np.int64),
    )  # fmt: skip
    evaluator = COCOeval(gt, gt.load_res(np.column_stack([found.images, detections[:, 1:6], found.categories])), "bbox")
    # Of equal ranges hotcoco fills in the last one alone.
    distinct = list(dict.fromkeys(ranges))
    evaluator.params.areaRng = [list(area_range) for area_range in distinct]
    evaluator.params.areaRngLbl = [str(area_range) for area_range in distinct]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="hotcoco: area range bounds differ")
        evaluator.evaluate()
    evaluator.accumulate()
    arrays: Any = evaluator.eval
    place = [distinct.index(area_range) for area_range in ranges]
    return arrays["precision"][:, :, :, place], arrays["recall"][:, :, place]


_used_in: set[int] = set()
"""The process that has used hotcoco, whose threads a fork of it lacks."""


def _refuse_fork() -> None:
    """Raise where hotcoco would wait forever for threads that its process's parent has started."""
    if _used_in - {os.getpid()}:
        raise RuntimeError(
            "hotcoco was used before this process was forked, and would now wait for threads that it lacks; score in "
            "the parent, in a process that is spawned, or by the engine pycocotools"
        )
    _used_in.add(os.getpid())


def _by_pycocotools(
    ground_truth: GroundTruth,
    annotated: _Numbered,
    detections: NDArray[np.float64],
    found: _Numbered,
    ranges: Sequence[AreaRange],
) -> _Evaluated:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def dataset(boxes: _Numbered, **columns: NDArray[Any]) -> COCO:
        keys, numbers = ("id", "image_id", "category_id", *columns), range(1, len(boxes.images) + 1)
        values = zip(numbers, *(c.tolist() for c in (boxes.images, boxes.categories, *columns.values())), strict=True)
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(1, len(ground_truth.image_ids) + 1)],
            "categories": [{"id": number} for number in range(1, len(ground_truth.categories) + 1)],
            "annotations": [dict(zip(keys, record, strict=True)) for record in values],
        }
        coco.createIndex()
        return coco

    with np.errstate(over="ignore"):
        areas = detections[:, 3] * detections[:, 4]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = dataset(
            annotated, bbox=ground_truth.bboxes, area=ground_truth.areas, iscrowd=ground_truth.ignored.astype(np.int64)
        )
        results = dataset(
            found, bbox=detections[:, 1:5], area=areas, score=detections[:, 5], iscrowd=np.zeros(len(detections), int)
        )
        evaluator = COCOeval(gt, results, "bbox")
        evaluator.params.areaRng = [list(area_range) for area_range in ranges]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def _summary(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the twelve numbers as `COCOeval.summarize` takes them from its arrays: means without the entries of -1."""
    everything, small, medium, large = range(4)
    parts = [
        precision[..., everything, -1],
        precision[0, ..., everything, -1],
        precision[5, ..., everything, -1],
        *(precision[..., area, -1] for area in (small, medium, large)),
        *(recall[..., everything, limit] for limit in range(3)),
        *(recall[..., area, -1] for area in (small, medium, large)),
    ]
    defined = [part[part > -1] for part in parts]
    return {name: 100 * float(part.mean()) if part.size else None for name, part in zip(METRICS, defined, strict=True)}
