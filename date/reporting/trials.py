"""How many seeds would resolve a claim: the power of its comparisons, together, if each training had so many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from date.reporting.comparisons import Comparison
from date.reporting.crossed import PRIOR_WEIGHT, Fit
from date.reporting.panels import Panel
from date.reporting.statistics import Estimate, fewest, look_error, power, total_freedom

DRAWS = 4000
"""Of the comparisons of a claim together; the power is known to 0.6 points."""


@dataclass(frozen=True)
class Trial:
    """A comparison with so many seeds of each of its trainings, as the present variances say it would come out."""

    comparison: Comparison
    estimate: Estimate
    distance: float
    """Of the true difference from the margin, as assumed."""

    def moments(self, seeds: int, is_paper: bool) -> tuple[float, float]:
        """Return variance and degrees of freedom of the difference, over equal seeds of all trainings."""
        return moments(self.comparison, lambda _: seeds, self.images(is_paper))

    def images(self, is_paper: bool) -> float:
        """Return the images' part of the variance that decides."""
        return 0.0 if is_paper else (self.estimate.image_error or 0.0) ** 2

    def power(self, seeds: int, is_paper: bool, parts: int = 1) -> float:
        """Return how likely the difference is resolved, on its side of the margin, by a look at so many seeds."""
        variance, freedom = self.moments(seeds, is_paper)
        if variance <= 0 or freedom <= 0 or self.distance == 0:
            return 0.0
        return power(self.distance, variance, freedom, look_error(seeds, parts))


def moments(
    comparison: Comparison,
    seeds_of: Callable[[str], int],
    images: float,
    lenders: Callable[[str], int] | None = None,
) -> tuple[float, float]:
    """Return variance and degrees of freedom of a difference of means over so many seeds, from 0 on, of each training.

    Args:
        comparison: whose panels tell the variances.
        seeds_of: the seeds of a training (or evaluation).
        images: their part of the variance.
        lenders: the seeds of a training that is not compared, whose spread is lent; by default those that are there.
    """
    variance, error = 0.0, 0.0
    for each, signs in comparison.parts:
        found = each.fit
        factors = np.array([signs.get(name, 0.0) for name in found.columns])
        counts = np.array([seeds_of(name) if name in signs else 1 for name in found.columns])
        own = np.where(factors != 0, factors**2 * np.nan_to_num(found.variances) / counts, 0.0)
        seed = np.arange(int(counts[factors != 0].max(initial=1)))
        weights = ((seed[:, None] < counts) * (factors / counts)).sum(axis=1)
        together = found.shared * float((weights**2).sum())
        lent = None if lenders is None else np.array([lenders(name) for name in found.columns])
        later = _with_seeds(found, factors, counts, lent)
        part = float(own.sum()) + together
        variance += part
        error += part**2 / max(later.freedom(own, together), 1e-9)
    freedom = variance**2 / error if error > 0 else 0.0
    return variance + images, total_freedom(variance, freedom, images) if variance > 0 and freedom > 0 else freedom


def _with_seeds(
    found: Fit, factors: NDArray[np.float64], counts: NDArray[np.int64], lent: NDArray[np.int64] | None
) -> Fit:
    """Return the fit with the residuals' degrees of freedom that so many seeds of the chosen trainings would have."""
    lost = 1 / len(found.columns) if found.shared > 0 else 0.0
    others_own = found.own if lent is None else np.maximum(lent - 1, 0) * (1 - lost)
    own = np.where(factors != 0, (counts - 1) * (1 - lost), others_own)
    others = np.maximum(own.sum() - own, 0.0)
    weight = np.where(others > 1e-9, 1 / (1 / PRIOR_WEIGHT + 1 / np.maximum(others, 1e-9)), 0.0)
    weight = np.where(found.stated, PRIOR_WEIGHT, weight)
    freedom = max(found.shared_freedom, int(counts.max()) - 1) if found.shared_freedom else 0
    return replace(found, own=own, weight=weight, shared_freedom=freedom)


