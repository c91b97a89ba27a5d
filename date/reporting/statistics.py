"""Intervals, p-values and powers of verdicts that may be looked at after every seed.

Whoever adds seeds until a claim is resolved looks several times; "three seeds, five if unresolved" at a nominal 5 %
each has 8.6 % false verdicts. So a look costs: the 5 % are spent on the looks, most of them from three to eight seeds a
side, where runs are bought, little on two, and less and less on more than eight (levels of a repeated significance
test, Armitage, McPherson and Rowe, *J. R. Stat. Soc. A* 132, 1969; spent unequally, Lan and DeMets, *Biometrika* 70,
1983). Then a true difference of zero is called otherwise at any of a hundred looks, one after each seed, with a
probability below 5 % (simulated in `benchmarks/verdicts.py`). These intervals are called 95 % intervals at every look.

`scipy.special` has the distributions and is imported in a tenth of the time of `scipy.stats`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.special import nctdtr, stdtr, stdtrit, zeta

from date.reporting.crossed import Difference

LEVEL, POWER = 0.95, 0.80
"""Of all looks together, and of the seeds that a difference takes."""
LOOKS = (0.010, 0.003, 0.012, 0.014, 0.014, 0.012, 0.010, 0.008)
"""Two-sided errors of a look with 1, 2, 3 ... 8 seeds a side; one seed is judged where the field states the noise."""
FALL = 3
"""With more seeds a look's error falls with this power of their number."""
SPENT = sum(LOOKS) + LOOKS[-1] * len(LOOKS) ** FALL * float(zeta(FALL, len(LOOKS) + 1))
"""Of all looks: more than 5 %, as they share their runs."""
GROWTH = 0.2
"""By which looks share less the further out they are, for each power of ten of a p-value."""
MOST_SEEDS = 1000
"""More than these are no answer."""
RESAMPLING_FREEDOM = 199.0
"""Of a variance over 200 resamples."""


def look_error(seeds: int, parts: int = 1) -> float:
    """Return the two-sided error of one look, with so many seeds on the larger side, as one of several parts."""
    late = max(seeds, 1) - len(LOOKS)
    error = LOOKS[max(seeds, 1) - 1] if late <= 0 else LOOKS[-1] * (len(LOOKS) / seeds) ** FALL
    return error / parts


def every_look(p: float, seeds: int) -> float:
    """Return the p-value that holds at every look, from a look's own: 0.05 where that is the look's error.

    For smaller ones all looks' errors are thought of as smaller by the same share. That any look's p-value is below
    that share of its error has at most `SPENT` times the share's probability (Bonferroni). As looks share their runs it
    is less, by simulation 0.05 times, and a fifth more for each power of ten.
    """
    share = p / look_error(seeds)
    if share >= 1:
        return min(1.0, (1 - LEVEL) * share)
    together = SPENT if p <= 0 else min(SPENT, (1 - LEVEL) * (1 - GROWTH * math.log10(share)))
    return share * together


@dataclass(frozen=True)
class Estimate:
    """A difference with its uncertainty."""

    seeds: tuple[int, ...]
    """Runs of each training, in the order of the comparison."""
    mean: float
    error: float | None
    """Its standard error; None where no spread is known."""
    freedom: float
    low: float | None
    high: float | None
    """Of the 95 % interval at every look; None where no spread is known."""
    p: float | None
    """Two-sided, of the margin, at every look."""
    seed_error: float | None = None
    """The part of the error that is of seeds."""
    image_error: float | None = None
    """The part of the error that is of images; None where the interval is about the seeds alone."""
    noise: str = "observed"
    """What the variance rests on: ``observed``, or ``stated`` where the field's stated noise moderates it."""


def estimate(
    found: Difference,
    seeds: Sequence[int],
    margin: float = 0.0,
    image_variance: float | None = None,
    noise: str = "observed",
    parts: int = 1,
) -> Estimate:
    """Return the interval of a difference.

    Args:
        found: over seeds.
        seeds: runs of each training.
        margin: the difference under the null hypothesis.
        image_variance: what the images add to the variance; None to leave them out.
        noise: see `Estimate`.
        parts: the error is divided by so many.
    """
    counts, most = tuple(seeds), max(seeds, default=0)
    if found.variance is None:
        return Estimate(counts, found.mean, None, 0.0, None, None, None, noise=noise)
    images = image_variance or 0.0
    variance = found.variance + images
    freedom = total_freedom(found.variance, found.freedom, images)
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 1 - look_error(most, parts) / 2)) * error
    p = every_look(2 * float(stdtr(freedom, -abs(found.mean - margin) / error)), most)
    return Estimate(
        counts,
        found.mean,
        error,
        freedom,
        found.mean - half,
        found.mean + half,
        p,
        math.sqrt(found.variance),
        None if image_variance is None else math.sqrt(images),
        noise,
    )


def total_freedom(variance: float, freedom: float, images: float) -> float:
    """Return Satterthwaite's degrees of freedom of seeds and images together."""
    return (variance + images) ** 2 / (variance**2 / freedom + images**2 / RESAMPLING_FREEDOM)


def power(distance: float, variance: float, freedom: float, error: float) -> float:
    """Return how likely a difference off a margin is resolved on its side of it, by a two-sided t test."""
    return 1 - float(nctdtr(freedom, abs(distance) / math.sqrt(variance), float(stdtrit(freedom, 1 - error / 2))))


def fewest(reaches: Callable[[int], float], first: int = 2) -> int | None:
    """Return the fewest seeds whose power reaches 80 %; None where a thousand don't. Power has to rise with seeds."""
    low, high = first - 1, first
    while reaches(high) < POWER:
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) >= POWER else (middle, high)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's method (*Scand. J. Stat.* 6, 1979), in the same order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def prediction_half_width(sd: float, n: int, freedom: float) -> float:
    """Return how far one further run may lie from the mean of n, with 95 %.

    Args:
        sd: of one run.
        n: number of runs in the mean.
        freedom: with which the deviation is known; infinite for a known one.
    """
    quantile = float(stdtrit(freedom if math.isfinite(freedom) else 1e12, 0.5 + LEVEL / 2))
    return quantile * sd * math.sqrt(1 + 1 / n)
