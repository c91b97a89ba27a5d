"""Intervals, p-values and numbers of seeds: by hand, against scipy.stats, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from date.reporting.statistics import estimate, power, prediction_half_width, seeds_needed


def test_an_interval_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, standard error 1/sqrt(3); t of two degrees of freedom is 4.302653.
    found = estimate([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
    # With two degrees of freedom the tail is 1/2 - t / (2 sqrt(2 + t**2)); t = 2 sqrt(3).
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(2 * (0.5 - t / (2 * math.sqrt(2 + t * t))), abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.floats(-1, 1))
def test_estimates_agree_with_scipy(values: list[float], margin: float) -> None:
    if np.std(values, ddof=1) < 1e-6:
        return
    found, theirs = estimate(values, margin), stats.ttest_1samp(values, margin)
    interval = theirs.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, interval.low, interval.high), rel=1e-6)


def test_one_value_has_an_interval_by_stated_noise_alone() -> None:
    alone = estimate([0.4])
    assert (alone.low, alone.high, alone.p, alone.sd) == (None, None, None, None)
    stated = estimate([0.4], stated_sd=0.2)
    assert stated.stated
    assert (stated.low, stated.high) == pytest.approx((0.4 - 1.959964 * 0.2, 0.4 + 1.959964 * 0.2), abs=1e-6)
    assert stated.p == pytest.approx(0.0455, abs=1e-4)  # two standard deviations


def test_values_without_spread() -> None:
    assert estimate([0.5, 0.5]).p == 0.0
    assert estimate([0.0, 0.0]).p == 1.0
    assert (estimate([0.5, 0.5]).low, estimate([0.5, 0.5]).high) == (0.5, 0.5)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    intervals = [estimate(list(row)) for row in rng.normal(0.7, 0.3, (4000, n))]
    covered = np.mean([e.low <= 0.7 <= e.high for e in intervals])
    assert covered == pytest.approx(0.95, abs=0.014)  # four standard errors of 4000 draws
    refuted = np.mean([e.p < 0.05 for e in (estimate(list(row), 0.7) for row in rng.normal(0.7, 0.3, (4000, n)))])
    assert refuted == pytest.approx(0.05, abs=0.014)


@pytest.mark.parametrize(("distance", "n"), [(1.0, 3), (0.5, 5), (0.3, 9)])
def test_power_by_simulation(distance: float, n: int) -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(distance, 0.3, (40000, n))
    error = draws.std(axis=1, ddof=1) / math.sqrt(n)
    shown = np.mean(draws.mean(axis=1) / error > stats.t.ppf(0.975, n - 1))
    assert power(distance, 0.3, n) == pytest.approx(shown, abs=0.012)


@pytest.mark.parametrize("distance", [0.15, 0.2, 0.5, 1.0, 1.9])
def test_seeds_needed_are_the_fewest(distance: float) -> None:
    n = seeds_needed(distance, 0.3)
    assert n is not None
    assert power(distance, 0.3, n) >= 0.8
    assert n == 2 or power(distance, 0.3, n - 1) < 0.8


def test_seeds_needed_with_stated_noise_by_hand() -> None:
    # 0.15 AP a run make 0.2121 a difference: ((1.960 + 0.842) * 0.2121 / 0.2)**2 = 8.83, and 0.10 for 1.9 AP.
    sd = 0.15 * math.sqrt(2)
    assert [seeds_needed(d, sd, stated=True) for d in (0.2, -0.2, 0.5, 1.9)] == [9, 9, 2, 1]
    assert seeds_needed(0.0, sd) is None
    assert seeds_needed(1e-4, sd) is None, "more than a thousand"
    assert (seeds_needed(0.1, 0.0), seeds_needed(0.1, 0.0, stated=True)) == (2, 1)


def test_predictions_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(37, 0.15, (4000, 4))
    inside = [abs(row[3] - row[:3].mean()) <= prediction_half_width(float(row[:3].std(ddof=1)), 3) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.014)
    assert prediction_half_width(0.15, 1, stated=True) == pytest.approx(1.959964 * 0.15 * math.sqrt(2), abs=1e-6)
