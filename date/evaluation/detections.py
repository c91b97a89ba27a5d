"""Detections of ours or anybody's, read from a file into an array, with everything that is wrong with them told.

Three kinds of file, told apart by their content:

- ``detections.npz`` as `date.inference.evaluate.write_evaluation` writes it: one array per variant;
- COCO's results format: a JSON list of ``{image_id, category_id, bbox: [x, y, width, height], score}``;
- CrowdHuman's odgt: a JSON object per line with ``ID`` and ``dtboxes``, a list of ``{box: [x, y, width, height],
  score}``; a ``tag`` is not looked at, as in the official tool.

Refused, with all places listed: values that are no finite numbers, negative sizes, images that are not among the
annotated ones, an odgt ID twice; and a file without any detection of an annotated category. Counted in
`Detections.notes`: single detections of other categories, which no metric counts (COCO's own tool does the same), and
boxes without extent, which can find nothing.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from date.errors import UserError, unknown_name
from date.evaluation.coco import DETECTION_COLUMNS
from date.evaluation.ground_truth import GroundTruth, odgt_images
from date.evaluation.reading import Defects, is_box, is_integer, is_number, listing, read_json_or_lines, shown

REMEDY = "mend the file of detections."


@dataclass(frozen=True)
class Detections:
    """Detections that can be judged against some annotations."""

    rows: NDArray[np.float64]
    """(D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, in the file's order."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what was treated in some standard way, with counts."""
    sizes: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Width and height of images by index, where the file (odgt) has them."""


def read_detections(path: Path, ground_truth: GroundTruth, variant: str | None = None) -> Detections:
    """Read a file of detections.

    Args:
        path: of the file.
        ground_truth: the annotations that they are of.
        variant: which array of a ``detections.npz``; the first by default, which is said in the notes.

    Raises:
        UserError: the file is none of the known kinds, or has defects; all are listed.
    """
    if is_archive(path):
        rows, notes = _from_npz(path, variant)
        return _checked(path, rows, notes, ground_truth)
    if variant is not None:
        raise UserError(f"{path} has no variants (only detections.npz has); leave --variant out.")
    data, is_lines = read_json_or_lines(path)
    if is_lines:
        return _from_odgt(path, data, ground_truth)
    if not isinstance(data, list):
        raise UserError(
            f"{path} holds a JSON {_kind(data)}; detections are a list of "
            f"{{image_id, category_id, bbox, score}}, an odgt file with 'dtboxes', or a detections.npz."
        )
    return _checked(path, _from_results(path, data, ground_truth), [], ground_truth)


def _kind(value: Any) -> str:
    return {dict: "object", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip archive, as npz files are; False also where it can't be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(2) == b"PK"
    except OSError:
        return False  # reading it as JSON tells what is wrong


def _from_npz(path: Path, variant: str | None) -> tuple[NDArray[np.float64], list[str]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            columns = archive["columns"] if "columns" in archive.files else None
            if not isinstance(columns, np.ndarray) or columns.tolist() != list(DETECTION_COLUMNS):
                raise UserError(f"{path} is not a detections.npz of this project: its array 'columns' is not ours.")
            names = [name for name in archive.files if name != "columns"]
            if not names:
                raise UserError(f"{path} holds no variant; evaluate the run again.")
            chosen = names[0] if variant is None else variant
            if chosen not in names:
                raise unknown_name("variant", chosen, names, str(path))
            rows = archive[chosen]
    except (ValueError, OSError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged or not a detections.npz ({error}); make it again.") from None
    except (SyntaxError, TypeError, OverflowError, MemoryError, RuntimeError) as error:  # damaged array headers
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged or not a detections.npz ({reason}); make it again.") from None
    if not isinstance(rows, np.ndarray):
        raise UserError(f"{path}: {chosen!r} is not an array; make it again.")
    if rows.ndim != 2 or rows.shape[1] != len(DETECTION_COLUMNS) or rows.dtype.kind != "f":
        raise UserError(
            f"{path}: {chosen!r} is an array {rows.shape} of {rows.dtype}, not (D, {len(DETECTION_COLUMNS)}) of "
            f"floats; make it again."
        )
    others = [name for name in names if name != chosen]
    notes = []
    if variant is None and others:
        notes.append(f"variant {chosen!r} is scored; --variant chooses another of {', '.join(map(repr, others))}.")
    return rows.astype(np.float64), notes


def _from_results(path: Path, data: list[Any], ground_truth: GroundTruth) -> NDArray[np.float64]:
    by_name = {name: ground_truth.image_ids[i] for name, i in ground_truth.image_by_name().items()}
    defects = Defects(path)
    rows = []
    for i, record in enumerate(data):
        if not isinstance(record, dict):
            defects.add("entries that are not objects", f"entry {i} ({shown(record)})")
            continue
        image_id, box = record.get("image_id"), record.get("bbox")
        if isinstance(image_id, str) and image_id in by_name:
            image_id = by_name[image_id]
        if isinstance(image_id, str):
            defects.add("detections of unknown images", f"entry {i} (image {shown(image_id)})")
        elif not is_integer(image_id):
            defects.add("entries without an integer 'image_id'", f"entry {i} ({shown(image_id)})")
        elif not is_integer(record.get("category_id")):
            defects.add("entries without an integer 'category_id'", f"entry {i} ({shown(record.get('category_id'))})")
        elif not is_box(box):
            defects.add("boxes ('bbox') that are not four finite numbers", f"entry {i} ({shown(box)})")
        elif not is_number(record.get("score")):
            defects.add("scores that are not finite numbers", f"entry {i} ({shown(record.get('score'))})")
        else:
            rows.append([image_id, *box, record["score"], record["category_id"]])  # type: ignore[misc]
    defects.raise_if_any(REMEDY)
    return np.array(rows, dtype=np.float64).reshape(-1, len(DETECTION_COLUMNS))


def _from_odgt(path: Path, records: list[Any], ground_truth: GroundTruth) -> Detections:
    index = ground_truth.image_by_name()
    category = next(iter(ground_truth.categories), 1)
    defects = Defects(path)
    rows, sizes = [], {}
    seen: set[str] = set()
    for number, record in odgt_images(records, "dtboxes", defects):
        name = record["ID"]
        if name not in index:
            defects.add("detections of unknown images", f"line {number} ({shown(name)})")
            continue
        if name in seen:
            defects.add("repeated image IDs", f"line {number} ({shown(name)})")
        seen.add(name)
        if all(is_number(record.get(side)) and record[side] > 0 for side in ("width", "height")):
            sizes[index[name]] = (float(record["width"]), float(record["height"]))
        for i, found in enumerate(record["dtboxes"]):
            place = f"line {number}, box {i}"
            if not isinstance(found, dict):
                defects.add("entries of 'dtboxes' that are not objects", f"{place} ({shown(found)})")
            elif not is_box(found.get("box")):
                defects.add("boxes ('box') that are not four finite numbers", f"{place} ({shown(found.get('box'))})")
            elif not is_number(found.get("score")):
                defects.add("scores that are not finite numbers", f"{place} ({shown(found.get('score'))})")
            else:
                rows.append((ground_truth.image_ids[index[name]], *found["box"], found["score"], category))
    defects.raise_if_any(REMEDY)
    array = np.array(rows, dtype=np.float64).reshape(-1, len(DETECTION_COLUMNS))
    checked = _checked(path, array, [], ground_truth)
    return Detections(checked.rows, checked.notes, sizes)


def _checked(path: Path, rows: NDArray[np.float64], notes: list[str], ground_truth: GroundTruth) -> Detections:
    """Refuse what can't be judged and count what is judged in a standard way."""
    defects: list[str] = []

    def refuse(bad: Any, what: str, columns: slice) -> None:
        if bad.any():
            places = np.nonzero(bad)[0]
            listed = listing([f"detection {i} ({_numbers(rows[i, columns])})" for i in places])
            defects.append(f"{len(places)} {what}: {listed}")

    finite = np.isfinite(rows).all(axis=1)
    negative, strange = (rows[:, 3:5] < 0).any(axis=1), ground_truth.image_of(rows[:, 0]) < 0
    refuse(~finite, "detections that are not finite numbers", slice(0, 7))
    refuse(np.logical_and(finite, negative), "boxes of negative size", slice(1, 5))
    refuse(np.logical_and(finite, strange), "detections of unknown images", slice(0, 1))
    if defects:
        raise UserError(f"{path} has {'; '.join(defects)}; {REMEDY}")
    known = np.isin(rows[:, 6], list(ground_truth.categories))
    if not known.all():
        strangers, counts = np.unique(rows[~known, 6], return_counts=True)
        listed = listing([f"{c:.12g} ({n})" for c, n in zip(strangers, counts, strict=True)])
        if not known.any():
            annotated = listing([str(category) for category in ground_truth.categories]) or "none"
            raise UserError(
                f"no detection in {path} is of an annotated category: it has the ids {listed}, {ground_truth.path} has "
                f"{annotated}; give the detections the annotations' category ids."
            )
        notes = [*notes, f"{(~known).sum()} detections are of unknown categories and count nowhere: {listed}."]
        rows = rows[known]
    flat = int((rows[:, 3:5] == 0).any(axis=1).sum())
    if flat:
        notes = [*notes, f"{flat} detections have boxes without extent; they can find nothing."]
    silent = len(ground_truth.image_ids) - len(np.unique(rows[:, 0]))
    if silent:
        notes = [*notes, f"{silent} of {len(ground_truth.image_ids)} images have no detection."]
    return Detections(rows, notes)


def _numbers(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.12g}" for value in values)
