"""Read detections of any tool from a file into an array, and report everything that is wrong with them.

Four kinds of file, told apart by their content:

- ``detections.npz`` as `date.inference.evaluate.write_evaluation` writes it: one array per variant;
- COCO's results format: a JSON list, or an object per line, of ``{image_id, category_id, bbox: [x, y, width, height],
  score}``, where the image may be named by its file in place of its id;
- COCO annotations with scores, see `date.evaluation.scored`;
- CrowdHuman's odgt: a JSON object per line, or a list of such, with ``ID`` and ``dtboxes``, a list of ``{box: [x, y,
  width, height], score}``; a ``tag`` is not looked at, as in the official tool.

Refused, with all places listed: values that are no finite numbers, negative sizes, images that are not among the
annotated ones, an odgt ID twice; a ``category`` that names another class than the annotations do; and a file without
any detection of an annotated category. Counted in `Detections.notes`: single detections of other categories, which no
metric counts (COCO's own tool does the same), and boxes without extent, which can find nothing.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from date.datasets.boxes import strange_form
from date.errors import UserError, unknown_name
from date.evaluation.coco import DETECTION_COLUMNS
from date.evaluation.ground_truth import GroundTruth, odgt_images
from date.evaluation.reading import (
    Defects,
    defect,
    is_box,
    is_integer,
    is_number,
    listing,
    read_bytes,
    read_json_or_lines,
    shown,
    whole,
)
from date.evaluation.scored import REMEDY, is_annotations, results_of
from date.evaluation.typed import coco_results, odgt_detections
from date.formatting import counted

READ = (
    "detections are a list of {image_id, category_id, bbox, score} in JSON, as MMDetection's CocoMetric writes with "
    "'outfile_prefix', COCO annotations with scores, an odgt file with 'dtboxes', or a detections.npz"
)
Categories = Literal["ids", "labels"] | None


@dataclass(frozen=True)
class Detections:
    """Detections that can be judged against some annotations."""

    rows: NDArray[np.float64]
    """(D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`, in the file's order."""
    notes: list[str] = field(default_factory=list)
    """Sentences on odd but legal records that were handled as the protocol prescribes, with their numbers."""
    sizes: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Width and height of images by index, where the file (odgt) has them."""


def read_detections(
    path: Path, ground_truth: GroundTruth, variant: str | None = None, categories: Categories = None
) -> Detections:
    """Read a file of detections.

    Args:
        path: of the file.
        ground_truth: the annotations that they are of.
        variant: which array of a ``detections.npz``; the first by default, which is said in the notes.
        categories: what the category ids of detections are: ``ids`` of the annotations, or ``labels``, places among
            their categories; by default they are ids, and what looks like labels is refused.

    Raises:
        UserError: the file is none of the known kinds, or has defects; all are listed.
    """
    if is_archive(path):
        rows, notes = _from_npz(path, variant)
        return _checked(path, rows, notes, ground_truth, categories)
    if variant is not None:
        raise UserError(f"{path} has no variants (only detections.npz has); leave --variant out.")
    if (found := _typed(path, ground_truth, categories)) is not None:
        return found
    data, is_odgt = read_json_or_lines(path, READ)
    if is_odgt:
        return _from_odgt(path, data, ground_truth)
    conversion_notes: list[str] = []
    if is_annotations(data):
        if categories == "labels":
            raise UserError(f"{path} names its categories, whatever their ids are; leave --categories out.")
        data, conversion_notes = results_of(path, data, ground_truth)
        categories = "ids"
    if not isinstance(data, list):
        raise UserError(f"{path} holds a JSON {_kind(data)}; {READ}.")
    rows, notes = _from_results(path, data, ground_truth)
    if categories is None:
        names = {(whole(record["category_id"]), record["category"]) for record in data if _has_name(record)}
        _compare_names(path, names, ground_truth)
    return _checked(path, rows, [*conversion_notes, *notes], ground_truth, categories)


def _typed(path: Path, ground_truth: GroundTruth, categories: Categories) -> Detections | None:
    """Return the detections of a sound file, see `date.evaluation.typed`; None where anything is odd."""
    raw = read_bytes(path)
    if (results := coco_results(raw, lambda: _ids_by_name(ground_truth))) is not None:
        del raw
        rows, originals, given = results
        if categories is None:
            _compare_names(path, given, ground_truth)
        renamed = 0 if originals is None else int((rows[:, 0] != originals).sum())
        return _checked(path, rows, _renamed(renamed), ground_truth, categories)
    if (odgt := odgt_detections(raw)) is None:
        return None
    del raw
    lines, found = odgt
    index = ground_truth.image_by_name()
    names = [line.ID for line in lines]
    if len(set(names)) < len(names) or not set(names) <= index.keys():
        return None
    rows = np.empty((len(found), len(DETECTION_COLUMNS)))
    image_ids = np.array([ground_truth.image_ids[index[name]] for name in names], dtype=np.float64)
    rows[:, 0], rows[:, 1:6] = image_ids[found[:, 0].astype(np.int64)], found[:, 1:]
    rows[:, 6] = next(iter(ground_truth.categories), 1)
    checked = _checked(path, rows, [], ground_truth)
    sizes = {index[line.ID]: size for line in lines if (size := _size(line.width, line.height)) is not None}
    return Detections(checked.rows, checked.notes, sizes)


def _size(width: Any, height: Any) -> tuple[float, float] | None:
    known = all(is_number(side) and side > 0 for side in (width, height))
    return (float(width), float(height)) if known else None


def _ids_by_name(ground_truth: GroundTruth) -> dict[str, int]:
    return {name: ground_truth.image_ids[i] for name, i in ground_truth.image_by_name().items()}


def _renamed(number: int) -> list[str]:
    if not number:
        return []
    return [
        f"{counted(number, 'detections', 'have')} an 'image_id' that is not the annotations'; their 'file_name' "
        f"says which image is meant."
    ]


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
            if any(name.endswith("/data.pkl") for name in archive.files):
                raise UserError(f"{path} is a file of PyTorch's; {READ}.")
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


def _from_results(path: Path, data: list[Any], ground_truth: GroundTruth) -> tuple[NDArray[np.float64], list[str]]:
    if data and not any(isinstance(record, dict) and "bbox" in record for record in data):
        raise UserError(
            f"{path} has no entry with a 'bbox', as lists of masks, of keypoints or of other forms have none: entry 0 "
            f"is {shown(data[0])}; {READ}."
        )
    by_name = _ids_of_texts(path, data, ground_truth)
    defects = Defects(path)
    rows, renamed = [], 0
    for i, record in enumerate(data):
        if not isinstance(record, dict):
            defects.add("entries that are not objects", f"entry {i} ({shown(record)})")
            continue
        image_id, box = _image_id(record, by_name), record.get("bbox")
        category_id = whole(record.get("category_id"))
        renamed += _names_another(record, image_id)
        if isinstance(image_id, str):
            defects.add("detections of unknown images", f"entry {i} (image {shown(image_id)})")
        elif not is_integer(image_id):
            what = "entries without an 'image_id' that is an integer of at most 2^53"
            defects.add(what, f"entry {i} ({shown(image_id)})")
        elif not is_integer(category_id):
            what = "entries without a 'category_id' that is an integer of at most 2^53"
            defects.add(what, f"entry {i} ({shown(category_id)})")
        elif "bbox" not in record:
            defects.add("entries without a 'bbox', as those of masks or keypoints", f"entry {i}")
        elif not is_box(box):
            defects.add("boxes ('bbox') that are not four finite numbers", f"entry {i} ({shown(box)})")
        elif "score" not in record:
            defects.add("entries without a 'score'", f"entry {i}")
        elif not is_number(record["score"]):
            defects.add("scores that are not finite numbers", f"entry {i} ({shown(record.get('score'))})")
        else:
            rows.append([image_id, *box, record["score"], category_id])  # type: ignore[misc]
    defects.raise_if_any(REMEDY)
    return np.array(rows, dtype=np.float64).reshape(-1, len(DETECTION_COLUMNS)), _renamed(renamed)


def _compare_names(path: Path, given: set[tuple[int, str]], ground_truth: GroundTruth) -> None:
    """Refuse names that records give to ids of categories (``category``), where the annotations have other ones."""
    ours = ground_truth.categories
    wrong = [(i, name) for i, name in sorted(given) if i in ours and _plain(ours[i]) != _plain(name)]
    if wrong:
        places = [f"category {i} ({shown(name)} in it, {shown(ours[i])} in the annotations)" for i, name in wrong]
        raise UserError(
            f"{path} has {defect('categories of other names than the annotations', places)}; score it against "
            f"annotations of its classes, or say --categories ids if the ids are right and the names mean the same."
        )


def _has_name(record: dict[str, Any]) -> bool:
    return isinstance(record.get("category"), str) and is_integer(whole(record.get("category_id")))


def _plain(name: str) -> str:
    """Return a name without case and without what stands between its words."""
    return " ".join(re.findall(r"[^\W_]+", name.casefold())) or name


def _ids_of_texts(path: Path, data: list[Any], ground_truth: GroundTruth) -> dict[str, int]:
    """Return the ids of images by what a text in ``image_id`` or ``file_name`` may be: a name, or the id as a text.

    A text of digits may be both, of two images: 2 of ``1.jpg`` and 1 of ``2.jpg``. What fits all of the file counts.

    Raises:
        UserError: both fit, or neither.
    """
    by_name, ids = _ids_by_name(ground_truth), set(ground_truth.image_ids)
    texts = {record["image_id"]: whole(record["image_id"]) for record in data if _is_named_by_digits(record, by_name)}
    torn = [text for text, number in texts.items() if number in ids and by_name.get(text, number) != number]
    if not torn:
        return by_name
    names = all(text in by_name for text in texts)
    numbers = all(number in ids and text == str(number) for text, number in texts.items())  # no id begins with 0
    if names == numbers:
        raise UserError(
            f"{path} has {defect('image ids that are texts, each the id of one image and the name of another', torn)}; "
            f"write ids as numbers, without quotation marks, and names with their suffix."
        )
    return by_name if names else {name: found for name, found in by_name.items() if name not in texts}


def _is_named_by_digits(record: Any, by_name: dict[str, int]) -> bool:
    """Return whether a record has a text of digits as its ``image_id``, and no ``file_name`` that counts before it."""
    if not isinstance(record, dict) or not isinstance(record.get("image_id"), str):
        return False
    file_name = record.get("file_name")
    return type(whole(record["image_id"])) is int and not (isinstance(file_name, str) and file_name in by_name)


def _image_id(record: dict[str, Any], by_name: dict[str, int]) -> Any:
    """Return the annotations' id of a record's image: by its file's name, where it has that, by id or name otherwise.

    Ultralytics makes an ``image_id`` of every name that is a number, whatever the annotations' ids are.
    """
    file_name, image_id = record.get("file_name"), record.get("image_id")
    if isinstance(file_name, str) and file_name in by_name:
        return by_name[file_name]
    if isinstance(image_id, str) and image_id in by_name:
        return by_name[image_id]
    return whole(image_id)


def _names_another(record: dict[str, Any], image_id: Any) -> bool:
    return type(record.get("image_id")) is int and isinstance(image_id, int) and record["image_id"] != image_id


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
        if (size := _size(record.get("width"), record.get("height"))) is not None:
            sizes[index[name]] = size
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


def _checked(
    path: Path,
    rows: NDArray[np.float64],
    notes: list[str],
    ground_truth: GroundTruth,
    categories: Categories = None,
) -> Detections:
    """Refuse detections that can't be scored, and count those that the protocol handles in a special way."""
    rows = _with_categories(path, rows, ground_truth, categories)
    defects: list[str] = []

    def refuse(bad: Any, what: str, columns: slice) -> None:
        if bad.any():
            places = np.nonzero(bad)[0]
            defects.append(defect(what, [f"detection {i} ({_numbers(rows[i, columns])})" for i in places]))

    values = np.isfinite(rows)
    finite = np.ones(len(rows), dtype=bool) if values.all() else values.all(axis=1)
    image = ground_truth.image_of(rows[:, 0])
    negative, strange = (rows[:, 3] < 0) | (rows[:, 4] < 0), image < 0
    refuse(~finite, "detections that are not finite numbers", slice(0, 7))
    refuse(np.logical_and(finite, negative), "boxes of negative size", slice(1, 5))
    refuse(np.logical_and(finite, strange), "detections of unknown images", slice(0, 1))
    if defects:
        raise UserError(f"{path} has {'; '.join(defects)}; {REMEDY}")
    known = ground_truth.category_of(rows[:, 6]) >= 0
    if not known.all():
        strangers, counts = np.unique(rows[~known, 6], return_counts=True)
        listed = listing([f"{c:.12g} ({n})" for c, n in zip(strangers, counts, strict=True)])
        if not known.any():
            annotated = listing([str(category) for category in ground_truth.categories]) or "none"
            raise UserError(
                f"no detection in {path} is of an annotated category: it has the ids {listed}, {ground_truth.path} has "
                f"{annotated}; give the detections the annotations' category ids."
            )
        unknown = counted(int((~known).sum()), "detections", "are")
        notes = [*notes, f"{unknown} of unknown categories, which no metric counts: {listed}."]
        rows, image = rows[known], image[known]
    flat = int(((rows[:, 3] == 0) | (rows[:, 4] == 0)).sum())
    if flat:
        notes = [*notes, f"{counted(flat, 'detections', 'have')} no extent and can find nothing."]
    silent = int((np.bincount(image, minlength=len(ground_truth.image_ids)) == 0).sum())
    if silent:
        notes = [*notes, f"{silent} of {len(ground_truth.image_ids)} images have no detection."]
    if (form := strange_form(rows[:, 1:5], ground_truth.sizes[image])) is not None:
        notes = [*notes, f"{form[0]}: they look like {form[1]}."]
    return Detections(rows, notes)


def _with_categories(
    path: Path, rows: NDArray[np.float64], ground_truth: GroundTruth, categories: Categories
) -> NDArray[np.float64]:
    """Return the rows with category ids of the annotations, where they have labels and ``categories`` says so.

    Raises:
        UserError: they look like labels, counted from 0 or from 1, and nothing is said of them.
    """
    ids = list(ground_truth.categories)
    found = np.unique(rows[:, 6]) if len(rows) else np.empty(0)
    first = 1 if len(found) and found.min() >= 1 and found.max() == len(ids) else 0
    inside = len(found) > 0 and bool(np.isin(found, np.arange(first, first + len(ids))).all())
    if categories == "labels":
        if not inside:
            raise UserError(
                f"{path} has category ids that are no labels of {len(ids)} categories; leave --categories out."
            )
        rows = rows.copy()
        rows[:, 6] = np.array(ids, dtype=np.float64)[rows[:, 6].astype(np.int64) - first]
        return rows
    strange = ~np.isin(found, ids)
    if categories is None and inside and len(ids) > 1 and len(found) > 1 and strange.any():
        raise UserError(
            f"{path} has the category ids {found.min():g} to {found.max():g}, some of which {ground_truth.path} does "
            f"not have: they look like labels, places among its {len(ids)} categories; say --categories labels, or "
            f"--categories ids if they are its ids."
        )
    return rows


def _numbers(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.12g}" for value in values)
