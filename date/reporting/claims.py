"""The paper's claims judged by our results: paired over equal seeds, with intervals.

Every claim is a conjunction of comparisons "this difference is above a margin". One comparison is, by the 95 % interval
of its mean difference over seeds,

- SUPPORTED where the interval lies above the margin,
- CONTRADICTED where it lies below,
- NOT SUPPORTED where it holds the margin but not the paper's difference: an effect of the paper's size is excluded,
- UNRESOLVED where it holds both, or where there is no interval,
- MISSING where a result is.

A conjunction is SUPPORTED where all parts are (no correction is needed: each has to pass), and CONTRADICTED where any
part is with its level corrected for their number (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from date.catalogue import METRICS, Catalogue, Claim, Complexity, Convergence, Gap, Higher, Loss, Ordered, Tier, Within
from date.catalogue.publication import load_paper
from date.reporting.scores import MINUS, Sample, Scores, number
from date.reporting.seeds import SeedAudit
from date.reporting.statistics import LEVEL, Estimate, estimate, seeds_needed
from date.results import RunResult

SUPPORTED, NOT_SUPPORTED, CONTRADICTED = "SUPPORTED", "NOT SUPPORTED", "CONTRADICTED"
UNRESOLVED, MISSING = "UNRESOLVED", "MISSING"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, CONTRADICTED, UNRESOLVED, MISSING)


@dataclass(frozen=True)
class Comparison:
    """A difference that is claimed to be above a margin."""

    label: str
    """What is subtracted from what."""
    unit: str
    difference: Sample
    margin: float = 0.0
    paper: float | None = None
    stated_sd: float | None = None
    """Of one seed's difference, by the field's stated noise; None where it says nothing of this difference."""
    lacking: tuple[str, ...] = ()
    digits: int = 1


@dataclass(frozen=True)
class Judged:
    """A comparison with its statistic and verdict."""

    comparison: Comparison
    estimate: Estimate | None
    verdict: str
    seeds: int | None = None
    """Of UNRESOLVED: the seeds that it would take, None where that is not known or not feasible."""

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        c, e = self.comparison, self.estimate
        if e is None:
            return f"no result of {' and '.join(c.lacking)}" if c.lacking else "no seed in common"
        text = f"{e.n} seed{'s' * (e.n > 1)}"
        if e.low is not None and e.high is not None:
            text += f", 95 % interval {_signed(e.low, c.digits)} to {_signed(e.high, c.digits)}"
            text += " by the field's stated noise" if e.stated else ""
            text += f", p {p_value(e.p)}"
        if self.verdict == UNRESOLVED:
            text += f"; {self.needs}"
        return text

    @property
    def reach(self) -> float:
        """Half the width of a scale with zero in its middle that shows all numbers."""
        c, e = self.comparison, self.estimate
        interval = (e.low, e.high) if e else ()
        shown = [c.margin, c.paper, *c.difference.values.values(), *interval]
        return 1.1 * max((abs(v) for v in shown if v is not None), default=1.0) or 1.0

    @property
    def needs(self) -> str:
        """How many seeds it would take."""
        if self.seeds is not None:
            return f"{self.seeds} seed{'s' * (self.seeds > 1)} would resolve it with 80 % power"
        if self.estimate is None or self.estimate.sd is None:
            return "at least 2 seeds are needed, since no spread is known"
        return "no feasible number of seeds would resolve it"


@dataclass(frozen=True)
class Outcome:
    """A claim with what our results say of it."""

    claim: Claim
    verdict: str
    parts: list[Judged]
    """Of claims over seeds."""
    remarks: list[str]
    """On networks that were counted, on seeds that were reused or dropped, and on boxes with a dead side."""
    trainings: Sequence[str] = ()
    """Those whose runs it rests on."""

    @property
    def main(self) -> Judged | None:
        """The part that decides: of a conjunction the one whose difference is nearest to its margin."""
        return min(self.parts, key=_decisiveness) if self.parts else None


def judge(
    claim: Claim,
    scores: Scores,
    results: Sequence[RunResult],
    tier: Tier,
    catalogue: Catalogue,
    audit: SeedAudit | None = None,
) -> Outcome:
    """Judge a claim by the results of a tier; stated noise counts at the paper's tier only."""
    if isinstance(claim.predicate, Complexity):
        return _complexity(claim, claim.predicate, scores)
    is_paper = tier.reference
    found = comparisons(claim, scores, results, catalogue)
    judged = [judge_comparison(c if is_paper else replace(c, stated_sd=None), is_paper, len(found)) for c in found]
    trainings = _trainings(claim, catalogue)
    remarks = [*(audit.remarks(trainings) if audit else []), *scores.dead_sides(trainings)]
    return Outcome(claim, conjunction([part.verdict for part in judged]), judged, remarks, trainings)


