"""What a few seeds tell of a difference: intervals, p-values, and how many seeds a difference takes.

`scipy.special` has the distributions and is imported in a tenth of the time of `scipy.stats`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import nctdtr, ndtr, ndtri, stdtr, stdtrit

LEVEL, POWER = 0.95, 0.80
"""Of all intervals, and of the seeds that a difference takes."""
MOST_SEEDS = 1000
"""More than these are no answer."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its uncertainty."""

    n: int
    mean: float
    sd: float | None
    """Of one seed: observed (n - 1), or the stated noise; None where neither is known."""
    low: float | None
    high: float | None
    """Of the two-sided interval; None where no spread is known."""
    p: float | None
    """Two-sided, of the mean being the margin."""
    stated: bool = False
    """Whether the noise is a stated one and not observed."""


def estimate(
    values: Sequence[float], margin: float = 0.0, stated_sd: float | None = None, level: float = LEVEL
) -> Estimate:
    """Return mean, t interval and p-value of values, one per seed, against a margin.

    A single value has no spread: its interval is that of a normal distribution with the stated deviation, if any.

    Args:
        values: at least one.
        margin: the mean under the null hypothesis.
        stated_sd: deviation of one value that others have reported.
        level: of the interval.
    """
    n, mean = len(values), statistics.fmean(values)
    if n == 1 and stated_sd is None:
        return Estimate(1, mean, None, None, None, None)
    if n == 1:
        assert stated_sd is not None
        half = float(ndtri(0.5 + level / 2)) * stated_sd
        p = 2 * float(ndtr(-abs(mean - margin) / stated_sd))
        return Estimate(1, mean, stated_sd, mean - half, mean + half, p, stated=True)
    sd = statistics.stdev(values)
    error = sd / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
    if error > 0:
        p = 2 * float(stdtr(n - 1, -abs(mean - margin) / error))
    else:
        p = 1.0 if mean == margin else 0.0
    return Estimate(n, mean, sd, mean - half, mean + half, p)


def seeds_needed(distance: float, sd: float, stated: bool = False) -> int | None:
    """Return the fewest seeds that show a mean to lie off a margin with 80 % power, two-sided at 5 %.

    Args:
        distance: of the true mean from the margin.
        sd: of one seed's value; for a paired difference, of the difference.
        stated: the deviation is known, so that one seed can do; else it has to be estimated from two or more.

    Returns:
        None for a distance of zero, or one that takes more than a thousand seeds.
    """
    distance = abs(distance)
    if distance == 0:
        return None
    if sd == 0:
        return 1 if stated else 2
    if stated:
        n = math.ceil(((float(ndtri(0.5 + LEVEL / 2)) + float(ndtri(POWER))) * sd / distance) ** 2)
        return n if n <= MOST_SEEDS else None
    for n in range(2, MOST_SEEDS + 1):
        if power(distance, sd, n) >= POWER:
            return n
    return None


def power(distance: float, sd: float, n: int) -> float:
    """Return how likely n seeds show, by a two-sided t test at 5 %, on which side of the margin the mean lies."""
    shift = abs(distance) / sd * math.sqrt(n)
    return 1 - float(nctdtr(n - 1, shift, float(stdtrit(n - 1, 0.5 + LEVEL / 2))))


def prediction_half_width(sd: float, n: int, stated: bool = False) -> float:
    """Return how far one further run may lie from the mean of n, with the level of all intervals.

    Args:
        sd: of one run.
        n: number of runs in the mean.
        stated: the deviation is known and not estimated from these n.
    """
    quantile = ndtri(0.5 + LEVEL / 2) if stated else stdtrit(n - 1, 0.5 + LEVEL / 2)
    return float(quantile) * sd * math.sqrt(1 + 1 / n)
