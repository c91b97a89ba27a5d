"""Recognise files of forms that are not read, so that a message says what they are and what to do.

Nobody restores a file that is whole: a Pascal VOC file is to be exported in another form, a pointer of Git LFS is to be
fetched. Only what is certain is named; of anything else the reader says what it misses.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

ANNOTATIONS_READ = "annotations are read in COCO's JSON and as CrowdHuman's odgt; export them in one of these"
LFS = b"version https://git-lfs.github.com/spec/"
SIGNATURES = (
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array without names"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89PNG\r\n", "an image"),
    (b"\xff\xd8\xff", "an image"),
)
PICKLE = re.compile(rb"\x80[\x02-\x05]|\((?:lp|dp)\d|\(lp|c\w+(?:\.\w+)*\n\w+\n")
NUMBERS = re.compile(rb"[ \t]*[-+.\de]+(?:[ \t]+[-+.\de]+){4,}[ \t]*\r?(?:\n|$)")
CELLS = re.compile(rb'[\w "./:()-]+(?:,[\w "./:()-]*){2,}\r?(?:\n|$)')


class Form(NamedTuple):
    """A form that is not read."""

    name: str
    """With its article, to follow "is"."""
    remedy: str | None = None
    """What to do; None where it depends on what the file was to be."""


TABLE = Form("a table with commas (CSV)")


def other_form(content: bytes) -> Form | None:
    """Return which form a file has that is none of JSON's, as far as that is certain.

    Args:
        content: of the file, unpacked.
    """
    start = content[:4096].lstrip()
    if not start:
        return Form("empty", "restore it from its source") if not content.strip() else None
    if content.startswith(LFS):
        return Form("a pointer of Git LFS and not the file itself", "fetch that by `git lfs pull`")
    if start[:15].lower().startswith((b"<!doctype html", b"<html")):
        return Form("a web page, as failed downloads leave it", "download the file again")
    if start.startswith(b"<"):
        return Form("XML, as Pascal VOC and CVAT write annotations")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Form("UTF-16 text", "save it as UTF-8")
    for signature, name in SIGNATURES:
        if content.startswith(signature):
            return Form(name)
    if content.startswith(b"PK"):
        torch = b"/data.pkl" in content[:4096]
        return Form("a file of PyTorch's" if torch else "a zip archive", None if torch else "unpack it")
    if PICKLE.match(content):
        return Form("a pickle, as MMDetection's results.pkl, which is not read since that could execute code")
    if _is_records(content):
        return Form("an event file of TensorBoard or another file of TensorFlow's records")
    if NUMBERS.match(content):
        return Form("lines of numbers, as YOLO's text files")
    if CELLS.match(content):
        return TABLE
    return None


def _is_records(content: bytes) -> bool:
    """Return whether content begins as TensorFlow's records do: with a length in 8 bytes, which the file has."""
    return len(content) >= 16 and content[4:8] == bytes(4) and 0 < int.from_bytes(content[:4], "little") <= len(content)


def other_annotations(data: Any) -> str | None:
    """Return which tool's or task's annotations a JSON value has, where they are not COCO's boxes; None if unknown."""
    if isinstance(data, list):
        return _listed_form(data[0]) if data and isinstance(data[0], dict) else None
    if not isinstance(data, dict):
        return None
    records = data.get("annotations")
    first = records[0] if isinstance(records, list) and records and isinstance(records[0], dict) else {}
    complete = all(isinstance(data.get(key), list) for key in ("images", "annotations", "categories"))
    if complete and ("bbox" in first or not {"segments_info", "caption"} & first.keys()):
        return None
    values = [value for value in data.values() if isinstance(value, dict)]
    for what, found in (
        ("LabelMe's, which has a file for each image", {"imagePath", "version"} <= data.keys()),
        ("MMDetection 3's own form", "data_list" in data),
        ("annotations of videos", "videos" in data and "images" not in data),
        ("COCO's panoptic segments", "segments_info" in first),
        ("COCO's captions", "caption" in first),
        ("a list of images without annotations, as COCO's of its test images", "images" in data and records is None),
        ("VIA's own project", "_via_img_metadata" in data or any("regions" in value for value in values)),
        ("CrowdHuman's odgt: its dataset's entry needs format: crowdhuman", "gtboxes" in data),
    ):
        if found:
            return what
    return None


def _listed_form(first: dict[str, Any]) -> str | None:
    """Return which form a list of objects has, by its first one."""
    for what, keys in (
        ("COCO's results, which are detections and no annotations", ("image_id", "bbox", "score")),
        ("BDD100K's", ("name", "labels")),
        ("CreateML's", ("image", "annotations")),
        ("Label Studio's own JSON", ("annotations", "data")),
        ("CrowdHuman's odgt as a list", ("ID", "gtboxes")),
    ):
        if all(key in first for key in keys):
            return what
    return None
