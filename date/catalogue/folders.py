"""The folders that experiments are read from: a paper's, and those of own experiments beside it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from date.catalogue.entries import EXPERIMENTS, ROOT, read_yaml, shown
from date.errors import UserError

VARIABLE = "DATE_EXPERIMENTS"
"""Environment variable with the folders, parted as those of ``PATH``; the command line's ``--experiments`` sets it."""
PAPER = "paper.yaml"
"""The file that makes a folder a paper's."""


def folders() -> tuple[Path, ...]:
    """Return the folders of all experiments, the paper's first: those chosen for this process, or the setting's.

    Raises:
        UserError: one of them is no folder, the first has no ``paper.yaml``, or a further one has.
    """
    chosen = os.environ.get(VARIABLE)
    return _checked(tuple(chosen.split(os.pathsep)) if chosen else _setting())


def choose_folders(chosen: Sequence[str | Path]) -> tuple[Path, ...]:
    """Read experiments from these folders from now on, in this process and those that it starts; return them.

    Relative ones are relative to the project.
    """
    found = _checked(tuple(map(str, chosen)))
    os.environ[VARIABLE] = os.pathsep.join(map(str, found))
    return found


@functools.cache
def _setting() -> tuple[str, ...]:
    path = EXPERIMENTS / "config.yaml"
    named = (read_yaml(path) or {}).get("experiments") or [EXPERIMENTS.name]
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"{shown(path)}: experiments: give a list of folders, not {named!r}.")
    return tuple(named)


@functools.cache
def _checked(named: tuple[str, ...]) -> tuple[Path, ...]:
    found = tuple(dict.fromkeys((ROOT / Path(name).expanduser()).resolve() for name in named))
    for path in found:
        if not path.is_dir():
            raise UserError(f"{shown(path)}, named as a folder of experiments, is no folder; correct the name.")
    for path in found[1:]:
        if (path / PAPER).exists():
            raise UserError(
                f"{shown(path)} has a {PAPER}, and so has to be the first folder of experiments; one paper at a time."
            )
    if not (found[0] / PAPER).is_file():
        raise UserError(
            f"{shown(found[0])} has no {PAPER}, so it is no paper's folder; name the paper's folder first, "
            f"e.g. [{EXPERIMENTS.name}, {named[0]}]."
        )
    return found
