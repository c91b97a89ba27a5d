"""Annotations to evaluate against, read from a COCO annotation file or a CrowdHuman odgt file into arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from date.datasets import crowdhuman
from date.datasets.boxes import check_form
from date.datasets.content import whole_ids
from date.datasets.foreign import ANNOTATIONS_READ, other_annotations
from date.datasets.images import header_sizes
from date.datasets.lean import ImageRecord
from date.datasets.protocols import has_marks, marks, protocol_notes, regions
from date.errors import UserError
from date.evaluation.reading import (
    Defects,
    defect,
    is_box,
    is_integer,
    is_number,
    read_bytes,
    read_json_or_lines,
    shown,
)
from date.evaluation.typed_annotations import Annotations, coco_annotations
from date.formatting import counted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TEXTS = "ids that are texts and should be numbers, without quotation marks"


@dataclass(frozen=True)
class GroundTruth:
    """The images of a split and their N annotated boxes, in the file's order."""

    path: Path
    image_ids: list[int]
    """Of the file; the number of the line from 1 in an odgt file, as in its conversion to COCO's format."""
    image_names: list[str]
    """The odgt's ID, or the file's name without folder and suffix."""
    sizes: NDArray[np.float64]
    """(I, 2) width and height of each image in pixels; NaN where unknown."""
    categories: dict[int, str]
    """Names by id, in the file's order."""
    image: NDArray[np.int64]
    """(N,) index into ``image_ids``."""
    category_ids: NDArray[np.int64]
    """(N,)."""
    bboxes: NDArray[np.float64]
    """(N, 4) x, y, width, height in pixels, unclipped."""
    areas: NDArray[np.float64]
    """(N,) in square pixels: of the object's mask in COCO, else of the box."""
    ignored: NDArray[np.bool_]
    """(N,) whether the box is a region to be ignored: ``iscrowd``, or odgt boxes that are no person or ``ignore``."""
    notes: list[str] = field(default_factory=list)
    """Sentences on odd but legal records that were handled as the protocol prescribes, with their numbers."""
    files: list[str] = field(default_factory=list)
    """The images' file names as they stand in a COCO file."""

    def image_of(self, image_ids: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index into ``image_ids`` of each of some ids, (D,); -1 for an id that is none of them."""
        return _places(self.image_ids, image_ids)

    def category_of(self, category_ids: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the place among ``categories`` of each of some ids, (D,); -1 for an id that is none of them."""
        return _places(list(self.categories), category_ids)

    def image_by_name(self) -> dict[str, int]:
        """Return the index of each image by its name, its file's name and path, where no other image has the same."""
        names: dict[str, set[int]] = {}
        for forms in (self.image_names, [Path(file).name for file in self.files], self.files):
            for i, name in enumerate(forms):
                names.setdefault(name, set()).add(i)
        return {name: min(found) for name, found in names.items() if len(found) == 1}


def _places(ids: list[int], values: NDArray[np.float64]) -> NDArray[np.int64]:
    known = np.array(ids, dtype=np.float64)
    if not len(known):
        return np.full(len(values), -1)
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known[order], values), len(known) - 1)]
    return np.where(known[place] == values, place, -1)


def read_ground_truth(path: Path, images: Path | None = None, accept: str | None = None) -> GroundTruth:
    """Read annotations in COCO's format or as odgt, told apart by their content.

    Args:
        path: of the annotation file.
        images: folder of the images, whose headers give the sizes that an odgt file lacks.
        accept: how to say that boxes are as they should be, for the message on boxes that look like corners or
            fractions; None to take them, as where the dataset was verified.

    Raises:
        UserError: the file is neither, or has defects; all are listed.
    """
    raw = read_bytes(path)
    marked = raw if has_marks(raw) else b""
    typed = coco_annotations(raw, _is_conversion)
    del raw
    if typed is not None:
        ground_truth, info = _from_typed(path, typed), typed.file.info
    else:
        data, is_odgt = read_json_or_lines(path, ANNOTATIONS_READ)
        if is_odgt:
            ground_truth = _from_odgt(path, data)
            return ground_truth if images is None else with_sizes_of(ground_truth, images)
        ground_truth, info = _from_lists(path, data), data.get("info")
    if accept is not None and not _is_conversion(info):
        check_form(path, ground_truth.bboxes, ground_truth.sizes[ground_truth.image], accept)
    counts = marks(marked, path) | regions(ground_truth.categories, ground_truth.category_ids, ground_truth.ignored)
    if counts:
        ground_truth = replace(ground_truth, notes=[*ground_truth.notes, *protocol_notes(counts)])
    return ground_truth


def _from_lists(path: Path, data: Any) -> GroundTruth:
    absent = [key for key in ("images", "annotations", "categories") if not _has_list(data, key)]
    other = other_annotations(data)
    if absent or other:
        looks = f"looks like {other}" if other else f"has no list {', '.join(map(repr, absent))}"
        raise UserError(f"{path} {looks}; give a COCO annotation file or a CrowdHuman odgt file.")
    whole_ids(data)
    return _from_coco(path, data)


