"""What a claim compares: signed sums of trainings' means, with the panels that tell their noise."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from date.catalogue import METRICS, Catalogue, Claim, Convergence, Gap, Higher, Loss, Ordered, Within
from date.catalogue.publication import load_paper
from date.reporting.panels import Panel, Values, panel, units
from date.reporting.scores import MINUS, Sample, Scores
from date.reporting.verdicts import Spread
from date.results import RunResult

Curve = dict[int, list[tuple[int, float]]]
"""(step, value) pairs by seed."""


@dataclass(frozen=True)
class Comparison:
    """A difference that is claimed to be above a margin."""

    label: str
    """What is subtracted from what."""
    unit: str
    parts: tuple[tuple[Panel, dict[str, float]], ...] = ()
    """Panels with the signs of their trainings (or evaluations)."""
    offset: float = 0.0
    """What is added that no seed changes."""
    difference: Sample = field(default_factory=lambda: Sample({}))
    """By the seeds that all have: for the eye."""
    margin: float = 0.0
    paper: float | None = None
    lacking: tuple[str, ...] = ()
    digits: int = 1
    higher_is_better: bool = True
    """Of the scores that are compared."""

    @property
    def sides(self) -> list[tuple[Panel, str]]:
        """The trainings that are compared, each with its panel."""
        return [(each, name) for each, signs in self.parts for name in signs]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Runs of each training that count as one, in the order of the comparison."""
        return tuple(len(each.cells[name]) for each, name in self.sides)

    @property
    def image_free(self) -> bool:
        """Whether images have no part in what is compared."""
        return bool(self.parts) and all(each.image_free for each, _ in self.parts)

    @property
    def stated(self) -> bool:
        """Whether the field states the noise of all that is compared."""
        return bool(self.parts) and all(name in each.stated for each, name in self.sides)


