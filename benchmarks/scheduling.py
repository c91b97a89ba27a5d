"""How long the paper takes on N GPUs in the DAG's order, and in others; simulated from the catalogue's hours.

python -m benchmarks.scheduling
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path

from date.catalogue import load, load_tier
from date.planning.dag import dag, ranks
from date.planning.durations import Durations
from date.planning.schedule import lower_bound, remaining, simulate

GPUS = (2, 4, 8, 12, 40)
RANDOM_ORDERS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    catalogue, tier = load(), load_tier("paper")
    durations = Durations(tier, Path("no results"), Path("no runs"))
    order = ranks(catalogue, tier, durations)
    rows = []
    for seeds in args.seeds:
        chosen = range(seeds)
        needed = dict.fromkeys(catalogue.trainings, True)
        tasks = dag(catalogue, needed, lambda _, seeds=chosen: seeds, durations)
        longest = remaining(tasks)
        place = {name: number for number, name in enumerate(tasks)}
        for gpus in GPUS:
            drawn = []
            for number in range(RANDOM_ORDERS):
                shuffled = random.Random(number)
                keys = {name: shuffled.random() for name in tasks}
                drawn.append(simulate(tasks, gpus, lambda task, keys=keys: keys[task.name]).makespan)
            makespans = {
                "the DAG's": simulate(tasks, gpus, lambda task: order[task.kind, task.training]).makespan,
                "evaluations last": simulate(tasks, gpus, lambda task, by=longest: by[task.name]).makespan,
                "declared": simulate(tasks, gpus, lambda task, by=place: -by[task.name]).makespan,
                "shortest first": simulate(tasks, gpus, lambda task: -task.hours).makespan,
                "random, mean": statistics.mean(drawn),
                "random, worst": max(drawn),
            }
            rows.append({"seeds": seeds, "gpus": gpus, "lower_bound": lower_bound(tasks, gpus), **makespans})
    names = [name for name in rows[0] if name not in ("seeds", "gpus", "lower_bound")]
    print(f"| seeds | GPUs | lower bound | {' | '.join(names)} |\n|--:|--:|--:|{'--:|' * len(names)}")
    for row in rows:
        cells = [f"{100 * (row[name] / row['lower_bound'] - 1):+.1f} %" for name in names]
        print(f"| {row['seeds']} | {row['gpus']} | {row['lower_bound']:,.0f} h |", " | ".join(cells), "|")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
