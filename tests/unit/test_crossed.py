"""Trainings crossed with seeds: by hand, against textbook tests where these are exact, and by simulation."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import fdtri

from date.catalogue import ROOT
from date.evaluation.resamples import RESAMPLES
from date.reporting.crossed import EVIDENCE, PRIOR_WEIGHT, Difference, difference, fit
from date.reporting.panels import Panel, image_variance, panel
from date.reporting.statistics import estimate, look_error


def contrast(cells: dict[str, dict[int, float]], stated: float | None = None) -> Difference:
    """The first training minus the second."""
    one, other = list(cells)[:2]
    return difference([(fit(cells, stated), {one: 1.0, other: -1.0})])


def test_disjoint_seeds_of_two_trainings_are_welchs_test() -> None:
    """No seed is shared, so pairing is no question; each variance is moderated by the other's."""
    cells = {"a": {0: 1.0, 1: 3.0, 2: 2.0}, "b": {3: 0.0, 4: 0.5, 5: 1.0, 6: 0.7}}
    found = contrast(cells)
    own = {name: np.var(list(v.values()), ddof=1) for name, v in cells.items()}
    pooled = (2 * own["a"] + 3 * own["b"]) / 5
    weight = {"a": 1 / (1 / 4 + 1 / 3), "b": 1 / (1 / 4 + 1 / 2)}
    moderated = {n: (weight[n] * pooled + nu * own[n]) / (weight[n] + nu) for n, nu in (("a", 2), ("b", 3))}
    assert found.mean == pytest.approx(2.0 - 0.55)
    assert found.variance == pytest.approx(moderated["a"] / 3 + moderated["b"] / 4, rel=1e-6)
    assert 2 < found.freedom <= 5


def test_one_training_is_a_t_test() -> None:
    values = [2.9, 3.0, 2.8]
    found = difference([(fit({"a": dict(enumerate(values))}), {"a": 1.0})])
    assert (found.mean, found.freedom) == pytest.approx((2.9, 2.0))
    assert found.variance == pytest.approx(np.var(values, ddof=1) / 3)


def test_runs_that_go_together_are_paired() -> None:
    """Where the seed is nearly everything, the variance is that of the paired differences."""
    shift = {0: 0.0, 1: 40.0, 2: -30.0, 3: 20.0, 4: -10.0}
    a = {s: v + e for (s, v), e in zip(shift.items(), [0.1, -0.2, 0.3, 0.0, -0.1], strict=True)}
    b = {s: v + e for (s, v), e in zip(shift.items(), [0.3, 0.1, -0.2, -0.3, 0.2], strict=True)}
    found = contrast({"a": a, "b": b})
    paired = np.array([a[s] - b[s] for s in shift])
    assert found.mean == pytest.approx(paired.mean(), abs=1e-6)
    assert found.variance == pytest.approx(paired.var(ddof=1) / 5, rel=1e-3)
    assert found.freedom == pytest.approx(4.0, rel=1e-3)
    unequal = contrast({"a": a, "b": {s: b[s] for s in (0, 1, 2)}})
    assert unequal.mean == pytest.approx(np.mean([a[s] - b[s] for s in (0, 1, 2)]), abs=0.02), (
        "a's own seeds say little"
    )


def test_runs_that_do_not_go_together_are_not() -> None:
    """Two trainings of five seeds without anything in common: the two-sample t test, all residuals in one variance."""
    a, b = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}, {0: 2.0, 1: 0.5, 2: 0.0, 3: 1.0, 4: 1.5}
    found = contrast({"a": a, "b": b})
    theirs = stats.ttest_ind(list(a.values()), list(b.values()))
    assert found.variance is not None
    assert found.mean / math.sqrt(found.variance) == pytest.approx(theirs.statistic, rel=0.02)


@given(st.floats(-1e3, 1e3), st.floats(0.1, 10), st.integers(0, 1000))
def test_shift_and_scale(shift: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = {n: {s: float(rng.normal()) for s in range(4) if rng.random() < 0.8} for n in ("a", "b", "c")}
    if any(len(v) < 2 for v in cells.values()):
        return
    moved = {n: {s: shift + scale * v for s, v in by_seed.items()} for n, by_seed in cells.items()}
    one, other = contrast(cells), contrast(moved)
    assert one.variance is not None and other.variance is not None
    assert other.mean == pytest.approx(scale * one.mean, abs=1e-6 * (1 + abs(shift)))
    assert other.variance == pytest.approx(scale**2 * one.variance, rel=1e-4)
    assert other.freedom == pytest.approx(one.freedom, rel=1e-3)


def test_stated_noise_is_a_prior_of_four_degrees_of_freedom() -> None:
    alone = contrast({"a": {0: 37.3}, "b": {0: 35.4}}, 0.15)
    assert (alone.variance, alone.freedom) == pytest.approx((2 * 0.15**2, PRIOR_WEIGHT))
    far = contrast({"a": {0: 37.0, 1: 38.0}, "b": {2: 35.0, 3: 35.0}}, 0.15)
    expected = [(4 * 0.15**2 + square) / 5 for square in (0.5, 0.0)]
    assert far.variance == pytest.approx(sum(expected) / 2, rel=1e-6)


@given(st.integers(1, 5))
def test_no_spread_no_interval(n: int) -> None:
    """Zero spread everywhere, or a single run, tells no variance."""
    equal = contrast({"a": dict.fromkeys(range(n), 1.0), "b": dict.fromkeys(range(n), 0.5)})
    assert equal.variance is None and equal.mean == pytest.approx(0.5)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(3, 3), (5, 3), (2, 2)])
