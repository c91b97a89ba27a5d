"""The order of the DAG's jobs: list scheduling on random DAGs, and on the paper's at several numbers of GPUs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from date.catalogue import load, load_tier
from date.planning.dag import dag, ranks
from date.planning.durations import Durations
from date.planning.schedule import (
    Task,
    Tasks,
    critical_path,
    longest_first,
    lower_bound,
    named,
    remaining,
    simulate,
)

NEAR = 1e-9


@st.composite
def dags(draw: st.DrawFn) -> Tasks:
    """Random DAGs: each task may need any of those declared before it; a report may need no GPU."""
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.sampled_from([t.name for t in tasks]), unique=True, max_size=3)) if tasks else []
        kind = draw(st.sampled_from(["train", "train", "evaluate"]))
        tasks.append(Task(kind, f"t{number}", 0, draw(st.integers(0, 800)) / 8, tuple(needs)))
    if draw(st.booleans()):
        tasks.append(Task("report", "all", 0, 0.0, tuple(t.name for t in tasks)))
    order = draw(st.permutations(tasks))
    return named(order)


priorities = st.sampled_from(["longest", "declared", "shortest"])


def priority_of(tasks: Tasks, which: str) -> Callable[[Task], float]:
    place = {name: i for i, name in enumerate(tasks)}
    return {
        "longest": longest_first(tasks), "declared": lambda task: -place[task.name], "shortest": lambda task: -task.hours
    }[which]  # fmt: skip


@given(dags(), st.integers(1, 6), priorities)
def test_a_schedule_respects_dependencies_and_gpus(tasks: Tasks, gpus: int, which: str) -> None:
    schedule = simulate(tasks, gpus, priority_of(tasks, which))
    ends = {name: start + tasks[name].hours for name, start in schedule.starts.items()}
    assert set(schedule.starts) == set(tasks)
    assert schedule.makespan == max(ends.values())
    for name, task in tasks.items():
        assert all(schedule.starts[name] >= ends[needed] for needed in task.needs)
    for moment in schedule.starts.values():
        busy = [n for n, t in tasks.items() if t.kind != "report" and schedule.starts[n] <= moment < ends[n]]
        assert len(busy) <= gpus


@given(dags(), st.integers(1, 6), priorities)
def test_a_schedule_lies_between_the_bound_and_grahams(tasks: Tasks, gpus: int, which: str) -> None:
    makespan = simulate(tasks, gpus, priority_of(tasks, which)).makespan
    path, work = max(remaining(tasks).values()), sum(task.hours for task in tasks.values())
    assert makespan >= lower_bound(tasks, gpus) * (1 - NEAR)
    # Graham's proof: GPUs are idle only while the longest path is worked on.
    assert makespan <= (work / gpus + (1 - 1 / gpus) * path) * (1 + NEAR)


@given(dags())
def test_one_gpu_is_never_idle_and_enough_give_the_critical_path(tasks: Tasks) -> None:
    work = sum(task.hours for task in tasks.values())
    assert simulate(tasks, 1, longest_first(tasks)).makespan == pytest.approx(work)
    path = critical_path(tasks)
    assert sum(task.hours for task in path) == pytest.approx(max(remaining(tasks).values()))
    assert all(a.name in b.needs for a, b in itertools.pairwise(path))
    assert simulate(tasks, len(tasks), longest_first(tasks)).makespan == pytest.approx(sum(t.hours for t in path))


def test_a_case_by_hand() -> None:
    # Two GPUs: a, then its follower b, make the longest path of 7 hours; c and d fill the other GPU.
    tasks = named(
        [Task("train", "d", 0, 2), Task("train", "c", 0, 3), Task("train", "a", 0, 4), Task("train", "b", 0, 3, ("train a seed 0",))]
    )  # fmt: skip
    assert remaining(tasks) == {"train d seed 0": 2, "train c seed 0": 3, "train a seed 0": 7, "train b seed 0": 3}
    best = simulate(tasks, 2, longest_first(tasks))
    assert best.starts == {"train a seed 0": 0, "train c seed 0": 0, "train d seed 0": 3, "train b seed 0": 4}
    assert (best.makespan, lower_bound(tasks, 2)) == (7, 7)
    shortest = simulate(tasks, 2, priority_of(tasks, "shortest"))
    assert shortest.makespan == 9, "a starts at 2, b at 6"


def test_evaluations_come_before_trainings_and_longer_paths_before_shorter() -> None:
    catalogue, tier = load(), load_tier("paper")
    order = ranks(catalogue, tier, Durations(tier, Path("nowhere"), Path("nowhere")))
    assert sorted(order.values()) == list(range(1, 81))
    assert min(v for (kind, _), v in order.items() if kind == "evaluate") == 41
    by_rank = sorted((name for kind, name in order if kind == "train"), key=lambda name: -order["train", name])
    assert by_rank[:2] == ["fcos-r50-coco-36e", "retinanet-r101-coco-36e"], "164 hours, and 164 more behind them: first"
    assert by_rank[-2:] == ["date_f_init-r50-coco-30k", "onenet_poto_init-r50-coco-30k"]


def test_a_tier_without_crowds_orders_what_it_has() -> None:
    tier = load_tier("bccd")
    order = ranks(load(), tier, Durations(tier, Path("nowhere"), Path("nowhere")))
    assert len(order) == 70 and not any("crowdhuman" in name for _, name in order)


def paper(seeds: int) -> Tasks:
    catalogue, tier = load(), load_tier("paper")
    durations = Durations(tier, Path("nowhere"), Path("nowhere"))
    return dag(catalogue, dict.fromkeys(catalogue.trainings, True), lambda _: range(seeds), durations, "all")


@pytest.mark.parametrize("gpus", [2, 4, 8, 12, 40])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_paper_is_done_within_five_percent_of_the_lower_bound(seeds: int, gpus: int) -> None:
    tasks = paper(seeds)
    assert len(tasks) == 80 * seeds + 1
    # As Snakemake does it: by whole-numbered ranks, which know of no seed.
    order = ranks(load(), load_tier("paper"), Durations(load_tier("paper"), Path("nowhere"), Path("nowhere")))
    bound = lower_bound(tasks, gpus)
    best = simulate(tasks, gpus, lambda task: order[task.kind, task.training]).makespan
    assert bound <= best * (1 + NEAR) and best <= 1.05 * bound
    for other in ("declared", "shortest"):
        assert best <= 1.01 * simulate(tasks, gpus, priority_of(tasks, other)).makespan
