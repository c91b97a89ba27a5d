"""How likely more seeds resolve a claim, from what the results say of its trainings.

The mean of a training over n runs will move as more come: with a variance of sigma^2 known and nothing known beforehand
of the true mean, the mean over m > n runs is normal about the present one with the variance ``sigma^2 (1/n - 1/m)``.
From draws of the later means follow those of all comparisons of a claim, which share trainings, and whether each would
be resolved. How well the spread will be known depends on the seeds of all trainings of the schedule. If a training has
no run yet, a difference is taken to be normal with three deviations of a run; where every training has one, so that
nothing tells a spread, that is how far their scores are taken to lie apart.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from date.reporting.claims import Outcome
from date.reporting.comparisons import Comparison
from date.reporting.crossed import PRIOR_WEIGHT, Fit
from date.reporting.panels import Panel
from date.reporting.statistics import look_error
from date.reporting.trials import moments

DRAWS = 256
UNKNOWN = 3.0
"""Deviation of a true difference of which nothing is known, in deviations of a run."""

Counts = Mapping[str, int]
"""Seeds by training."""


@dataclass(frozen=True)
class OpenClaim:
    """A claim that is not resolved."""

    outcome: Outcome
    is_paper: bool
    groups: tuple[tuple[str, ...], ...] = ()
    """Of each data and schedule that its trainings are of, all trainings: their runs tell the spread together."""

    @property
    def name(self) -> str:
        """The name of the claim."""
        return self.outcome.claim.name

    @property
    def trainings(self) -> tuple[str, ...]:
        """The trainings whose runs the claim rests on."""
        return tuple(self.outcome.trainings)

    def lent(self, counts: Counts) -> tuple[int, ...]:
        """Return by how many residuals each group tells the spread."""
        return tuple(sum(max(counts.get(name, 0) - 1, 0) for name in group) for group in self.groups)

    @functools.cached_property
    def comparisons(self) -> list[Comparison | None]:
        """Those whose trainings all have runs, with spreads assumed where none is told; None for the others."""
        return [_assumed(part.comparison) for part in self.outcome.parts]

    def chance(self, present: Counts, later: Counts) -> float:
        """Return how likely so many seeds resolve the claim: support all of it, or contradict a part."""
        supported, contradicted = np.ones(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        for part, c in zip(self.outcome.parts, self.comparisons, strict=True):
            images = 0.0
            if part.estimate is not None and not self.is_paper:
                images = (part.estimate.image_error or 0.0) ** 2
            if c is not None:
                above, below = self._known(c, images, present, later)
            else:
                above, below = self._unknown(part.comparison, later)
            supported &= above
            contradicted |= below
        return float((supported | contradicted).mean())

    def _known(
        self, c: Comparison, images: float, present: Counts, later: Counts
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return by draw whether a comparison whose trainings have runs is supported, and contradicted."""

        def seeds_of(name: str) -> int:
            training = name.split("/")[0]
            here = next(len(each.cells[n]) for each, n in c.sides if n == name)
            return max(here + later[training] - present[training], 1)

        total = np.full(DRAWS, c.offset - c.margin)
        for each, signs in c.parts:
            for name, sign in signs.items():
                here = len(each.cells[name])
                moved = each.fit.variances[each.fit.columns.index(name)] * (1 / here - 1 / seeds_of(name))
                mean = sum(each.cells[name].values()) / here
                total += sign * (mean + np.sqrt(max(moved, 0.0)) * _normal(f"{name} {c.unit}"))
        counts = [seeds_of(name) for _, name in c.sides]
        if min(counts) < 2 and not c.stated:
            return np.zeros(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        variance, freedom = moments(c, seeds_of, images, lambda name: later.get(name.split("/")[0], 1))
        return self._resolved(total / np.sqrt(variance), freedom, max(counts))

    def _unknown(self, c: Comparison, later: Counts) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the same of a comparison of which nothing is known, in deviations of a run."""
        counts = [later[name] for name in self.trainings]
        if min(counts, default=0) < 2:
            return np.zeros(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        variance = sum(1 / n for n in counts)
        true = UNKNOWN * _normal(f"true {c.label}") + np.sqrt(variance) * _normal(f"mean {c.label}")
        names = tuple(dict.fromkeys([*self.trainings, *(name for group in self.groups for name in group)]))
        own = np.array([max(later.get(name, 0) - 1, 0) for name in names], dtype=np.float64)
        parts = np.array([1 / later[name] if name in self.trainings else 0.0 for name in names])
        return self._resolved(true / np.sqrt(variance), _equal_fit(names, own).freedom(parts, 0.0), max(counts))

    def _resolved(
        self, standardised: NDArray[np.float64], freedom: float, most: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if freedom <= 0:
            return np.zeros(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        limit = float(stdtrit(freedom, 1 - look_error(most) / 2))
        strict = float(stdtrit(freedom, 1 - look_error(most, len(self.outcome.parts)) / 2))
        return standardised > limit, standardised < -strict


def _equal_fit(names: tuple[str, ...], own: NDArray[np.float64]) -> Fit:
    """Return a fit of trainings with a variance of 1, known with so many degrees of freedom each, (C,)."""
    nothing, nobody = np.empty(0), np.empty(0, dtype=np.int64)
    others = np.maximum(own.sum() - own, 0.0)
    weight = np.where(others > 0, 1 / (1 / PRIOR_WEIGHT + 1 / np.maximum(others, 1e-9)), 0.0)
    stated = np.zeros(len(names), dtype=bool)
    return Fit(names, (), nobody, nobody, nothing, np.ones(len(names)), own, weight, stated, 0.0, 0)


def _assumed(comparison: Comparison) -> Comparison | None:
    """Return a comparison with a spread for each training, from how far scores lie apart where runs don't tell it."""
    parts = []
    for each, signs in comparison.parts:
        found = each.fit
        unknown = np.isnan(found.variances)
        if unknown.any():
            means = [sum(by_unit.values()) / len(by_unit) for by_unit in (each.cells[name] for name in found.columns)]
            apart = float(np.var(means, ddof=1)) if len(means) > 1 else 0.0
            if apart <= 0:
                return None
            found = replace(found, variances=np.where(unknown, apart / (UNKNOWN**2 / 2 + 1), found.variances))
            each = Panel(each.cells, each.seeds, each.resampled, each.images, each.stated, each.image_free)
            each.__dict__["fit"] = found
        parts.append((each, signs))
    return replace(comparison, parts=tuple(parts)) if parts else None


@functools.cache
def _normal(name: str) -> NDArray[np.float64]:
    """Return the draws of a name, always the same: chances of different plans are compared on the same draws."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(DRAWS)
