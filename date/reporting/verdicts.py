"""Verdicts on single numbers: does ours reproduce the paper's, which is one run?

At the paper's tier alone; with d our mean minus the paper's number, and h how far one further run may lie from our mean
(95 % prediction interval by the spread over our seeds):

- REPRODUCED: equal at the paper's digits; or |d| <= h, where h is no wider than one seed's with the stated noise.
- WITHIN NOISE: |d| is at most the field's stated noise.
- DIFFERS: |d| is above the stated noise and above h; with one seed h is that of the stated noise.
- UNRESOLVED: everything else, with the seeds after which so large a difference would be outside the interval.

Numbers without chance, such as parameters, are REPRODUCED or differ. Of columns whose noise nobody states, one seed
decides nothing but equality.
"""

from __future__ import annotations

from dataclasses import dataclass

from date.catalogue import Metric
from date.reporting.scores import Sample
from date.reporting.statistics import MOST_SEEDS, prediction_half_width

REPRODUCED, WITHIN_NOISE, DIFFERS, UNRESOLVED = "REPRODUCED", "WITHIN NOISE", "DIFFERS", "UNRESOLVED"
ROUNDING = 1e-9


@dataclass(frozen=True)
class NumberVerdict:
    """A verdict on one of the paper's numbers."""

    word: str
    seeds: int | None = None
    """Of UNRESOLVED: the seeds that it would take; None where no number of seeds does, the paper's being one run."""

    @property
    def text(self) -> str:
        """The word, and the seeds of what is unresolved, e.g. ``UNRESOLVED (5 seeds)``."""
        return self.word if self.seeds is None else f"{self.word} ({self.seeds} seeds)"


def number_verdict(
    sample: Sample, paper: float | None, metric: Metric, noise: float | None = None
) -> NumberVerdict | None:
    """Return the verdict on a number of the paper, None where either is missing.

    Args:
        sample: ours, over the seeds.
        paper: the paper's number.
        metric: its column.
        noise: how much two runs are stated to differ in the column, None where nobody states it.
    """
    if paper is None or sample.mean is None:
        return None
    if metric.printed(sample.mean) == paper:
        return NumberVerdict(REPRODUCED)
    if sample.exact or metric.kind == "complexity":
        return NumberVerdict(DIFFERS)
    stated_sd = None if noise is None else noise / 2
    distance = abs(sample.mean - paper)
    if noise is None and sample.sd is None:
        return NumberVerdict(UNRESOLVED, 2)
    stated_half = None if stated_sd is None else prediction_half_width(stated_sd, 1, stated=True)
    half = stated_half if sample.sd is None else prediction_half_width(sample.sd, sample.n)
    assert half is not None
    telling = stated_half is None or half <= stated_half + ROUNDING
    if sample.sd is not None and distance <= half + ROUNDING and telling:
        return NumberVerdict(REPRODUCED)
    if noise is not None and distance <= noise + ROUNDING:
        return NumberVerdict(WITHIN_NOISE)
    if distance > half + ROUNDING:
        return NumberVerdict(DIFFERS)
    sd = stated_sd if sample.sd is None else sample.sd
    assert sd is not None
    return NumberVerdict(UNRESOLVED, seeds_to_tell(distance, sd, sample.n))


def seeds_to_tell(distance: float, sd: float, n: int) -> int | None:
    """Return the fewest seeds, more than n, after which a further run at this distance lies outside the interval."""
    larger = range(n + 1, MOST_SEEDS + 1)
    return next((count for count in larger if prediction_half_width(sd, count) < distance), None)