def _has_list(data: Any, key: str) -> bool:
    return isinstance(data, dict) and isinstance(data.get(key), list)


def _from_typed(path: Path, found: Annotations) -> GroundTruth:
    """Return what `_from_coco` does, from arrays."""
    files = [str(image.get("file_name", image.id)) for image in found.file.images]
    categories = {record["id"]: str(record.get("name", record["id"])) for record in found.file.categories}
    bboxes = found.bboxes.copy()
    bboxes[:, 2:] = np.maximum(bboxes[:, 2:], 0)
    without_area = np.isnan(found.areas)
    with np.errstate(over="ignore"):
        areas = np.where(without_area, bboxes[:, 2] * bboxes[:, 3], found.areas)
    rows = np.column_stack([found.image, found.category_ids, bboxes, areas, found.iscrowd])
    marked = int((found.ignore & ~found.iscrowd).sum())
    ground_truth = _arrays(
        path,
        found.image_ids.tolist(),
        [Path(file).stem for file in files],
        [_size(image) for image in found.file.images],
        categories,
        rows,
        _notes(int(without_area.sum()), found.without_crowd, marked),
    )
    return replace(ground_truth, files=files)


def _from_coco(path: Path, data: dict[str, Any]) -> GroundTruth:
    defects = Defects(path)
    image_ids, names, sizes, files = [], [], [], []
    seen: set[int] = set()
    for i, record in enumerate(data["images"]):
        if not isinstance(record, dict) or not is_integer(record.get("id")):
            text = isinstance(record, dict) and isinstance(record.get("id"), str)
            defects.add(TEXTS if text else "images without an integer 'id'", f"image {i}")
            continue
        if record["id"] in seen:
            defects.add("repeated image ids", str(record["id"]))
        seen.add(record["id"])
        image_ids.append(record["id"])
        files.append(str(record.get("file_name", record["id"])))
        names.append(Path(files[-1]).stem)
        sizes.append(_size(record))
    categories: dict[int, str] = {}
    for i, record in enumerate(data["categories"]):
        if not isinstance(record, dict) or not is_integer(record.get("id")):
            text = isinstance(record, dict) and isinstance(record.get("id"), str)
            defects.add(TEXTS if text else "categories without an integer 'id'", f"category {i}")
            continue
        if record["id"] in categories:
            defects.add("repeated category ids", str(record["id"]))
        categories[record["id"]] = str(record.get("name", record["id"]))
    index = {image_id: i for i, image_id in enumerate(image_ids)}
    rows = []
    missing = {"area": 0, "iscrowd": 0}
    marked = 0
    converted = _is_conversion(data.get("info"))
    for i, record in enumerate(data["annotations"]):
        place = f"annotation {i}"
        if not isinstance(record, dict):
            defects.add("annotations that are not objects", place)
        elif isinstance(record.get("image_id"), str):
            defects.add(TEXTS, f"{place} ('image_id' {shown(record['image_id'])})")
        elif not (is_integer(record.get("image_id")) and record["image_id"] in index):
            defects.add("annotations of unknown images", f"{place} (image {shown(record.get('image_id'))})")
        elif isinstance(record.get("category_id"), str):
            defects.add(TEXTS, f"{place} ('category_id' {shown(record['category_id'])})")
        elif not (is_integer(record.get("category_id")) and record["category_id"] in categories):
            defects.add("annotations of unknown categories", f"{place} (category {shown(record.get('category_id'))})")
        elif not (is_box(record.get("bbox")) and (converted or min(record["bbox"][2:]) >= 0)):
            defects.add("boxes that are not finite x, y, width, height", f"{place} ({shown(record.get('bbox'))})")
        elif record.get("iscrowd", 0) not in (0, 1):
            defects.add("'iscrowd' that are not 0 or 1", f"{place} ({shown(record['iscrowd'])})")
        elif "area" in record and not is_number(record["area"]):
            defects.add("areas that are not finite numbers", f"{place} ({shown(record['area'])})")
        else:
            box = [*record["bbox"][:2], *(max(side, 0) for side in record["bbox"][2:])]
            marked += record.get("ignore", 0) == 1 and not record.get("iscrowd", 0)
            for key in missing:
                missing[key] += key not in record
            area = record.get("area", box[2] * box[3])
            rows.append((index[record["image_id"]], record["category_id"], *box, area, record.get("iscrowd", 0)))
    defects.raise_if_any("correct the annotation file.")
    notes = _notes(missing["area"], missing["iscrowd"], marked)
    return replace(_arrays(path, image_ids, names, sizes, categories, rows, notes), files=files)


def _is_conversion(info: Any) -> bool:
    """Return whether a file's ``info`` marks a converted CrowdHuman file, whose negative boxes nobody can correct."""
    return isinstance(info, dict) and "odgt_sha256" in info


