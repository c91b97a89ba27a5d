"""The paper's claims judged by our results, with intervals over seeds and images that hold at every look.

Every claim is a conjunction of comparisons "this difference is above a margin". One comparison is, by its interval,

- SUPPORTED where the interval lies above the margin,
- CONTRADICTED where it lies below,
- NOT SUPPORTED where it holds the margin but not the paper's difference: an effect of the paper's size is excluded,
- UNRESOLVED where it holds both, or where there is no interval: without two seeds a side, unless the field states the
  noise,
- MISSING where a result is.

A conjunction is SUPPORTED where all parts are (no correction is needed: each has to pass), and CONTRADICTED where any
part is with its error divided by their number (Bonferroni).

At the paper's own tier the interval is about the paper's validation set, and the same is said for images like these; at
the others images count always, since their sets are small and their own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from date.catalogue import METRICS, Catalogue, Claim, Complexity, Tier, Variant, load
from date.reporting.comparisons import Comparer, Comparison, papers_comparer
from date.reporting.crossed import difference
from date.reporting.latency import judge_time, nms_sentences
from date.reporting.panels import image_variance
from date.reporting.scores import MINUS, Scores, number
from date.reporting.seeds import SeedAudit
from date.reporting.statistics import Estimate, estimate, holm
from date.reporting.trials import seeds_to_resolve
from date.results import RunResult

SUPPORTED, NOT_SUPPORTED, CONTRADICTED = "SUPPORTED", "NOT SUPPORTED", "CONTRADICTED"
UNRESOLVED, MISSING = "UNRESOLVED", "MISSING"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, CONTRADICTED, UNRESOLVED, MISSING)
DECIDED = (SUPPORTED, CONTRADICTED)


@dataclass(frozen=True)
class Judged:
    """A comparison with its statistic and verdict."""

    comparison: Comparison
    estimate: Estimate | None
    verdict: str
    wider: Estimate | None = None
    """At the paper's tier: the same for images like these."""
    wider_verdict: str | None = None

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        c, e = self.comparison, self.estimate
        if e is None:
            return f"no result of {' and '.join(c.lacking)}" if c.lacking else "no result of equal iterations"
        counts = dict.fromkeys(e.seeds) if len(set(e.seeds)) == 1 else e.seeds
        text = f"{' and '.join(map(str, counts))} seed{'s' * (set(e.seeds) != {1})}"
        if e.low is None or e.high is None:
            return f"{text}; at least two seeds a side are needed, since no spread is known"
        text += f", 95 % interval {_signed(e.low, c.digits)} to {_signed(e.high, c.digits)}, p {p_value(e.p)}"
        text += ", moderated by the field's stated noise" if e.noise == "stated" else ""
        if e.image_error is not None and e.seed_error is not None:
            text += f" (standard error {e.error:.{c.digits + 1}f}: seeds {e.seed_error:.{c.digits + 1}f}, "
            text += f"images {e.image_error:.{c.digits + 1}f})"
        if self.wider is not None and self.wider.low is not None and self.wider.high is not None:
            low, high = _signed(self.wider.low, c.digits), _signed(self.wider.high, c.digits)
            text += f"; for images like these {low} to {high}, {self.wider_verdict}"
        plain = c.difference.mean
        if plain is not None and round(plain, c.digits) != round(e.mean - c.offset, c.digits) and not c.offset:
            text += f"; over equal seeds alone {_signed(plain, c.digits)}"
        return text

    @property
    def reach(self) -> float:
        """Half the width of a scale with zero in its middle that shows all numbers."""
        c, e = self.comparison, self.estimate
        interval = (e.low, e.high) if e else ()
        shown = [c.margin, c.paper, *c.difference.values.values(), *interval]
        return 1.1 * max((abs(v) for v in shown if v is not None), default=1.0) or 1.0


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
    needs: str = ""
    """Of UNRESOLVED: how many seeds it would take."""
    adjusted: float | None = None
    """p-value of the verdict, corrected for the number of claims (Holm); None where there is none."""

    @property
    def main(self) -> Judged | None:
        """The part that decides: of a conjunction the one whose difference is nearest to its margin."""
        return min(self.parts, key=_decisiveness) if self.parts else None

    @property
    def p(self) -> float | None:
        """Of the verdict that the differences point to: of all parts if they are above, of the clearest one below."""
        found = [part.estimate for part in self.parts]
        if not found or any(e is None or e.p is None for e in found):
            return None
        below = [
            e.p for e, part in zip(found, self.parts, strict=True) if e and e.p and e.mean < part.comparison.margin
        ]
        if below and self.verdict != SUPPORTED:
            return min(1.0, min(below) * len(found))
        return max(e.p for e in found if e is not None and e.p is not None)


