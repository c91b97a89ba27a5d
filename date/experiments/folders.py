"""The folders that experiments are read from: a paper's, and those of own experiments beside it."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from date.errors import UserError
from date.experiments.entries import EXPERIMENTS, ROOT, read_yaml, shown

VARIABLE = "DATE_EXPERIMENTS"
"""Environment variable with the folders, parted as those of ``PATH``; the command line's ``--experiments`` sets it."""
PAPER = "paper.yaml"
"""The file that makes a folder a paper's."""
SETTINGS = "config.yaml"
OTHERS = "papers"
"""Below ``results``, ``runs``, ``reports`` and ``logs``: the parts of papers other than the project's own."""


def folders() -> tuple[Path, ...]:
    """Return the folders of all experiments, the paper's first: those chosen for this process, or the setting's.

    Raises:
        UserError: one of them is no folder, or two are papers'.
    """
    chosen = os.environ.get(VARIABLE)
    return _checked(tuple(chosen.split(os.pathsep)) if chosen else _setting())


def choose_folders(chosen: Sequence[str | Path]) -> tuple[Path, ...]:
    """Read experiments from these folders from now on, in this process and those that it starts; return them.

    Relative ones are relative to the project. Where none of them is a paper's, the project's own paper comes first.
    """
    found = _checked(tuple(map(str, chosen)))
    os.environ[VARIABLE] = os.pathsep.join(map(str, found))
    return found


def of_paper(folder: Path) -> Path:
    """Return the part of a folder such as ``results`` that belongs to the paper in use.

    Two papers may have trainings and tiers of the same names. The project's own paper uses the folder itself; another
    one ``papers/`` in it and there its own folder's path in the project, or its name with a digest of its path where it
    lies elsewhere. Own experiments beside a paper are kept with it: their names differ from the paper's.
    """
    paper = folders()[0]
    if paper == EXPERIMENTS.resolve():
        return folder
    if paper.is_relative_to(ROOT):
        return folder / OTHERS / paper.relative_to(ROOT)
    return folder / OTHERS / f"{paper.name}-{hashlib.sha256(os.fsencode(paper)).hexdigest()[:8]}"


def files(kind: str, suffix: str, places: Sequence[Path] | None = None) -> dict[str, Path]:
    """Return the files of a kind, e.g. ``tiers``, of all folders by their names without the suffix.

    Raises:
        UserError: two folders have one of the same name.
    """
    return dict(_files(kind, suffix, tuple(places or folders())))


@functools.cache
def _files(kind: str, suffix: str, places: tuple[Path, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in [path for place in places for path in sorted((place / kind).glob(f"*{suffix}"))]:
        if path.stem in found:
            raise clash(kind.removesuffix("s"), path.stem, found[path.stem], path)
        found[path.stem] = path
    return found


def clash(kind: str, name: str, first: Path, second: Path) -> UserError:
    """Return the error for a name that two files give to things of one kind."""
    return UserError(
        f"{shown(second)}: the {kind} {name!r} is in {shown(first)} already; give it another name "
        "(own experiments add to a paper's and change none)."
    )


@functools.cache
def _setting() -> tuple[str, ...]:
    path = EXPERIMENTS / SETTINGS
    named = (read_yaml(path) or {}).get("experiments") or [EXPERIMENTS.name]
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"{shown(path)}: experiments: give a list of folders, not {named!r}.")
    return tuple(named)


@functools.cache
def _checked(named: tuple[str, ...]) -> tuple[Path, ...]:
    found = list(dict.fromkeys((ROOT / Path(name).expanduser()).resolve() for name in named))
    for path in found:
        if not path.is_dir():
            raise UserError(f"{shown(path)}, named as a folder of experiments, is no folder; correct the name.")
    papers = [path for path in found if (path / PAPER).is_file()]
    if len(papers) > 1:
        names = " and ".join(map(shown, papers[:2]))
        raise UserError(f"{names} both have a {PAPER}; name one paper at a time.")
    paper = papers[0] if papers else EXPERIMENTS.resolve()
    return (paper, *(path for path in found if path != paper))