def comparisons(claim: Claim, scores: Scores, results: Sequence[RunResult], catalogue: Catalogue) -> list[Comparison]:
    """Return what a claim over seeds asks for."""
    predicate = claim.predicate
    if isinstance(predicate, Higher):
        return [
            _scored(
                catalogue, scores, [(1, predicate.above), (-1, predicate.below)], predicate.metric, 0, predicate.paper
            )
        ]
    if isinstance(predicate, Within):
        found = []
        for other, paper in zip(predicate.of, predicate.paper, strict=True):
            terms = [(1, predicate.evaluation), (-1, other)]
            found.append(_scored(catalogue, scores, terms, predicate.metric, -predicate.by, paper))
            if not predicate.better_too:
                terms = [(1, other), (-1, predicate.evaluation)]
                found.append(_scored(catalogue, scores, terms, predicate.metric, -predicate.by, -paper))
        return found
    if isinstance(predicate, Ordered):
        return [
            _scored(catalogue, scores, [(1, better), (-1, worse)], metric, 0, None)
            for metric in predicate.metrics
            for i, group in enumerate(predicate.groups[:-1])
            for better in group
            for worse in predicate.groups[i + 1]
        ]
    if isinstance(predicate, Gap):
        (a, b), (c, d) = predicate.wide, predicate.narrow
        return [_scored(catalogue, scores, [(1, a), (-1, b), (-1, c), (1, d)], predicate.metric, 0, predicate.paper)]
    if isinstance(predicate, Convergence):
        return [_convergence(predicate, results, catalogue)]
    assert isinstance(predicate, Loss)
    return [_loss(predicate, results)]


def _scored(
    catalogue: Catalogue,
    scores: Scores,
    terms: Sequence[tuple[int, str]],
    metric: str,
    margin: float,
    paper: float | None,
) -> Comparison:
    """Return a signed sum of evaluations; an evaluation of annotations is the same with every seed."""
    samples = [(sign, scores.named(name, metric)) for sign, name in terms]
    seeded = [set(sample.values) for _, sample in samples if not sample.exact]
    common = sorted(set.intersection(*seeded)) if seeded else []
    lacking = tuple(name for (_, name), (_, sample) in zip(terms, samples, strict=True) if not sample.n)
    values = {} if lacking else {seed: sum(sign * s.at(seed) for sign, s in samples) for seed in common}
    label = "".join(f" {MINUS if sign < 0 else '+'} {name}" for sign, name in terms).removeprefix(" + ")
    return Comparison(
        label, METRICS[metric].name, Sample(values), margin, paper, _stated(terms, metric, catalogue), lacking
    )


def _stated(terms: Sequence[tuple[int, str]], metric: str, catalogue: Catalogue) -> float | None:
    """Return the stated deviation of a sum of independent trainings; None for two evaluations of one checkpoint."""
    trainings = [name.split("/")[0] for _, name in terms if "/" in name]
    stated = [load_paper().stated_sd(catalogue.training(name).data, metric) for name in trainings]
    known = [sd for sd in stated if sd is not None]
    independent = len(known) == len(stated) > 0 and len(set(trainings)) == len(trainings)
    return math.hypot(*known) if independent else None


def _convergence(predicate: Convergence, results: Sequence[RunResult], catalogue: Catalogue) -> Comparison:
    fast, slow = (_curves(results, name, "AP") for name in (predicate.fast, predicate.slow))
    values, paired = {}, sorted(fast.keys() & slow.keys())
    for seed in paired:
        if predicate.measure == "area":
            value = _mean_lead(fast[seed], slow[seed])
        else:
            budget = predicate.fraction * slow[seed][-1][0]
            within = [value for step, value in fast[seed] if step <= budget]
            value = within[-1] - slow[seed][-1][1] if within else None
        if value is not None:
            values[seed] = value
    names = {predicate.fast: fast, predicate.slow: slow}
    lacking = tuple(name for name, curve in names.items() if not curve)
    if predicate.measure == "area":
        label, sd = f"mean AP over equal iterations of {predicate.fast} {MINUS} {predicate.slow}", None
    else:
        share = f"{100 * predicate.fraction:g} % of the iterations"
        label, sd = (
            f"AP of {predicate.fast} by {share} {MINUS} final AP of {predicate.slow}",
            load_paper().stated_sd(catalogue.training(predicate.fast).data, "AP"),
        )
    stated = None if sd is None else sd * math.sqrt(2)
    return Comparison(label, "AP", Sample(values), 0, predicate.paper, stated, lacking)


