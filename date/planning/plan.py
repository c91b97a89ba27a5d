"""``python -m date plan``: what is cached, what would run and why, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from date.catalogue import Catalogue, Tier, load
from date.catalogue.settings import Settings, dataset_name
from date.catalogue.targets import find_target, named_targets
from date.formatting import counted
from date.planning.dag import dag
from date.planning.disk import Disk, checkpoints_at_work, disk
from date.planning.durations import Duration, Durations
from date.planning.memory import gpu_memory
from date.planning.schedule import Task, Tasks, critical_path, longest_first, lower_bound, named, remaining, simulate
from date.runs.state import Runs, State

PLAN_SCHEMA = 1


@dataclass(frozen=True)
class Job:
    """A training or an evaluation that is asked for."""

    task: Task
    """Its hours are what is left of it."""
    state: State
    duration: Duration
    """From the beginning."""
    asked_by: list[str]


@dataclass(frozen=True)
class Bill:
    """The hours that the work takes on a number of GPUs."""

    gpus: int
    makespan: float
    lower_bound: float
    checkpoints: float
    """Bytes of the checkpoints of as many trainings at a time."""


@dataclass(frozen=True)
class Plan:
    """A plan: jobs, hours, makespans and disk."""

    tier: str
    targets: list[str]
    data_known: dict[str, bool]
    """By dataset, whether the identity of its data is known."""
    jobs: list[Job]
    """What would run, in the declared order."""
    cached: list[Job]
    known: bool
    """Whether the hours are an estimate."""
    gpu_hours: float
    critical_path: list[Task]
    bills: list[Bill]
    sealed_bytes: float
    """Of all runs and detections that are to come."""
    disk_basis: list[str]
    gpu_memory: list[str] = field(default_factory=list)
    """What GPUs the trainings need, for a reader."""
    option: str = ""
    """What ``--tier`` takes to mean the tier."""


def make_plan(
    targets: Sequence[str], tier: Tier, settings: Settings, results: Path, runs_folder: Path, gpus: Sequence[int]
) -> Plan:
    """Look at everything that some targets need; see `Plan`.

    Args:
        targets: names as the DAG knows them.
        tier: how large.
        settings: whose seeds and trainings count.
        results: folder of all results.
        runs_folder: folder of all runs.
        gpus: the numbers of GPUs that the makespan is wanted for.

    Raises:
        UserError: an unknown target, or one that the tier has no data for.
    """
    catalogue = load()
    chosen = [training.name for training in catalogue.chosen(tier, settings.trainings)]
    durations, runs = Durations(tier, results, runs_folder), Runs(tier, results, runs_folder)
    asked: dict[str, list[str]] = {}
    needed: dict[str, bool] = {}
    for name in targets:
        target = find_target(catalogue, name, chosen)
        for wanted in target.trainings:
            dataset_name(catalogue.training(wanted), tier)
            needed[wanted] = needed.get(wanted, False) or wanted in target.evaluated
            asked.setdefault(wanted, []).append(name)
    tasks = dag(catalogue, needed, settings.seeds_for, durations)
    states = _states(catalogue, tasks, runs)
    jobs: list[Job] = []
    cached: list[Job] = []
    by_name = _names(catalogue, asked)
    for name, task in _wanted(tasks, states, needed, settings).items():
        training, state = catalogue.training(task.training), states[name]
        duration = durations.training(training) if task.kind == "train" else durations.evaluation(training)
        needs = tuple(n for n in task.needs if states[n].state != "cached")
        left = Task(task.kind, task.training, task.seed, task.hours * state.left, needs)
        (cached if state.state == "cached" else jobs).append(Job(left, state, duration, by_name(task)))
    left_tasks = named(job.task for job in jobs)
    sizes = {t: disk(catalogue.training(t), durations, runs) for t in {job.task.training for job in jobs}}
    trained = [catalogue.training(job.task.training) for job in jobs if job.task.kind == "train"]
    return Plan(
        tier.name,
        list(targets),
        {dataset_name(t, tier): runs.manifest(t) is not None for t in map(catalogue.training, needed)},
        jobs,
        cached,
        all(job.duration.known for job in jobs),
        sum(task.hours for task in left_tasks.values()),
        critical_path(left_tasks),
        [_bill(left_tasks, n, sizes) for n in gpus],
        _sealed(jobs, sizes),
        sorted({text for size in sizes.values() for text in (size.basis, f"detections: {size.detections_basis}")}),
        gpu_memory(trained, tier),
        tier.option,
    )


def _states(catalogue: Catalogue, tasks: Tasks, runs: Runs) -> dict[str, State]:
    states: dict[str, State] = {}
    for name, task in tasks.items():  # trainings come before their evaluations
        training = catalogue.training(task.training)
        if task.kind == "train":
            states[name] = runs.trained(training, task.seed)
        else:
            states[name] = runs.evaluated(training, task.seed, states[task.needs[0]])
    return states


def _wanted(tasks: Tasks, states: dict[str, State], needed: dict[str, bool], settings: Settings) -> Tasks:
    """Return the tasks without those trainings that only finished ones start from."""
    wanted: Tasks = {}
    for name, task in reversed(tasks.items()):
        explicit = task.training in needed and task.seed in settings.seeds_for(task.training)
        followed = any(name in t.needs and states[t.name].state != "cached" for t in wanted.values())
        if explicit or followed:
            wanted[name] = task
    return dict(reversed(wanted.items()))


def _names(catalogue: Catalogue, asked: dict[str, list[str]]) -> Any:
    """Return the function that names who needs a task: tables and figures, else targets, else followers."""
    shown = {
        name: target
        for name, target in named_targets(catalogue).items()
        if name in (*catalogue.tables, *catalogue.drawn)
    }

    def names(task: Task) -> list[str]:
        evaluated = task.kind == "evaluate"
        own = asked.get(task.training, [])
        if own and all(name in shown for name in own):
            return [name for name in own if task.training in shown[name].evaluated or not evaluated]
        users = [n for n, t in shown.items() if task.training in (t.evaluated if evaluated else t.trainings)]
        followers = [t.name for t in catalogue.trainings.values() if t.init_training == task.training and not evaluated]
        return (users if own else []) or own or followers

    return names


def _bill(tasks: Tasks, gpus: int, sizes: dict[str, Disk]) -> Bill:
    makespan = simulate(tasks, gpus, longest_first(tasks)).makespan if tasks else 0.0
    checkpoints = checkpoints_at_work((sizes[t.training] for t in tasks.values() if t.kind == "train"), gpus)
    return Bill(gpus, makespan, lower_bound(tasks, gpus), checkpoints)


def _sealed(jobs: list[Job], sizes: dict[str, Disk]) -> float:
    sizes_of = ((sizes[job.task.training], job.task.kind) for job in jobs)
    return sum(size.sealed if kind == "train" else size.detections for size, kind in sizes_of)


def to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON has it; hours are null where they are not known."""

    def hours(value: float) -> float | None:
        return round(value, 3) if plan.known else None

    def job(entry: Job) -> dict[str, Any]:
        task = entry.task
        return {
            "kind": task.kind,
            "training": task.training,
            "seed": task.seed,
            "state": entry.state.state,
            "why": entry.state.why,
            "steps_done": entry.state.done,
            "asked_by": entry.asked_by,
            "needs": list(task.needs),
            "gpu_hours": round(task.hours, 3) if entry.duration.known else None,
            "basis": entry.duration.basis,
            "source": entry.duration.source,
        }

    return {
        "schema_version": PLAN_SCHEMA,
        "tier": plan.tier,
        "targets": plan.targets,
        "data_known": plan.data_known,
        "jobs": list(map(job, plan.jobs)),
        "cached": list(map(job, plan.cached)),
        "gpu_hours": hours(plan.gpu_hours),
        "critical_path": {"jobs": [t.name for t in plan.critical_path], "hours": hours(path_hours(plan))},
        "schedules": [
            asdict(bill) | {"makespan": hours(bill.makespan), "lower_bound": hours(bill.lower_bound)}
            for bill in plan.bills
        ],
        "sealed_bytes": plan.sealed_bytes,
        "disk_basis": plan.disk_basis,
    }


def path_hours(plan: Plan) -> float:
    """Return the length of the critical path."""
    return max(remaining(named(job.task for job in plan.jobs)).values(), default=0.0)


def counts(jobs: list[Job]) -> str:
    """Return how many trainings and evaluations there are, e.g. ``4 trainings, 1 evaluation``."""
    found = Counter(job.task.kind for job in jobs)
    words = {"train": "trainings", "evaluate": "evaluations"}
    return ", ".join(counted(found[k], w) for k, w in words.items() if found[k]) or "nothing"  # type: ignore[index]
