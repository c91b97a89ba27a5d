"""Intervals, looks, powers and Holm's correction: by hand, against SciPy and statsmodels' formulas, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from date.reporting.crossed import Difference
from date.reporting.statistics import (
    LATE_LOOK,
    LOOK,
    MOST_SEEDS,
    estimate,
    every_look,
    fewest,
    holm,
    look_error,
    power,
    prediction_half_width,
)


def test_an_interval_by_hand() -> None:
    # Differences 1, 2, 3: standard error 1/sqrt(3); t of two degrees of freedom at 99 % is 9.924843.
    found = estimate(Difference(2.0, 1 / 3, 2.0, ()), (3, 3))
    assert found.low is not None and found.high is not None
    assert (2 - found.low, found.high - 2) == pytest.approx([9.924843 / math.sqrt(3)] * 2, abs=1e-6)
    # With two degrees of freedom the tail is 1/2 - t / (2 sqrt(2 + t**2)); t = 2 sqrt(3). Five times for every look.
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(5 * 2 * (0.5 - t / (2 * math.sqrt(2 + t * t))), abs=1e-12)
    images = estimate(Difference(2.0, 1 / 3, 2.0, ()), (3, 3), image_variance=1 / 6)
    assert images.error == pytest.approx(math.sqrt(0.5)) and images.image_error == pytest.approx(math.sqrt(1 / 6))
    assert images.freedom == pytest.approx(0.25 / (1 / 18 + 1 / 36 / 199))


def test_looks() -> None:
    assert [look_error(n) for n in (1, 10, 11)] == [LOOK, LOOK, LATE_LOOK]
    assert look_error(3, parts=4) == LOOK / 4
    assert every_look(LOOK, 10) == pytest.approx(0.05) and every_look(LATE_LOOK, 11) == pytest.approx(0.05)
    assert every_look(0.5, 3) == 1.0 and every_look(0.0, 3) == 0.0


@given(st.floats(1e-12, 1), st.floats(1e-12, 1))
def test_p_values_of_looks_rise_with_their_own(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert every_look(low, 3) <= every_look(high, 3)
    assert low <= every_look(low, 3) <= min(1, 10 * low)


def test_a_hundred_looks_are_false_less_often_than_one_in_twenty() -> None:
    """A look after each run from the first on, at the levels of the looks, and p-values that hold at all ten of them."""
    rng = np.random.default_rng(0)
    draws, total = 60000, np.zeros(60000)
    crossed, smallest = np.zeros(draws, dtype=bool), np.ones(draws)
    for n in range(1, 101):
        total += rng.standard_normal(draws)
        p = 2 * stats.norm.sf(np.abs(total) / math.sqrt(n))
        crossed |= p < look_error(n)
        if n <= 10:
            smallest = np.minimum(smallest, p)
    assert crossed.mean() < 0.05
    for level in (0.05, 0.01, 0.002):
        false = np.mean([every_look(float(p), 10) <= level for p in smallest[smallest < level]])
        share = false * (smallest < level).mean()
        assert 0.6 * level < share < level + 3 * math.sqrt(level / draws), level


@pytest.mark.parametrize(("distance", "n"), [(1.0, 3), (0.5, 5), (0.3, 9)])
def test_power_by_simulation(distance: float, n: int) -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(distance, 0.3, (40000, n))
    error = draws.std(axis=1, ddof=1) / math.sqrt(n)
    shown = np.mean(draws.mean(axis=1) / error > stats.t.ppf(0.995, n - 1))
    assert power(distance, 0.09 / n, n - 1, 0.01) == pytest.approx(shown, abs=0.012)


@given(st.integers(2, MOST_SEEDS))
def test_the_fewest_seeds(n: int) -> None:
    assert fewest(lambda seeds: 0.8 if seeds >= n else 0.79) == n
    assert fewest(lambda seeds: 0.79) is None


def test_holm_by_hand() -> None:
    # Holm's own example: 0.01 * 4, 0.02 * 3, 0.03 * 2 < 0.06, 0.04 * 1 < 0.06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_predictions_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(37, 0.15, (4000, 4))
    inside = [abs(row[3] - row[:3].mean()) <= prediction_half_width(float(row[:3].std(ddof=1)), 3, 2) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.014)
    known = prediction_half_width(0.15, 1, math.inf)
    assert known == pytest.approx(1.959964 * 0.15 * math.sqrt(2), abs=1e-6)
