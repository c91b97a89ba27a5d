"""A tier's report once more, from its folder of results and the paper's YAML files, with NumPy and SciPy alone.

Nothing of the package is imported. The model of the noise is worked out another way than in the package: by the
covariance matrix of the runs in place of Henderson's equations, and the images' part by the covariance matrix of the
resamples. It knows the tiers that are not the paper's size: there, no noise is stated and images count where they are known.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
RESAMPLES = 200
MINUS = "\N{MINUS SIGN}"


def entries(name: str) -> dict[str, Any]:
    """A file of the experiments, read as plain data."""
    return yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())


TRAININGS, EVALUATIONS, CLAIMS = entries("trainings"), entries("evaluations"), entries("claims")


SPENDING = {1: 0.01, 2: 0.003, 3: 0.012, 4: 0.014, 5: 0.014, 6: 0.012, 7: 0.01}


def look_level(seeds: int) -> float:
    """The two-sided error of a look with so many seeds on the larger side."""
    return SPENDING.get(seeds, 0.008 * (8 / seeds) ** 3)


def every_look(p: float, seeds: int) -> float:
    """The p-value that holds at every look: all looks' levels shrink until this look is just decided."""
    shrunk = p / look_level(seeds)
    if shrunk >= 1:
        return min(1.0, 0.05 * shrunk)
    all_looks = sum(look_level(n) for n in range(1, 20000))
    return shrunk * min(all_looks, 0.05 * (1 + 0.2 * math.log10(1 / shrunk)))


def kind(training: str) -> tuple[str, str]:
    return TRAININGS[training].get("data", "coco"), TRAININGS[training]["schedule"]


def main_variant(training: str) -> str:
    return str(EVALUATIONS["evaluations"][training][0])


