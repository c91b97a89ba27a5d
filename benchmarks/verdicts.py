"""What the rules of verdicts are worth: false verdicts and power of the former rule and of today's, by simulation.

Six trainings of one schedule, of which the first is claimed to be ahead of the second. *Former*: Student's t over the
differences of equal seeds, 95 %. *One look*: today's model at 95 %, for one look at a number of seeds that was settled
beforehand. *Every look*: today's verdict. Truths: runs of equal deviations; deviations that vary by 35 %; a run in ten
that is four deviations worse; seeds that correlate by 0.5 and 0.9; and, with stated noise, noise as stated and twice as
large. Power is against a difference of 2.5 deviations of a run.

Run from the project's folder: ``python -m benchmarks.verdicts``; seeded, minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from date.reporting.crossed import Difference, difference, fit
from date.reporting.statistics import look_error

TRAININGS, STATED = 6, 0.15
TRUTHS = ("equal", "varying", "a bad run in ten", "correlated 0.5", "correlated 0.9")
EFFECT = 2.5

Cells = dict[str, dict[int, float]]


def draw(rng: np.random.Generator, truth: str, seeds: int) -> Cells:
    """Return scores of six trainings without differences, with runs of deviation 1."""
    rho = {"correlated 0.5": 0.5, "correlated 0.9": 0.9}.get(truth, 0.0)
    scale = np.exp(rng.normal(0, 0.35, (TRAININGS, 1))) if truth == "varying" else np.ones((TRAININGS, 1))
    scores = math.sqrt(rho) * rng.normal(size=seeds) + math.sqrt(1 - rho) * rng.normal(size=(TRAININGS, seeds))
    scores = scale * scores
    if truth == "a bad run in ten":
        scores -= 4 * (rng.random(scores.shape) < 0.1)
    return {f"t{c}": dict(enumerate(row.tolist())) for c, row in enumerate(scores)}


def former(cells: Cells, stated: float | None = None) -> int:
    """Return the former rule's verdict on the first two trainings: 1, -1, or 0 where it was open."""
    apart = np.array([cells["t0"][s] - cells["t1"][s] for s in cells["t0"].keys() & cells["t1"].keys()])
    if len(apart) == 1:
        half = math.inf if stated is None else 1.959964 * stated * math.sqrt(2)
    else:
        half = float(stats.t.ppf(0.975, len(apart) - 1)) * float(apart.std(ddof=1)) / math.sqrt(len(apart))
    return int(np.sign(apart.mean())) if abs(apart.mean()) > half else 0


def told(found: Difference, error: float) -> int:
    """Return the verdict by an interval with a two-sided error: 1, -1, or 0 where it is open."""
    if found.variance is None:
        return 0
    half = float(stats.t.ppf(1 - error / 2, found.freedom)) * math.sqrt(found.variance)
    return int(np.sign(found.mean)) if abs(found.mean) > half else 0


def today(cells: Cells, stated: float | None = None) -> tuple[int, int]:
    """Return today's verdicts, for one look and for every look."""
    found = difference([(fit(cells, stated), {"t0": 1.0, "t1": -1.0})])
    return told(found, 0.05), told(found, look_error(len(cells["t0"])))


def shifted(cells: Cells, effect: float) -> Cells:
    """Return the scores with the first training ahead."""
    return {**cells, "t0": {seed: v + effect for seed, v in cells["t0"].items()}}


def fixed(draws: int) -> Iterator[str]:
    """Yield lines of a table: false verdicts and power at a settled number of seeds."""
    yield "| truth | seeds | false: former | one look | every look | power: former | one look | every look |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for truth in TRUTHS:
        for seeds in (2, 3, 5):
            rng = np.random.default_rng(seeds)
            false, power = np.zeros(3), np.zeros(3)
            for _ in range(draws):
                cells = draw(rng, truth, seeds)
                false += [v != 0 for v in (former(cells), *today(cells))]
                ahead = shifted(cells, EFFECT)
                power += [v == 1 for v in (former(ahead), *today(ahead))]
            cells_text = " | ".join(f"{100 * v / draws:.1f}" for v in (*false, *power))
            yield f"| {truth} | {seeds} | {cells_text} |"


def looks(draws: int) -> Iterator[str]:
    """Yield lines: false verdicts of whoever looks after every seed from the second to the sixth."""
    yield "| truth | former, 3 then 5 seeds | former, every seed from 2 to 6 | every look, from 2 to 6 |"
    yield "|---|--:|--:|--:|"
    for truth in TRUTHS:
        rng = np.random.default_rng(0)
        false = np.zeros(3)
        for _ in range(draws):
            cells = draw(rng, truth, 6)
            parts = {n: {k: dict(list(v.items())[:n]) for k, v in cells.items()} for n in range(2, 7)}
            old = {n: former(part) != 0 for n, part in parts.items()}
            false += [old[3] or old[5], any(old.values()), any(today(part)[1] != 0 for part in parts.values())]
        yield f"| {truth} | " + " | ".join(f"{100 * v / draws:.1f}" for v in false) + " |"


def with_stated_noise(draws: int) -> Iterator[str]:
    """Yield lines: false support and power with stated noise, two trainings alone, as at the paper's tier."""
    yield "| true deviation | difference | seeds | former | one look | every look |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for sd in (STATED, 2 * STATED):
        for effect in (0.0, 0.5, 0.7):
            for seeds in (1, 2, 3, 5):
                rng = np.random.default_rng(seeds)
                supported = np.zeros(3)
                for _ in range(draws):
                    scores = rng.normal(0, sd, (2, seeds))
                    cells = shifted({f"t{c}": dict(enumerate(row.tolist())) for c, row in enumerate(scores)}, effect)
                    supported += [v == 1 for v in (former(cells, STATED), *today(cells, STATED))]
                text = " | ".join(f"{100 * v / draws:.1f}" for v in supported)
                yield f"| {sd:.2f} | {effect:+.1f} | {seeds} | {text} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500, help="of each truth [500]")
    draws = parser.parse_args().draws
    for title, table in (
        ("A settled number of seeds, percent of verdicts", fixed(draws)),
        ("Looking again, percent of false verdicts", looks(draws)),
        ("With stated noise of 0.15 AP, percent SUPPORTED", with_stated_noise(2 * draws)),
    ):
        print(f"\n{title} ({draws} draws):\n")
        for line in table:
            print(line, flush=True)


if __name__ == "__main__":
    main()
