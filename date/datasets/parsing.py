"""Parse an annotation file into the lists of COCO's format, in normal form, or say which form it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from date.datasets.content import plain, why_not_json
from date.datasets.crowdhuman import shown
from date.datasets.foreign import ANNOTATIONS_READ, other_annotations, other_form
from date.datasets.lean import annotation_file, without_collection
from date.datasets.normal import changes, is_normal

LISTS = ("images", "annotations", "categories")


class Unfit(Exception):
    """A file can't be read as annotations.

    Args:
        problems: each a sentence.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = list(problems)


def parse_annotations(
    raw: bytes, path: Path, classes: list[str], image_folder: Path | None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a file's content in normal form, and what was changed for it, with counts.

    Where nothing is to be changed, records have only the keys that are looked at; all is there to be written anew
    where anything is.

    Args:
        raw: the file.
        path: of the file, for messages.
        classes: the names that its categories have, in the dataset's order.
        image_folder: to which absolute file names are made relative; None to leave them.

    Raises:
        Unfit: it is not JSON, or has not the three lists of an annotation file.
    """
    found = annotation_file(raw)
    if found is not None and is_normal(found, classes):
        records = {"images": found.images, "annotations": found.annotations, "categories": found.categories}
        return {"info": found.info, **records}, {}
    found = None
    try:
        data = _parse(raw)
    except (ValueError, RecursionError) as error:
        raise Unfit(_why_unread(raw, path, error)) from None
    if other := other_annotations(data):
        raise Unfit(f"{path} is not a COCO annotation file: it looks like {other}; export the boxes in COCO's form.")
    absent = [k for k in LISTS if not isinstance(data, dict) or k not in data]
    if absent:
        raise Unfit(f"{path} has no {', '.join(absent)}; it is not a COCO annotation file.")
    odd = {k: data[k] for k in LISTS if not isinstance(data[k], list)}
    if odd:
        sentence = "{} has {!r}, which should be a list and is {}; correct it."
        raise Unfit(*(sentence.format(path, key, shown(value)) for key, value in odd.items()))
    return data, changes(raw, data, classes, image_folder)


def _parse(raw: bytes) -> Any:
    with without_collection():
        return json.loads(plain(raw).decode())


def _why_unread(raw: bytes, path: Path, error: ValueError | RecursionError) -> str:
    """Return the sentence on a file that is no JSON."""
    try:
        content = plain(raw)
    except ValueError:
        content = raw
    if (form := other_form(content)) is not None:
        return f"{path} is {form.name}; {form.remedy or ANNOTATIONS_READ}."
    if b'"gtboxes"' in content[: 1 << 16]:
        return f"{path} looks like CrowdHuman's odgt; write 'format: crowdhuman' into the dataset's entry."
    if (
        isinstance(error, json.JSONDecodeError)
        and error.msg == "Extra data"
        and content[: error.pos].rstrip()[-1:] == b"}"
    ):
        return f"{path} has several JSON objects and not one, perhaps one a line; {ANNOTATIONS_READ}."
    return f"{path} is not valid JSON ({why_not_json(error)}); restore it from its source."
