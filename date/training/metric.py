"""COCO metrics inside MMEngine's validation loop, by the project's own evaluator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from date.evaluation.coco import coco_metrics


@METRICS.register_module()
class CocoDetectionMetric(BaseMetric):
    """AP and its companions of the model's default inference.

    Args:
        ann_file: COCO annotations of the validation images.
        area_thresholds: see `date.evaluation.coco.coco_metrics`.
        kwargs: of MMEngine's `BaseMetric`.
    """

    default_prefix = "coco"

    def __init__(self, ann_file: str, area_thresholds: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ann_file = Path(ann_file)
        self.area_thresholds = area_thresholds
        self.category_ids: list[int] = []

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """The dataset's meta information, which MMEngine sets."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any]) -> None:
        self._dataset_meta = meta
        self.category_ids = category_ids(self.ann_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the detections of a batch as arrays."""
        for sample in data_samples:
            found = sample["pred_instances"]
            self.results.append(
                detection_rows(
                    sample["img_id"],
                    found["bboxes"].cpu().numpy(),
                    found["scores"].cpu().numpy(),
                    found["labels"].cpu().numpy(),
                    self.category_ids,
                )
            )

    def compute_metrics(self, results: list[NDArray[np.float64]]) -> dict[str, float]:
        """Return the twelve numbers in percent, NaN where no object falls in the range."""
        metrics = coco_metrics(self.ann_file, np.concatenate(results), self.area_thresholds)
        return {name: float("nan") if value is None else value for name, value in metrics.items()}


def category_ids(ann_file: Path) -> list[int]:
    """Return an annotation file's category ids in the order of the network's outputs."""
    return [category["id"] for category in json.loads(ann_file.read_text())["categories"]]


def detection_rows(
    image_id: int,
    bboxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    ids: Sequence[int],
) -> NDArray[np.float64]:
    """Return an image's detections as (K, 7) rows of `date.evaluation.coco.DETECTION_COLUMNS`.

    Args:
        image_id: of the annotation file.
        bboxes: (K, 4) xyxy in pixels of the original image.
        scores: (K,).
        labels: (K,) indices of the network's outputs.
        ids: category id of each label.
    """
    rows = np.empty((len(scores), 7))
    rows[:, 0] = image_id
    rows[:, 1:3] = bboxes[:, :2]
    rows[:, 3:5] = bboxes[:, 2:] - bboxes[:, :2]
    rows[:, 5] = scores
    rows[:, 6] = np.asarray(ids)[labels] if len(labels) else 0
    return rows