class Comparer:
    """Finds what claims compare in a tier's results.

    Args:
        scores: of the tier.
        results: of the tier.
        catalogue: the paper.
        stated: whether the field's stated noise counts: at the paper's tier alone.
    """

    def __init__(self, scores: Scores, results: Sequence[RunResult], catalogue: Catalogue, stated: bool) -> None:
        self._scores, self._results, self._catalogue, self._stated = scores, results, catalogue, stated
        self._units = units(results, catalogue)
        self._panels: dict[Hashable, Panel] = {}

    def comparisons(self, claim: Claim) -> list[Comparison]:
        """Return what a claim over seeds asks for."""
        predicate = claim.predicate
        if isinstance(predicate, Higher):
            terms = [(1, predicate.above), (-1, predicate.below)]
            return [self._scored(terms, predicate.metric, 0, predicate.paper)]
        if isinstance(predicate, Within):
            found = []
            for other, paper in zip(predicate.of, predicate.paper, strict=True):
                terms = [(1, predicate.evaluation), (-1, other)]
                found.append(self._scored(terms, predicate.metric, -predicate.by, paper))
                if not predicate.better_too:
                    terms = [(1, other), (-1, predicate.evaluation)]
                    found.append(self._scored(terms, predicate.metric, -predicate.by, -paper))
            return found
        if isinstance(predicate, Ordered):
            return [
                self._scored([(1, better), (-1, worse)], metric, 0, None)
                for metric in predicate.metrics
                for i, group in enumerate(predicate.groups[:-1])
                for better in group
                for worse in predicate.groups[i + 1]
            ]
        if isinstance(predicate, Gap):
            (a, b), (c, d) = predicate.wide, predicate.narrow
            return [self._scored([(1, a), (-1, b), (-1, c), (1, d)], predicate.metric, 0, predicate.paper)]
        if isinstance(predicate, Convergence):
            return [self._convergence(predicate)]
        assert isinstance(predicate, Loss)
        return [self._loss(predicate)]

    def spread(self, evaluation: str, metric: str) -> Spread | None:
        """Return how far runs of a training lie apart in one of its evaluations; None where nothing tells it."""
        training, variant = evaluation.split("/")
        found = self._level(training, variant, metric).fit
        if evaluation not in found.columns:
            return None
        own = np.zeros(len(found.columns))
        own[found.columns.index(evaluation)] = 1.0
        variances = own * np.nan_to_num(found.variances)
        variance = float(variances.sum()) + found.shared
        freedom = found.freedom(variances, found.shared)
        return Spread(math.sqrt(variance), freedom) if variances.any() and freedom > 0 else None

    def _scored(self, terms: Sequence[tuple[int, str]], metric: str, margin: float, paper: float | None) -> Comparison:
        """Return a signed sum of evaluations; an evaluation of annotations is the same with every seed."""
        samples = [(sign, self._scores.named(name, metric)) for sign, name in terms]
        seeded = [set(sample.values) for _, sample in samples if not sample.exact]
        common = sorted(set.intersection(*seeded)) if seeded else []
        lacking = tuple(name for (_, name), (_, sample) in zip(terms, samples, strict=True) if not sample.n)
        values = {} if lacking else {seed: sum(sign * s.at(seed) for sign, s in samples) for seed in common}
        label = "".join(f" {MINUS if sign < 0 else '+'} {name}" for sign, name in terms).removeprefix(" + ")
        offset = 0.0
        by_training: dict[str, dict[str, float]] = {}
        for (sign, name), (_, sample) in zip(terms, samples, strict=True):
            if sample.exact or not sample.n:
                offset += sign * (sample.mean or 0.0)
            else:
                training, variant = name.split("/")
                variants = by_training.setdefault(training, {})
                variants[variant] = variants.get(variant, 0.0) + sign
        chosen = [] if lacking else [self._signed(name, variants, metric) for name, variants in by_training.items()]
        better = METRICS[metric].better != "lower"
        unit = METRICS[metric].name
        return Comparison(
            label, unit, _merged(chosen), offset, Sample(values), margin, paper, lacking, higher_is_better=better
        )

    def _signed(self, training: str, variants: dict[str, float], metric: str) -> tuple[Panel, str, float]:
        """Return a training's part: one evaluation, or what its runs' evaluations differ by, run by run."""
        if len(variants) > 1:
            return self._within(training, variants, metric), training, 1.0
        ((variant, sign),) = variants.items()
        return self._level(training, variant, metric), f"{training}/{variant}", sign

    def _level(self, training: str, variant: str, metric: str) -> Panel:
        """Return the panel of an evaluation: the main ones of its data and schedule, or those of the same variant."""
        main = self._main(training) == variant
        kind = self._kind(training)
        key = ("level", metric, kind, None if main else variant)
        if key not in self._panels:
            names = [
                f"{name}/{self._main(name) if main else variant}"
                for name in self._trained()
                if self._kind(name) == kind
            ]
            scores = {name: self._scores.sample(name, metric).values for name in names}
            self._panels[key] = panel(
                {name: by_seed for name, by_seed in scores.items() if by_seed},
                lambda name, seed: self._units[name.split("/")[0], seed],
                lambda name, seed: self._scores.resampled(name, seed, metric),
                self._stated_sd(names, kind[0], metric),
            )
        return self._panels[key]

    def _within(self, training: str, variants: dict[str, float], metric: str) -> Panel:
        """Return the panel of what variants of a checkpoint differ by: runs share all but the selection."""
        kind = self._kind(training)
        key = ("within", metric, kind, tuple(sorted(variants.items())))
        if key not in self._panels:
            scores: dict[str, dict[int, float]] = {}
            for name in self._trained():
                samples = {v: self._scores.sample(f"{name}/{v}", metric).values for v in variants}
                seeds = set.intersection(*(set(by_seed) for by_seed in samples.values()))
                if seeds and self._kind(name) == kind:
                    scores[name] = {s: sum(f * samples[v][s] for v, f in variants.items()) for s in sorted(seeds)}

            def resampled(name: str, seed: int) -> tuple[str, Values] | None:
                found = [(f, self._scores.resampled(f"{name}/{v}", seed, metric)) for v, f in variants.items()]
                rows = [(f, row) for f, row in found if row is not None]
                if len(rows) < len(found):
                    return None
                return rows[0][1][0], np.sum([f * row for f, (_, row) in rows], axis=0)

            self._panels[key] = panel(scores, lambda name, seed: self._units[name, seed], resampled)
        return self._panels[key]

    def _convergence(self, predicate: Convergence) -> Comparison:
        curves = {name: self._curves(name, "AP") for name in (predicate.fast, predicate.slow)}
        fast, slow = curves[predicate.fast], curves[predicate.slow]
        lacking = tuple(name for name, curve in curves.items() if not curve)
        if predicate.measure == "area":
            label = f"mean AP over equal iterations of {predicate.fast} {MINUS} {predicate.slow}"
            steps = _common_steps([*fast.values(), *slow.values()])
            both = [self._curve_panel(name, "AP", steps) for name in (predicate.fast, predicate.slow)]
        else:
            share = f"{100 * predicate.fraction:g} % of the iterations"
            label = f"AP of {predicate.fast} by {share} {MINUS} final AP of {predicate.slow}"
            last = min((curve[-1][0] for curve in slow.values()), default=0)
            budget = predicate.fraction * last
            within = [[step for step, _ in curve if step <= budget] for curve in fast.values()]
            at = min((max(steps, default=0) for steps in within), default=0)
            both = [
                self._curve_panel(predicate.fast, "AP", (at,)),
                self._curve_panel(predicate.slow, "AP", (last,)),
            ]
        return self._of_curves(label, "AP", (predicate.fast, predicate.slow), both, lacking, predicate.paper)

    def _loss(self, predicate: Loss) -> Comparison:
        curves = {name: self._curves(name, predicate.loss) for name in (predicate.high, predicate.low)}
        lacking = tuple(name for name in (predicate.low, predicate.high) if not curves[name])
        steps = _common_steps([curve for by_seed in curves.values() for curve in by_seed.values()])
        both = [self._curve_panel(name, predicate.loss, steps) for name in (predicate.high, predicate.low)]
        label = f"mean {predicate.loss} over equal iterations of {predicate.high} {MINUS} {predicate.low}"
        return self._of_curves(label, "loss", (predicate.high, predicate.low), both, lacking, None, 3)

    def _of_curves(
        self,
        label: str,
        unit: str,
        names: tuple[str, str],
        panels: Sequence[Panel],
        lacking: tuple[str, ...],
        paper: float | None,
        digits: int = 1,
    ) -> Comparison:
        here = [name in each.cells for name, each in zip(names, panels, strict=True)]
        if not all(here):
            return Comparison(label, unit, paper=paper, lacking=lacking, digits=digits)
        parts = _merged([(each, name, sign) for each, name, sign in zip(panels, names, (1.0, -1.0), strict=True)])
        ahead, behind = (
            {s: each.cells[name][u] for (n, u), seeds in each.seeds.items() if n == name for s in seeds}
            for name, each in zip(names, panels, strict=True)
        )
        values = {seed: ahead[seed] - behind[seed] for seed in sorted(ahead.keys() & behind.keys())}
        better = unit != "loss"
        return Comparison(label, unit, parts, 0.0, Sample(values), 0.0, paper, lacking, digits, higher_is_better=better)

    def _curve_panel(self, training: str, metric: str, steps: tuple[int, ...]) -> Panel:
        """Return the panel of curves' means over some steps, each weighing the steps since the one before."""
        kind = self._kind(training)
        key = ("curve", metric, kind, steps)
        if key not in self._panels:
            scores: dict[str, dict[int, float]] = {}
            for name in self._trained():
                if self._kind(name) == kind and steps and steps[-1]:
                    curves = self._curves(name, metric)
                    found = {seed: _mean(curve, steps) for seed, curve in curves.items()}
                    scores[name] = {seed: value for seed, value in found.items() if value is not None}
            stated = self._stated_sd(list(scores), kind[0], metric) if len(steps) == 1 else {}
            self._panels[key] = panel(
                {name: by_seed for name, by_seed in scores.items() if by_seed},
                lambda name, seed: self._units[name, seed],
                lambda name, seed: self._scores.resampled(f"{name}/{self._main(name)}", seed, "AP"),
                stated,
                image_free=metric != "AP",
            )
        return self._panels[key]

    def _curves(self, training: str, metric: str) -> Curve:
        """Return a training's curves: of its evaluations, or of a loss."""
        kind = "eval" if metric == "AP" else "train"
        found: Curve = {}
        for run in self._results:
            if run.training == training:
                pairs = [(r["step"], r[metric]) for r in run.records if r["kind"] == kind and r.get(metric) is not None]
                found |= {run.seed: pairs} if pairs else {}
        return found

    def _main(self, training: str) -> str:
        return self._catalogue.evaluations_of(training)[0].variant

    def _kind(self, training: str) -> tuple[str, str]:
        entry = self._catalogue.training(training)
        return entry.data, entry.schedule

    def _trained(self) -> list[str]:
        return [name for name in self._catalogue.trainings if any(run.training == name for run in self._results)]

    def _stated_sd(self, names: Sequence[str], part: str, metric: str) -> dict[str, float]:
        sd = load_paper().stated_sd(part, metric) if self._stated else None
        return {} if sd is None else dict.fromkeys(names, sd)


