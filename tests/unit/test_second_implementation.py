"""The committed report once more, from the packed results with NumPy and SciPy alone: nothing of the package is imported.

Every number of our scores in the tables, and mean, error, degrees of freedom, interval and verdict of every comparison of
scores in the claims. The model is worked out another way than in the package: by the covariance matrix of the runs, not by
Henderson's equations.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "reports" / "mini"
TRAININGS = yaml.safe_load((ROOT / "experiments" / "trainings.yaml").read_text())
EVALUATIONS = yaml.safe_load((ROOT / "experiments" / "evaluations.yaml").read_text())

Scores = dict[str, dict[int, dict[str, float]]]


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Metrics by evaluation and seed; CrowdHuman's AP is the column AP50."""
    found: Scores = defaultdict(dict)
    with tarfile.open(REPORT / "results.tar.xz") as archive:
        for member in archive.getmembers():
            if member.name.endswith("/evaluation.json"):
                handle = archive.extractfile(member)
                assert handle is not None
                record = json.load(handle)
                for variant, told in record["variants"].items():
                    metrics = told["metrics"]
                    if "mMR" in metrics:
                        metrics = {"AP50" if k == "AP" else k: v for k, v in metrics.items()}
                    found[f"{record['training']}/{variant}"][record["seed"]] = metrics
    return found


@pytest.fixture(scope="module")
def starts() -> dict[tuple[str, int], str]:
    """The trained weights that a run starts from."""
    found = {}
    with tarfile.open(REPORT / "results.tar.xz") as archive:
        for member in archive.getmembers():
            if member.name.endswith("/provenance.json"):
                handle = archive.extractfile(member)
                assert handle is not None
                run = json.load(handle)
                if str(TRAININGS[run["training"]].get("init", "")) in TRAININGS and "initialised_from" in run:
                    found[run["training"], run["seed"]] = run["initialised_from"]["weights_sha256"]
    return found


def lines(path: Path) -> list[dict[str, str]]:
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#"))
    return list(csv.DictReader(text.splitlines()))


def test_every_cell_of_the_tables(scores: Scores) -> None:
    checked = 0
    for path in sorted((REPORT / "tables").glob("*.csv")):
        for line in lines(path):
            for column, printed in line.items():
                metric = column.removeprefix("ours_")
                runs = scores.get(line.get("evaluation", ""), {})
                if not column.startswith("ours_") or metric.endswith(("_sd", "_bracket")) or not runs or not printed:
                    continue
                if metric not in next(iter(runs.values())):
                    continue
                values = [runs[seed][metric] for seed in sorted(runs)]
                assert float(printed) == pytest.approx(statistics.fmean(values), abs=1e-9), (path.name, column)
                spread = line[f"ours_{metric}_sd"]
                if len(values) > 1:
                    assert float(spread) == pytest.approx(statistics.stdev(values), abs=1e-9), (path.name, column)
                checked += 1
    assert checked > 200


def shared(y: np.ndarray, column: np.ndarray, unit: np.ndarray) -> tuple[float, int]:
    """The variance that runs of a seed share, by regressions with and without seeds."""
    trainings = np.eye(column.max() + 1)[column]
    seeds = np.eye(unit.max() + 1)[unit]

    def off(design: np.ndarray) -> np.ndarray:
        return np.eye(len(y)) - design @ np.linalg.pinv(design)

    alone, both = off(trainings), off(np.hstack([trainings, seeds]))
    rank = round(np.trace(alone) - np.trace(both))
    left = round(np.trace(both))
    if rank <= 0 or left <= 0:
        return 0.0, 0
    within = float(y @ both @ y) / left
    between = float(y @ alone @ y) - float(y @ both @ y)
    ratio = between / rank / within / stats.f.ppf(0.8, rank, left)
    return max(0.0, ratio - 1) * within * rank / float(np.trace(seeds.T @ alone @ seeds)), rank