def judge_all(
    scores: Scores,
    results: Sequence[RunResult],
    tier: Tier,
    catalogue: Catalogue,
    audit: SeedAudit | None = None,
    claims: Sequence[Claim] | None = None,
) -> list[Outcome]:
    """Judge claims by the results of a tier, all of the catalogue's by default, and correct for their number.

    Args:
        scores: of the tier.
        results: of the tier.
        tier: stated noise counts at the paper's alone.
        catalogue: the paper.
        audit: what is wrong with the seeds.
        claims: to judge no others.
    """
    every = Comparer(scores, results, catalogue, tier.reference)
    papers = papers_comparer(scores, results, catalogue, tier.reference)
    chosen = catalogue.claims.values() if claims is None else claims
    outcomes = [
        _judge(claim, papers if claim.folder is None else every, scores, tier, catalogue, audit) for claim in chosen
    ]
    by_place: dict[int, float] = {}
    for own in (False, True):  # the paper's claims and those of own experiments are corrected apart
        tested = [i for i, o in enumerate(outcomes) if o.p is not None and (o.claim.folder is not None) == own]
        by_place |= dict(zip(tested, holm([outcomes[i].p or 0.0 for i in tested]), strict=True))
    return [replace(outcome, adjusted=by_place.get(i)) for i, outcome in enumerate(outcomes)]


def _judge(
    claim: Claim, comparer: Comparer, scores: Scores, tier: Tier, catalogue: Catalogue, audit: SeedAudit | None
) -> Outcome:
    if isinstance(claim.predicate, Complexity):
        return _complexity(claim, claim.predicate, scores)
    found = comparer.comparisons(claim)
    judged = [judge_comparison(c, tier.reference, len(found)) for c in found]
    verdict = conjunction([part.verdict for part in judged])
    trainings = _trainings(claim, catalogue)
    remarks = [*(audit.remarks(trainings) if audit else []), *scores.dead_sides(trainings)]
    remarks += _failed_otherwise(found, verdict, tier.reference, audit)
    needs = ""
    if verdict == UNRESOLVED:
        needs = seeds_to_resolve([(part.comparison, part.estimate) for part in judged], tier.reference)
    return Outcome(claim, verdict, judged, remarks, trainings, needs)


def judge_comparison(comparison: Comparison, is_paper: bool = True, parts: int = 1) -> Judged:
    """Return a comparison's verdict, as one of several parts of a claim."""
    c = comparison
    if not c.parts:
        return Judged(c, None, MISSING)
    found = difference([(each.fit, signs) for each, signs in c.parts])
    found = replace(found, mean=found.mean + c.offset)
    if min(c.seeds) < 2 and not c.stated:
        return Judged(c, Estimate(c.seeds, found.mean, None, 0.0, None, None, None), UNRESOLVED)
    images = None if c.image_free else image_variance(found, [each for each, _ in c.parts])
    noise = "stated" if c.stated else "observed"

    def both(variance: float | None) -> tuple[Estimate, str]:
        plain = estimate(found, c.seeds, c.margin, variance, noise)
        strict = estimate(found, c.seeds, c.margin, variance, noise, parts)
        return plain, _word(plain, strict, c, is_paper)

    if not is_paper:
        return Judged(c, *both(images))
    wider = (None, None) if images is None else both(images)
    return Judged(c, *both(None), *wider)


def _word(found: Estimate, strict: Estimate, comparison: Comparison, is_paper: bool) -> str:
    if found.low is None or found.high is None or strict.high is None:
        return UNRESOLVED
    if found.low > comparison.margin:
        return SUPPORTED
    if strict.high < comparison.margin:
        return CONTRADICTED
    paper = comparison.paper if is_paper else None
    if paper is not None and comparison.margin < paper and found.high < paper:
        return NOT_SUPPORTED
    return UNRESOLVED


