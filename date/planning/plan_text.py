"""A plan as text."""

from __future__ import annotations

import math

from date.formatting import counted, format_duration, format_size
from date.planning.plan import Job, Plan, counts, path_hours

NAMES_SHOWN = 4


def to_text(plan: Plan, every: bool = False) -> str:
    """Return a plan as lines: what is cached, what would run and why, and the bill.

    Args:
        plan: what is to be done.
        every: list cached jobs one by one, too.
    """
    lines = [f"{', '.join(plan.targets)} at tier {plan.tier}"]
    unknown = [name for name, known in plan.data_known.items() if not known]
    if unknown:
        lines.append(
            f"The identity of the data is not known yet ({', '.join(unknown)}: the results have no manifest), so "
            "runs are compared only by config and code."
        )
    lines += ["", f"cached: {counts(plan.cached)}"]
    if every:
        lines += _table(plan.cached)
    elif noted := [job for job in plan.cached if job.state.why]:
        lines += _table(noted)
    lines += ["", f"would run: {counts(plan.jobs)}", *_table(plan.jobs)]
    if plan.jobs:
        lines += ["", *_hours(plan), "", *plan.gpu_memory, *_disk(plan)]
    return "\n".join(lines)


def _table(jobs: list[Job]) -> list[str]:
    """Return jobs as lines, without the columns that none of them fills: what is cached takes no time."""
    columns = [column for column in zip(*map(_row, jobs), strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(job: Job) -> tuple[str, ...]:
    """Return the cells of a job: what it is, how long it still takes, why it is where it is, and for what it is."""
    names = job.asked_by[:NAMES_SHOWN]
    more = len(job.asked_by) - len(names)
    asked = f"for {', '.join(names)}{f' and {more} more' if more else ''}" if names else ""
    return (
        job.task.kind,
        job.task.training,
        f"seed {job.task.seed}",
        "" if job.state.state == "cached" else format_duration(3600 * job.task.hours) if job.duration.known else "?",
        job.state.why,
        asked,
    )


def _hours(plan: Plan) -> list[str]:
    if not plan.known:
        return [
            f"GPU hours: not known at this tier; `python -m date calibrate --tier {plan.option}` times a few steps on "
            "this machine.",
            f"critical path: {', then '.join(task.name for task in plan.critical_path)}",
        ]
    lines = [f"GPU hours: {plan.gpu_hours:,.1f}" if plan.gpu_hours >= 10 else f"GPU hours: {plan.gpu_hours:.2g}"]
    by_source: dict[str, list[Job]] = {}
    for job in plan.jobs:
        by_source.setdefault(f"{job.duration.basis}: {job.duration.source}", []).append(job)
    lines += [f"  {counts(jobs)}: {source}" for source, jobs in by_source.items()]
    named = ", then ".join(f"{task.name} ({format_duration(3600 * task.hours)})" for task in plan.critical_path)
    lines.append(f"critical path: {format_duration(3600 * path_hours(plan))}: {named}")
    lines.append("makespan, one GPU a training, in the DAG's order:")
    for bill in plan.bills:
        above = max(0.0, bill.makespan / bill.lower_bound - 1) if bill.lower_bound else 0.0
        took, bound = format_duration(3600 * bill.makespan), format_duration(3600 * bill.lower_bound)
        lines.append(
            f"  {counted(bill.gpus, 'GPUs'):>8}  {took:>11}, {100 * above:.1f} % above the lower bound of {bound}"
        )
    if path := path_hours(plan):
        enough = math.ceil(plan.gpu_hours / path)
        verb = "helps" if enough == 1 else "help"
        lines.append(f"  more than {counted(enough, 'GPUs')} hardly {verb}: the critical path dominates")
    return lines


def _disk(plan: Plan) -> list[str]:
    checkpoints = ", ".join(f"{format_size(bill.checkpoints)} on {counted(bill.gpus, 'GPUs')}" for bill in plan.bills)
    return [
        f"disk: {format_size(plan.sealed_bytes)} of sealed runs and detections; checkpoints of running trainings: "
        f"{checkpoints}",
        f"  basis: {'; '.join(plan.disk_basis)}",
    ]
