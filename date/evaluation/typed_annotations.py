"""Annotations of sound COCO files as arrays, decoded by msgspec.

Where a file has anything odd, a defect or a value that only Python's parser reads, `coco_annotations` gives None, and
`date.evaluation.ground_truth` reads it record by record and says what is wrong and where. Both ways give the same
arrays (tests/unit/test_typed.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from date.datasets.columns import Flags, Floats, Integers, exact_integers, floats
from date.datasets.lean import AnnotationFile, annotation_file, column, lacking


class Annotations(msgspec.Struct):
    """A sound COCO annotation file; of N annotations."""

    file: AnnotationFile
    image_ids: Integers
    image: Integers
    """(N,) index of each annotation's image."""
    category_ids: Integers
    bboxes: Floats
    """(N, 4) x, y, width, height, as they stand in the file."""
    areas: Floats
    """(N,), NaN where there is none."""
    iscrowd: Flags
    without_crowd: int
    ignore: Flags
    """(N,) whether ``ignore`` is 1."""


def coco_annotations(raw: bytes, negative_sizes: Callable[[Any], bool]) -> Annotations | None:
    """Read a COCO annotation file.

    Args:
        raw: content of the file.
        negative_sizes: whether boxes of negative size are taken, by the file's ``info``.
    """
    file = annotation_file(raw)
    if file is None or file.ID is not UNSET:
        return None
    records = file.annotations
    found = {
        "images": _integers(column(file.images, "id")),
        "categories": _integers(column(file.categories, "id")),
        "image_id": _integers(column(records, "image_id")),
        "category_id": _integers(column(records, "category_id")),
    }
    if any(ids is None for ids in found.values()):
        return None
    images, categories, image_ids, category_ids = found.values()
    assert images is not None and categories is not None and image_ids is not None and category_ids is not None
    order = np.argsort(images)
    unique = all(len(np.unique(ids)) == len(ids) for ids in (images, categories))
    if not (unique and np.isin(image_ids, images).all() and np.isin(category_ids, categories).all()):
        return None
    bboxes = _boxes(column(records, "bbox"))
    if bboxes is None or not (negative_sizes(file.info) or (bboxes[:, 2:] >= 0).all()):
        return None
    areas, crowd = _numbers(column(records, "area", 0.0)), _numbers(column(records, "iscrowd", 0))
    if areas is None or crowd is None or not np.isin(crowd, (0, 1)).all():
        return None
    areas[lacking(records, "area")] = np.nan
    ignore = column(records, "ignore", 0)
    return Annotations(
        file=file,
        image_ids=images,
        image=order[np.searchsorted(images, image_ids, sorter=order)] if len(image_ids) else image_ids,
        category_ids=category_ids,
        bboxes=bboxes,
        areas=areas,
        iscrowd=crowd == 1,
        without_crowd=int(lacking(records, "iscrowd").sum()),
        ignore=np.fromiter((value == 1 for value in ignore), dtype=bool, count=len(ignore)),
    )


def _integers(values: list[Any]) -> Integers | None:
    if not set(map(type, values)) <= {int}:
        return None
    return exact_integers(values)


def _numbers(values: list[Any]) -> Floats | None:
    """Return finite numbers as an array; None where one is none."""
    if not set(map(type, values)) <= {int, float}:
        return None
    found = floats(values)
    return found if np.isfinite(found).all() else None


def _boxes(values: list[Any]) -> Floats | None:
    if not (set(map(type, values)) <= {list} and set(map(len, values)) <= {4}):
        return None
    found = _numbers(list(itertools.chain.from_iterable(values)))
    return None if found is None else found.reshape(-1, 4)