def test_level_and_gain(correlation: float, counts: tuple[int, int]) -> None:
    """Five trainings of which two are compared: 99 % intervals miss a difference of zero in 2.5 % at most."""
    rng = np.random.default_rng(int(10 * correlation) + sum(counts))
    wrong, widths, draws = 0, [], 400
    for _ in range(draws):
        shared = math.sqrt(correlation) * rng.normal(size=5)
        own = math.sqrt(1 - correlation) * rng.normal(size=(5, 5))
        seeds = (*counts, 3, 3, 5)
        found = contrast({f"{c}": {s: float(shared[s] + own[c, s]) for s in range(seeds[c])} for c in range(5)})
        assert found.variance is not None
        half = float(stats.t.ppf(0.995, found.freedom)) * math.sqrt(found.variance)
        wrong += abs(found.mean) > half
        widths.append(half)
    assert wrong / draws <= 0.025
    if correlation == 0.9:
        assert np.median(widths) < 0.55 * 3.25 * math.sqrt(sum(1 / n for n in counts)), (
            "half of what unpaired runs give"
        )


def test_the_example_of_the_documentation() -> None:
    """Every number of docs/report.md's example, from the scores that its table prints."""
    text = (ROOT / "docs" / "report.md").read_text().split("### An example in numbers")[1].split("### Sources")[0]
    rows = re.findall(r"^\| ([\w-]+) \|((?: [\d.]+ \|){8})$", text, re.MULTILINE)
    numbers = {name: [float(v) for v in cells.split("|") if v.strip()] for name, cells in rows}
    found = fit({name: dict(enumerate(values[:5])) for name, values in numbers.items()})
    assert found.shared == 0.0 and f"{fdtri(4, 8, EVIDENCE):.1f} times" in text
    for name, variance in zip(found.columns, found.variances, strict=True):
        *scores, mean, own, moderated = numbers[name]
        assert [round(float(v), 3) for v in (np.mean(scores), np.var(scores, ddof=1), variance)] == [
            mean,
            own,
            moderated,
        ]
    compared = difference([(found, {"DATE-F": 1.0, "FCOS": -1.0})])
    alone, wider = estimate(compared, (5, 5)), estimate(compared, (5, 5), image_variance=0.36)
    assert alone.low is not None and alone.high is not None and alone.error is not None and alone.p is not None
    assert wider.low is not None and wider.high is not None and compared.variance is not None
    shown = text.replace("\N{MINUS SIGN}", "-")
    for number in (
        f"= {compared.mean:.2f}, with a variance of (1.641 + 1.686) / 5 = {compared.variance:.3f}",
        f"standard error of {alone.error:.3f}",
        f"{compared.freedom:.0f} degrees of freedom is {stats.t.ppf(1 - look_error(5) / 2, compared.freedom):.3f}",
        f"is {alone.low:.2f} to {alone.high:.2f}",
        f"{2 * stats.t.sf(abs(compared.mean) / alone.error, compared.freedom):.4f} for this look and {alone.p:.3f} for every",
        f"{wider.error:.3f}, and the interval {wider.low:.2f} to {wider.high:.2f}",
    ):
        assert number in " ".join(shown.split()), number


def crossed_panel(rng: np.random.Generator, both: float) -> tuple[Panel, float]:
    """Two trainings of four seeds on resamples whose deviations by image, and by run and image, are 1 and ``both``."""
    by_image = {name: rng.normal(size=RESAMPLES) for name in "ab"}
    rows = {(n, s): by_image[n] + both * rng.normal(size=RESAMPLES) for n in "ab" for s in range(4)}
    scores = {n: {s: float(rng.normal()) for s in range(4)} for n in "ab"}
    return panel(scores, lambda _, s: s, lambda n, s: ("these", rows[n, s])), 2.0


def test_images_count_once() -> None:
    """What runs and images do together is in the spread over runs already."""
    rng = np.random.default_rng(0)
    for both in (0.0, 1.0):
        found = []
        for _ in range(20):
            each, _ = crossed_panel(rng, both)
            variance = image_variance(difference([(each.fit, {"a": 1.0, "b": -1.0})]), [each])
            assert variance is not None
            found.append(variance)
        assert np.mean(found) == pytest.approx(2.0, rel=0.1), both


def test_images_are_left_out_where_a_run_has_no_resamples_or_others() -> None:
    scores = {"a": {0: 1.0, 1: 2.0}, "b": {0: 0.0, 1: 0.5}}
    row = np.arange(200.0)
    some = panel(scores, lambda _, s: s, lambda n, s: ("x", row) if n == "a" else None)
    other = panel(scores, lambda _, s: s, lambda n, s: (n, row))
    for each in (some, other):
        assert image_variance(difference([(each.fit, {"a": 1.0, "b": -1.0})]), [each]) is None


def test_the_share_of_seeds_is_a_lower_limit() -> None:
    """Of runs that share nothing, one in five is taken to share something."""
    rng = np.random.default_rng(4)
    shared = [fit({n: dict(enumerate(rng.normal(size=3))) for n in "abcd"}).shared for _ in range(400)]
    assert np.mean([s > 0 for s in shared]) == pytest.approx(1 - EVIDENCE, abs=0.08)