def model(cells: dict[str, dict[object, float]], signs: dict[str, float]) -> tuple[float, float | None, float]:
    """Mean, variance and degrees of freedom of a signed sum of trainings' means."""
    names = list(cells)
    units = list(dict.fromkeys(u for by_unit in cells.values() for u in by_unit))
    runs = [(names.index(n), units.index(u), v) for n, by_unit in cells.items() for u, v in by_unit.items()]
    column, unit, y = (np.array([run[k] for run in runs]) for k in range(3))
    y = y.astype(float)
    tau, tau_freedom = shared(y, column, unit)
    design = np.eye(len(names))[column]
    variances = np.full(len(names), y.var())
    own = np.zeros(len(names))
    for _ in range(500):
        v = np.diag(variances[column]) + tau * (unit[:, None] == unit)
        inverse = np.linalg.inv(v)
        projection = inverse - inverse @ design @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
        residual = variances[column] * (projection @ y)
        squares = np.bincount(column, residual**2)
        own = np.bincount(column, variances[column] * np.diag(projection))
        pooled = squares.sum() / own.sum()
        others = own.sum() - own
        weight = np.where(others > 1e-9, 1 / (1 / 4 + 1 / np.maximum(others, 1e-9)), 0.0)
        variances = (weight * pooled + squares) / np.maximum(weight + own, 1e-9)
    v = np.diag(variances[column]) + tau * (unit[:, None] == unit)
    inverse = np.linalg.inv(v)
    contrast = np.array([signs.get(name, 0.0) for name in names])
    each = contrast @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
    parts = np.bincount(column, each**2) * variances
    together = tau * float((np.bincount(unit, each) ** 2).sum())
    share = weight / (weight + own)
    error = float(((parts * (1 - share)) ** 2 / np.maximum(own, 1e-9)).sum())
    error += float(((parts * share) ** 2).sum()) / 4 + float((parts * share).sum()) ** 2 / own.sum()
    error += together**2 / max(tau_freedom, 1)
    variance = float(parts.sum()) + together
    return float(each @ y), variance, min(variance**2 / error, own.sum())


def cells_of(
    evaluation: str, metric: str, scores: Scores, starts: dict[tuple[str, int], str]
) -> dict[str, dict[object, float]]:
    """The main evaluations of a schedule, or those of the same variant, by training and unit."""
    training, variant = evaluation.split("/")

    def main(name: str) -> str:
        return str(EVALUATIONS["evaluations"][name][0])

    def kind(name: str) -> tuple[str, str]:
        return TRAININGS[name].get("data", "coco"), TRAININGS[name]["schedule"]

    is_main = main(training) == variant
    found: dict[str, dict[object, float]] = {}
    for name in TRAININGS:
        label = f"{name}/{main(name) if is_main else variant}"
        if kind(name) == kind(training) and label in scores:
            units: dict[object, list[float]] = defaultdict(list)
            for seed in sorted(scores[label]):
                units[starts.get((name, seed), seed)].append(scores[label][seed][metric])
            found[label] = {unit: statistics.fmean(values) for unit, values in units.items()}
    return found


def test_every_comparison_of_scores(scores: Scores, starts: dict[tuple[str, int], str]) -> None:
    checked, parts = 0, defaultdict(int)
    told = lines(REPORT / "claims.csv")
    for line in told:
        parts[line["claim"]] += 1
    for line in told:
        sides = line["comparison"].split(" \N{MINUS SIGN} ")
        if len(sides) != 2 or any(side not in scores for side in sides) or not line["error"] or line["image_error"]:
            continue
        one, other = sides
        if one.split("/")[0] == other.split("/")[0]:
            seeds = sorted(scores[one])
            values = [scores[one][s][line["unit"]] - scores[other][s][line["unit"]] for s in seeds]
            mean, variance = statistics.fmean(values), statistics.variance(values) / len(values)
            freedom: float = len(values) - 1
            counts = [len(values)]
        else:
            cells = cells_of(one, line["unit"], scores, starts)
            assert other in cells
            mean, variance_or_none, freedom = model(cells, {one: 1.0, other: -1.0})
            assert variance_or_none is not None
            variance, counts = variance_or_none, [len(cells[one]), len(cells[other])]
        half = stats.t.ppf(0.995, freedom) * math.sqrt(variance)
        found = (mean, math.sqrt(variance), freedom, mean - half, mean + half)
        printed = tuple(float(line[k]) for k in ("mean", "error", "freedom", "low", "high"))
        assert found == pytest.approx(printed, rel=1e-4, abs=1e-6), line["comparison"]
        margin = float(line["margin"])
        strict = stats.t.ppf(1 - 0.005 / parts[line["claim"]], freedom) * math.sqrt(variance)
        word = "SUPPORTED" if mean - half > margin else "CONTRADICTED" if mean + strict < margin else "UNRESOLVED"
        assert word == line["comparison_verdict"], line["comparison"]
        assert max(counts) <= 10, "more seeds need the level of late looks"
        checked += 1
    assert checked >= 20
