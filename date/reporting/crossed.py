"""Trainings crossed with seeds: what a few runs tell of a difference, whether or not runs with one seed go together.

The model of one metric and one schedule. Run *s* of training *c* scores

    y_cs = mu_c + a_s + e_cs,   a_s ~ N(0, tau^2),   e_cs ~ N(0, sigma_c^2),

all independent; cells may be missing. The unit *s* is what runs share: a seed, or the trained weights that they start
from. With tau = 0 runs of one seed have nothing in common and pairing them would waste degrees of freedom; where tau
is large, a_s cancels in a difference over the same seeds. The data say which it is:

- tau^2 by Henderson's third method (Searle, Casella and McCulloch, *Variance Components*, 1992, sec. 5.5): with P the
  projection off the trainings' means and Z the incidence of seeds, the seeds' sum of squares over the trainings' has
  the expectation ``rank(PZ) sigma^2 + trace(Z'PZ) tau^2``. The estimate is the lower limit of a one-sided 80 %
  interval, or 0: of few seeds the unbiased estimate is above 0 half of the time by chance, and a variance that was
  chosen to be small gave 7 to 10 % false verdicts at a nominal 5 %. What it leaves out stays in sigma^2, so that
  pairing gains less and never lies.
- sigma_c^2 by restricted maximum likelihood given tau^2, moderated (Smyth, *Linear models and empirical Bayes methods*,
  2004): ``sigma_c^2 = (d s^2 + R_c) / (d + nu_c)``, where R_c is the training's residual sum of squares, nu_c its
  degrees of freedom, and (d, s^2) a scaled inverse chi-square prior: the field's stated noise, or the pooled variance
  of the same metric and schedule. A pooled variance that rests on nu degrees of freedom of the other trainings is known
  no better than that, so its weight is ``1 / (1/d + 1/nu)``: a training alone is judged by its own spread.
- mu by generalised least squares. The estimate of a difference is ``sum w_cs y_cs``; its variance is
  ``sum_c sigma_c^2 sum_s w_cs^2 + tau^2 sum_s (sum_c w_cs)^2``, and its degrees of freedom are Satterthwaite's.

Variances are never shared between schedules: a pooled one gave 12 to 18 % false verdicts in simulation.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

PRIOR_WEIGHT = 4.0
"""Degrees of freedom of a prior on a variance. A deviation known so well is known to 35 % (1 / sqrt(2 * 4)): the stated
0.3 AP come from sources that say 0.2 to 0.3 of other networks, and deviations of trainings of one schedule differ by
about as much."""
EVIDENCE = 0.8
"""Confidence that runs of one seed share as much as they are taken to."""
ITERATIONS = 60

Floats = NDArray[np.float64]
Cells = Mapping[str, Mapping[Hashable, float]]
"""Scores by training (or evaluation) and unit."""


@dataclass(frozen=True)
class Fit:
    """The model of a metric and schedule, fitted."""

    columns: tuple[str, ...]
    units: tuple[Hashable, ...]
    column: NDArray[np.int64]
    """(N,) training of each run."""
    unit: NDArray[np.int64]
    """(N,) unit of each run."""
    values: NDArray[np.float64]
    """(N,)."""
    variances: NDArray[np.float64]
    """(C,) sigma_c^2; NaN where nothing tells it."""
    own: NDArray[np.float64]
    """(C,) nu_c."""
    weight: NDArray[np.float64]
    """(C,) of the prior on each variance, in degrees of freedom."""
    stated: NDArray[np.bool_]
    """(C,) whether the prior is the field's stated noise."""
    shared: float
    """tau^2."""
    shared_freedom: int

    def freedom(self, parts: NDArray[np.float64], together: float) -> float:
        """Return Satterthwaite's degrees of freedom of a variance: parts by training, (C,), and a shared one.

        Of each part the share f = d / (d + nu) is the prior's. What is wrong with a pooled or stated variance is wrong
        for all trainings together; how far a training's true variance lies off the pooled one is its own. There are
        never more than those of all residuals (and of a stated prior).
        """
        whole = self.weight + self.own
        share = np.divide(self.weight, whole, out=np.zeros_like(whole), where=whole > 0)
        prior, observed = parts * share, parts * (1 - share)
        total = float(self.own.sum())
        error = float((observed**2 / np.maximum(self.own, 1e-9)).sum())
        error += float(prior[self.stated].sum()) ** 2 / PRIOR_WEIGHT
        error += float((prior[~self.stated] ** 2).sum()) / PRIOR_WEIGHT
        error += float(prior[~self.stated].sum()) ** 2 / max(total, 1e-9)
        error += together**2 / max(self.shared_freedom, 1)
        most = total + (PRIOR_WEIGHT if self.stated.any() else 0.0)
        return min((float(parts.sum()) + together) ** 2 / error, most) if error > 0 else 0.0

    @property
    def correlation(self) -> float | None:
        """Of two runs with one seed, for trainings of mean variance; None where nothing tells it."""
        known = self.variances[~np.isnan(self.variances)]
        return float(self.shared / (self.shared + known.mean())) if len(known) and self.shared_freedom else None


