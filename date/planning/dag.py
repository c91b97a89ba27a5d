"""The paper's DAG as tasks with durations, and the order in which the rules run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from date.catalogue import Catalogue, Tier, Training
from date.planning.durations import Durations
from date.planning.schedule import Kind, Task, Tasks, longest_first, named

Needed = dict[str, bool]
"""Trainings by name, and whether their evaluations are needed, too."""


def dag(
    catalogue: Catalogue, needed: Needed, seeds: Callable[[str], Iterable[int]], durations: Durations, report: str = ""
) -> Tasks:
    """Return the tasks of some trainings and evaluations, and of what they start from.

    Args:
        catalogue: all there is.
        needed: what is wanted.
        seeds: returns those of a training.
        durations: at the tier in use.
        report: name of the task that needs all; none if empty.
    """
    runs: dict[tuple[str, int], bool] = {}
    for name, evaluated in needed.items():
        for seed in seeds(name):
            run = (name, seed)
            runs[run] = runs.get(run, False) or evaluated
            before = catalogue.training(name).init_training
            while before is not None:
                runs.setdefault((before, seed), False)
                before = catalogue.training(before).init_training
    place = {name: i for i, name in enumerate(catalogue.trainings)}
    tasks = []
    for (name, seed), evaluated in sorted(runs.items(), key=lambda item: (item[0][1], place[item[0][0]])):
        training = catalogue.training(name)
        before = training.init_training
        needs = () if before is None else (f"train {before} seed {seed}",)
        tasks.append(Task("train", name, seed, durations.training(training).hours, needs))
        if evaluated:
            hours = durations.evaluation(training).hours
            tasks.append(Task("evaluate", name, seed, hours, (tasks[-1].name,)))
    if report:
        tasks.append(Task("report", report, 0, 0.0, tuple(task.name for task in tasks)))
    return named(tasks)


def ranks(catalogue: Catalogue, tier: Tier, durations: Durations) -> dict[tuple[Kind, str], int]:
    """Return the priorities of all jobs that a tier has data and backbones for, by rule and training; higher is first.

    Small whole numbers in the order of `longest_first`, which Snakemake's solver can add up exactly. All seeds of a
    training are equal; of equally long paths, the training declared first is first.
    """
    needed = {t.name: True for t in catalogue.trainings.values() if _at_hand(catalogue, t, tier)}
    tasks = dag(catalogue, needed, lambda _: [0], durations)
    priority = longest_first(tasks)
    order: Sequence[Task] = sorted(tasks.values(), key=priority, reverse=True)
    return {(task.kind, task.training): len(order) - place for place, task in enumerate(order)}


def _at_hand(catalogue: Catalogue, training: Training | None, tier: Tier) -> bool:
    while training is not None:
        if training.data not in tier.datasets or training.backbone not in tier.backbones:
            return False
        before = training.init_training
        training = None if before is None else catalogue.training(before)
    return True