def conjunction(verdicts: Sequence[str]) -> str:
    """Return the verdict on several parts that must all hold."""
    for verdict in (CONTRADICTED, NOT_SUPPORTED, MISSING, UNRESOLVED):
        if verdict in verdicts:
            return verdict
    return SUPPORTED if verdicts else MISSING


def _decisiveness(part: Judged) -> tuple[int, float]:
    order = (CONTRADICTED, NOT_SUPPORTED, MISSING, UNRESOLVED, SUPPORTED).index(part.verdict)
    return order, math.inf if part.estimate is None else part.estimate.mean - part.comparison.margin


def _failed_otherwise(found: Sequence[Comparison], verdict: str, is_paper: bool, audit: SeedAudit | None) -> list[str]:
    """Return what the claim would be if failed seeds counted as the worst of their side, where it is another."""
    if audit is None:
        return []
    failed: dict[str, list[int]] = {}
    judged = []
    for c in found:
        parts = []
        for each, signs in c.parts:
            added: dict[str, dict[Hashable, float]] = {}
            for name in signs:
                seeds = audit.failed(name.split("/")[0])
                worst = (min if c.higher_is_better else max)(each.cells[name].values())
                added[name] = dict.fromkeys(seeds, worst)
                failed |= {name.split("/")[0]: seeds} if seeds else {}
            parts.append((each.with_runs(added), signs))
        judged.append(judge_comparison(replace(c, parts=tuple(parts)), is_paper, len(found)))
    other = conjunction([part.verdict for part in judged])
    if not failed or other == verdict:
        return []
    names = ", ".join(f"seed{'s' * (len(s) > 1)} {', '.join(map(str, s))} of {n}" for n, s in failed.items())
    return [f"With {names}, which failed, counted as the worst of their side the claim is {other}."]


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what has to be said of all verdicts together: how many are false by chance, and which survive Holm."""
    judged = [o for o in outcomes if o.adjusted is not None]
    decided = [o for o in judged if o.verdict in DECIDED]
    if not judged:
        return []
    holding = [o.claim.name for o in decided if o.adjusted is not None and o.adjusted <= 0.05]
    lost = [o.claim.name for o in decided if o.claim.name not in holding]
    count = f"{len(judged)} claim{'s were' if len(judged) > 1 else ' was'}"
    said = [
        f"{count} judged by intervals that hold with 95 % however often one looks, so that of the {len(decided)} "
        f"verdicts SUPPORTED or CONTRADICTED at most {0.05 * len(judged):.1f} are expected to be false (if every true "
        f"difference were exactly its margin)."
    ]
    if decided:
        said.append(
            f"After Holm's correction for their number {len(holding)} of the {len(decided)} stand"
            + (f"; {', '.join(lost)} {'does' if len(lost) == 1 else 'do'} not." if lost else ".")
        )
    return said


def about(outcomes: Sequence[Outcome], is_paper: bool) -> str:
    """Return what the intervals are about, as a sentence."""
    parts = [part for o in outcomes for part in o.parts if not part.comparison.image_free]
    found = [part.wider or part.estimate for part in parts if part.estimate is not None]
    known = [e for e in found if e is not None and e.error is not None]
    with_images = [e for e in known if e.image_error is not None]
    if not known:
        return ""
    if not with_images:
        return (
            "Intervals are about the seeds alone: these evaluations store no resamples of the images, so other images "
            "may move every difference by more than the intervals say."
        )
    some = "" if len(with_images) == len(known) else f" ({len(with_images)} of {len(known)} comparisons; others: seeds)"
    if is_paper:
        return f"Intervals are about this validation set; beside them stands what holds for images like these{some}."
    return f"Intervals are about new seeds and new images like these, of sets of the same size{some}."


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
    for word, sentence in judge_time(predicate, scores.latency):
        verdicts.append({"within": SUPPORTED, "above": CONTRADICTED, "open": UNRESOLVED}[word])
        remarks.append(sentence)
    if scores.latency is not None and predicate.time_at_most is not None:
        without = [name for name, variant in _variants().items() if variant.nms is None]
        remarks += nms_sentences(scores.latency, without)
    return Outcome(claim, conjunction(verdicts), [], list(dict.fromkeys(remarks)))


def _variants() -> dict[str, Variant]:
    catalogue = load()
    return {name: catalogue.variants[e.variant] for name, e in catalogue.evaluations.items()}


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
