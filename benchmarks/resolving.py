"""What ``plan --resolve`` gains: claims resolved in the first two hours of two cores, by it and by equal seeds.

The world is made from a record: a training's true score is its mean in the record, its runs deviate by the pooled
spread of the metric and schedule there, mostly alike for the evaluations of a checkpoint, and take the hours that they
took. From it runs are drawn, and claims judged as the report does, in two ways of spending the same hours:

- *Equal seeds*: the next seed of every training in the catalogue's order, then the one after that.
- *Plan*: ``plan --resolve`` for half an hour, asked again after it.

They begin without any run, and with one seed of every training. Results of hours that end within a run do not count.

Run from the project's folder: ``python -m benchmarks.resolving --results FOLDER``, where FOLDER is where
``reports/mini/results.tar.xz`` was unpacked, ``results/`` in it; minutes. The tables are of the seed `HELD_OUT`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from date.catalogue import Training, load, load_tier
from date.planning.durations import Durations
from date.reporting.claims import DECIDED, MISSING, UNRESOLVED, Outcome, judge_all
from date.reporting.scores import Scores
from date.resolving.chances import OpenClaim
from date.resolving.choice import Work, choose
from date.resolving.proposal import groups
from date.results import RunResult, load_annotation_recalls, load_results

CORES, HOURS, LOOKS = 2, 2.0, 4
HELD_OUT = 20262
ALIKE = 0.9
"""Correlation of a checkpoint's evaluations, of its metrics and of the points of its curves."""


@dataclass
class World:
    """Draws runs like those of a record.

    Args:
        folder: of the record's results.
        tier: whose.
    """

    folder: Path
    tier_name: str

    def __post_init__(self) -> None:
        self.catalogue, self.tier = load(), load_tier(self.tier_name)
        self.record = [run for run in load_results(self.folder, self.tier_name) if run.evaluation]
        self.names = [name for name in self.catalogue.trainings if any(r.training == name for r in self.record)]
        durations = Durations(self.tier, self.folder, self.folder)
        self.hours = {n: durations.training(t).hours + durations.evaluation(t).hours for n, t in self._trainings()}
        ious = {name: entry.iou for name, entry in self.catalogue.annotations.items()}
        self.annotations = load_annotation_recalls(self.folder, self.tier_name), ious
        self.true = {name: self._true(name) for name in self.names}
        self.spread = self._spread()

    def _trainings(self) -> Iterator[tuple[str, Training]]:
        yield from ((name, self.catalogue.training(name)) for name in self.names)

    def kind(self, name: str) -> tuple[str, str]:
        """Return what trainings have in common whose runs tell a spread together."""
        entry = self.catalogue.training(name)
        return entry.data, entry.schedule

    def _numbers(self, run: RunResult) -> dict[tuple[Any, ...], float]:
        """Return everything that claims look at: metrics by variant, points of the AP, and mean losses."""
        assert run.evaluation is not None
        found: dict[tuple[Any, ...], float] = {
            ("metric", variant, name): value
            for variant, record in run.evaluation["variants"].items()
            for name, value in record["metrics"].items()
            if value is not None
        }
        found |= {("AP", step): value for step, value in run.curve("AP")}
        trained = [record for record in run.records if record["kind"] == "train"]
        for loss in {key for record in trained for key in record if key.startswith("o2o.loss")}:
            found["loss", loss, trained[-1]["step"]] = statistics.fmean(r[loss] for r in trained if loss in r)
        return found

    def _true(self, name: str) -> dict[tuple[Any, ...], float]:
        runs = [self._numbers(run) for run in self.record if run.training == name]
        return {key: statistics.fmean(run[key] for run in runs) for key in runs[0] if all(key in run for run in runs)}

    def _spread(self) -> dict[tuple[Any, ...], float]:
        """Return the pooled deviation of a run, by data and schedule and by what is measured."""
        squares: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
        for name in self.names:
            runs = [self._numbers(run) for run in self.record if run.training == name]
            if len(runs) > 1:
                for key in self.true[name]:
                    squared = statistics.variance([run[key] for run in runs]) * (len(runs) - 1), len(runs) - 1
                    squares.setdefault((self.kind(name), _measure(key)), []).append(squared)
        return {key: (sum(s for s, _ in found) / sum(n for _, n in found)) ** 0.5 for key, found in squares.items()}

    def run(self, name: str, seed: int, rng: np.random.Generator) -> RunResult:
        """Return a run with numbers of its own."""
        alike, numbers = rng.standard_normal(), {}
        for key, mean in self.true[name].items():
            sd = self.spread.get((self.kind(name), _measure(key)), 0.0)
            numbers[key] = mean + sd * (ALIKE**0.5 * alike + (1 - ALIKE) ** 0.5 * rng.standard_normal())
        variants: dict[str, dict[str, Any]] = {}
        records: list[dict[str, Any]] = []
        for key, value in numbers.items():
            if key[0] == "metric":
                variants.setdefault(key[1], {"metrics": {}})["metrics"][key[2]] = value
            elif key[0] == "AP":
                records.append({"kind": "eval", "step": key[1], "AP": value})
            else:
                records.append({"kind": "train", "step": key[2], key[1]: value})
        start = {"weights_sha256": f"start {seed}"}
        provenance = {"training": name, "seed": seed, "initialised_from": start}
        made = RunResult(name, seed, provenance, Path(), {"area_thresholds": None, "variants": variants})
        made.__dict__["records"] = sorted(records, key=lambda record: record["step"])
        return made

    def judge(self, runs: list[RunResult]) -> list[Outcome]:
        """Return the claims over seeds as the report judges them."""
        scores = Scores(runs, {}, *self.annotations)
        return [outcome for outcome in judge_all(scores, runs, self.tier, self.catalogue) if outcome.trainings]

    def open(self, runs: list[RunResult]) -> list[OpenClaim]:
        """Return the claims that are not resolved."""
        return [
            OpenClaim(outcome, self.tier.reference, groups(outcome.trainings, self.catalogue, self.tier))
            for outcome in self.judge(runs)
            if outcome.verdict in (UNRESOLVED, MISSING) and outcome.parts and set(outcome.trainings) <= set(self.names)
        ]


