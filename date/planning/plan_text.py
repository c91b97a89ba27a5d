"""A plan for the eye."""

from __future__ import annotations

import math

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
            f"The identity of the data is not known ({', '.join(unknown)}: no manifest in the results yet), so that "
            "runs are compared by config and code alone."
        )
    lines += ["", f"cached: {counts(plan.cached)}"]
    if every:
        lines += _table(plan.cached, plan)
    elif noted := [job for job in plan.cached if job.state.why]:
        lines += _table(noted, plan)
    lines += ["", f"would run: {counts(plan.jobs)}", *_table(plan.jobs, plan)]
    if plan.jobs:
        lines += ["", *_hours(plan), "", *_disk(plan)]
    return "\n".join(lines)


def _table(jobs: list[Job], plan: Plan) -> list[str]:
    rows = [_row(job) for job in jobs]
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(job: Job) -> tuple[str, ...]:
    names = job.asked_by[:NAMES_SHOWN]
    more = len(job.asked_by) - len(names)
    asked = f"for {', '.join(names)}{f' and {more} more' if more else ''}" if names else ""
    return (
        job.task.kind,
        job.task.training,
        f"seed {job.task.seed}",
        duration(job.task.hours) if job.duration.known else "?",
        job.state.why,
        asked,
    )


def _hours(plan: Plan) -> list[str]:
    if not plan.known:
        return [
            f"GPU hours: not known at this tier; `python -m date calibrate --tier {plan.tier}` times a few steps on "
            "this machine.",
            f"critical path: {', then '.join(task.name for task in plan.critical_path)}",
        ]
    lines = [f"GPU hours: {plan.gpu_hours:,.1f}" if plan.gpu_hours >= 10 else f"GPU hours: {plan.gpu_hours:.2g}"]
    by_source: dict[str, list[Job]] = {}
    for job in plan.jobs:
        by_source.setdefault(f"{job.duration.basis}: {job.duration.source}", []).append(job)
    lines += [f"  {counts(jobs)}: {source}" for source, jobs in by_source.items()]
    named = ", then ".join(f"{task.name} ({duration(task.hours)})" for task in plan.critical_path)
    lines.append(f"critical path: {duration(path_hours(plan))}: {named}")
    lines.append("makespan, one GPU a training, in the DAG's order:")
    for bill in plan.bills:
        above = max(0.0, bill.makespan / bill.lower_bound - 1) if bill.lower_bound else 0.0
        gpus = f"{bill.gpus} GPU{'' if bill.gpus == 1 else 's'}"
        lines.append(
            f"  {gpus:>8}  {duration(bill.makespan):>11}, {100 * above:.1f} % above the lower bound of "
            f"{duration(bill.lower_bound)}"
        )
    if path := path_hours(plan):
        lines.append(
            f"  more than {math.ceil(plan.gpu_hours / path)} gain next to nothing: the critical path takes its time"
        )
    return lines


def _disk(plan: Plan) -> list[str]:
    if plan.sealed_bytes is None:
        return [f"disk: not known at this tier before a run or `python -m date calibrate --tier {plan.tier}`"]
    checkpoints = ", ".join(
        f"{size(bill.checkpoints)} on {bill.gpus} GPU{'' if bill.gpus == 1 else 's'}"
        for bill in plan.bills
        if bill.checkpoints is not None
    )
    return [
        f"disk: {size(plan.sealed_bytes)} of sealed runs and detections; checkpoints of trainings at work: "
        f"{checkpoints or 'none'}",
        f"  basis: {'; '.join(plan.disk_basis)}",
    ]


def duration(hours: float) -> str:
    """Return hours in the units that suit them, e.g. ``9 d 3 h``, ``5.2 h`` or ``40 s``."""
    if hours >= 48:
        whole = round(hours)
        return f"{whole // 24} d {whole % 24} h"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.2g} s"


def size(number: float) -> str:
    """Return bytes in the unit that suits them, e.g. ``3.1 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
