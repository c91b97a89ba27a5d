"""Settings that a component refuses when it is built: in place of a traceback, the file, the key and the nearest one.

Any registered component counts, MMDetection's or one of the experiments' modules. MMEngine builds all of them by one
function, whose frame in the traceback tells what was asked for. Nothing here imports PyTorch.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from date.errors import UserError, one_line, unknown_name
from date.experiments.entries import read_yaml, shown
from date.experiments.folders import folders
from date.experiments.fragments import fragment
from date.experiments.variables import source_line

BUILDER = ("mmengine.registry.build_functions", "build_from_cfg")
REFUSED = (TypeError, ValueError, LookupError, AssertionError, AttributeError, NotImplementedError)
"""The errors by which components refuse settings; others, such as a full memory, are not the settings' fault."""
UNEXPECTED = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"\(\) missing \d+ required (?:positional|keyword-only) arguments?: (.+)$")
UNREGISTERED = re.compile(r"(\S+) is not in the \S+ registry\.|Cannot find (\S+) in registry")
READERS = ("dataset", "data sampler", "metric", "evaluator")
"""Registries of the engine's own settings, whose components also read data: an error there may be the data's."""

Place = tuple[str, ...]
"""The file, the variable and the keys that lead to settings."""


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Raise a `UserError` in place of the error by which a component refuses its settings."""
    try:
        yield
    except REFUSED as error:
        if (sentence := refusal(error)) is None:
            raise
        raise sentence from error


def refusal(error: Exception) -> UserError | None:
    """Return the sentence for an error that came up while a component was built, None for any other error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builders = [frame for frame in frames if (frame.f_globals.get("__name__"), frame.f_code.co_name) == BUILDER]
    if not builders:
        return None
    local, text = builders[-1].f_locals, str(error.args[0]) if error.args else ""
    asked, whole = (getattr(cfg, "_cfg_dict", cfg) for cfg in (local["cfg"], builders[0].f_locals["cfg"]))
    component, registry = local.get("obj_cls"), local["registry"]
    if match := UNREGISTERED.search(text):
        name = str(match[1] or frames[-1].f_locals.get("layer_type", match[2]))
        unknown = next((part for _, part in _dicts(asked, ()) if part.get("type") == name), asked)
        return unknown_name("type", name, _registered(registry), _where(unknown, whole))
    if match := UNEXPECTED.search(text):
        key = match[2]
        for part in (part for _, part in _dicts(asked, ()) if key in part):
            kind = component if part is asked else _called(match[1], frames)
            name = str(getattr(kind, "__name__", match[1]))
            return unknown_name(f"key of {name}", key, _parameters(kind) - {key}, _where(part, whole, key))
    if "type" not in asked:
        return UserError(f"{_where(asked, whole)}: the key 'type' is missing; add it.")
    if component is None or registry.name in READERS:
        return None
    where, name = _where(asked, whole), getattr(component, "__name__", str(component))
    if (match := MISSING.search(text)) and frames[-1] is builders[-1]:
        return UserError(f"{where}: {name} needs {match[1]}; add it.")
    return UserError(f"{where}: {name} refuses its settings: {_said(error)}; correct them.")


def _registered(registry: Any) -> set[str]:
    """Return the names in a registry and in those that it asks for names that are not its own."""
    found = set(registry.module_dict)
    while (registry := registry.parent) is not None:
        found |= set(registry.module_dict)
    return found


def _called(name: str, frames: Sequence[FrameType]) -> Any:
    """Return the class of that name which a component made itself, such as a layer; None where no frame knows it."""
    values = [value for frame in reversed(frames) for value in frame.f_locals.values()]
    return next((value for value in values if inspect.isclass(value) and value.__name__ == name), None)


def _parameters(kind: Any) -> set[str]:
    """Return the keys that a class takes, with those that it hands on to the classes that it is made of."""
    found: set[str] = set()
    for part in kind.__mro__ if inspect.isclass(kind) else filter(None, [kind]):
        if inspect.isclass(part) and "__init__" not in vars(part):
            continue
        try:
            parameters = inspect.signature(part.__init__ if inspect.isclass(part) else part).parameters.values()
        except ValueError:  # made in C
            break
        found |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found - {"self"}


def _said(error: Exception) -> str:
    """Return what an error says, and the place of the code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = one_line(error) if str(error) else f"{type(error).__name__}: {source_line(frame)}"
    path = Path(frame.filename)
    mine = any(path.is_relative_to(folder) for folder in folders())
    place = shown(path) if mine else "/".join(path.parts[-3:])
    return f"{text.rstrip('.')} ({place}, line {frame.lineno})"


def _where(part: dict[str, Any], whole: dict[str, Any], key: str | None = None) -> str:
    """Return where settings stand in the experiments.

    Args:
        part: the settings, as they were merged and scaled.
        whole: what they are in, for instance a detector's config.
        key: that the place has to have.
    """
    inside = next((place for place, inner in _dicts(whole, ()) if inner is part or inner == part), ())
    kind = part.get("type")

    def alike(found: tuple[Place, dict[str, Any], int]) -> tuple[int, bool, int, int]:
        place, settings, folder = found
        pairs = zip(reversed(inside), reversed(place), strict=False)
        ends = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        equal = sum(part.get(name) == value for name, value in settings.items())
        return ends, equal == len(settings), folder, equal

    there = [
        (place, settings, folder)
        for place, settings, folder in _settings()
        if (key is None or key in settings) and settings.get("type", kind) == kind
    ]
    best = max(there, key=alike, default=None)
    if best is None or (key is None and alike(best)[0] == 0 and "type" not in best[1]):
        return ", ".join(inside) or str(kind)
    return ", ".join(best[0])


def _settings() -> Iterator[tuple[Place, dict[str, Any], int]]:
    """Yield all dicts of settings of all folders with their places and the folder's number, the paper's first."""
    for number, folder in enumerate(folders()):
        for kind in ("models", "schedules"):
            for path in sorted((folder / kind).glob("*.py")):
                for place, settings in _dicts(fragment(f"{kind}/{path.name}"), (shown(path),)):
                    yield place, settings, number
        for path in sorted((folder / "tiers").glob("*.yaml")):
            for place, settings in _dicts(read_yaml(path), (shown(path),)):
                yield place, settings, number


def _dicts(value: Any, place: Place) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield a value and what is in it, as far as they are dicts, with their places below one."""
    if isinstance(value, dict):
        yield place, value
        for key, inner in value.items():
            yield from _dicts(inner, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _dicts(inner, (*place, str(i)))