def _measure(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a number is of, whatever the variant or the step."""
    return ("metric", key[2]) if key[0] == "metric" else key[:2] if key[0] == "loss" else key[:1]


Order = list[str]
Policy = Callable[[World, list[RunResult], float], Order]
"""The trainings to run next, from the runs that are there and the hours of one device that are left."""


def counts(world: World, runs: list[RunResult]) -> dict[str, int]:
    return {name: sum(run.training == name for run in runs) for name in world.names}


def _levelled(present: dict[str, int], names: list[str]) -> Order:
    """Return the next seeds of trainings, the least trained first."""
    order = []
    for level in range(min(present[n] for n in names), 60):
        order += [name for name in names if present[name] <= level]
    return order


def equal(world: World, runs: list[RunResult], left: float) -> Order:
    return _levelled(counts(world, runs), world.names)


def planned(world: World, runs: list[RunResult], left: float) -> Order:
    started = {name: t.init_training for name, t in world._trainings() if t.init_training}
    work = Work(world.hours.__getitem__, {name: start for name, start in started.items() if start})
    choice = choose(world.open(runs), counts(world, runs), work, left, left / CORES)
    return [name for name, count in choice.added.items() for _ in range(count)]


POLICIES: dict[str, Policy] = {"equal seeds": equal, "plan": planned}


def spend(world: World, policy: Policy, first: int, seed: int) -> list[int]:
    """Return how many claims over seeds are resolved after each half hour."""
    seeds = {name: iter(range(1000)) for name in world.names}

    def drawn(name: str) -> RunResult:
        number = next(seeds[name])
        place = world.names.index(name)
        return world.run(name, number, np.random.default_rng([seed, place, number]))

    runs = [drawn(name) for _ in range(first) for name in world.names]
    budget = CORES * HOURS
    spent = 0.0
    resolved = []
    for look in range(1, LOOKS + 1):
        until = budget * look / LOOKS
        for name in policy(world, runs, until - spent):
            if spent >= until:
                break
            spent += world.hours[name]
            if spent <= budget:
                runs.append(drawn(name))
        resolved.append(sum(outcome.verdict in DECIDED for outcome in world.judge(runs) if outcome.parts))
    return resolved


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER", help="of the record")
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--worlds", type=int, default=10, help="draws of everything [10]")
    parser.add_argument("--seed", type=int, default=HELD_OUT, help=f"of all draws [{HELD_OUT}]")
    args = parser.parse_args()
    world = World(args.results, args.tier)
    print(f"One seed of all {len(world.names)} trainings: {sum(world.hours.values()):.1f} hours of one core.\n")
    print("| begins with | spent on | 0.5 h | 1 h | 1.5 h | 2 h |\n|---|---|--:|--:|--:|--:|")
    for first, begins in ((0, "nothing"), (1, "one seed of all")):
        for label, policy in POLICIES.items():
            found = [spend(world, policy, first, 1000 * args.seed + number) for number in range(args.worlds)]
            means = " | ".join(f"{statistics.fmean(column):.1f}" for column in zip(*found, strict=True))
            print(f"| {begins} | {label} | {means} |", flush=True)


if __name__ == "__main__":
    main()
