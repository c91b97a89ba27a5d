"""Config fragments: Python files of the experiments whose variables are settings in MMEngine's own form."""

from __future__ import annotations

import copy
import functools
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from date.errors import UserError, unknown_name
from date.experiments.entries import shown
from date.experiments.folders import files, folders
from date.experiments.variables import (
    ModelVariables,
    ScheduleVariables,
    check_complete,
    check_names,
    check_numbers,
    check_types,
    fault,
)

BASE = "base"
"""Variable of a fragment that names another one of its kind, whose variables it changes."""


def fragment_names(kind: str) -> dict[str, Path]:
    """Return the fragments of a kind, ``models`` or ``schedules``, of all folders by name; see `folders.files`."""
    return files(kind, ".py")


def fragment(relative: str) -> dict[str, Any]:
    """Return the variables of a fragment by itself, e.g. of ``models/fcos.py``, as a copy."""
    kind, _, file = relative.partition("/")
    return _content(kind, file.removesuffix(".py"))


def _content(kind: str, name: str, users: Sequence[str] = ()) -> dict[str, Any]:
    """Return the variables of a fragment; the users build upon it, each upon the next one."""
    names = fragment_names(kind)
    where = f"{shown(names[users[-1]])}, {BASE}" if users else ""
    if name not in names:
        raise unknown_name(kind.removesuffix("s"), name, names, where)
    if name in users:
        circle = f"{name} builds upon itself" if users == (name,) else f"{', '.join(users)} build upon one another"
        raise UserError(f"{where}: {circle}; let one of them have no {BASE!r}.")
    return copy.deepcopy(_read(names[name]))


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    try:
        found = {k: v for k, v in runpy.run_path(str(path)).items() if not k.startswith("_")}
    except Exception as error:  # the code is the user's: it may raise anything
        raise fault(error, path) from error
    kind = ScheduleVariables if path.parent.name == "schedules" else ModelVariables
    check_types(kind, found, path)
    if kind is ScheduleVariables:
        check_names([kind], found, path)
    return found


def check_schedule(name: str) -> None:
    """Raise a `UserError` where a schedule lacks a variable that every training needs."""
    content, path = schedule_fragment(name), fragment_names("schedules")[name]
    check_complete(ScheduleVariables, content, path)
    if content.get("epochs") is None and content.get("iterations") is None:
        raise UserError(f"{shown(path)}: a schedule has 'epochs' or 'iterations'; add one of them.")


def schedule_fragment(name: str, users: Sequence[str] = ()) -> dict[str, Any]:
    """Return a schedule's variables over those of the schedule that it names as its ``base``; users build upon it."""
    schedule = _content("schedules", name, users)
    base = schedule.pop(BASE, None)
    return schedule if base is None else schedule_fragment(base, (*users, name)) | schedule


def model_fragment(name: str) -> dict[str, Any]:
    """Return a model's variables, merged key by key into those of the model that it names as its ``base``.

    Raises:
        UserError: there is no such model; the message has the nearest one.
    """
    return copy.deepcopy(_model(name, folders()))


@functools.cache
def _model(name: str, places: tuple[Path, ...], users: tuple[str, ...] = ()) -> dict[str, Any]:
    model = _content("models", name, users)
    base = model.pop(BASE, None)
    if base is None:
        return model
    found = copy.deepcopy(_model(base, places, (*users, name)))
    modules = [*found.get("modules", ()), *model.get("modules", ())]
    check_numbers(found, model, fragment_names("models")[name])
    merge(found, model)
    return found | ({"modules": modules} if modules else {})


def merge(base: dict[str, Any], override: Mapping[str, Any]) -> None:
    """Merge a dict into another in place, key by key; ``_delete_=True`` replaces instead, as in MMEngine."""
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not value.get("_delete_"):
            merge(base[key], value)
        else:
            base[key] = {k: v for k, v in value.items() if k != "_delete_"} if isinstance(value, dict) else value
