"""CrowdHuman's own annotation files (odgt: one JSON object a line) and their COCO form.

The conversion is that of the official DATE code (DATE sec. 4.5): an image's id is its line, counted from 1; every
entry of ``gtboxes`` becomes an annotation whose ``bbox`` is the full body's (``fbox``), unclipped, and ``iscrowd`` says
that it is ignored: `is_ignored`, by which evaluation goes as well.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.datasets.content import annotation_bytes, why_not_json
from date.datasets.foreign import ANNOTATIONS_READ, other_form
from date.datasets.images import ABSENT, Listing, Progress, header_sizes, listing_digest
from date.errors import UserError, listed
from date.files import file_digest, replace_text

CONVERSION_VERSION = 2
"""Of what is written for an odgt file; part of the converted file's name."""
LARGEST = 2.0**20
"""Largest magnitude of a coordinate in px; a 32-bit float still resolves an eighth of a pixel there."""

XYWH = list[float]


@dataclass(frozen=True, slots=True)
class Person:
    """An entry of ``gtboxes``; boxes are [x, y, width, height] in px, as they stand in the file."""

    fbox: XYWH
    """The full body, which may reach out of the image."""
    vbox: XYWH | None
    """The visible part, where the file has it."""
    ignore: bool
    """See `is_ignored`; such boxes are neither trained on nor to be found."""


@dataclass(frozen=True, slots=True)
class OdgtRecord:
    """A line of an odgt file."""

    image: str
    """The ``ID``: the image's file name without ``.jpg``."""
    persons: list[Person]
    width: int | None
    """Of the image in px; only some derived odgt files have it, CrowdHuman's own do not."""
    height: int | None


class _Broken(Exception):
    """A line is broken; the message says why."""


def read_odgt(path: Path) -> list[OdgtRecord]:
    """Read a CrowdHuman annotation file; record i is its line i + 1. No images are needed.

    Raises:
        UserError: the file is absent, empty or has broken lines; each is named with what is wrong with it.
    """
    try:
        lines = annotation_bytes(path).rstrip().split(b"\n")
    except ValueError as error:
        raise UserError(f"{path} is {error}; restore it from its source.") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); put CrowdHuman's odgt file there or correct the name."
        ) from None
    if (form := other_form(b"\n".join(lines[:50]))) is not None:
        raise UserError(f"{path} is {form.name}; {form.remedy or ANNOTATIONS_READ}.")
    if b'"images"' in lines[0] and b'"annotations"' in lines[0]:
        raise UserError(f"{path} looks like COCO's JSON; leave 'format: crowdhuman' out of the dataset's entry.")
    records, broken = [], []
    for number, line in enumerate(lines, 1):
        try:
            records.append(_record(line))
        except _Broken as problem:
            broken.append(f"line {number} {problem}")
    repeated = [f"{name} ({n} times)" for name, n in Counter(r.image for r in records).items() if n > 1]
    if repeated:
        broken.append(f"several lines have the same ID: {listed(repeated)}")
    if broken:
        raise UserError(f"{path} is damaged: {listed(broken)}; restore it from its source.")
    return records


def _record(line: bytes) -> OdgtRecord:
    try:
        data = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise _Broken(f"is not valid JSON ({why_not_json(error)})") from None
    if not isinstance(data, dict):
        raise _Broken("is not a JSON object")
    name = data.get("ID")
    if not isinstance(name, str) or not name or "/" in name or not name.isprintable():
        raise _Broken(f"has no ID that can name an image, but {shown(name)}")
    boxes = data.get("gtboxes")
    if not isinstance(boxes, list):
        raise _Broken("has no list 'gtboxes'")
    width, height = (_pixels(data, key) for key in ("width", "height"))
    return OdgtRecord(name, [_person(box, number) for number, box in enumerate(boxes, 1)], width, height)


def _pixels(data: dict[str, Any], key: str) -> int | None:
    value = data.get(key)
    if value is not None and (type(value) is not int or not 0 < value <= LARGEST):
        raise _Broken(f"has the {key} {shown(value)}, which is not a number of pixels")
    return value