def _notes(without_area: int, without_crowd: int, marked: int) -> list[str]:
    notes = []
    if without_area:
        notes.append(f"{counted(without_area, 'annotations', 'have')} no 'area': the areas of boxes are used.")
    if without_crowd:
        notes.append(f"{counted(without_crowd, 'annotations', 'have')} no 'iscrowd': counted as objects.")
    if marked:
        notes.append(
            f"{counted(marked, 'annotations', 'have')} 'ignore: 1', at which COCO's evaluation does not look: "
            f"counted as objects."
        )
    return notes


def _from_odgt(path: Path, records: list[Any]) -> GroundTruth:
    """Return full-body boxes (``fbox``) as one category; others than persons and ``extra.ignore`` are ignored."""
    if not any(isinstance(record, dict) and "ID" in record for record in records):
        raise UserError(f"{path} has JSON objects without an 'ID', one a line: it is no odgt file; {ANNOTATIONS_READ}.")
    defects = Defects(path)
    names, sizes, rows = [], [], []
    seen: set[str] = set()
    for number, record in odgt_images(records, "gtboxes", defects):
        if record["ID"] in seen:
            defects.add("repeated image IDs", f"line {number} ({shown(record['ID'])})")
        seen.add(record["ID"])
        names.append(record["ID"])
        sizes.append(_size(record))
        for i, box in enumerate(record["gtboxes"]):
            if not isinstance(box, dict) or not crowdhuman.is_box(box.get("fbox")):
                found = shown(box.get("fbox") if isinstance(box, dict) else box)
                defects.add("boxes ('fbox') that are not four finite numbers", f"line {number}, box {i} ({found})")
                continue
            ignored = crowdhuman.is_ignored(box)
            if ignored is None:
                defects.add(
                    "marks ('extra.ignore') that are not 0 or 1", f"line {number}, box {i} ({shown(box['extra'])})"
                )
                continue
            x, y, width, height = box["fbox"]
            width, height = max(width, 0), max(height, 0)
            rows.append((len(names) - 1, 1, x, y, width, height, width * height, ignored))
    defects.raise_if_any("correct the odgt file.")
    return _arrays(path, list(range(1, len(names) + 1)), names, sizes, {1: "person"}, rows, [])


def odgt_images(records: list[Any], boxes_key: str, defects: Defects) -> Iterable[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, record) of the odgt records that have a textual ID and a list of boxes."""
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or not isinstance(record.get("ID"), str):
            defects.add("records without a text 'ID'", f"line {number}")
        elif not isinstance(record.get(boxes_key), list):
            defects.add(f"records without a list {boxes_key!r}", f"line {number} ({shown(record['ID'])})")
        else:
            yield number, record


def _size(record: dict[str, Any] | ImageRecord) -> tuple[float, float]:
    width, height = record.get("width"), record.get("height")
    known = is_number(width) and is_number(height) and width > 0 and height > 0  # type: ignore[operator]
    return (float(width), float(height)) if known else (np.nan, np.nan)  # type: ignore[arg-type]


def _arrays(
    path: Path,
    image_ids: list[int],
    names: list[str],
    sizes: list[tuple[float, float]],
    categories: dict[int, str],
    rows: list[tuple[Any, ...]] | NDArray[np.float64],
    notes: list[str],
) -> GroundTruth:
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    flat = int((table[:, 4:6] <= 0).any(axis=1).sum())
    if flat:
        notes.append(f"{counted(flat, 'annotated boxes', 'have')} no extent: always missed.")
    return GroundTruth(
        path=path,
        image_ids=image_ids,
        image_names=names,
        sizes=np.array(sizes, dtype=np.float64).reshape(-1, 2),
        categories=categories,
        image=table[:, 0].astype(np.int64),
        category_ids=table[:, 1].astype(np.int64),
        bboxes=table[:, 2:6],
        areas=table[:, 6],
        ignored=table[:, 7] != 0,
        notes=notes,
    )


def with_sizes_of(ground_truth: GroundTruth, images: Path) -> GroundTruth:
    """Return the annotations with the unknown sizes read from the headers of ``<folder>/<name>.jpg`` or ``.png``.

    Raises:
        UserError: images are missing or can't be read; all are listed.
    """
    defects, absent = Defects(images), []
    sizes = ground_truth.sizes.copy()
    for i in np.nonzero(np.isnan(sizes[:, 0]))[0]:
        name = ground_truth.image_names[i]
        found = [file for suffix in IMAGE_SUFFIXES if (file := images / f"{name}{suffix}").is_file()]
        if not found:
            absent.append(shown(name))
            continue
        (size,) = header_sizes([found[0]])  # upright, as they are decoded
        if size is None:
            defects.add("images that can't be read", found[0].name)
        else:
            sizes[i] = size
    if absent:
        raise UserError(f"{images} lacks {defect('annotated images', absent)}; give the folder that has them.")
    defects.raise_if_any("restore them from their source.")
    return replace(ground_truth, sizes=sizes)