def _loss(predicate: Loss, results: Sequence[RunResult]) -> Comparison:
    low, high = (_curves(results, name, predicate.loss) for name in (predicate.low, predicate.high))
    leads = {seed: _mean_lead(high[seed], low[seed]) for seed in sorted(low.keys() & high.keys())}
    values = {seed: lead for seed, lead in leads.items() if lead is not None}
    lacking = tuple(name for name, curve in ((predicate.low, low), (predicate.high, high)) if not curve)
    label = f"mean {predicate.loss} over equal iterations of {predicate.high} {MINUS} {predicate.low}"
    return Comparison(label, "loss", Sample(values), lacking=lacking, digits=3)


def _curves(results: Sequence[RunResult], training: str, metric: str) -> dict[int, list[tuple[int, float]]]:
    """Return a training's (step, value) pairs by seed: of its evaluations, or of a loss."""
    kind = "eval" if metric == "AP" else "train"
    found: dict[int, list[tuple[int, float]]] = {}
    for run in results:
        if run.training == training:
            pairs = [(r["step"], r[metric]) for r in run.records if r["kind"] == kind and r.get(metric) is not None]
            found |= {run.seed: pairs} if pairs else {}
    return found


def _mean_lead(ahead: Sequence[tuple[int, float]], behind: Sequence[tuple[int, float]]) -> float | None:
    """Return the mean difference over the steps that both have, each weighing the steps since the one before."""
    first, second = dict(ahead), dict(behind)
    steps = sorted(first.keys() & second.keys())
    if not steps:
        return None
    weights = [step - before for step, before in zip(steps, [0, *steps], strict=False)]
    return sum(w * (first[s] - second[s]) for w, s in zip(weights, steps, strict=True)) / sum(weights)


def judge_comparison(comparison: Comparison, is_paper: bool = True, parts: int = 1) -> Judged:
    """Return a comparison's verdict, as one of several parts of a claim."""
    values = list(comparison.difference.values.values())
    if not values:
        return Judged(comparison, None, MISSING)
    found = estimate(values, comparison.margin, comparison.stated_sd)
    if found.low is None or found.high is None:
        return Judged(comparison, found, UNRESOLVED)
    if found.low > comparison.margin:
        return Judged(comparison, found, SUPPORTED)
    strict = estimate(values, comparison.margin, comparison.stated_sd, 1 - (1 - LEVEL) / parts)
    if strict.high is not None and strict.high < comparison.margin:
        return Judged(comparison, found, CONTRADICTED)
    paper = comparison.paper if is_paper else None
    if paper is not None and comparison.margin < paper and found.high < paper:
        return Judged(comparison, found, NOT_SUPPORTED)
    assert found.sd is not None
    distance = (found.mean if paper is None else paper) - comparison.margin
    return Judged(comparison, found, UNRESOLVED, seeds_needed(distance, found.sd, found.stated))


def conjunction(verdicts: Sequence[str]) -> str:
    """Return the verdict on several parts that must all hold."""
    for verdict in (CONTRADICTED, NOT_SUPPORTED, MISSING, UNRESOLVED):
        if verdict in verdicts:
            return verdict
    return SUPPORTED if verdicts else MISSING


def _decisiveness(part: Judged) -> tuple[int, float]:
    order = (CONTRADICTED, NOT_SUPPORTED, MISSING, UNRESOLVED, SUPPORTED).index(part.verdict)
    return order, math.inf if part.estimate is None else part.estimate.mean - part.comparison.margin


def _complexity(claim: Claim, predicate: Complexity, scores: Scores) -> Outcome:
    """Judge a claim on counted networks: exact, by the figures at the paper's digits, as the paper calculates."""
    verdicts, remarks = [], []
    for figure, limit in predicate.at_most.items():
        more, less = (scores.complexity(*network, figure).mean for network in (predicate.network, predicate.than))
        if more is None or less is None:
            verdicts.append(MISSING)
            remarks.append("The networks have not been counted.")
            continue
        metric = METRICS[figure]
        a, b = metric.printed(more), metric.printed(less)
        percent = 100 * (a - b) / b
        verdicts.append(SUPPORTED if percent <= limit + 1e-9 else CONTRADICTED)
        remarks.append(
            f"{metric.name}: {number(a, metric.digits)} against {number(b, metric.digits)}, {percent:.2f} % more "
            f"({100 * (more - less) / less:.2f} % by unrounded counts), claimed: at most {limit:g} %."
        )
    return Outcome(claim, conjunction(verdicts), [], list(dict.fromkeys(remarks)))


def _trainings(claim: Claim, catalogue: Catalogue) -> list[str]:
    """Return the trainings that a claim rests on, each once."""
    judged = [catalogue.evaluation(n).training for n in claim.evaluations if n in catalogue.evaluations]
    return list(dict.fromkeys([*claim.trainings, *judged]))


def p_value(p: float | None) -> str:
    """Return a p-value as text, e.g. ``0.03`` or ``< 0.001``."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _signed(value: float, digits: int) -> str:
    text = number(value, digits + 1)
    return text if text.startswith(MINUS) else f"+{text}"
