"""Metrics inside MMEngine's validation loop, by the project's own evaluators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from date.evaluation.coco import coco_metrics
from date.evaluation.crowdhuman import crowdhuman_metrics
from date.evaluation.ground_truth import GroundTruth, read_ground_truth


class DetectionMetric(BaseMetric):
    """AP and its companions of the model's default inference, named as they are (``AP``), without a prefix.

    Args:
        ann_file: COCO annotations of the validation images.
        kwargs: of MMEngine's `BaseMetric`.
    """

    default_prefix = ""

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ann_file = Path(ann_file)
        self.category_ids: list[int] = []

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """Annotations of the validation images, read once."""
        return read_ground_truth(self.ann_file)

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

    def judge(self, detections: NDArray[np.float64]) -> dict[str, float | None]:
        """Return the protocol's metrics in percent, None where undefined."""
        raise NotImplementedError

    def compute_metrics(self, results: list[NDArray[np.float64]]) -> dict[str, float]:
        """Return the protocol's metrics in percent, NaN where undefined."""
        metrics = self.judge(np.concatenate(results))
        return {name: float("nan") if value is None else value for name, value in metrics.items()}


@METRICS.register_module()
class CocoDetectionMetric(DetectionMetric):
    """COCO's twelve numbers.

    Args:
        area_thresholds: see `date.evaluation.coco.coco_metrics`.
        kwargs: of `DetectionMetric`.
    """

    def __init__(self, area_thresholds: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.area_thresholds = area_thresholds

    def judge(self, detections: NDArray[np.float64]) -> dict[str, float | None]:
        """See `DetectionMetric`."""
        return coco_metrics(self.ground_truth, detections, self.area_thresholds)


@METRICS.register_module()
class CrowdHumanDetectionMetric(DetectionMetric):
    """CrowdHuman's AP (at IoU 0.5), mMR and Recall."""

    def judge(self, detections: NDArray[np.float64]) -> dict[str, float | None]:
        """See `DetectionMetric`."""
        return crowdhuman_metrics(self.ground_truth, detections)


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
