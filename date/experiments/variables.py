"""The variables that models and schedules may have: an unknown one has no effect, a wrong type ends in a traceback."""

from __future__ import annotations

import ast
import linecache
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from date.errors import UserError, one_line, unknown_name
from date.experiments.entries import parse, shown

DATA = (dict, list, tuple, set, str, int, float, type(None))
"""What settings are made of; functions, classes and imported modules of a fragment are its own business."""


class _Part(BaseModel):
    """A config whose other keys are MMEngine's or MMDetection's business."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


class Detector(_Part):
    """The parts of a detector that the engine completes."""

    type: str | None = None
    data_preprocessor: dict[str, Any] | None = None
    backbone: dict[str, Any] | None = None
    neck: dict[str, Any] | None = None
    bbox_head: dict[str, Any] | None = None


class Variables(BaseModel):
    """The variables of a fragment of any kind."""

    model_config = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True)
    needed: ClassVar[tuple[str, ...]] = ()
    """Those that it has, or the one that it builds upon."""

    base: str | None = None
    modules: Sequence[str] | None = None


class ModelVariables(Variables):
    """The variables of a model of any family."""

    model: Detector | None = None
    family: str | None = None
    pretrained: str | None = None
    adapt: Callable[..., Any] | None = None


class Optimizer(_Part):
    """MMEngine's ``optimizer``, whose rate tiers scale."""

    type: str
    lr: float


class OptimWrapper(_Part):
    """MMEngine's ``optim_wrapper``."""

    optimizer: Optimizer
    paramwise_cfg: dict[str, Any] | None = None


class ScheduleVariables(Variables):
    """The variables of a schedule."""

    needed = ("milestones", "train_pipeline")

    epochs: Annotated[float, Field(gt=0)] | None = None
    iterations: Annotated[int, Field(gt=0)] | None = None
    milestones: Sequence[float] | None = None
    train_pipeline: Sequence[dict[str, Any]] | None = None
    test_pipeline: Sequence[dict[str, Any]] | None = None
    optim_wrapper: OptimWrapper | None = None
    warmup: dict[str, Any] | None = None


def check_types(kind: type[Variables], content: Mapping[str, Any], path: Path) -> None:
    """Raise a `UserError` for a variable of a type that it can't have; it names the file."""
    parse(kind, content, shown(path))


def check_names(kinds: Sequence[type[Variables]], content: Mapping[str, Any], path: Path) -> None:
    """Raise a `UserError` for a variable that no kind has and the file itself does not read: it has no effect."""
    known = {name for kind in kinds for name in kind.model_fields}
    unknown = [name for name, value in content.items() if name not in known and isinstance(value, DATA)]
    if not unknown:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for name in unknown:
        if name not in read:
            raise unknown_name("variable", name, known, shown(path))


def check_numbers(base: Mapping[str, Any], override: Mapping[str, Any], path: Path, place: str = "") -> None:
    """Raise a `UserError` where text takes the place of a number: components often take it, and fail in a step.

    Args:
        base: the settings that are changed.
        override: what changes them.
        path: of the file that does.
        place: of both, for the message.
    """
    for key, value in override.items():
        where = f"{place}, {key}" if place else key
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not value.get("_delete_"):
            check_numbers(base[key], value, path, where)
        elif isinstance(value, str) and isinstance(base.get(key), int | float):
            raise UserError(f"{shown(path)}, {where}: {value!r} is text in place of {base[key]!r}; give a number.")


def check_complete(kind: type[Variables], content: Mapping[str, Any], path: Path) -> None:
    """Raise a `UserError` for a variable that a fragment lacks, together with those that it builds upon."""
    for name in kind.needed:
        if content.get(name) is None:
            raise UserError(f"{shown(path)}: the variable {name!r} is missing; add it, or name a 'base' that has it.")


def fault(error: BaseException, path: Path) -> UserError:
    """Return the error for a file of a user's that can't be run: it names the line and what Python says of it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return UserError(f"{shown(path)}, line {error.lineno}: {error.msg}; correct it.")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{shown(path)}, line {lines[-1]}" if lines else shown(path)
    return UserError(f"{where}: {one_line(error).rstrip('.')}; correct it.")


def source_line(frame: traceback.FrameSummary) -> str:
    """Return the code of a frame's line."""
    return linecache.getline(frame.filename, frame.lineno or 0).strip()
