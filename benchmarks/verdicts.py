"""What the rules of verdicts are worth: false verdicts and power of the former rules and of today's, by simulation.

Six trainings of one schedule, of which the first is claimed to be ahead of the second. *Former*: Student's t over the
differences of equal seeds, 95 %. *One look*: today's model at 95 %, for one look at a number of seeds that was settled
beforehand. *Flat*: today's model at 99 % at every look up to ten seeds, the levels before errors were spent unequally.
*Every look*: today's verdict. Truths: runs of equal deviations; deviations that vary by 35 %; a run in ten that is four
deviations worse; seeds that correlate by 0.5 and 0.9; the differences of two evaluations of one checkpoint, for which
no other training's spread is borrowed; and, with stated noise, noise as stated and twice as large. Power is against a
difference of 2.5 deviations of a run (1.5 with eight seeds).

The rules were settled on draws of the seed 1001. The tables are of another one, `HELD_OUT`.

Run from the project's folder: ``python -m benchmarks.verdicts --draws 2000``; minutes. ``--record results`` counts
instead, within seconds, the claims that each rule decides on a record's unpacked results.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from date.catalogue import load, load_tier
from date.reporting.claims import DECIDED, Judged, conjunction, judge_all
from date.reporting.crossed import difference, fit
from date.reporting.scores import load_scores
from date.reporting.seeds import audit_seeds
from date.reporting.statistics import look_error
from date.results import load_results

TRAININGS, STATED, HELD_OUT, MOST = 6, 0.15, 20260, 10
SIX = ("equal", "varying", "a bad run in ten", "correlated 0.5", "correlated 0.9")
CHECKPOINT = "one checkpoint"
EFFECTS = {2: 2.5, 3: 2.5, 5: 2.5, 8: 1.5}
"""True differences in deviations of a run, by seeds."""

Cells = dict[str, dict[int, float]]
Moments = NDArray[np.float64]
"""(draws, seeds from 0 on, 6): mean, standard error and degrees of freedom by today's model and by the former rule."""


def draw(rng: np.random.Generator, truth: str, seeds: int) -> Cells:
    """Return scores of six trainings without differences, with runs of deviation 1, or of one, of differences."""
    if truth == CHECKPOINT:
        return {"t0": dict(enumerate(rng.normal(size=seeds).tolist()))}
    rho = {"correlated 0.5": 0.5, "correlated 0.9": 0.9}.get(truth, 0.0)
    scale = np.exp(rng.normal(0, 0.35, (TRAININGS, 1))) if truth == "varying" else np.ones((TRAININGS, 1))
    scores = math.sqrt(rho) * rng.normal(size=seeds) + math.sqrt(1 - rho) * rng.normal(size=(TRAININGS, seeds))
    scores = scale * scores
    if truth == "a bad run in ten":
        scores -= 4 * (rng.random(scores.shape) < 0.1)
    return {f"t{c}": dict(enumerate(row.tolist())) for c, row in enumerate(scores)}


def moments_of(cells: Cells, stated: float | None = None) -> tuple[float, ...]:
    """Return mean, standard error and degrees of freedom of the first difference, today's and the former rule's."""
    signs = {"t0": 1.0, "t1": -1.0} if "t1" in cells else {"t0": 1.0}
    found = difference([(fit(cells, stated), signs)])
    error = math.nan if found.variance is None else math.sqrt(found.variance)
    apart = np.array([sum(sign * cells[name][s] for name, sign in signs.items()) for s in cells["t0"]])
    if len(apart) > 1:
        former = float(apart.std(ddof=1)) / math.sqrt(len(apart)), len(apart) - 1.0
    else:
        former = (math.nan if stated is None else stated * math.sqrt(2)), 1e9
    return found.mean, error, found.freedom, float(apart.mean()), *former


def moments(rng: np.random.Generator, truth: str, draws: int) -> Moments:
    """Return the moments of draws of a truth as seeds are added."""
    found = np.full((draws, MOST + 1, 6), np.nan)
    for i in range(draws):
        cells = draw(rng, truth, MOST)
        for n in range(2, MOST + 1):
            found[i, n] = moments_of({k: dict(list(v.items())[:n]) for k, v in cells.items()})
    return found