def trials(parts: Sequence[tuple[Comparison, Estimate | None]], is_paper: bool) -> list[Trial]:
    """Return the comparisons of a claim; the true differences are taken to be the paper's at its tier, else ours."""
    found = []
    for c, e in parts:
        if e is None or e.error is None:
            return []
        truth = c.paper if is_paper and c.paper is not None else e.mean
        found.append(Trial(c, e, truth - c.margin))
    return found


def resolution_power(found: Sequence[Trial], seeds: int, is_paper: bool) -> float:
    """Return how likely so many seeds of each training resolve a claim: all comparisons, or one that contradicts."""
    against = [trial.power(seeds, is_paper, len(found)) for trial in found if trial.distance < 0]
    if against:
        return max(against)
    if len(found) == 1:
        return found[0].power(seeds, is_paper)
    return _joint_power(found, seeds, is_paper)


def _joint_power(found: Sequence[Trial], seeds: int, is_paper: bool) -> float:
    """Return how likely all comparisons are resolved, by draws of their differences, which share trainings."""
    moments = [trial.moments(seeds, is_paper) for trial in found]
    if any(variance <= 0 or freedom <= 0 for variance, freedom in moments):
        return 0.0
    errors = np.sqrt([variance for variance, _ in moments])
    correlation = np.array([[_correlation(a, b, seeds, is_paper) for b in found] for a in found])
    values, vectors = np.linalg.eigh(correlation)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((DRAWS, len(found))) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    resolved = np.ones(DRAWS, dtype=bool)
    for k, (trial, (_, freedom)) in enumerate(zip(found, moments, strict=True)):
        spread = np.sqrt(rng.chisquare(freedom, DRAWS) / freedom)
        limit = float(stdtrit(freedom, 1 - look_error(seeds) / 2))
        resolved &= trial.distance / errors[k] + normal[:, k] > limit * spread
    return float(resolved.mean())


def _correlation(one: Trial, other: Trial, seeds: int, is_paper: bool) -> float:
    """Return the correlation of two differences: by the trainings that both have."""
    if one is other:
        return 1.0
    shared = 0.0
    for each, signs in one.comparison.parts:
        for panel, others in other.comparison.parts:
            if panel is each:
                variances = dict(zip(each.fit.columns, np.nan_to_num(each.fit.variances), strict=True))
                shared += sum(signs[n] * others[n] * variances[n] for n in signs.keys() & others.keys()) / seeds
    whole = math.sqrt(one.moments(seeds, is_paper)[0] * other.moments(seeds, is_paper)[0])
    return shared / whole if whole > 0 else 0.0


def seeds_needed(found: Sequence[Trial], is_paper: bool) -> int | None:
    """Return the fewest seeds of each training that resolve a claim with 80 % power; None where a thousand don't."""
    if not found:
        return None
    first = 1 if all(trial.comparison.stated for trial in found) else 2
    parts = [part for trial in found for part in trial.comparison.parts]
    claimed = {name for _, signs in parts for name in signs}
    if any(each.fit.shared > 0 and not _others_tell(each, claimed) for each, _ in parts):
        first = max(first, 3)  # from two seeds nobody can say that runs go together
    return fewest(lambda seeds: resolution_power(found, seeds, is_paper), first)


def _others_tell(each: Panel, claimed: set[str]) -> bool:
    """Return whether two trainings that a claim leaves alone have three seeds, which tell whether runs go together."""
    others = [set(seeds) for name, seeds in each.cells.items() if name not in claimed]
    return any(len(a & b) >= 3 for a, b in itertools.combinations(others, 2))


def seeds_to_resolve(parts: Sequence[tuple[Comparison, Estimate | None]], is_paper: bool) -> str:
    """Return how many seeds a claim would take, in words."""
    found = trials(parts, is_paper)
    if not found:
        return "at least two seeds a side are needed before it can be said how many would resolve it"
    needed = seeds_needed(found, is_paper)
    theirs = is_paper and any(trial.comparison.paper is not None for trial in found)
    whose = "the paper's differences are" if theirs else "our differences are"
    if needed is None:
        return f"no feasible number of seeds would resolve it, if {whose} the true ones"
    each = f"{needed} seeds of each training" if needed > 1 else "one seed of each training"
    return f"{each} would resolve it with 80 % power, if {whose} the true ones"
