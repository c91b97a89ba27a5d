"""What all catalogue data share: strict entries, and YAML read so that a mistake is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from date.errors import UserError, unknown_name

ROOT = Path(__file__).resolve().parent.parent.parent
EXPERIMENTS = ROOT / "experiments"


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""LibYAML's where it is there: ten times as fast, which every command and the DAG's beginning gain from."""


class Entry(BaseModel):
    """Base of all catalogue data: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: Path) -> Any:
    """Return a YAML file's content.

    Raises:
        UserError: the file is absent or not YAML; the message names the file and the line.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        raise UserError(f"{shown(path)} does not exist; create it or correct the name.") from None
    except OSError as error:
        raise UserError(f"{shown(path)} can't be read ({error.strerror}); name a file that can be.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # not UTF-8, dates that are none, nesting without end
        raise UserError(f"{shown(path)} is not valid YAML: {' '.join(str(error).split())}") from None


def read_entry(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML file that holds one entry; see `read_yaml`."""
    data = read_yaml(path)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{shown(path)} holds no keys with values; write 'key: value' lines.")
    return dict(data)


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: Any, where: str) -> M:
    """Validate data against a model; a violation becomes one sentence that names place, key and remedy."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {'; '.join(_violation(model, e) for e in error.errors())}") from None


def _violation(model: type[BaseModel], error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        return str(unknown_name("key", str(error["loc"][-1]), fields))
    if error["type"] == "missing":
        return f"the key {place!r} is missing; add it"
    given = f", not {error['input']!r}" if isinstance(error["input"], str | int | float) else ""
    return f"{place}: {error['msg']}{given}" if place else str(error["msg"])


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the field names of the model that a location inside ``model`` points at."""
    nested: list[type[BaseModel]] = []
    for part in loc:
        if part in model.model_fields:
            nested = _models_in(model.model_fields[part].annotation)
            if not nested:
                return []
            model = nested[0]
        elif chosen := [m for m in nested if part in get_args(getattr(m.model_fields.get("kind"), "annotation", None))]:
            model = chosen[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models named anywhere in a type annotation, e.g. ``Row`` in ``list[list[Row]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def shown(path: Path) -> str:
    """Return a path as messages show it: from the project's root where it lies below it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