def p_values(
    found: Moments, effect: float = 0.0, former: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the p-values of differences that are larger by an effect, of one look, and whether they are above 0."""
    mean, error, freedom = np.moveaxis(found[..., 3:] if former else found[..., :3], -1, 0)
    with np.errstate(invalid="ignore"):
        p = 2 * stdtr(freedom, -np.abs(mean + effect) / error)
    return np.where(np.isnan(p), 1.0, p), mean + effect > 0


def fixed(worlds: dict[str, Moments]) -> Iterator[str]:
    """Yield lines of a table: false verdicts and power at a settled number of seeds."""
    yield "| truth | seeds | false: former | one look | every look | power: former | one look | flat | every look |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for truth, found in worlds.items():
        for n, effect in EFFECTS.items():
            at = found[:, n]
            levels = {"former": 0.05, "one look": 0.05, "flat": 0.01, "every look": look_error(n)}
            false, power = [], []
            for rule, level in levels.items():
                p, _ = p_values(at, former=rule == "former")
                false += [] if rule == "flat" else [100 * float((p <= level).mean())]
                p, above = p_values(at, effect, former=rule == "former")
                power.append(100 * float(((p <= level) & above).mean()))
            yield f"| {truth} | {n} | " + " | ".join(f"{v:.1f}" for v in (*false, *power)) + " |"


def looks(worlds: dict[str, Moments]) -> Iterator[str]:
    """Yield lines: false verdicts of whoever looks after every seed."""
    yield "| truth | former, 3 then 5 seeds | former, seeds 2 to 6 | flat, seeds 2 to 10 | every look, seeds 2 to 10 |"
    yield "|---|--:|--:|--:|--:|"
    levels = np.array([look_error(n) for n in range(MOST + 1)])
    for truth, found in worlds.items():
        old, now = p_values(found, former=True)[0], p_values(found)[0]
        rates = (
            (old[:, [3, 5]] <= 0.05).any(axis=1),
            (old[:, 2:7] <= 0.05).any(axis=1),
            (now <= 0.01).any(axis=1),
            (now <= levels).any(axis=1),
        )
        yield f"| {truth} | " + " | ".join(f"{100 * rate.mean():.1f}" for rate in rates) + " |"


def with_stated_noise(draws: int, seed: int) -> Iterator[str]:
    """Yield lines: false support and power with stated noise, two trainings alone, as at the paper's tier."""
    yield "| true deviation | difference | seeds | former | one look | every look |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for number, sd in enumerate((STATED, 2 * STATED)):
        found = {}
        for n in (1, 2, 3, 5):
            rng = np.random.default_rng([seed, 1, number, n])
            worlds = [rng.normal(0, sd, (2, n)) for _ in range(draws)]
            cells = [{f"t{c}": dict(enumerate(row.tolist())) for c, row in enumerate(scores)} for scores in worlds]
            found[n] = np.array([moments_of(each, STATED) for each in cells])
        for effect in (0.0, 0.5, 0.7):
            for n, at in found.items():
                rates = []
                for former, level in ((True, 0.05), (False, 0.05), (False, look_error(n))):
                    p, above = p_values(at, effect, former)
                    rates.append(100 * float(((p <= level) & above).mean()))
                yield f"| {sd:.2f} | {effect:+.1f} | {n} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |"


def on_record(results_dir: Path, tier_name: str) -> Iterator[str]:
    """Yield lines of a table: the claims over seeds that each rule decides on a record."""
    catalogue, tier = load(), load_tier(tier_name)
    results = [run for run in load_results(results_dir, tier.name) if run.training in catalogue.trainings]
    results = audit_seeds(results, results_dir, tier.name).kept
    scores = load_scores(results, results_dir, tier.name, catalogue)
    outcomes = [o for o in judge_all(scores, results, tier, catalogue) if o.p is not None]
    decided = {
        "former": [conjunction([by_former_rule(part, len(o.parts)) for part in o.parts]) for o in outcomes],
        "one look": [conjunction([at_one_look(part, len(o.parts)) for part in o.parts]) for o in outcomes],
        "every look": [o.verdict for o in outcomes],
    }
    yield "| rule | claims with an interval | decided | SUPPORTED | CONTRADICTED |"
    yield "|---|--:|--:|--:|--:|"
    for rule, verdicts in decided.items():
        counts = [sum(v in DECIDED for v in verdicts), *(verdicts.count(v) for v in DECIDED)]
        yield f"| {rule} | {len(outcomes)} | " + " | ".join(map(str, counts)) + " |"
    holding = sum(o.verdict in DECIDED and o.adjusted is not None and o.adjusted <= 0.05 for o in outcomes)
    yield f"\nOf those of every look {holding} survive Holm's correction."


def by_former_rule(part: Judged, parts: int) -> str:
    """Return a comparison's verdict by Student's t over the differences of equal seeds."""
    apart = np.array(list(part.comparison.difference.values.values()))
    if len(apart) < 2:
        return "UNRESOLVED"
    error, beyond = float(apart.std(ddof=1)) / math.sqrt(len(apart)), float(apart.mean()) - part.comparison.margin
    return _word(beyond, error, len(apart) - 1.0, parts)


def at_one_look(part: Judged, parts: int) -> str:
    """Return a comparison's verdict by today's model at 95 %."""
    found = part.estimate
    if found is None or found.error is None:
        return "UNRESOLVED"
    return _word(found.mean - part.comparison.margin, found.error, found.freedom, parts)


def _word(beyond: float, error: float, freedom: float, parts: int) -> str:
    """Return a verdict from how far a difference lies above its margin; contradictions share the error of a claim."""
    p = 2 * float(stdtr(freedom, -abs(beyond) / error)) if error else float(beyond == 0)
    if beyond > 0:
        return "SUPPORTED" if p <= 0.05 else "UNRESOLVED"
    return "CONTRADICTED" if p <= 0.05 / parts else "UNRESOLVED"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="of each truth [1000]")
    parser.add_argument("--seed", type=int, default=HELD_OUT, help=f"of all draws [{HELD_OUT}]")
    parser.add_argument("--record", type=Path, metavar="DIR", help="folder of results, to count decided claims instead")
    parser.add_argument("--tier", default="mini", help="of the record [mini]")
    args = parser.parse_args()
    if args.record is not None:
        print_lines(on_record(args.record, args.tier))
        return
    worlds = {
        truth: moments(np.random.default_rng([args.seed, 0, place]), truth, args.draws)
        for place, truth in enumerate((*SIX, CHECKPOINT))
    }
    for title, table in (
        ("A settled number of seeds, percent of verdicts", fixed(worlds)),
        ("Looking again, percent of false verdicts", looks(worlds)),
        ("With stated noise of 0.15 AP, percent SUPPORTED", with_stated_noise(args.draws, args.seed)),
    ):
        print(f"\n{title} ({args.draws} draws):\n")
        print_lines(table)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
