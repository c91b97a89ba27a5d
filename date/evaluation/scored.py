"""Detections in the form of COCO annotations with a ``score`` each, as FiftyOne and labelformat export predictions.

Such a file numbers images and categories in its own way. Its lists ``images`` and ``categories`` say which are meant.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from date.datasets.content import whole_ids
from date.errors import UserError
from date.evaluation.ground_truth import GroundTruth
from date.evaluation.reading import Defects, is_integer, listing, shown
from date.formatting import counted

REMEDY = "correct the file of detections."


def is_annotations(data: Any) -> bool:
    """Return whether a JSON value has the form of COCO annotations."""
    return isinstance(data, dict) and all(
        isinstance(data.get(k), list) for k in ("images", "annotations", "categories")
    )


def results_of(path: Path, data: dict[str, Any], ground_truth: GroundTruth) -> tuple[list[dict[str, Any]], list[str]]:
    """Return annotations with scores as COCO results, and notes on them.

    An image is named by its file, which is looked up later; a category has the id of the annotated one of its name.

    Args:
        path: of the file, for messages.
        data: COCO annotations, see `is_annotations`.
        ground_truth: the annotations that they are judged against.

    Raises:
        UserError: annotations lack scores, are of images or categories that the file does not list, or all are of
            categories that are not annotated.
    """
    whole_ids(data)
    ids = {name: category_id for category_id, name in reversed(ground_truth.categories.items())}
    files = _listed(data["images"], "file_name")
    names = _listed(data["categories"], "name")
    defects, found, strangers = Defects(path), [], Counter[str]()
    for i, record in enumerate(data["annotations"]):
        place = f"annotation {i}"
        if not isinstance(record, dict):
            defects.add("annotations that are not objects", f"{place} ({shown(record)})")
        elif "score" not in record:
            defects.add("annotations without a 'score', which detections have", place)
        elif (file := _of(files, record.get("image_id"))) is None:
            defects.add("detections of images that it does not list", f"{place} ({shown(record.get('image_id'))})")
        elif (name := _of(names, record.get("category_id"))) is None:
            category = shown(record.get("category_id"))
            defects.add("detections of categories that it does not list", f"{place} ({category})")
        elif name not in ids:
            strangers[name] += 1
        else:
            found.append({k: record.get(k) for k in ("bbox", "score")} | {"image_id": file, "category_id": ids[name]})
    defects.raise_if_any(REMEDY)
    other = listing([f"{shown(name)} ({n})" for name, n in strangers.items()])
    if strangers and not found:
        annotated = listing([shown(name) for name in ids]) or "none"
        raise UserError(
            f"no detection in {path} is of an annotated category: it has {other}, {ground_truth.path} has {annotated}; "
            "give the categories the annotations' names."
        )
    notes = ["images are matched by their files' names, categories by theirs."]
    if strangers:
        unknown = counted(strangers.total(), "detections", "are")
        notes.append(f"{unknown} of unknown categories, which no metric counts: {other}.")
    return found, notes


def _listed(records: list[Any], key: str) -> dict[int, str]:
    """Return the name of each image or category by its id, of those that have both."""
    return {
        record["id"]: record[key]
        for record in records
        if isinstance(record, dict) and is_integer(record.get("id")) and isinstance(record.get(key), str)
    }


def _of(names: dict[int, str], number: Any) -> str | None:
    return names.get(number) if is_integer(number) else None
