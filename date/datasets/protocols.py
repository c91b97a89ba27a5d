"""Annotations that the evaluation of their own data set treats otherwise than COCO's: counted, reported in sentences.

Their files have COCO's form, so nothing else would show that their numbers are not those of that evaluation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from date.datasets.columns import Flags, Integers
from date.datasets.content import plain, why_not_json
from date.datasets.lean import without_collection
from date.errors import UserError
from date.formatting import counted

IGNORED = "boxes_ignored"
"""Name of the boxes with ``ignore: 1``, which the manifest counts among ``boxes``."""
FEDERATED, GROUPS, DIFFICULT, ROTATED, REGIONS = (
    "images_with_negative_categories",
    "boxes_of_groups",
    "boxes_marked_difficult",
    "boxes_with_a_rotation",
    "boxes_of_ignored_regions",
)
"""Names of the other counts, as they stand in the manifest."""
KEYS = re.compile(rb'"(?:neg_category_ids|[iI]s[gG]roup[oO]f|difficult|rotation)"')
REGION_NAMES = {"dontcare", "ignore", "ignored", "ignoredregion", "ignoredregions", "ignoreregion", "ignoreregions"}
"""Names of categories of regions to ignore, in small letters alone."""
TRUE = (1, "1", "true", "True")
SENTENCES = {
    FEDERATED: (
        "images",
        "have",
        "'neg_category_ids', as LVIS's have: annotations are complete for some categories alone. LVIS's own evaluation "
        "leaves the others out, takes 300 detections an image and tells rare, common and frequent categories apart; "
        "here, what is not annotated is background to training, and a detection of it is false",
    ),
    GROUPS: (
        "boxes",
        "have",
        "'IsGroupOf'. Open Images' own evaluation lets a group absorb detections, and counts an object for the parents "
        "of its category, too; here a group without 'iscrowd: 1' is one object",
    ),
    DIFFICULT: (
        "boxes",
        "have",
        "'difficult'. VOC's own evaluation leaves such boxes out; here those without 'iscrowd: 1' are objects",
    ),
    IGNORED: (
        "boxes",
        "have",
        "'ignore: 1'. Training drops them; evaluation goes by 'iscrowd' alone and takes them for objects",
    ),
    ROTATED: ("boxes", "have", "CVAT's 'rotation'. CVAT turns such boxes; here they are upright, as in the file"),
    REGIONS: (
        "boxes",
        "are",
        "of a category of regions to ignore. KITTI's and VisDrone's own evaluations let such regions absorb "
        "detections; here those without 'iscrowd: 1' are objects to be found",
    ),
}
"""What is counted, its verb and the rest of the sentence."""


def has_marks(raw: bytes) -> bool:
    """Return whether a file has a key that `marks` looks at."""
    return KEYS.search(raw) is not None


def marks(raw: bytes, path: Path | str) -> dict[str, int]:
    """Count the images and boxes of a COCO file that their own data set's evaluation treats otherwise than COCO's.

    Boxes with ``iscrowd: 1`` are left out: they absorb detections here, too.

    Args:
        raw: a sound file, packed or not.
        path: of the file, for the message.

    Raises:
        UserError: what nobody has looked at, such as ``attributes``, is nested too deeply or has too long a number.
    """
    raw = plain(raw)
    if not has_marks(raw):
        return {}
    try:
        with without_collection():
            data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({why_not_json(error)}); restore it from its source.") from None
    annotations = [record for record in data["annotations"] if record.get("iscrowd", 0) != 1]
    found = {
        FEDERATED: sum("neg_category_ids" in record for record in data["images"]),
        GROUPS: sum(_is_marked(record, "isgroupof") for record in annotations),
        DIFFICULT: sum(_is_marked(record, "difficult") for record in annotations),
        ROTATED: sum(_attributes(record).get("rotation") not in (None, 0, "0") for record in data["annotations"]),
    }
    return {what: count for what, count in found.items() if count}


def _attributes(record: dict[str, Any]) -> dict[str, Any]:
    attributes = record.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _is_marked(record: dict[str, Any], mark: str) -> bool:
    """Return whether a record, or its ``attributes``, has a mark, however its letters are written."""
    values = (v for part in (record, _attributes(record)) for k, v in part.items() if k.lower() == mark)
    return any(value in TRUE for value in values if isinstance(value, int | float | str))


def regions(categories: dict[int, str], category_ids: Integers, iscrowd: Flags) -> dict[str, int]:
    """Count the boxes of categories whose names say that they are regions to ignore.

    Args:
        categories: names by id.
        category_ids: (N,) of each box.
        iscrowd: (N,) whether it is to be ignored anyway.
    """
    named = [i for i, name in categories.items() if re.sub("[^a-z]", "", name.lower()) in REGION_NAMES]
    count = int((np.isin(category_ids, named) & ~iscrowd).sum())
    return {REGIONS: count} if count else {}


def protocol_notes(counts: dict[str, Any]) -> list[str]:
    """Return a sentence for each of the counts above in a mapping that may have others."""
    return [
        f"{counted(counts[what], things, verb)} {rest}."
        for what, (things, verb, rest) in SENTENCES.items()
        if counts.get(what)
    ]
