"""95 % intervals of a file's numbers, and of the paired differences of two files, for images like these.

Both files are judged on the same resamples of the images, see `date.evaluation.resamples`: what makes one set of images
easier than another cancels in their difference.
"""

from __future__ import annotations

from date.evaluation.resamples import Interval, interval
from date.evaluation.score import Score

Intervals = dict[str, Interval | None]
"""By metric; None where it, or its spread, is undefined."""


def score_intervals(scored: Score, other: Score | None = None) -> tuple[Intervals, Intervals | None]:
    """Return the intervals of a file's metrics and, with another file, of its differences from that one.

    Args:
        scored: the file, with resamples.
        other: another file, scored by the same protocol against the same annotations, with resamples.
    """
    if scored.resampled is None or (other is not None and other.resampled is None):
        raise ValueError("intervals are found from resamples; score the files with resamples=True")
    values = scored.resampled
    own = {name: interval(value, values[name]) for name, value in scored.metrics.items()}
    if other is None or other.resampled is None:
        return own, None
    differences: Intervals = {}
    for name, value in scored.metrics.items():
        less = other.metrics[name]
        apart = None if value is None or less is None else value - less
        differences[name] = interval(apart, values[name] - other.resampled[name])
    return own, differences
