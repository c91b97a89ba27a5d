"""COCO's twelve numbers from arrays of detections.

Judged as by pycocotools, which the default engine, faster-coco-eval, is tested against. Both get annotations and
detections in the same plain form, which leaves no room for what is known to differ or to go wrong in them: numbers from
1 in place of the file's annotation ids (an annotation with the id 0 counts as not found in both, and of two with one id
the first is lost), ``iscrowd`` always there (pycocotools fails without it) and the only reason to ignore an annotation,
the box's area where the file has none, and finite numbers only (the two treat NaN differently). Detections of
categories that are not annotated count nowhere. Equal scores keep their order: images by ascending id, then the order
of the input.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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

Engine = Literal["faster-coco-eval", "pycocotools"]


def coco_metrics(
    ground_truth: GroundTruth | Path,
    detections: NDArray[np.float64],
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
    engine: Engine = "faster-coco-eval",
) -> dict[str, float | None]:
    """Return COCO's twelve box metrics in percent; None where no object falls in the range.

    Args:
        ground_truth: annotations, or their file.
        detections: (D, 7) with `DETECTION_COLUMNS`, of images of the annotations.
        area_thresholds: square roots of the areas that part small, medium and large; COCO's by default.
        engine: faster-coco-eval, or pycocotools, the reference that it is tested against.
    """
    if isinstance(ground_truth, Path):
        ground_truth = read_ground_truth(ground_truth)
    coco_class, evaluator_class = _engine(engine)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = _coco(coco_class, ground_truth, _annotation_records(ground_truth))
        evaluator = evaluator_class(gt, _coco(coco_class, ground_truth, _detection_records(detections)), "bbox")
        small, medium = area_thresholds
        everything = 1e5**2
        evaluator.params.areaRng = [[0, everything], [0, small**2], [small**2, medium**2], [medium**2, everything]]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {
        name: None if value < 0 else 100 * float(value)
        for name, value in zip(METRICS, evaluator.stats[: len(METRICS)], strict=True)
    }


def beyond_limit(detections: NDArray[np.float64]) -> int:
    """Return how many detections are not judged for being after the best `MAX_DETECTIONS` of an image and category."""
    _, counts = np.unique(detections[:, [0, 6]], axis=0, return_counts=True)
    return int(np.maximum(counts - MAX_DETECTIONS, 0).sum())


def _coco(coco_class: Any, ground_truth: GroundTruth, records: list[dict[str, Any]]) -> Any:
    coco = coco_class()
    coco.dataset = {
        "info": {},
        "images": [{"id": image_id} for image_id in ground_truth.image_ids],
        "categories": [{"id": category, "name": name} for category, name in ground_truth.categories.items()],
        "annotations": records,
    }
    coco.createIndex()
    return coco


def _annotation_records(ground_truth: GroundTruth) -> list[dict[str, Any]]:
    image_ids = np.array(ground_truth.image_ids, dtype=np.int64)[ground_truth.image]
    columns = (image_ids, ground_truth.category_ids, ground_truth.bboxes, ground_truth.areas, ground_truth.ignored)
    return [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for i, (image, category, box, area, crowd) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
    ]


def _detection_records(detections: NDArray[np.float64]) -> list[dict[str, Any]]:
    with np.errstate(over="ignore"):
        areas = detections[:, 3] * detections[:, 4]
    image_ids, category_ids = (detections[:, column].astype(np.int64) for column in (0, 6))
    columns = (image_ids, category_ids, detections[:, 1:5], areas, detections[:, 5])
    return [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for i, (image, category, box, area, score) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
    ]


def _engine(engine: Engine) -> tuple[Any, Any]:
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster

    return FasterCOCO, COCOeval_faster
