"""JSON of annotations decoded by msgspec: only the keys that somebody reads, in compact records.

msgspec reads nothing that Python's parser refuses, and gives the same values (tests/unit/test_typed.py). It refuses
some of what Python's parser reads: NaN, infinity, halves of surrogate pairs. What it refuses is left to that parser,
whose records are dicts and whose errors name the place; both kinds of records are checked by the same code.
"""

from __future__ import annotations

import contextlib
import gc
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
from msgspec import UNSET

from date.datasets.columns import Flags

T = TypeVar("T")


class Record(msgspec.Struct, gc=False):
    """An object of which some keys were kept; values are whatever the file has, `UNSET` where it has none."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value as a dict does; ``key`` is one of those kept."""
        value = getattr(self, key)
        return default if value is UNSET else value

    def __getitem__(self, key: str) -> Any:
        """Return a value as a dict does, and raise a `KeyError` where the file has none."""
        if (value := getattr(self, key)) is UNSET:
            raise KeyError(key)
        return value


class ImageRecord(Record, gc=False):
    """An entry of ``images``."""

    id: Any = UNSET
    file_name: Any = UNSET
    width: Any = UNSET
    height: Any = UNSET


class AnnotationRecord(Record, gc=False):
    """An entry of ``annotations``."""

    id: Any = UNSET
    image_id: Any = UNSET
    category_id: Any = UNSET
    bbox: Any = UNSET
    area: Any = UNSET
    iscrowd: Any = UNSET
    ignore: Any = UNSET


class AnnotationFile(msgspec.Struct):
    """A COCO annotation file."""

    images: list[ImageRecord]
    annotations: list[AnnotationRecord]
    categories: list[dict[str, Any]]
    info: Any = None
    ID: Any = UNSET
    """Makes it a line of odgt, to some."""


Records = Sequence[dict[str, Any]] | Sequence[Record]

_ANNOTATIONS = msgspec.json.Decoder(AnnotationFile)


def annotation_file(raw: bytes) -> AnnotationFile | None:
    """Return the content of a COCO annotation file, or None where it is for Python's parser to read or to refuse."""
    return decoded(_ANNOTATIONS.decode, raw) if is_text(raw) else None


def decoded(decode: Callable[..., T], *raw: bytes) -> T | None:
    """Return what a decoder makes of JSON; None where it refuses it."""
    try:
        with without_collection():
            return decode(*raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


def is_text(raw: bytes) -> bool:
    """Return whether bytes are UTF-8, which msgspec does not check in what it skips."""
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Switch garbage collection off, which would visit millions of new objects again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def column(records: Records, key: str, default: Any = None) -> list[Any]:
    """Return a key's values, ``default`` where a record lacks it."""
    if not records or isinstance(records[0], dict):
        return [record.get(key, default) for record in records]
    values = list(map(operator.attrgetter(key), records))
    if msgspec.UnsetType in set(map(type, values)):
        return [default if value is UNSET else value for value in values]
    return values


def lacking(records: Records, key: str) -> Flags:
    """Return which records lack a key, (N,)."""
    if not records or isinstance(records[0], dict):
        return np.array([key not in record for record in cast(Sequence[dict[str, Any]], records)], dtype=bool)
    values = list(map(operator.attrgetter(key), records))
    if msgspec.UnsetType not in set(map(type, values)):
        return np.zeros(len(values), dtype=bool)
    return np.array([value is UNSET for value in values], dtype=bool)
