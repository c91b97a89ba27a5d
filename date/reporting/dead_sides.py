"""Find networks with a side of their boxes that stopped learning, as their evaluations recorded it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from date.results import RunResult

DEAD_FROM = 90.0
"""Percent of the points at which a side of the one-to-one branch's boxes is 0 from which on it is called dead."""


def dead_sides(run: RunResult) -> list[str]:
    """Return the dead sides of a run's boxes: none, too, where its evaluation did not look at them."""
    shares = (run.evaluation or {}).get("zero_sides") or {}
    return [side for side, share in shares.items() if share >= DEAD_FROM]


def dead_sides_note(results: Sequence[RunResult], trainings: Collection[str] | None = None) -> list[str]:
    """Return a sentence on the runs of some trainings, or of all, that have dead sides; none where no run has."""
    found: dict[str, list[str]] = {}
    for run in results:
        if (trainings is None or run.training in trainings) and (dead := dead_sides(run)):
            found.setdefault(run.training, []).append(f"seed {run.seed} ({', '.join(dead)})")
    if not found:
        return []
    named = "; ".join(f"{name}, {', '.join(seeds)}" for name, seeds in found.items())
    return [
        f"In these runs one side of the predicted boxes collapsed to 0 at {DEAD_FROM:g} % of the points or more and "
        f"stopped learning: {named}. They are still included in all numbers."
    ]
