"""Tasks of a DAG on a number of GPUs: longest remaining paths, list scheduling, and the bound that no schedule beats.

A list schedule gives a GPU that falls free to the task of highest priority among those that are ready. No such schedule
takes more than ``2 - 1/m`` times as long on ``m`` GPUs as the best one (Graham, 1966).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Literal

Kind = Literal["train", "evaluate", "report"]


@dataclass(frozen=True)
class Task:
    """A job of the DAG; all but reports take one GPU."""

    kind: Kind
    training: str
    seed: int
    hours: float
    needs: tuple[str, ...] = ()
    """Names of the tasks that come before it."""

    @property
    def name(self) -> str:
        """Unique in a DAG, and for the eye."""
        if self.kind == "report":
            return self.training
        return f"{self.kind} {self.training} seed {self.seed}"


Tasks = dict[str, Task]
"""A DAG by the tasks' names, in the declared order."""


@dataclass(frozen=True)
class Schedule:
    """When each task starts, in hours."""

    starts: dict[str, float]
    makespan: float


def named(tasks: Iterable[Task]) -> Tasks:
    """Return tasks by name."""
    return {task.name: task for task in tasks}


def remaining(tasks: Tasks) -> dict[str, float]:
    """Return the hours of the longest path that begins with each task.

    Raises:
        graphlib.CycleError: the tasks are no DAG.
        KeyError: a task needs one that is not there.
    """
    longest = dict.fromkeys(tasks, 0.0)  # behind each task
    order = list(TopologicalSorter({name: task.needs for name, task in tasks.items()}).static_order())
    for name in reversed(order):
        task = tasks[name]
        for needed in task.needs:
            longest[needed] = max(longest[needed], longest[name] + task.hours)
    return {name: longest[name] + task.hours for name, task in tasks.items()}


def critical_path(tasks: Tasks) -> list[Task]:
    """Return the tasks of the longest path, the first one first."""
    longest = remaining(tasks)
    path: list[Task] = []
    following = list(tasks.values())
    while following:
        path.append(max(following, key=lambda task: longest[task.name]))
        following = [task for task in tasks.values() if path[-1].name in task.needs]
    return path


def lower_bound(tasks: Tasks, gpus: int) -> float:
    """Return the hours below which no schedule gets: the longest path, or all work shared evenly."""
    work = sum(task.hours for task in tasks.values() if task.kind != "report")
    return max(max(remaining(tasks).values(), default=0.0), work / gpus)


def longest_first(tasks: Tasks) -> Callable[[Task], float]:
    """Return the priority that the rules use: the longest remaining path first, and evaluations before trainings.

    An evaluation takes minutes and completes a result, for which somebody waits; behind all trainings it would come
    weeks later.
    """
    longest = remaining(tasks)
    before = max(longest.values(), default=0.0)
    return lambda task: longest[task.name] + (before if task.kind == "evaluate" else 0.0)


def simulate(tasks: Tasks, gpus: int, priority: Callable[[Task], float]) -> Schedule:
    """Return the list schedule on equal GPUs; of equal priorities, the task declared first is first.

    Args:
        tasks: the DAG.
        gpus: how many there are.
        priority: of a task; higher is earlier.
    """
    place = {name: i for i, name in enumerate(tasks)}
    sorter = TopologicalSorter({name: task.needs for name, task in tasks.items()})
    sorter.prepare()
    ready: list[tuple[float, int, str]] = []
    running: list[tuple[float, int, str]] = []
    starts: dict[str, float] = {}
    now, free = 0.0, gpus
    while sorter.is_active():
        for name in sorter.get_ready():
            if tasks[name].kind == "report":  # needs no GPU
                starts[name] = now
                heapq.heappush(running, (now + tasks[name].hours, place[name], name))
            else:
                heapq.heappush(ready, (-priority(tasks[name]), place[name], name))
        while free and ready:
            name = heapq.heappop(ready)[2]
            starts[name] = now
            free -= 1
            heapq.heappush(running, (now + tasks[name].hours, place[name], name))
        now = running[0][0]
        while running and running[0][0] == now:
            name = heapq.heappop(running)[2]
            free += tasks[name].kind != "report"
            sorter.done(name)
    return Schedule(starts, now)
