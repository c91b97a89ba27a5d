"""Reading of JSON that others wrote: every defect is found, named by its place, and told in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from date.errors import UserError

LISTED = 5
"""How many places of a kind of defect a message lists; the rest is counted."""


def read_text(path: Path) -> str:
    """Return a text file's content, or raise a `UserError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the name of the file.") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); name a file that can be.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); give a JSON file.") from None


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
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{where} is not valid JSON ({reason}); restore it from its source.") from None


def read_json_or_lines(path: Path) -> tuple[Any, bool]:
    """Return a file's JSON value and False, or where it has a JSON object per line (odgt), their list and True."""
    text = read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and _is_object(lines[0][1]):
        return [parse_json(line, f"line {number} of {path}") for number, line in lines], True
    value = parse_json(text, str(path))
    single = isinstance(value, dict) and "ID" in value
    return ([value], True) if single else (value, False)


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


def listing(items: Sequence[str]) -> str:
    """Return the first `LISTED` items, and how many more there are."""
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


class Defects:
    """Collects the defects of a file by kind, to be told all at once.

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
            texts = [f"{len(places)} {kind}: {listing(places)}" for kind, places in self._places.items()]
            raise UserError(f"{self.path} has {'; '.join(texts)}; {remedy}")


def shown(value: Any) -> str:
    """Return a JSON value as short printable ASCII."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