@dataclass
class Results:
    """What a tier's folder of results says."""

    metrics: dict[str, dict[int, dict[str, float]]] = field(default_factory=lambda: defaultdict(dict))
    """By evaluation and seed; CrowdHuman's AP is the column AP50."""
    moved: dict[tuple[str, int, str], tuple[str, np.ndarray]] = field(default_factory=dict)
    """By evaluation, seed and metric: which images, and the values on their resamples."""
    start: dict[tuple[str, int], str] = field(default_factory=dict)
    """By training and seed: the trained weights from which it starts."""
    curves: dict[str, dict[int, dict[str, list[tuple[int, float]]]]] = field(default_factory=lambda: defaultdict(dict))
    """By training, seed and what is recorded: AP of the evaluations, every loss."""
    recall: dict[str, dict[float, float]] = field(default_factory=dict)
    """By evaluation of annotations and IoU."""
    counted: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """Parameters and operations by training and phase."""
    milliseconds: dict[tuple[str, str, int], dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    """Of every round, by size, runtime and threads, and by training."""

    def of(self, evaluation: str, metric: str) -> dict[int, float]:
        """A metric by seed."""
        runs = self.metrics.get(evaluation, {})
        return {seed: runs[seed][metric] for seed in sorted(runs) if runs[seed].get(metric) is not None}

    def unit(self, training: str, seed: int) -> Hashable:
        """What a run has in common with others."""
        return self.start.get((training, seed), seed)


def read(results: Path, tier: str) -> Results:
    found = Results()
    for path in sorted((results / tier).glob("*/seed*/evaluation.json")):
        run = json.loads((path.parent / "provenance.json").read_text())
        training, seed, record = run["training"], run["seed"], json.loads(path.read_text())
        images = record.get("resamples", {}).get("images_sha256")
        for variant, entry in record["variants"].items():
            names = {"AP": "AP50"} if "mMR" in entry["metrics"] else {}
            name = f"{training}/{variant}"
            found.metrics[name][seed] = {names.get(k, k): v for k, v in entry["metrics"].items()}
            for metric, text in entry.get("resamples", {}).items() if images else ():
                values = np.array([math.nan if v == "-" else float(v) for v in text.split()])
                found.moved[name, seed, names.get(metric, metric)] = images, values
        if TRAININGS[training].get("init") in TRAININGS and "initialised_from" in run:
            found.start[training, seed] = run["initialised_from"]["weights_sha256"]
    for path in sorted((results / tier).glob("*/seed*/metrics.jsonl")):
        curves = defaultdict(list)
        for line in path.read_text().splitlines():
            record = json.loads(line)
            for name, value in record.items() if record["kind"] in ("eval", "train") else ():
                if isinstance(value, int | float) and (name == "AP" or name.split(".")[-1].startswith("loss")):
                    curves[name].append((record["step"], value))
        found.curves[path.parent.parent.name][int(path.parent.name[4:])] = dict(curves)
    for path in (results / tier / "annotations").glob("*.json"):
        entry = json.loads(path.read_text())["recall"]
        found.recall[path.stem] = {float(iou): value for iou, value in entry.items()}
    if (results / "complexity.json").exists():
        for network in json.loads((results / "complexity.json").read_text())["networks"]:
            for training in network["trainings"]:
                for phase in ("train", "infer") if network["phase"] == "both" else (network["phase"],):
                    found.counted[training, phase] = {"params": network["params_m"], "gflops": network["gflops"]}
    if (results / tier / "latency.json").exists():
        for record in json.loads((results / tier / "latency.json").read_text())["records"]:
            way = record["size"], record["runtime"], record["threads"]
            times = np.sum(list(record["ms"].values()), axis=0)
            found.milliseconds[way][record["name"].split("/")[0]] = times
    return found


@dataclass(eq=False)
class Panel:
    """Scores from which a variance is learned: cells by name and unit, with their values on resamples."""

    runs: dict[str, dict[Hashable, list[tuple[float, tuple[str, np.ndarray] | None]]]]
    image_free: bool = False

    def cell(self, name: str, unit: Hashable) -> float:
        return statistics.fmean(value for value, _ in self.runs[name][unit])

    def moved(self, name: str, unit: Hashable) -> tuple[str, np.ndarray] | None:
        moves = [m for _, m in self.runs[name][unit]]
        if any(m is None for m in moves) or len({m[0] for m in moves if m}) > 1:
            return None
        return moves[0][0], np.mean([m[1] for m in moves if m], axis=0)  # type: ignore[index]


Part = tuple[Panel, dict[str, float]]


def gathered(
    results: Results,
    named: Iterable[tuple[str, str, dict[int, float]]],
    moved: Any,
    image_free: bool = False,
) -> Panel:
    """A panel of (name, training, values by seed)."""
    runs: dict[str, dict[Hashable, list[Any]]] = {}
    for name, training, values in named:
        for seed, value in values.items():
            by_unit = runs.setdefault(name, {})
            by_unit.setdefault(results.unit(training, seed), []).append((value, moved(name, seed)))
    return Panel(runs, image_free)


def level_panel(results: Results, evaluation: str, metric: str) -> Panel:
    """The main evaluations of the data and schedule, or those of the same variant."""
    training, variant = evaluation.split("/")
    is_main = main_variant(training) == variant
    alike = [name for name in TRAININGS if kind(name) == kind(training)]
    labels = [(f"{name}/{main_variant(name) if is_main else variant}", name) for name in alike]
    sides = [(label, name, results.of(label, metric)) for label, name in labels]
    return gathered(results, sides, lambda label, seed: results.moved.get((label, seed, metric)))


def within_panel(results: Results, training: str, factors: dict[str, float], metric: str) -> Panel:
    """What evaluations of one checkpoint differ by, of all trainings of the data and schedule that have them."""
    sides = []
    for name in (each for each in TRAININGS if kind(each) == kind(training)):
        values = {v: results.of(f"{name}/{v}", metric) for v in factors}
        seeds = set.intersection(*(set(by_seed) for by_seed in values.values()))
        sides.append((name, name, {s: sum(f * values[v][s] for v, f in factors.items()) for s in sorted(seeds)}))

    def moved(name: str, seed: int) -> tuple[str, np.ndarray] | None:
        rows = [(f, results.moved.get((f"{name}/{v}", seed, metric))) for v, f in factors.items()]
        if any(row is None for _, row in rows):
            return None
        return rows[0][1][0], sum(f * row[1] for f, row in rows if row)  # type: ignore[index, return-value]

    return gathered(results, sides, moved)


def curve_panel(results: Results, training: str, metric: str, steps: list[int]) -> Panel:
    """Means of a curve over steps, each standing for those since the one before, of all trainings that have the steps."""
    sides = []
    for name in (each for each in TRAININGS if kind(each) == kind(training)):
        values = {}
        for seed, curves in results.curves.get(name, {}).items():
            curve = dict(curves.get(metric, ()))
            if steps and set(steps) <= set(curve):
                values[seed] = float(np.average([curve[s] for s in steps], weights=np.diff([0, *steps])))
        sides.append((name, name, values))

    def moved(name: str, seed: int) -> tuple[str, np.ndarray] | None:
        return results.moved.get((f"{name}/{main_variant(name)}", seed, "AP"))

    return gathered(results, sides, moved, image_free=metric != "AP")


def shared(y: np.ndarray, column: np.ndarray, unit: np.ndarray) -> tuple[float, int]:
    """The variance that runs of a unit share, by regressions with and without units."""
    trainings, units = np.eye(column.max() + 1)[column], np.eye(unit.max() + 1)[unit]

    def off(design: np.ndarray) -> np.ndarray:
        return np.eye(len(y)) - design @ np.linalg.pinv(design)

    alone, both = off(trainings), off(np.hstack([trainings, units]))
    rank, left = round(np.trace(alone) - np.trace(both)), round(np.trace(both))
    if rank <= 0 or left <= 0:
        return 0.0, 0
    within = float(y @ both @ y) / left
    between = float(y @ alone @ y) - float(y @ both @ y)
    ratio = between / rank / within / stats.f.ppf(0.8, rank, left)
    return max(0.0, ratio - 1) * within * rank / float(np.trace(units.T @ alone @ units)), rank


@dataclass
class Found:
    """A signed sum of means."""

    mean: float
    variance: float | None
    freedom: float
    weights: list[dict[tuple[str, Hashable], float]]


def model(panel: Panel, signs: dict[str, float]) -> Found:
    """A signed sum of trainings' means, by the covariance matrix of a panel's runs."""
    names = list(panel.runs)
    units = list(dict.fromkeys(u for by_unit in panel.runs.values() for u in by_unit))
    keys = [(name, u) for name, by_unit in panel.runs.items() for u in by_unit]
    column = np.array([names.index(name) for name, _ in keys])
    unit = np.array([units.index(u) for _, u in keys])
    y = np.array([panel.cell(*key) for key in keys])
    tau, tau_freedom = shared(y, column, unit)
    design, contrast = np.eye(len(names))[column], np.array([signs.get(name, 0.0) for name in names])
    variances, own, weight = np.full(len(names), y.var() or 1.0), np.zeros(len(names)), np.zeros(len(names))
    for _ in range(500):
        inverse = np.linalg.inv(np.diag(variances[column]) + tau * (unit[:, None] == unit))
        projection = inverse - inverse @ design @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
        squares = np.bincount(column, (variances[column] * (projection @ y)) ** 2)
        own = np.bincount(column, variances[column] * np.diag(projection))
        if own.sum() < 1e-6:  # a run of each: nothing tells a variance
            each = contrast @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
            return Found(float(each @ y), None, 0.0, [])
        others = own.sum() - own
        weight = np.where(others > 1e-9, 1 / (1 / 4 + 1 / np.maximum(others, 1e-9)), 0.0)
        before = variances
        variances = (weight * squares.sum() / own.sum() + squares) / np.maximum(weight + own, 1e-9)
        if np.allclose(before, variances, rtol=1e-12):
            break
    inverse = np.linalg.inv(np.diag(variances[column]) + tau * (unit[:, None] == unit))
    each = contrast @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
    parts = np.bincount(column, each**2) * variances
    together = tau * float((np.bincount(unit, each) ** 2).sum())
    share = weight / (weight + own)
    error = float(((parts * (1 - share)) ** 2 / np.maximum(own, 1e-9)).sum())
    error += float(((parts * share) ** 2).sum()) / 4 + float((parts * share).sum()) ** 2 / own.sum()
    error += together**2 / max(tau_freedom, 1)
    variance = float(parts.sum()) + together
    weights = {key: float(w) for key, w in zip(keys, each, strict=True) if abs(w) > 1e-12}
    return Found(float(each @ y), variance, min(variance**2 / error, float(own.sum())), [weights])


def summed(parts: list[Part]) -> Found:
    """The same over several panels, which share nothing."""
    found = [model(*part) for part in parts]
    mean = sum(f.mean for f in found)
    if any(f.variance is None for f in found):
        return Found(mean, None, 0.0, [])
    variance = sum(f.variance or 0.0 for f in found)
    freedom = variance**2 / sum((f.variance or 0.0) ** 2 / f.freedom for f in found)
    return Found(mean, variance, freedom, [w for f in found for w in f.weights])


def image_variance(found: Found, panels: list[Panel]) -> float | None:
    """What the images add: w'Kw with the covariance matrix K of all runs' resamples, less what runs have of their own."""
    rows, weights, names, digests = [], [], [], set()
    for number, (panel, by_run) in enumerate(zip(panels, found.weights, strict=True)):
        for (name, unit), w in by_run.items() if not panel.image_free else ():
            moved = panel.moved(name, unit)
            if moved is None:
                return None
            digests.add(moved[0])
            rows.append(moved[1])
            weights.append(w)
            names.append((number, name))
    if not rows:
        return 0.0
    if len(digests) > 1:
        return None
    table, w = np.array(rows), np.array(weights)
    whole = table[:, ~np.isnan(table).any(axis=0)]
    total = float(w @ np.atleast_2d(np.cov(whole)) @ w)
    for name in dict.fromkeys(names):
        mine = np.array([each == name for each in names])
        count = int(mine.sum())
        if count > 1:
            own = table[mine][:, ~np.isnan(table[mine]).any(axis=0)]
            centre = np.eye(count) - 1 / count
            both = float(np.trace(centre @ np.cov(own) @ centre)) / (count - 1)
            total -= both * float((w[mine] ** 2).sum())
    return max(0.0, total)


@dataclass
class Compared:
    """A comparison of a claim, with its verdict."""

    about: list[str]
    """What its label has to name, in order."""
    unit: str
    margin: float
    paper: float | None
    differences: dict[int, float]
    runs: list[int]
    mean: float | None = None
    error: float | None = None
    seed_error: float | None = None
    image_error: float | None = None
    freedom: float = 0.0
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: str = "MISSING"


def judged(compared: Compared, parts: list[Part], offset: float, count: int) -> Compared:
    """The comparison with its interval and verdict, as one of several of its claim."""
    if not parts:
        return compared
    found = summed(parts)
    compared.mean, compared.verdict = found.mean + offset, "UNRESOLVED"
    if found.variance is None or min(compared.runs) < 2:
        return compared
    panels = [panel for panel, _ in parts]
    images = None if all(panel.image_free for panel in panels) else image_variance(found, panels)
    variance = found.variance + (images or 0.0)
    freedom = variance**2 / (found.variance**2 / found.freedom + (images or 0.0) ** 2 / (RESAMPLES - 1))
    error, most = math.sqrt(variance), max(compared.runs)
    half, strict = (stats.t.ppf(1 - look_level(most) / n / 2, freedom) * error for n in (1, count))
    compared.error, compared.freedom, compared.seed_error = error, freedom, math.sqrt(found.variance)
    compared.image_error = None if images is None else math.sqrt(images)
    compared.low, compared.high = compared.mean - half, compared.mean + half
    compared.p = every_look(2 * float(stats.t.sf(abs(compared.mean - compared.margin) / error, freedom)), most)
    if compared.low > compared.margin:
        compared.verdict = "SUPPORTED"
    elif compared.mean + strict < compared.margin:
        compared.verdict = "CONTRADICTED"
    return compared


def scored(
    results: Results, terms: list[tuple[int, str]], metric: str, margin: float, paper: float | None, count: int
) -> Compared:
    """A signed sum of evaluations; an evaluation of annotations has one number."""
    offset, factors, samples = 0.0, defaultdict(dict), []
    lacking = False
    for sign, name in terms:
        if name in EVALUATIONS["annotations"]:
            exact = results.recall.get(name, {}).get(EVALUATIONS["annotations"][name]["iou"])
            lacking |= exact is None
            offset += sign * (exact or 0.0)
        else:
            training, variant = name.split("/")
            factors[training][variant] = factors[training].get(variant, 0.0) + sign
            samples.append((sign, results.of(name, metric)))
            lacking |= not samples[-1][1]
    common = sorted(set.intersection(*(set(values) for _, values in samples)))
    differences = {} if lacking else {s: offset + sum(sign * v[s] for sign, v in samples) for s in common}
    compared = Compared([name for _, name in terms], metric, margin, paper, differences, [])
    if lacking:
        return compared
    chosen: list[Part] = []
    panels: dict[tuple[Any, ...], Part] = {}
    for training, variants in factors.items():
        if len(variants) > 1:
            chosen.append((within_panel(results, training, variants, metric), {training: 1.0}))
            continue
        ((variant, sign),) = variants.items()
        key = (kind(training), None if variant == main_variant(training) else variant)
        if key not in panels:
            panels[key] = (level_panel(results, f"{training}/{variant}", metric), {})
            chosen.append(panels[key])
        panels[key][1][f"{training}/{variant}"] = sign
    compared.runs = [len(panel.runs[name]) for panel, signs in chosen for name in signs]
    return judged(compared, chosen, offset, count)


def of_curves(results: Results, predicate: dict[str, Any]) -> Compared:
    """Learning faster, or at a lower loss."""
    is_loss = predicate["kind"] == "loss"
    one, other = (predicate[k] for k in (("high", "low") if is_loss else ("fast", "slow")))
    metric = predicate["loss"] if is_loss else "AP"
    both = [[c[metric] for c in results.curves.get(name, {}).values() if c.get(metric)] for name in (one, other)]
    if predicate.get("measure") == "reaches":
        last = min((curve[-1][0] for curve in both[1]), default=0)
        budget = predicate["fraction"] * last
        at = min((max((s for s, _ in curve if s <= budget), default=0) for curve in both[0]), default=0)
        wanted = [[at] * bool(at), [last] * bool(last)]
    else:
        steps = [{step for step, _ in curve} for curves in both for curve in curves]
        wanted = [sorted(set.intersection(*steps)) if steps else []] * 2
    panels = [curve_panel(results, name, metric, steps) for name, steps in zip((one, other), wanted, strict=True)]
    compared = Compared([one, other], "loss" if is_loss else "AP", 0.0, predicate.get("paper"), {}, [])
    if not all(name in panel.runs for name, panel in zip((one, other), panels, strict=True)):
        return compared
    values = [
        {
            s: panel.cell(name, results.unit(name, s))
            for s in results.curves[name]
            if results.unit(name, s) in panel.runs[name]
        }
        for name, panel in zip((one, other), panels, strict=True)
    ]
    compared.differences = {s: values[0][s] - values[1][s] for s in sorted(values[0].keys() & values[1].keys())}
    compared.runs = [len(panel.runs[name]) for name, panel in zip((one, other), panels, strict=True)]
    same = kind(one) == kind(other) and wanted[0] == wanted[1]
    parts: list[Part] = (
        [(panels[0], {one: 1.0, other: -1.0})] if same else [(panels[0], {one: 1.0}), (panels[1], {other: -1.0})]
    )
    return judged(compared, parts, 0.0, 1)


@dataclass
class Judged:
    """A claim with its comparisons."""

    name: str
    parts: list[Compared]
    verdict: str
    p: float | None = None
    holm: float | None = None


def judge(results: Results) -> list[Judged]:
    """All claims of the paper, and their p-values after Holm's correction."""
    found = [judge_claim(results, name, entry["predicate"]) for name, entry in CLAIMS.items()]
    tested = sorted((claim for claim in found if claim.p is not None), key=lambda claim: claim.p or 0.0)
    largest = 0.0
    for place, claim in enumerate(tested):
        largest = max(largest, min(1.0, (claim.p or 0.0) * (len(tested) - place)))
        claim.holm = largest
    return found


def judge_claim(results: Results, name: str, predicate: dict[str, Any]) -> Judged:
    metric, paper = predicate.get("metric", "AP"), predicate.get("paper")
    asked: list[tuple[list[tuple[int, str]], str, float, float | None]] = []
    if predicate["kind"] == "complexity":
        return Judged(name, [], complexity(results, predicate))
    if predicate["kind"] in ("curve", "loss"):
        parts = [of_curves(results, predicate)]
    else:
        if predicate["kind"] == "higher":
            asked = [([(1, predicate["above"]), (-1, predicate["below"])], metric, 0.0, paper)]
        elif predicate["kind"] == "gap":
            names = [*predicate["wide"], *predicate["narrow"]]
            asked = [(list(zip((1, -1, -1, 1), names, strict=True)), metric, 0.0, paper)]
        elif predicate["kind"] == "within":
            for other, theirs in zip(predicate["of"], paper, strict=True):
                one = predicate["evaluation"]
                asked.append(([(1, one), (-1, other)], metric, -predicate["by"], theirs))
                if not predicate.get("better_too"):
                    asked.append(([(1, other), (-1, one)], metric, -predicate["by"], -theirs))
        else:
            assert predicate["kind"] == "ordered", predicate["kind"]
            groups = predicate["groups"]
            asked = [
                ([(1, better), (-1, worse)], each, 0.0, None)
                for each in predicate["metrics"]
                for i in range(len(groups) - 1)
                for better in groups[i]
                for worse in groups[i + 1]
            ]
        parts = [scored(results, *each, len(asked)) for each in asked]
    words = [part.verdict for part in parts]
    verdict = next((w for w in ("CONTRADICTED", "MISSING", "UNRESOLVED") if w in words), "SUPPORTED")
    p = None
    if all(part.p is not None for part in parts):
        below = [part.p or 0.0 for part in parts if (part.mean or 0.0) < part.margin]
        p = min(1.0, min(below) * len(parts)) if below else max(part.p or 0.0 for part in parts)
    return Judged(name, parts, verdict, p)


def half_up(figure: float, digits: int) -> float:
    """A figure of a network at the paper's digits: to hundredths first, as the tool prints it, then half up."""
    return math.floor(round(figure, 2) * 10**digits + 0.5 + 1e-9) / 10**digits


def complexity(results: Results, predicate: dict[str, Any]) -> str:
    """A claim on counted networks, by the figures at the paper's digits."""
    words = []
    for figure, limit in predicate["at_most"].items():
        digits = {"params": 1, "gflops": 0}[figure]
        pair = [results.counted.get(tuple(predicate[side])) for side in ("network", "than")]
        if None in pair:
            words.append("MISSING")
            continue
        more, less = (half_up(each[figure], digits) for each in pair if each)
        words.append("SUPPORTED" if 100 * (more - less) / less <= limit + 1e-9 else "CONTRADICTED")
    if "time_at_most" in predicate:
        words += slower(results, *(predicate[side][0] for side in ("network", "than")), predicate["time_at_most"])
    return next((w for w in ("CONTRADICTED", "MISSING", "UNRESOLVED") if w in words), "SUPPORTED")


def slower(results: Results, network: str, than: str, limit: float) -> list[str]:
    """For every way of measuring both, whether the one takes longer by more than so many percent: by the median."""
    words = []
    for ways in results.milliseconds.values():
        if network in ways and than in ways:
            percent = 100 * (ways[network] / ways[than] - 1)
            interval = stats.quantile_test(percent, p=0.5).confidence_interval(0.95)
            words.append(
                "SUPPORTED" if interval.high <= limit else "CONTRADICTED" if interval.low > limit else "UNRESOLVED"
            )
    return words
