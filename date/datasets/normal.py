"""The normal form of a COCO annotation file, which training, evaluation and MMDetection all read.

Most files are in it already and are used as they are. What others write otherwise, and what has one meaning, is written
anew below ``<dataset>-converted/`` in the data root, as CrowdHuman's files are: packed files, byte order marks,
ids such as ``3.0``, categories in another order than the dataset's classes, annotations without ``area``, absolute
paths inside the image folder, LVIS's URLs in place of file names.
"""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path
from typing import Any

from date.datasets.content import BYTE_ORDER_MARK, GZIP, ID_KEYS, whole_ids
from date.datasets.lean import AnnotationFile, column, lacking
from date.files import file_digest

NORMAL_VERSION = 1
"""Of what is written; part of the file's name."""
INFO = "normal_form"
"""Key of the file's ``info`` that says of which file it is made, and what was changed, with counts."""


def normal_path(original: Path, folder: Path, classes: list[str]) -> Path:
    """Return where the normal form of a file lies; the name has the digest of its content and of the classes."""
    text = f"{NORMAL_VERSION} {classes} {file_digest(original)}"
    return folder / f"{_stem(original)}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"


def present_normal(original: Path, folder: Path, classes: list[str]) -> Path:
    """Return the normal form of a file where it was made, else the file; nothing is read where none was made."""
    made = glob.glob(f"{glob.escape(_stem(original))}-*.json", root_dir=folder)
    if not made or not (original.is_file() and os.access(original, os.R_OK)):
        return original
    target = normal_path(original, folder, classes)
    return target if target.name in made else original


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def changes(raw: bytes, data: dict[str, Any], classes: list[str], images: Path | None) -> dict[str, int]:
    """Bring a file's content into normal form, in place, and return the number of each kind of change.

    Args:
        raw: the file.
        data: its content, of which nothing is known yet; what is not as expected is left for the checks.
        classes: the names that its categories have, in the dataset's order.
        images: folder of the images; None where there is none to compare paths with.
    """
    found = {
        "packed": int(raw.startswith(GZIP)),
        "byte_order_marks": int(raw.startswith(BYTE_ORDER_MARK)),
        "ids_with_a_point": whole_ids(data),
        "categories_in_another_order": _reorder(data, classes),
        "areas_computed": _add_areas(data.get("annotations")),
        "file_names_of_urls": _from_urls(data.get("images")),
        "absolute_file_names": 0 if images is None else _relative(data.get("images"), images),
    }
    return {what: count for what, count in found.items() if count}


def is_normal(data: AnnotationFile, classes: list[str]) -> bool:
    """Return whether `changes` would certainly change nothing in a file that is neither packed nor marked."""
    names = column(data.images, "file_name")
    return not (
        _reorder({"categories": data.categories}, classes)
        or lacking(data.annotations, "area").any()
        or any(float in set(map(type, column(getattr(data, name), key))) for name in ID_KEYS for key in ID_KEYS[name])
        or any(name is None or (isinstance(name, str) and name.startswith("/")) for name in names)
    )


def _reorder(data: dict[str, Any], classes: list[str]) -> int:
    """Sort the categories by the dataset's classes where they have the same names; MMDetection goes by their order."""
    records = data.get("categories")
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        return 0
    names = [record.get("name") for record in records]
    if names == classes or len(names) != len(classes) or not all(isinstance(name, str) for name in names):
        return 0
    if sorted(names) != sorted(classes) or len(set(names)) != len(names):
        return 0
    data["categories"] = sorted(records, key=lambda record: classes.index(record["name"]))
    return sum(name != ours for name, ours in zip(names, classes, strict=True))


def _add_areas(records: Any) -> int:
    """Give annotations without ``area`` that of their box, as `date score` does."""
    count = 0
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and "area" not in record:
            box = record.get("bbox")
            if isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box[2:]):
                record["area"] = max(box[2], 0) * max(box[3], 0)
                count += 1
    return count


def _from_urls(records: Any) -> int:
    """Give LVIS's images, which have no ``file_name``, that of their ``coco_url``: ``train2017/000000391895.jpg``."""
    count = 0
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and "file_name" not in record and isinstance(record.get("coco_url"), str):
            record["file_name"] = record["coco_url"].partition("://")[2].partition("/")[2]
            count += 1
    return count


def _relative(records: Any, images: Path) -> int:
    """Make absolute paths of images that lie in the image folder relative to it."""
    count = 0
    folders = tuple(f"{folder}/" for folder in dict.fromkeys((str(images), os.path.realpath(images))))
    for record in records if isinstance(records, list) else ():
        name = record.get("file_name") if isinstance(record, dict) else None
        if isinstance(name, str) and name.startswith(folders):
            prefix = next(folder for folder in folders if name.startswith(folder))
            record["file_name"] = name.removeprefix(prefix)
            count += 1
    return count