def papers_comparer(scores: Scores, results: Sequence[RunResult], catalogue: Catalogue, stated: bool) -> Comparer:
    """Return a `Comparer` of the paper's trainings alone: own experiments change nothing that is said of them."""
    paper = catalogue.of_the_paper()
    return Comparer(scores, [result for result in results if result.training in paper.trainings], paper, stated)


def _merged(chosen: Sequence[tuple[Panel, str, float]]) -> tuple[tuple[Panel, dict[str, float]], ...]:
    """Return panels, each once, with the signs of what is chosen of them."""
    found: dict[int, tuple[Panel, dict[str, float]]] = {}
    for each, name, sign in chosen:
        signs = found.setdefault(id(each), (each, {}))[1]
        signs[name] = signs.get(name, 0.0) + sign
    return tuple(found.values())


def _common_steps(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[int, ...]:
    """Return the steps that all curves have."""
    return tuple(sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))) if curves else ()


def _mean(curve: Sequence[tuple[int, float]], steps: Sequence[int]) -> float | None:
    """Return a curve's mean over steps, each weighing the steps since the one before; None where one is lacking."""
    values: Mapping[int, float] = dict(curve)
    if any(step not in values for step in steps):
        return None
    weights = [step - before for step, before in zip(steps, [0, *steps], strict=False)]
    return sum(w * values[s] for w, s in zip(weights, steps, strict=True)) / sum(weights)
