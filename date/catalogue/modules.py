"""Python modules of the experiments, which register components of MMDetection: find them and their users.

A model or schedule names in its variable ``modules`` the files below ``modules/`` that it needs. They are imported by
these names, as MMEngine imports what a config's ``custom_imports`` lists, and may import one another.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from date.errors import UserError, unknown_name
from date.experiments.entries import shown
from date.experiments.folders import files, folders
from date.experiments.fragments import fragment_names, model_fragment, schedule_fragment

KIND = "modules"


def module_files() -> dict[str, Path]:
    """Return all modules of the experiments by name.

    Raises:
        UserError: two have the same name, or one has that of an installed module.
    """
    return _module_files(folders())


@functools.cache
def _module_files(places: tuple[Path, ...]) -> dict[str, Path]:
    found = files(KIND, ".py", places)
    for name, path in found.items():
        if not name.isidentifier():
            raise UserError(f"{shown(path)} can't be imported as {name!r}; give it a name of letters, digits and '_'.")
        there = importlib.util.find_spec(name)
        if there is not None and Path(there.origin or "").resolve() != path.resolve():
            raise UserError(f"{shown(path)} has the name of an installed module; give it another.")
    return found


def modules_of(model: str, schedule: str) -> tuple[str, ...]:
    """Return the modules that a model and a schedule use, and those that these import, by name in order.

    Raises:
        UserError: a module that does not exist; the message has the nearest one.
    """
    return _modules_of(model, schedule, folders())


@functools.cache
def _modules_of(model: str, schedule: str, places: tuple[Path, ...]) -> tuple[str, ...]:
    known = _module_files(places)
    named = [
        (fragment_names(kind)[name], module)
        for kind, name, content in (
            ("models", model, model_fragment(model)),
            ("schedules", schedule, schedule_fragment(schedule)),
        )
        for module in content.get(KIND, ())
    ]
    found: dict[str, None] = {}
    for path, name in named:
        if name not in known:
            raise unknown_name("module", name, known, f"{shown(path)}, {KIND}")
        _collect(name, known, found)
    return tuple(found)


def _collect(name: str, known: dict[str, Path], found: dict[str, None]) -> None:
    """Add a module and what it imports of the experiments, what is imported first."""
    if name in found:
        return
    found[name] = None
    for other in _imported(known[name]):
        if other in known:
            _collect(other, known, found)


def _imported(path: Path) -> Iterable[str]:
    """Return the names of the modules that a file imports anywhere."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{shown(path)}, line {error.lineno}: {error.msg}; correct it.") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield node.module.partition(".")[0]


def import_modules(names: Iterable[str]) -> None:
    """Import modules of the experiments, which registers their components.

    Raises:
        UserError: one can't be imported.
    """
    known = module_files()
    for name in names:
        place = str(known[name].parent)
        if place not in sys.path:
            sys.path.append(place)
        try:
            importlib.import_module(name)
        except Exception as error:  # the code is the user's: it may raise anything
            raise UserError(f"{shown(known[name])} can't be imported: {type(error).__name__}: {error}") from error
