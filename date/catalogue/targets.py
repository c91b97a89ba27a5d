"""The targets of the DAG by name, and the trainings and evaluations that each needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from date.catalogue.models import Catalogue
from date.catalogue.paper import Table
from date.catalogue.publication import load_paper
from date.errors import unknown_name

GROUPS = ("all", "report", "tables", "figures", "latency")
"""Targets that follow from the chosen trainings."""


@dataclass(frozen=True)
class Target:
    """The trainings that a target needs, without those that they start from."""

    trainings: list[str]
    evaluated: list[str]
    """Those whose evaluations are needed, too."""


def trainings_of(catalogue: Catalogue, table: Table) -> list[str]:
    """Return the trainings whose evaluations a table needs."""
    return list(dict.fromkeys(catalogue.evaluation(name).training for name in table.evaluations))


def named_targets(catalogue: Catalogue) -> dict[str, Target]:
    """Return the tables, figures, sheets of pictures, trainings and evaluations."""
    tables = {name: trainings_of(catalogue, table) for name, table in catalogue.tables.items()}
    return {
        **{name: Target(trainings, trainings) for name, trainings in tables.items()},
        **{name: Target(f.trainings, f.judged) for name, f in catalogue.drawn.items()},
        **{name: Target([name], []) for name in catalogue.trainings},
        **{e.name: Target([e.training], [e.training]) for e in catalogue.evaluations.values()},
    }


def find_target(catalogue: Catalogue, name: str, chosen: Sequence[str]) -> Target:
    """Return a target by name.

    Args:
        catalogue: all there is.
        name: of the target.
        chosen: the trainings that ``all`` trains.

    Raises:
        UserError: unknown name; the message has the nearest valid one.
    """
    targets = named_targets(catalogue)
    if name == "latency":
        measured = {catalogue.evaluation(entry).training for entry in load_paper().latency}
        return Target([t for t in chosen if t in measured], [])
    if name in GROUPS:
        judged = {training for figure in catalogue.drawn.values() for training in figure.judged}
        return Target(list(chosen), [t for t in chosen if name != "figures" or t in judged])
    if name not in targets:
        raise unknown_name("target", name, [*targets, *GROUPS])
    return targets[name]