@dataclass(frozen=True)
class Difference:
    """An estimated signed sum of trainings' means."""

    mean: float
    variance: float | None
    """Over seeds; None where no spread is known."""
    freedom: float
    weights: tuple[dict[tuple[str, Hashable], float], ...]
    """Of each run, by training and unit, for each part: the mean is the weighted sum of their scores."""


def fit(cells: Cells, stated_sd: Mapping[str, float] | float | None = None) -> Fit:
    """Fit the model.

    Args:
        cells: scores by training and unit; trainings without any are left out.
        stated_sd: the field's stated deviation of a run, which then is the prior of its training's variance.
    """
    columns = tuple(name for name, by_unit in cells.items() if by_unit)
    units = tuple(dict.fromkeys(unit for name in columns for unit in cells[name]))
    place = {unit: i for i, unit in enumerate(units)}
    runs = [(c, place[unit], v) for c, name in enumerate(columns) for unit, v in cells[name].items()]
    column, unit = (np.array([run[k] for run in runs], dtype=np.int64) for k in (0, 1))
    values = np.array([run[2] for run in runs], dtype=np.float64)
    shared, shared_freedom = _shared_variance(column, unit, values)
    prior = np.array([_stated(stated_sd, name) for name in columns])
    variances, own, weight = _variances(column, unit, values, shared, prior)
    return Fit(
        columns, units, column, unit, values, variances, own, weight, ~np.isnan(prior), shared, shared_freedom
    )  # fmt: skip


def _stated(stated_sd: Mapping[str, float] | float | None, name: str) -> float:
    sd = stated_sd.get(name) if isinstance(stated_sd, Mapping) else stated_sd
    return math.nan if sd is None else sd**2


