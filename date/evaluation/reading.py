"""Read JSON from other tools: find every defect, name its place, and report all in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from date.datasets.content import annotation_bytes, why_not_json
from date.datasets.foreign import TABLE, other_form
from date.errors import UserError

LISTED = 5
"""How many places of a kind of defect a message lists; the rest is counted."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content as `annotation_bytes` does, or raise a `UserError`."""
    try:
        return annotation_bytes(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the name of the file.") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); name a file that can be.") from None
    except ValueError as error:
        raise UserError(f"{path} is {error}; restore it from its source.") from None


def read_text(path: Path, read: str, tables: bool = False) -> str:
    """Return a text file's content.

    Args:
        path: of the file.
        read: a main clause with the forms that are read, for messages.
        tables: whether tables with commas are among them.

    Raises:
        UserError: it can't be read, or certainly has another form.
    """
    content = read_bytes(path)
    if (form := other_form(content)) is not None and not (tables and form == TABLE):
        raise UserError(f"{path} is {form.name}; {form.remedy or read}.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {read}.") from None


def parse_json(text: str, where: str) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the JSON.
        where: what the text is, for the message.

    Raises:
        UserError: it is not JSON, or nested too deeply or with numbers too long to be read.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, and integers of thousands of digits
        raise UserError(f"{where} is not valid JSON ({why_not_json(error)}); restore it from its source.") from None


def read_json_or_lines(path: Path, read: str) -> tuple[Any, bool]:
    """Return a file's JSON value and False, or the list of a JSON object per line, and whether these are odgt's.

    A list of odgt's objects (MMDetection's CrowdHumanMetric writes one) is the same as their lines.

    Args:
        path: of the file.
        read: a main clause with the forms that are read, for messages.
    """
    text = read_text(path, read)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and _is_object(lines[0][1]):
        records = [parse_json(line, f"line {number} of {path}") for number, line in lines]
        return records, not all(isinstance(record, dict) and "image_id" in record for record in records)
    value = parse_json(text, str(path))
    if isinstance(value, dict) and "ID" in value:
        return [value], True
    listed = isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "ID" in v for v in value)
    return value, listed


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def is_integer(value: Any) -> bool:
    """Return whether a JSON value is an integer that a double holds exactly, as ids must be; ``true`` is not."""
    return type(value) is int and abs(value) < 2**53


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number that a double holds; ``true`` is not."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def is_box(value: Any) -> bool:
    """Return whether a JSON value is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def whole(value: Any) -> Any:
    """Return an id as an integer where it is one in another form: a whole number, or a text of digits."""
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 17:
        return int(value)
    return value


def listing(items: Sequence[str]) -> str:
    """Return the first `LISTED` items, and how many more there are."""
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


class Defects:
    """Collects the defects of a file by kind, to report all at once.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str) -> None:
        """Note a defect: ``kind`` is a phrase such as "boxes that are not four finite numbers"."""
        self._places.setdefault(kind, []).append(place)

    def raise_if_any(self, remedy: str) -> None:
        """Raise a `UserError` that lists what was added and ends with the remedy."""
        if self._places:
            texts = [defect(kind, places) for kind, places in self._places.items()]
            raise UserError(f"{self.path} has {'; '.join(texts)}; {remedy}")


def defect(kind: str, places: Sequence[str]) -> str:
    """Return e.g. ``2 boxes of negative size: entry 0, entry 3``; one is not counted, since ``kind`` is of several."""
    number = f"{len(places):,} " if len(places) > 1 else ""
    return f"{number}{kind}: {listing(places)}"


def shown(value: Any) -> str:
    """Return a JSON value as short printable ASCII."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
