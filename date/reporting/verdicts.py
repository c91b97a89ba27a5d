"""Verdicts on single numbers: does ours reproduce the paper's, which is one run?

At the paper's tier alone; with d our mean minus the paper's number, and h how far one further run may lie from our mean
(95 % prediction interval by the spread over our seeds, moderated as in `date.reporting.crossed`):

- REPRODUCED: equal at the paper's digits; or |d| <= h, where h is no wider than the column's bound.
- WITHIN NOISE: |d| is at most the field's stated noise.
- DIFFERS: |d| is above the stated noise and above h.
- UNRESOLVED: everything else, with the seeds that would decide it with 80 % power.

A wide interval holds any number and reproduces none. Hence the bound of a column: with stated noise, what two runs may
lie apart by it; else what ``paper.yaml`` names with its source. A column without a bound is never REPRODUCED but by
equality. Numbers without chance, such as parameters, are REPRODUCED or differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import chdtr, nctdtr, ndtri, stdtrit

from date.catalogue import Metric
from date.reporting.crossed import PRIOR_WEIGHT
from date.reporting.scores import Sample
from date.reporting.statistics import LEVEL, MOST_SEEDS, POWER, prediction_half_width

REPRODUCED, WITHIN_NOISE, DIFFERS, UNRESOLVED = "REPRODUCED", "WITHIN NOISE", "DIFFERS", "UNRESOLVED"
ROUNDING = 1e-9


@dataclass(frozen=True)
class Spread:
    """How far runs of a training lie apart, as far as it is known."""

    sd: float
    """Of one run."""
    freedom: float
    """With which it is known."""


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


def bound_of(noise: float | None, bound: float | None) -> float | None:
    """Return the widest half of an interval that can reproduce a number: with stated noise 1.96 * sqrt(2) of a run.

    Args:
        noise: the field's stated noise, two standard deviations of a run.
        bound: what the catalogue names for a column without stated noise.
    """
    return bound if noise is None else float(ndtri(0.5 + LEVEL / 2)) * math.sqrt(2) * noise / 2


def number_verdict(
    sample: Sample,
    paper: float | None,
    metric: Metric,
    noise: float | None = None,
    bound: float | None = None,
    spread: Spread | None = None,
) -> NumberVerdict | None:
    """Return the verdict on a number of the paper, None where either is missing.

    Args:
        sample: ours, over the seeds.
        paper: the paper's number.
        metric: its column.
        noise: how much two runs are stated to differ in the column, None where nobody states it.
        bound: of a column without stated noise, see `bound_of`.
        spread: of the runs; None where nothing tells it.
    """
    if paper is None or sample.mean is None:
        return None
    if metric.printed(sample.mean) == paper:
        return NumberVerdict(REPRODUCED)
    if sample.exact or metric.kind == "complexity":
        return NumberVerdict(DIFFERS)
    distance, widest = abs(sample.mean - paper), bound_of(noise, bound)
    if spread is None or spread.freedom <= 0:
        within = noise is not None and distance <= noise + ROUNDING
        return NumberVerdict(WITHIN_NOISE) if within else NumberVerdict(UNRESOLVED, 2 if sample.n < 2 else None)
    half = prediction_half_width(spread.sd, sample.n, spread.freedom)
    if distance <= half + ROUNDING and widest is not None and half <= widest + ROUNDING:
        return NumberVerdict(REPRODUCED)
    if noise is not None and distance <= noise + ROUNDING:
        return NumberVerdict(WITHIN_NOISE)
    if distance > half + ROUNDING:
        return NumberVerdict(DIFFERS)
    return NumberVerdict(UNRESOLVED, seeds_to_tell(distance, spread, sample.n, widest, noise is not None))


def seeds_to_tell(
    distance: float, spread: Spread, n: int, widest: float | None = None, stated: bool = False
) -> int | None:
    """Return the fewest seeds, more than n, that decide about a number with 80 % power; None where a thousand don't.

    Args:
        distance: of our true mean from the paper's number.
        spread: of runs, as known from n.
        n: seeds that are there.
        widest: see `bound_of`.
        stated: the field states the noise, so that the spread is known better from the start.
    """
    for count in range(n + 1, MOST_SEEDS + 1):
        freedom = max(count - 1 + (PRIOR_WEIGHT if stated else 0.0), spread.freedom)
        quantile = float(stdtrit(freedom, 0.5 + LEVEL / 2))
        away = distance / spread.sd * math.sqrt(count)
        inside = float(nctdtr(freedom, away, quantile * math.sqrt(count + 1)))
        narrow = 0.0
        if widest is not None:
            ratio = widest / (quantile * spread.sd * math.sqrt(1 + 1 / count))
            narrow = float(chdtr(freedom, freedom * ratio**2))
        if 1 - inside >= POWER or min(inside, narrow) >= POWER:
            return count
    return None