def _person(data: Any, number: int) -> Person:
    if not isinstance(data, dict):
        raise _Broken(f"has a box {number} that is not a JSON object")
    if not is_box(data.get("fbox")):
        raise _Broken(f"has a box {number} whose fbox is not x, y, width, height, but {shown(data.get('fbox'))}")
    if data.get("vbox") is not None and not is_box(data["vbox"]):
        raise _Broken(f"has a box {number} whose vbox is not x, y, width, height, but {shown(data['vbox'])}")
    ignored = is_ignored(data)
    if ignored is None:
        raise _Broken(f"has a box {number} whose extra.ignore is neither 0 nor 1, but {shown(data['extra'])}")
    return Person(data["fbox"], data.get("vbox"), ignored)


def is_ignored(box: dict[str, Any]) -> bool | None:
    """Return whether an entry of ``gtboxes`` is a region to be ignored; None where its mark is not valid.

    CrowdHuman's own evaluation goes by both; in its files every box that is no person is marked as well.
    """
    extra = box.get("extra", {})
    if not isinstance(extra, dict) or extra.get("ignore", 0) not in (0, 1):
        return None
    return box.get("tag", "person") != "person" or extra.get("ignore", 0) == 1


def is_box(value: Any) -> bool:
    """Return whether a JSON value is four finite numbers of a sane magnitude and any sign."""
    return isinstance(value, list) and len(value) == 4 and all(map(_sane, value))


def _sane(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST  # so is no NaN, nor an integer of 400 digits


def shown(value: Any) -> str:
    """Return a JSON value for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a very long {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def converted_path(odgt: Path, folder: Path) -> Path:
    """Return where the COCO form of an odgt file lies; the name has its digest, and "absent" while there is no file."""
    if not (odgt.is_file() and os.access(odgt, os.R_OK)):
        return folder / f"{odgt.stem}-absent.json"
    digest = hashlib.sha256(f"{CONVERSION_VERSION} {file_digest(odgt)}".encode()).hexdigest()
    return folder / f"{odgt.stem}-{digest[:10]}.json"


def convert(odgt: Path, images: Path, target: Path, progress: Progress | None = None) -> None:
    """Write the COCO form of an odgt file, complete or not at all.

    Args:
        odgt: annotations of the split.
        images: folder of all images, of which the sizes are read.
        target: file to write.
        progress: called with (images done, images in all).

    Raises:
        UserError: broken lines, or images that are missing or are none; all are counted, the first ones named.
    """
    records = read_odgt(odgt)
    names = [f"{record.image}.jpg" for record in records]
    file_sizes = Listing(images).sizes(names)
    if missing := [name for name, size in zip(names, file_sizes, strict=True) if size == ABSENT]:
        raise UserError(f"{odgt} refers to images that are not in {images}: {listed(missing)}; add them.")
    sizes = header_sizes([images / name for name in names], progress)
    if unread := [name for name, size in zip(names, sizes, strict=True) if size is None]:
        raise UserError(f"{images} has files that are not images: {listed(unread)}; restore them from their source.")
    info = {
        "description": f"COCO form of {odgt.name}",
        "conversion": CONVERSION_VERSION,
        "odgt_sha256": file_digest(odgt),
        # The sizes below are those of the images at hand; other images need another conversion.
        "files_sha256": listing_digest(zip(names, file_sizes, strict=True)),
    }
    replace_text(target, json.dumps({"info": info, **_coco(records, names, sizes)}, separators=(",", ":")))


def _coco(records: list[OdgtRecord], names: list[str], sizes: list[Any]) -> dict[str, Any]:
    persons = ((line, person) for line, record in enumerate(records, 1) for person in record.persons)
    number = itertools.count(1)
    return {
        "images": [
            {"id": line, "file_name": name, "width": width, "height": height}
            for line, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), 1)
        ],
        "annotations": [
            {
                "id": next(number),
                "image_id": line,
                "category_id": 1,
                "bbox": person.fbox,
                **({} if person.vbox is None else {"bbox_vis": person.vbox}),
                "area": max(person.fbox[2], 0) * max(person.fbox[3], 0),
                "iscrowd": int(person.ignore),
            }
            for line, person in persons
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