def _shared_variance(
    column: NDArray[np.int64], unit: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[float, int]:
    """Return tau^2 by Henderson's third method and its degrees of freedom; (0, 0) where units tell nothing apart."""
    if not len(values):
        return 0.0, 0
    counts = np.bincount(column)
    design = np.eye(unit.max() + 1)[unit]
    means = np.zeros((len(counts), design.shape[1]))
    np.add.at(means, column, design)
    centred = design - (means / counts[:, None])[column]
    deviations = values - (np.bincount(column, values) / counts)[column]
    basis, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    rank = int((sizes > 1e-9).sum())
    left = len(values) - len(counts) - rank
    if rank == 0 or left <= 0:
        return 0.0, 0
    between = float(((basis[:, :rank].T @ deviations) ** 2).sum())
    within = max(0.0, float((deviations**2).sum()) - between) / left
    if within == 0:
        return (between / float((centred**2).sum()) if between > 0 else 0.0), rank
    ratio = between / rank / within / float(fdtri(rank, left, EVIDENCE))
    return max(0.0, ratio - 1) * within * rank / float((centred**2).sum()), rank


def _variances(
    column: NDArray[np.int64],
    unit: NDArray[np.int64],
    values: NDArray[np.float64],
    shared: float,
    prior: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return moderated variances, the residuals' degrees of freedom and the priors' weights, (C,) each."""
    count = len(prior)
    start = np.var(values - (np.bincount(column, values, count) / np.bincount(column, minlength=count))[column])
    variances = np.where(np.isnan(prior), start or 1.0, prior)
    own = weight = np.zeros(count)
    updated = variances
    for _ in range(ITERATIONS):
        squares, own = _residuals(column, unit, values, shared, variances)
        total = own.sum()
        pooled = squares.sum() / total if total > 1e-9 else math.nan
        others = np.maximum(total - own, 0.0)
        weight = np.where(others > 1e-9, 1 / (1 / PRIOR_WEIGHT + 1 / np.maximum(others, 1e-9)), 0.0)
        centre = np.where(np.isnan(prior), pooled if total > 1e-9 else 0.0, prior)
        weight = np.where(np.isnan(prior), weight, PRIOR_WEIGHT)
        freedom = weight + own
        updated = np.where(freedom > 1e-9, (weight * centre + squares) / np.maximum(freedom, 1e-9), math.nan)
        updated = np.where(updated > 0, updated, math.nan)
        usable = np.where(np.isnan(updated), np.nanmax(np.append(updated, 1e-12)), updated)
        done = np.allclose(usable, variances, rtol=1e-10)
        variances = usable
        if done:
            break
    return np.where(np.isnan(updated), math.nan, variances), own, weight


def _residuals(
    column: NDArray[np.int64],
    unit: NDArray[np.int64],
    values: NDArray[np.float64],
    shared: float,
    variances: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each training's residual sum of squares given the variances, and its degrees of freedom, (C,) each."""
    count = len(variances)
    covariance = _covariance(column, unit, shared, variances)
    design = _design(column, unit, count, shared)
    precision = 1 / variances[column]
    solution = covariance @ (design.T @ (precision * values))
    residual = values - design @ solution
    spread = np.einsum("ni,ij,nj->n", design, covariance, design) * precision
    squares: Floats = np.bincount(column, residual**2, count)  # type: ignore[assignment]
    left: Floats = np.bincount(column, 1 - spread, count)  # type: ignore[assignment]
    return squares, left


def _design(column: NDArray[np.int64], unit: NDArray[np.int64], count: int, shared: float) -> NDArray[np.float64]:
    """Return the incidence of trainings and, where runs share something, of units, (N, C + S)."""
    trainings = np.eye(count)[column]
    return np.hstack([trainings, np.eye(unit.max() + 1)[unit]]) if shared > 0 else trainings


def _covariance(
    column: NDArray[np.int64], unit: NDArray[np.int64], shared: float, variances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the covariance of the estimated means and seed effects, (C + S, C + S) (Henderson's equations)."""
    count = len(variances)
    design = _design(column, unit, count, shared)
    information = design.T @ (design / variances[column][:, None])
    if shared > 0:
        information[range(count, len(information)), range(count, len(information))] += 1 / shared
    return np.asarray(np.linalg.inv(information), dtype=np.float64)


def difference(parts: Sequence[tuple[Fit, Mapping[str, float]]]) -> Difference:
    """Estimate a signed sum of trainings' means.

    Args:
        parts: of each metric and schedule its fit, and the signs (or factors) of its trainings; what is in different
            parts shares nothing.
    """
    mean = variance = error = 0.0
    weights: list[dict[tuple[str, Hashable], float]] = []
    for found, factors in parts:
        chosen = np.array([factors.get(name, 0.0) for name in found.columns])
        known = np.where(np.isnan(found.variances), np.nanmax(np.append(found.variances, 1e-12)), found.variances)
        covariance = _covariance(found.column, found.unit, found.shared, known)
        design = _design(found.column, found.unit, len(chosen), found.shared)
        padded = np.concatenate([chosen, np.zeros(len(covariance) - len(chosen))])
        each = (design @ (covariance @ padded)) / known[found.column]
        each[np.abs(each) < 1e-12] = 0.0
        mean += float(each @ found.values)
        own = np.asarray(np.bincount(found.column, each**2, len(chosen)) * known, dtype=np.float64)
        together = found.shared * float((np.bincount(found.unit, each) ** 2).sum())
        unknown = np.isnan(found.variances) & (own > 0)
        part = math.nan if unknown.any() else float(own.sum()) + together
        variance += part
        error += part**2 / max(found.freedom(own, together), 1e-9)
        names = ((found.columns[c], found.units[u]) for c, u in zip(found.column, found.unit, strict=True))
        weights.append({name: float(w) for name, w in zip(names, each, strict=True) if w})
    if math.isnan(variance) or variance <= 0:
        return Difference(mean, None, 0.0, tuple(weights))
    return Difference(mean, variance, variance**2 / error, tuple(weights))
