"""The targets of the DAG by name, and the trainings and evaluations that each needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from date.catalogue.models import Catalogue
from date.catalogue.paper import Table
from date.catalogue.publication import load_paper
from date.errors import UserError, unknown_name
from date.experiments.entries import ROOT, read_yaml, shown
from date.experiments.folders import PAPER, folders

GROUPS = ("all", "report", "tables", "figures", "latency")
"""Targets that follow from the chosen trainings."""
KEPT = ("results", "runs", "reports", "logs", "data")
"""Folders of the project that may be large and have no experiments."""


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
        raise _unknown(name, [*targets, *GROUPS])
    return targets[name]


def _unknown(name: str, valid: Sequence[str]) -> UserError:
    """Return the error for an unknown target: own experiments' are known only where their folder is named."""
    used = folders()

    def naming(folder: str) -> str:
        all_folders = ", ".join([*map(shown, used), folder])
        return f"--config experiments='[{all_folders}]' of Snakemake, or --experiments {folder}."

    for folder in own_folders():
        if folder not in used and name in _names_in(folder):
            place = shown(folder)
            return UserError(f"unknown target {name!r}; {place} has it: add {naming(place)}")
    places = ", ".join(map(shown, used))
    return UserError(
        f"{unknown_name('target', name, valid)} Targets are the tables, figures, trainings and evaluations of {places} "
        f"(python -m date list experiments) and {', '.join(GROUPS)}. "
        f"If it is your own, name its folder by {naming('DIR')}"
    )


def own_folders() -> list[Path]:
    """Return the folders of own experiments in the project, and in folders that it has."""
    places = [p for p in ROOT.iterdir() if p.is_dir() and p.name not in KEPT and not p.name.startswith(".")]
    places += [p for place in places for p in sorted(place.iterdir()) if p.is_dir()]
    return sorted(p for p in places if (p / "trainings.yaml").is_file() and not (p / PAPER).is_file())


def _names_in(folder: Path) -> set[str]:
    """Return the targets that a folder of own experiments adds, as far as its files can be read."""
    try:
        trainings, evaluations = (read_yaml(folder / f"{kind}.yaml") or {} for kind in ("trainings", "evaluations"))
        judged = [(t, v) for part in ("evaluations", "extra") for t, v in (evaluations.get(part) or {}).items()]
        found = {*trainings, *(f"{training}/{variant}" for training, variants in judged for variant in variants)}
    except (UserError, AttributeError, TypeError):  # of a folder that is not in use, nothing else is to be said
        found = set()
    return found | {path.stem for kind in ("tables", "figures") for path in (folder / kind).glob("*.yaml")}
