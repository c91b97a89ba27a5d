"""The seeds that are told to resolve a claim, by simulation: they resolve eight in ten, and one seed less does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from date.reporting.claims import conjunction, judge_comparison
from date.reporting.comparisons import Comparison
from date.reporting.panels import panel
from date.reporting.trials import resolution_power, seeds_needed, trials

PILOT, DRAWS = 40, 100
Cells = dict[str, dict[int, float]]


def world(rng: np.random.Generator, correlation: float, means: list[float]) -> Cells:
    """Five trainings with runs of deviation 1."""
    shared = math.sqrt(correlation) * rng.normal(size=PILOT)
    scores = shared + math.sqrt(1 - correlation) * rng.normal(size=(5, PILOT)) + np.array(means)[:, None]
    return {name: dict(enumerate(row.tolist())) for name, row in zip("abcde", scores, strict=True)}


def comparisons(cells: Cells, pairs: list[str]) -> list[Comparison]:
    each = panel(cells, lambda _, seed: seed, lambda _, seed: None)
    return [Comparison("", "AP", ((each, {above: 1.0, below: -1.0}),)) for above, below in pairs]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    ("pairs", "means"),
    [
        (["ab"], [3.0, 0, 0, 0, 0]),
        (["ab", "ac", "ad"], [2.5, 0, 0.3, 0.1, 0]),
        (["ab", "cb"], [2.0, 0, 2.3, 0, 0]),
    ],
)
def test_seeds_needed_are_needed(correlation: float, pairs: list[str], means: list[float]) -> None:
    rng = np.random.default_rng(1)
    pilot = world(rng, correlation, means)
    for name, mean in zip("abcde", means, strict=True):  # the pilot has the true means and deviations
        runs = np.array(list(pilot[name].values()))
        pilot[name] = dict(enumerate(((runs - runs.mean()) / runs.std(ddof=1) + mean).tolist()))
    found = trials([(c, judge_comparison(c, False, len(pairs)).estimate) for c in comparisons(pilot, pairs)], False)
    needed = seeds_needed(found, False)
    assert needed is not None and resolution_power(found, needed, False) >= 0.8

    def resolved(seeds: int) -> float:
        supported = 0
        for _ in range(DRAWS):
            cells = world(rng, correlation, means)
            cells = {n: dict(list(v.items())[: seeds if n in "".join(pairs) else None]) for n, v in cells.items()}
            parts = [judge_comparison(c, False, len(pairs)).verdict for c in comparisons(cells, pairs)]
            supported += conjunction(parts) == "SUPPORTED"
        return supported / DRAWS

    error = 0.04  # one standard error of the draws
    assert resolved(needed) >= 0.7 - error, "eight in ten, within ten points, or more: seeds are whole numbers"
    if needed > 3:  # from two seeds it can't be told that runs go together, so three are the fewest there
        assert resolution_power(found, needed - 1, False) < 0.8
    if needed > 2:
        assert resolved(needed - 1) <= 0.9 + error, "one seed less is too few, within ten points"
