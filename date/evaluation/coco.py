"""COCO's twelve numbers from arrays of detections."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Names of the twelve, in COCO's order."""

DETECTION_COLUMNS = ("image_id", "x", "y", "width", "height", "score", "category_id")
"""Columns of a detection array; boxes in pixels of the original image."""

Engine = Literal["faster-coco-eval", "pycocotools"]


def coco_metrics(
    ground_truth: Path,
    detections: NDArray[np.float64],
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
    engine: Engine = "faster-coco-eval",
) -> dict[str, float | None]:
    """Return COCO's twelve box metrics in percent; None where no object falls in the range.

    Args:
        ground_truth: a COCO annotation file.
        detections: (D, 7) with `DETECTION_COLUMNS`.
        area_thresholds: square roots of the areas that part small, medium and large; COCO's by default.
        engine: faster-coco-eval, or pycocotools, the reference that it is tested against.
    """
    coco_class, evaluator_class = _engine(engine)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = (
            coco_class(str(ground_truth))
            if engine == "pycocotools"
            else coco_class(json.loads(ground_truth.read_text()))
        )
        gt.dataset.setdefault("info", {})
        evaluator = evaluator_class(gt, _results(coco_class, gt, detections), "bbox")
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


def _results(coco_class: Any, gt: Any, detections: NDArray[np.float64]) -> Any:
    if len(detections):
        return gt.loadRes(np.asarray(detections, dtype=np.float64))
    # Neither library's loadRes takes an empty list.
    empty = coco_class()
    empty.dataset = {"images": gt.dataset["images"], "categories": gt.dataset["categories"], "annotations": []}
    empty.createIndex()
    return empty


def _engine(engine: Engine) -> tuple[Any, Any]:
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster

    return FasterCOCO, COCOeval_faster
