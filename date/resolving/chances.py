"""How likely more seeds resolve a claim, from what the results say of its trainings.

The mean of a training over n runs will move as more come: with a variance of sigma^2 known and nothing known beforehand
of the true mean, the mean over m > n runs is normal about the present one with the variance ``sigma^2 (1/n - 1/m)``.
From draws of the later means follow those of all comparisons of a claim, which share trainings, and whether each would
be told. Where a training has no run yet, or nothing tells a spread, a difference is taken to be normal with three
deviations of a run.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from date.reporting.claims import Outcome
from date.reporting.comparisons import Comparison
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

    @property
    def name(self) -> str:
        """Of the claim."""
        return self.outcome.claim.name

    @property
    def trainings(self) -> tuple[str, ...]:
        """Whose runs it rests on."""
        return tuple(self.outcome.trainings)

    def chance(self, present: Counts, later: Counts) -> float:
        """Return how likely so many seeds resolve the claim: support all of it, or contradict a part."""
        supported, contradicted = np.ones(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        for part in self.outcome.parts:
            c = part.comparison
            known = bool(c.parts) and all(
                not np.isnan(each.fit.variances[each.fit.columns.index(name)]) for each, name in c.sides
            )
            images = 0.0
            if part.estimate is not None and not self.is_paper:
                images = (part.estimate.image_error or 0.0) ** 2
            above, below = (
                self._known(c, images, present, later) if known else self._unknown(c, later, len(self.outcome.parts))
            )
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
        variance, freedom = moments(c, seeds_of, images)
        return self._told(total / np.sqrt(variance), freedom, max(counts))

    def _unknown(self, c: Comparison, later: Counts, parts: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the same of a comparison of which nothing is known, in deviations of a run."""
        counts = [later[name] for name in self.trainings]
        if min(counts, default=0) < 2:
            return np.zeros(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        variance = sum(1 / n for n in counts)
        true = UNKNOWN * _normal(f"true {c.label}") + np.sqrt(variance) * _normal(f"mean {c.label}")
        return self._told(true / np.sqrt(variance), float(sum(counts) - len(counts)), max(counts))

    def _told(
        self, standardised: NDArray[np.float64], freedom: float, most: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if freedom <= 0:
            return np.zeros(DRAWS, dtype=bool), np.zeros(DRAWS, dtype=bool)
        limit = float(stdtrit(freedom, 1 - look_error(most) / 2))
        strict = float(stdtrit(freedom, 1 - look_error(most, len(self.outcome.parts)) / 2))
        return standardised > limit, standardised < -strict


@functools.cache
def _normal(name: str) -> NDArray[np.float64]:
    """Return the draws of a name, always the same: chances of different plans are compared on the same draws."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(DRAWS)
