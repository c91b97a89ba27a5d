"""Intervals, looks, powers and Holm's correction: by hand, against SciPy and statsmodels' formulas, and by simulation."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from date.catalogue import ROOT
from date.reporting.crossed import Difference
from date.reporting.statistics import (
    LOOKS,
    MOST_SEEDS,
    SPENT,
    estimate,
    every_look,
    fewest,
    holm,
    look_error,
    power,
    prediction_half_width,
)


def test_an_interval_by_hand() -> None:
    # Differences 1, 2, 3: standard error 1/sqrt(3); t of two degrees of freedom at 98.8 %, three seeds' level, is
    # x with the tail 1/2 - x / (2 sqrt(2 + x**2)) = 0.006, so x = 0.988 sqrt(2 / (1 - 0.988**2)) = 9.046345.
    found = estimate(Difference(2.0, 1 / 3, 2.0, ()), (3, 3))
    assert found.low is not None and found.high is not None
    assert (2 - found.low, found.high - 2) == pytest.approx([9.046345 / math.sqrt(3)] * 2, abs=1e-6)
    # t = 2 sqrt(3): above the look's error of 0.012, so that 0.05 / 0.012 times as much holds for every look.
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(0.05 / 0.012 * 2 * (0.5 - t / (2 * math.sqrt(2 + t * t))), abs=1e-12)
    images = estimate(Difference(2.0, 1 / 3, 2.0, ()), (3, 3), image_variance=1 / 6)
    assert images.error == pytest.approx(math.sqrt(0.5)) and images.image_error == pytest.approx(math.sqrt(1 / 6))
    assert images.freedom == pytest.approx(0.25 / (1 / 18 + 1 / 36 / 199))


def test_looks() -> None:
    assert [look_error(n) for n in range(1, 9)] == list(LOOKS)
    assert [look_error(n) for n in (0, 16)] == [LOOKS[0], LOOKS[-1] / 8], "twice the seeds, an eighth of the error"
    assert look_error(3, parts=4) == LOOKS[2] / 4
    for seeds in (1, 3, 8, 20):
        assert every_look(look_error(seeds), seeds) == pytest.approx(0.05)
        assert every_look(look_error(seeds) / 10, seeds) == pytest.approx(0.006), "a fifth more than a tenth of it"
    assert every_look(0.5, 3) == 1.0 and every_look(0.0, 3) == 0.0
    assert sum(look_error(n) for n in range(1, 3000)) == pytest.approx(SPENT, rel=1e-4)


def test_the_documentations_looks() -> None:
    """The table of docs/report.md, and what it says of five seeds."""
    text = (ROOT / "docs" / "report.md").read_text().split("### Looking again")[1].split("###")[0]
    seeds, errors = (
        [float(v) for v in re.findall(r"[\d.]+", line.split("|", 2)[2])]
        for line in text.splitlines()
        if line.startswith(("| seeds", "| error"))
    )
    assert errors == [round(100 * look_error(int(n)), 2) for n in seeds]
    joined = " ".join(text.split())
    assert f"{100 - 100 * look_error(5):.1f} % with five seeds" in joined
    assert f"({0.05 / look_error(5):.1f} times with five seeds" in joined
    assert f"{stats.norm.ppf(1 - look_error(5) / 2):.2f} instead of 1.96 standard errors with five" in joined


def test_more_seeds_need_smaller_differences() -> None:
    """Whatever the looks' errors, the difference that is told shrinks with the seeds, so that power rises with them."""
    for freedom in (1.0, 4.0, 1e9):
        widths = [stats.t.ppf(1 - look_error(n) / 2, freedom * n) / math.sqrt(n) for n in range(2, 400)]
        assert all(later < earlier for earlier, later in itertools.pairwise(widths)), freedom


@given(st.floats(1e-12, 1), st.floats(1e-12, 1), st.integers(1, 30))
def test_p_values_of_looks_rise_with_their_own(one: float, other: float, seeds: int) -> None:
    low, high = sorted((one, other))
    assert every_look(low, seeds) <= every_look(high, seeds)
    assert low < every_look(low, seeds) <= min(1, low * SPENT / look_error(seeds) * (1 + 1e-12)) or low == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_hundred_looks_are_false_less_often_than_one_in_twenty(known: bool) -> None:
    """A look after each run, at the levels of the looks, by known noise and by Student's t, and p-values of all looks."""
    rng = np.random.default_rng(0)
    draws, total, squares = 60000, np.zeros(60000), np.zeros(60000)
    crossed, smallest = np.zeros(draws, dtype=bool), np.ones(draws)
    for n in range(1, 101):
        run = rng.standard_normal(draws)
        total, squares = total + run, squares + run**2
        if n == 1 and not known:
            continue
        ratio = np.abs(total) / math.sqrt(n)
        variance = np.ones(draws) if known else (squares - total**2 / n) / (n - 1)
        p = 2 * (stats.norm.sf(ratio) if known else stats.t.sf(ratio / np.sqrt(variance), n - 1))
        crossed |= p < look_error(n)
        smallest = np.minimum(smallest, p / look_error(n))  # the smallest in units of its look's error is decisive
    assert crossed.mean() < 0.05 + 2 * math.sqrt(0.05 / draws)
    for level in (0.05, 0.01, 0.002):
        false = np.mean([every_look(float(share) * LOOKS[2], 3) <= level for share in smallest[smallest < 1.2]])
        share = false * (smallest < 1.2).mean()
        assert 0.5 * level < share < level + 3 * math.sqrt(level / draws), level


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
