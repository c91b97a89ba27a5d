"""Detections of sound JSON files as arrays, decoded by msgspec in parts, so that no file is in memory as objects.

Every reader here gives None where a file has anything odd: a defect, an id in another form, a value that only Python's
parser reads. `date.evaluation.detections` then reads it record by record, which takes several times as long, and says
what is wrong and where. Both ways give the same arrays (tests/unit/test_typed.py).
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from date.datasets.columns import Integers, exact_integers
from date.datasets.lean import decoded, is_text
from date.evaluation.reading import whole

PIECE = 1 << 23
"""Bytes of a list that are decoded at once."""
BLANK = b" \t\n\r"
BETWEEN = re.compile(rb"\}[ \t\n\r]*,[ \t\n\r]*(?=\{)")
"""Between two objects of a list."""

XYWH = tuple[float, float, float, float]


class Result(msgspec.Struct, gc=False):
    """An entry of COCO's results format."""

    image_id: int | str
    category_id: int
    bbox: XYWH
    score: float
    file_name: Any = UNSET
    category: Any = UNSET
    """Name of the category, which may contradict the annotations'."""
    ID: Any = UNSET
    """Makes a record one of odgt, perhaps."""


class Found(msgspec.Struct, gc=False):
    """An entry of ``dtboxes``."""

    box: XYWH
    score: float


class OdgtDetections(msgspec.Struct, gc=False):
    """A line of an odgt file of detections."""

    ID: str
    dtboxes: list[Found]
    width: Any = UNSET
    height: Any = UNSET
    image_id: Any = UNSET
    """Makes a line one of COCO's results, perhaps."""


class Results(NamedTuple):
    """COCO's results as arrays."""

    rows: NDArray[np.float64]
    """(D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`."""
    image_ids: Integers | None
    """Image id of each record as it stands in the file, where some have names of files."""
    categories: set[tuple[int, str]]
    """Each id of a category with a name that the records give it."""


_results = msgspec.json.Decoder(list[Result])
_result = msgspec.json.Decoder(Result)
_odgt = msgspec.json.Decoder(OdgtDetections)


def coco_results(raw: bytes, by_name: Callable[[], dict[str, int]]) -> Results | None:
    """Read COCO's results, a list or an object per line.

    Args:
        raw: content of the file.
        by_name: gives the ids of images by name; asked only where records name images.
    """
    if not is_text(raw):
        return None
    is_list = raw.lstrip(BLANK)[:1] == b"["
    parts, originals, names = [], [], set()
    for records in _in_pieces(raw) if is_list else _in_lines(raw, _result):
        part = None if records is None else _rows(records, by_name)
        if records is None or part is None:
            return None
        parts.append(part[0])
        originals.append(part[1])
        names |= _category_names(records)
    if not is_list and sum(map(len, parts)) < 2:
        return None  # a single object is no list
    rows = np.concatenate(parts) if parts else np.empty((0, 7))
    named = any(original is not None for original in originals)
    ids = (part[:, 0] if own is None else own for part, own in zip(parts, originals, strict=True))
    return Results(rows, np.concatenate([each.astype(np.int64) for each in ids]) if named else None, names)


def _in_pieces(raw: bytes) -> Iterator[list[Result] | None]:
    """Yield the records of a list in parts that were cut between two objects; None where one is not as expected.

    A cut inside a text, or inside of an object that is in an object, leaves something open, which no decoder accepts.
    """
    start, end = raw.index(b"["), len(raw.rstrip(BLANK)) - 1
    if raw[end : end + 1] != b"]" or end <= start:
        yield None
        return
    position = start + 1
    while True:
        cut = BETWEEN.search(raw, position + PIECE, end)
        stop = end if cut is None else cut.start() + 1
        yield decoded(_results.decode, b"".join((b"[", raw[position:stop], b"]")))
        if cut is None:
            return
        position = cut.end()


def _in_lines(raw: bytes, decoder: Any) -> Iterator[Any]:
    """Yield lists of the records of lines, None where one is not as expected."""
    lines = (line for line in _lines(raw) if line.strip(BLANK))
    while batch := list(itertools.islice(lines, 50_000)):
        yield decoded(lambda *parts: [decoder.decode(part) for part in parts], *batch)


def _lines(raw: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(raw):
        end = raw.find(b"\n", position)
        end = len(raw) if end < 0 else end
        yield raw[position:end]
        position = end + 1


def _rows(
    records: list[Result], by_name: Callable[[], dict[str, int]]
) -> tuple[NDArray[np.float64], Integers | None] | None:
    """Return the rows of records, and their own image ids where they name files; None where an id is none."""
    if set(map(type, map(operator.attrgetter("ID"), records))) - {msgspec.UnsetType}:
        return None
    given, names = (list(map(operator.attrgetter(key), records)) for key in ("image_id", "file_name"))
    original = None
    image_ids: Sequence[Any] = given
    kinds = set(map(type, given))
    if set(map(type, names)) - {msgspec.UnsetType} or kinds - {int}:
        known = by_name()
        if any(type(own) is str and known.get(own, own) not in (own, whole(own)) for own in given if whole(own) != own):
            return None  # the id of one image and the name of another, perhaps
        image_ids = [
            known[name] if isinstance(name, str) and name in known else known.get(own, own) if type(own) is str else own
            for own, name in zip(given, names, strict=True)
        ]
        if str in set(map(type, image_ids)):
            return None
        own = (one if type(one) is int else found for one, found in zip(given, image_ids, strict=True))
        original = exact_integers(list(own))
        if original is None:
            return None
    images, categories = (
        exact_integers(image_ids),
        exact_integers(list(map(operator.attrgetter("category_id"), records))),
    )
    if images is None or categories is None:
        return None
    rows = np.empty((len(records), 7))
    rows[:, 0], rows[:, 6] = images, categories
    corners = itertools.chain.from_iterable(map(operator.attrgetter("bbox"), records))
    rows[:, 1:5] = np.fromiter(corners, np.float64, count=4 * len(records)).reshape(-1, 4)
    rows[:, 5] = np.fromiter(map(operator.attrgetter("score"), records), np.float64, count=len(records))
    return rows, original


def _category_names(records: list[Result]) -> set[tuple[int, str]]:
    ids, names = (map(operator.attrgetter(key), records) for key in ("category_id", "category"))
    return {(number, name) for number, name in zip(ids, names, strict=True) if type(name) is str}


def odgt_detections(raw: bytes) -> tuple[list[OdgtDetections], NDArray[np.float64]] | None:
    """Read CrowdHuman's detections, an object per line.

    Returns:
        The lines, without their boxes; and (D, 6): the number of the line from 0, x, y, width, height, score.
    """
    if not is_text(raw):
        return None
    lines: list[OdgtDetections] = []
    parts: list[NDArray[np.float64]] = []
    for line in _lines(raw):
        if not line.strip(BLANK):
            continue
        record = decoded(_odgt.decode, line)
        if record is None or record.image_id is not UNSET:
            return None
        rows = np.empty((len(record.dtboxes), 6))
        rows[:, 0] = len(lines)
        rows[:, 1:5] = np.array([found.box for found in record.dtboxes], dtype=np.float64).reshape(-1, 4)
        rows[:, 5] = [found.score for found in record.dtboxes]
        record.dtboxes = []
        parts.append(rows)
        lines.append(record)
    return (lines, np.concatenate(parts)) if len(lines) > 1 else None
