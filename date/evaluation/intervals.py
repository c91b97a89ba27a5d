"""95 % intervals of a file's numbers, and of the paired differences of two files, for images like these.

Both files are judged on the same resamples of the images, see `date.evaluation.resamples`: what makes one set of images
easier than another cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS
from date.evaluation.resamples import Interval, interval, resampled_metrics
from date.evaluation.score import Protocol, Score

Intervals = dict[str, Interval | None]
"""By metric; None where it, or its spread, is undefined."""


def score_intervals(
    protocol: Protocol,
    scored: Score,
    other: Score | None = None,
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
) -> tuple[Intervals, Intervals | None]:
    """Return the intervals of a file's metrics and, with another file, of its differences from that one.

    Args:
        protocol: by which both were scored.
        scored: the file.
        other: another file, scored against the same annotations.
        area_thresholds: of COCO's metrics, as they were scored.
    """
    values = _resampled(protocol, scored, area_thresholds)
    own = {name: interval(value, values[name]) for name, value in scored.metrics.items()}
    if other is None:
        return own, None
    others = _resampled(protocol, other, area_thresholds)
    differences: Intervals = {}
    for name, value in scored.metrics.items():
        less = other.metrics[name]
        apart = None if value is None or less is None else value - less
        differences[name] = interval(apart, values[name] - others[name])
    return own, differences


def _resampled(
    protocol: Protocol, scored: Score, area_thresholds: Sequence[float]
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    return resampled_metrics(protocol, scored.ground_truth, scored.rows, scored.metrics.keys(), area_thresholds)
