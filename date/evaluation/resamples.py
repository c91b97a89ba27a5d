"""How much a metric varies with the images: its values on common resamples of the validation images.

The resamples of a set of images are a function of their ids alone (the bootstrap of Efron, 1979, with images as units:
objects of one image go together). So the values of two networks, or of two seeds, pair by resample, and the report can
tell the noise of a difference from stored values, without detections or data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS
from date.evaluation.coco import METRICS as COCO_METRICS
from date.evaluation.coco_resamples import coco_resamples
from date.evaluation.crowdhuman import METRICS as CROWD_METRICS
from date.evaluation.crowdhuman import Ranked, ranked
from date.evaluation.crowdhuman_resamples import crowdhuman_resamples
from date.evaluation.ground_truth import GroundTruth
from date.evaluation.stored import UNDEFINED

RESAMPLES = 200
"""A deviation over so many is known to 5 %."""
STORED = {"coco": ("AP", "AP50"), "crowdhuman": ("AP", "mMR", "Recall")}
"""Metrics by protocol whose values on the resamples an evaluation keeps."""
DIGITS = 3
"""Decimals of stored values, in percent: a hundredth of the smallest deviation that occurs, or less."""
LEVEL = 0.95


def resample_weights(image_ids: Sequence[int], count: int = RESAMPLES) -> NDArray[np.uint16]:
    """Return how often each resample has each image, (count, I), in the order of the ids.

    The draws come from PCG64's raw 64-bit numbers, which NumPy keeps the same in all versions, seeded by a digest of
    the sorted ids.
    """
    ids = np.array(image_ids, dtype=np.int64)
    seed = int.from_bytes(hashlib.sha256(_text(image_ids)).digest()[:16], "big")
    raw = np.random.PCG64(seed).random_raw(count * len(ids)).reshape(count, len(ids))
    drawn = ((raw >> np.uint64(11)) * (len(ids) / 2**53)).astype(np.int64)
    flat = np.bincount((drawn + np.arange(count)[:, None] * len(ids)).ravel(), minlength=count * len(ids))
    weights = np.empty((count, len(ids)), dtype=np.uint16)
    weights[:, np.argsort(ids, kind="stable")] = flat.reshape(count, len(ids))
    return weights


def _text(image_ids: Sequence[int]) -> bytes:
    return json.dumps(sorted(int(i) for i in image_ids), separators=(",", ":")).encode()


def images_digest(image_ids: Sequence[int]) -> str:
    """Return the digest of the ids: resamples of the same digest are the same."""
    return hashlib.sha256(_text(image_ids)).hexdigest()


def resampled_metrics(
    protocol: str,
    ground_truth: GroundTruth,
    detections: NDArray[np.float64],
    names: Collection[str],
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
    weights: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return metrics in percent on each resample, (R,); NaN where undefined.

    Args:
        protocol: ``coco`` or ``crowdhuman``.
        ground_truth: annotations; of one category for CrowdHuman's protocol.
        detections: (D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, of images of the annotations.
        names: of the metrics.
        area_thresholds: of COCO's metrics, see `date.evaluation.coco.coco_metrics`.
        weights: (R, I), by default those of `resample_weights`.
    """
    if protocol == "crowdhuman":
        return resampled_crowd(ground_truth, ranked(ground_truth, detections), names, weights)
    if weights is None:
        weights = resample_weights(ground_truth.image_ids)
    return coco_resamples(ground_truth, detections, weights, names, area_thresholds)


def resampled_crowd(
    ground_truth: GroundTruth,
    matched: Ranked,
    names: Collection[str] = CROWD_METRICS,
    weights: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return `resampled_metrics` of detections that CrowdHuman's protocol has matched."""
    if weights is None:
        weights = resample_weights(ground_truth.image_ids)
    return crowdhuman_resamples(ground_truth, matched, weights, names)


def whole_and_resampled(
    ground_truth: GroundTruth, detections: NDArray[np.float64], area_thresholds: Sequence[float]
) -> tuple[dict[str, float | None], dict[str, NDArray[np.float64]]]:
    """Return COCO's metrics on the images and on resamples of them, from one matching.

    The images as they are, each of them once, are one more resample. Its numbers are the engines', which match again.

    Args:
        ground_truth: annotations.
        detections: see `resampled_metrics`.
        area_thresholds: likewise.
    """
    weights = resample_weights(ground_truth.image_ids)
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    values = coco_resamples(ground_truth, detections, weights, COCO_METRICS, area_thresholds)
    whole = {name: None if np.isnan(each[0]) else float(each[0]) for name, each in values.items()}
    return whole, {name: each[1:] for name, each in values.items()}


def stored_resamples(
    protocol: str,
    ground_truth: GroundTruth,
    detections: NDArray[np.float64],
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
) -> dict[str, str]:
    """Return what an evaluation keeps of a variant: by metric of `STORED`, its values as text, about 1.3 kB each."""
    values = resampled_metrics(protocol, ground_truth, detections, STORED[protocol], area_thresholds)
    return {
        name: " ".join(UNDEFINED if math.isnan(v) else f"{v:.{DIGITS}f}" for v in row.tolist())
        for name, row in values.items()
    }


def resamples_head(image_ids: Sequence[int]) -> dict[str, Any]:
    """Return what an evaluation keeps of its resamples: their number, and of which images they are."""
    return {"count": RESAMPLES, "images_sha256": images_digest(image_ids)}


@dataclass(frozen=True)
class Interval:
    """A value with a 95 % interval for images like these."""

    value: float
    sd: float
    """Over the resamples."""
    low: float
    high: float


def interval(value: float | None, resampled: NDArray[np.float64]) -> Interval | None:
    """Return the normal interval with the deviation over the resamples; None where value or deviation is undefined.

    Its centre is the value on all images, not the mean of the resamples: those have fewer distinct images, which moves
    AP itself, of many categories with few objects by several deviations. So the interval is about sets of as many
    images as these. In the difference of two networks on the same images that shift largely cancels.
    """
    defined = resampled[~np.isnan(resampled)]
    if value is None or len(defined) < 2:
        return None
    sd = float(defined.std(ddof=1))
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * sd
    return Interval(value, sd, value - half, value + half)
