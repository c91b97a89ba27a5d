"""Read an untrusted COCO annotation file: list its problems in words, and say how training treats its boxes.

Columns are checked as arrays, since COCO has 860,000 annotations; values of a wrong type are looked at one by one only
where a column has any. docs/data.md says what training and evaluation do with every kind of odd record.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from date.datasets.boxes import KEY, check_form
from date.datasets.columns import Flags, Floats, Integers, boxes, floats, integers, is_file_name, positions
from date.datasets.content import GZIP
from date.datasets.crowdhuman import LARGEST, shown
from date.datasets.lean import Record, Records, column, lacking
from date.datasets.normal import INFO
from date.datasets.parsing import Unfit, parse_annotations
from date.datasets.protocols import has_marks, marks, regions
from date.errors import LISTED, UserError, listed

SMALLEST_SIDE = 32
"""Training at the paper's tier leaves out images with a shorter side (px), as MMDetection's configurations do."""


@dataclass(frozen=True)
class Images:
    """The image records of an annotation file, in its order; widths and heights in px."""

    ids: Integers
    names: list[str]
    widths: Floats
    heights: Floats


@dataclass(frozen=True)
class Checked:
    """The result of checking an annotation file.

    Attributes:
        sha256: of the file; "" where it could not be read.
        info: its ``info`` object, or nothing.
        images: its image records, but those with something wrong; None where there are none to speak of.
        counts: the manifest's counts, see docs/data.md; empty where anything is wrong.
        problems: what is wrong, each a sentence.
        normal: content of the file's normal form, where that is another one; see `date.datasets.normal`.
    """

    sha256: str
    info: dict[str, Any]
    images: Images | None
    counts: dict[str, Any]
    problems: list[str]
    normal: dict[str, Any] | None = None


def check_annotations(
    path: Path,
    classes: list[str],
    negative_sizes: bool = False,
    image_folder: Path | None = None,
    boxes_as_written: bool = False,
) -> Checked:
    """Read and check an annotation file.

    Args:
        path: the file.
        classes: the names that its categories must have, in their order.
        negative_sizes: count boxes of negative width or height in place of refusing them. CrowdHuman's are taken as
            they are: nobody can correct them, and training drops them.
        image_folder: of its images, to which absolute file names are made relative; None to leave them.
        boxes_as_written: take boxes for x, y, width, height in pixels, whatever they look like.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        return Checked("", {}, None, {}, [f"{path} cannot be read ({error.strerror}); restore it from its source."])
    digest = hashlib.sha256(raw).hexdigest()
    try:
        data, changed = parse_annotations(raw, path, classes, image_folder)
    except Unfit as unfit:
        return Checked(digest, {}, None, {}, unfit.problems)
    marked = raw if raw.startswith(GZIP) or has_marks(raw) else b""
    del raw
    info = data["info"] if isinstance(data.get("info"), dict) else {}
    if changed:
        info = data["info"] = {**info, INFO: {"source_sha256": digest, "changes": changed}}
    check = _Check(str(path), data, classes, negative_sizes, boxes_as_written)
    counts = {} if check.problems else check.counts() | check.marks(marked)
    normal = data if changed and not check.problems else None
    return Checked(digest, info, check.sound_images(), counts, check.problems, normal)


def _texts(values: list[Any]) -> Flags:
    if str not in set(map(type, values)):
        return np.zeros(len(values), dtype=bool)
    return np.array([isinstance(value, str) for value in values], dtype=bool)


class _Check:
    """One pass over a file's content: columns, problems, then counts."""

    def __init__(
        self, path: str, data: dict[str, Any], classes: list[str], negative_sizes: bool, boxes_as_written: bool
    ) -> None:
        self.path = path
        self.negative_sizes = negative_sizes
        self.problems: list[str] = []
        images, annotations, categories = (
            self._records(data[key], key) for key in ("images", "annotations", "categories")
        )
        self.classes = classes
        self.category_ids = self._categories(categories)
        self.images = self._images(images)
        self._annotations(annotations)
        if not (self.problems or negative_sizes or boxes_as_written):
            self._form()

    # ------------------------------------------------------------------------------------------------- what is wrong

    def _records(self, value: list[Any], key: str) -> Records:
        if set(map(type, value)) <= {dict} or isinstance(value[0], Record):
            return value
        self._refuse(
            f"entries of {key!r} that are not objects: {{}}; remove them",
            np.array([not isinstance(record, dict) for record in value]),
            lambda i: f"number {i + 1} ({shown(value[i])})",
        )
        return [record for record in value if isinstance(record, dict)]

    def _refuse(self, sentence: str, wrong: Flags, describe: Callable[[int], str]) -> None:
        """Add a problem that names the first records that are wrong, if any is; ``{}`` stands for them."""
        indices = np.flatnonzero(wrong)
        if len(indices):
            described = [describe(int(i)) for i in indices[:LISTED]]
            self.problems.append(f"{self.path} has {sentence.format(listed(described, len(indices)))}.")

    def _ids(self, records: Records, what: str, least: int) -> Integers:
        """Return the ids of records; those that are no integers, too large, too small or repeated are problems."""
        values = column(records, "id")
        ids = integers(values, least)
        texts = absent = np.zeros(len(values), dtype=bool)
        if not set(map(type, values)) <= {int}:
            texts, absent = _texts(values), lacking(records, "id")
        self._refuse(f"{what} records without an 'id': {{}}; number them", absent, lambda i: f"number {i + 1}")
        self._refuse(
            f"{what} ids that are texts: {{}}; write them as numbers, without quotation marks",
            texts,
            lambda i: f"number {i + 1} ({shown(values[i])})",
        )
        self._refuse(
            f"{what} ids that are not integers from {least} on: {{}}; number them anew",
            (ids < least) & ~absent & ~texts,
            lambda i: f"number {i + 1} ({shown(values[i])})",
        )
        unique, counts = np.unique(ids[ids >= least], return_counts=True)
        self._refuse(f"repeated {what} ids: {{}}; ids must be unique", counts > 1, lambda i: str(unique[i]))
        return ids

    def _categories(self, records: Records) -> Integers:
        names = column(records, "name")
        if names != self.classes:
            pairs = itertools.zip_longest(names, self.classes, fillvalue="nothing")
            number, (theirs, ours) = next((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
            self.problems.append(
                f"{self.path} has other categories ({len(names)}) than the dataset's 'classes' ({len(self.classes)}): "
                f"number {number} is {shown(theirs)} in the file and {shown(ours)} in 'classes'; "
                f"list the file's names in 'classes', in the order in which results are to show them."
            )
        return self._ids(records, "category", 0)

    def _images(self, records: Records) -> Images:
        ids = self._ids(records, "image", 0)
        if not records:
            self.problems.append(f"{self.path} has no images; restore it from its source.")
        names = column(records, "file_name")
        named = np.array([is_file_name(name) for name in names], dtype=bool)
        self._refuse(
            "file names that are not paths below the image folder: {}; correct them",
            ~named,
            lambda i: f"{shown(names[i])} (image {shown(records[i].get('id'))})",
        )
        sides, sound = [], named
        for key in ("width", "height"):
            values = column(records, key)
            sides.append(floats(values))
            with np.errstate(invalid="ignore"):
                whole = (sides[-1] >= 1) & (sides[-1] <= LARGEST) & (sides[-1] % 1 == 0)
            sound = sound & whole
            self._refuse(
                f"images whose {key} is not a number of pixels: {{}}; correct them",
                ~whole,
                lambda i, values=values: f"image {shown(records[i].get('id'))} ({shown(values[i])})",  # type: ignore[misc]
            )
        self.sound = sound
        return Images(ids, names, *sides)

    def sound_images(self) -> Images:
        """Return the images whose record has nothing wrong but, perhaps, its id."""
        images, sound = self.images, self.sound
        names = list(itertools.compress(images.names, sound))
        return Images(images.ids[sound], names, images.widths[sound], images.heights[sound])

    def _annotations(self, records: Records) -> None:
        self.ids = self._ids(records, "annotation", 0)
        known = self.images.ids >= 0

        def describe(key: str) -> Callable[[int], str]:
            return lambda i: f"{shown(records[i].get('id'))} ({shown(records[i].get(key))})"

        places, odd = {}, {}
        for key in ("image_id", "category_id"):
            values = column(records, key)
            text = _texts(values)
            places[key] = ids = integers(values, 0)
            odd[key] = ids < 0
            odd[key][odd[key]] = [type(v) is not int for v in itertools.compress(values, odd[key])]
            self._refuse(
                f"annotations whose {key!r} is a text: {{}}; write it as a number, without quotation marks",
                text,
                describe(key),
            )
            self._refuse(
                f"annotations whose {key!r} is not an integer: {{}}; give each the id of what it belongs to",
                odd[key] & ~text,
                describe(key),
            )
        self.image_ids, self.label_ids = places["image_id"], places["category_id"]
        self._refuse(
            "annotations of unknown images: {}; correct the ids, or remove annotations of images that were left out",
            (~np.isin(self.image_ids, self.images.ids) | (self.image_ids < 0)) & ~odd["image_id"] & bool(known.all()),
            lambda i: f"{shown(records[i].get('id'))} (image {shown(records[i].get('image_id'))})",
        )
        self._refuse(
            "annotations of unknown categories: {}; correct the ids, or list the categories that are missing",
            (~np.isin(self.label_ids, self.category_ids) | (self.label_ids < 0)) & ~odd["category_id"],
            lambda i: f"{shown(records[i].get('id'))} (category {shown(records[i].get('category_id'))})",
        )
        self._boxes(records, describe("bbox"))
        self.areas = floats(column(records, "area"))
        self._refuse(
            "annotations whose area is not a finite number: {}; correct them",
            ~np.isfinite(self.areas),
            describe("area"),
        )
        flags = {}
        self.without_crowd = int(lacking(records, "iscrowd").sum())
        for key in ("iscrowd", "ignore"):
            values = column(records, key, 0)
            flags[key] = floats(
                [int(v) if isinstance(v, bool) else v for v in values] if bool in set(map(type, values)) else values
            )
            self._refuse(
                f"annotations whose {key} is neither 0 nor 1: {{}}; correct them",
                ~np.isin(flags[key], (0, 1)),
                describe(key),
            )
        self.iscrowd, self.ignore = flags["iscrowd"] == 1, flags["ignore"] == 1

    def _boxes(self, records: Records, describe: Callable[[int], str]) -> None:
        values = column(records, "bbox")
        self.boxes = boxes(values)
        absent: Flags = np.all(np.isnan(self.boxes), 1)  # all that are not four numbers have such rows
        longer = absent.copy()
        unread = list(itertools.compress(values, absent))
        longer[longer] = [isinstance(value, list) and len(value) > 4 for value in unread]
        absent[absent] = [value is None or value == [] for value in unread]
        self._refuse(
            "annotations without a box ('bbox'): {}; compute it from the segmentation, or remove them",
            absent,
            lambda i: shown(records[i].get("id")),
        )
        self._refuse(
            "boxes of more than four numbers, as rotated ones: {}; give x, y, width, height of upright boxes",
            longer,
            describe,
        )
        with np.errstate(invalid="ignore"):
            least = -LARGEST if self.negative_sizes else 0
            sane: Flags = np.all(
                (np.abs(self.boxes) <= LARGEST) & (self.boxes >= [-LARGEST, -LARGEST, least, least]), 1
            )
            turned = ~sane & np.all(np.abs(self.boxes) <= LARGEST, 1)
        self._refuse(
            "boxes of negative width or height, as of rectangles that were drawn from another corner than the upper "
            "left one: {}; give x and y of that corner and positive sizes",
            turned,
            describe,
        )
        self._refuse(
            f"boxes that are not finite x, y, width, height (at most {LARGEST:,.0f} px): {{}}; correct them",
            ~sane & ~turned & ~absent & ~longer,
            describe,
        )

    def _form(self) -> None:
        """Add a problem where boxes are corners or fractions, which nothing else would show."""
        image = self._image()
        sizes = np.column_stack([self.images.widths[image], self.images.heights[image]])
        try:
            check_form(self.path, self.boxes, sizes, KEY)
        except UserError as error:
            self.problems.append(str(error))

    def _image(self) -> Integers:
        """Return the index of each annotation's image, (A,)."""
        return positions(self.images.ids, self.image_ids)

    # ----------------------------------------------------------------------------------------------------- the counts

    def counts(self) -> dict[str, Any]:
        """Return the manifest's counts of a file without problems; ``boxes`` adds up to ``annotations``."""
        image = self._image()
        uses = self._uses(self.images.widths[image], self.images.heights[image])
        labels = np.bincount(positions(self.category_ids, self.label_ids), minlength=len(self.classes)).tolist()
        objects: Counter[str] = Counter()
        for name, count in zip(self.classes, labels, strict=True):
            objects[name] += count
        annotated = np.bincount(image, minlength=len(self.images.ids))
        trained = np.bincount(image[uses["trained_on"]], minlength=len(self.images.ids))
        x, y, w, h = self.boxes.T
        beyond = (x < 0) | (y < 0) | (x + w > self.images.widths[image]) | (y + h > self.images.heights[image])
        return {
            "images": len(self.images.ids),
            "images_without_annotations": int((annotated == 0).sum()),
            "images_without_trained_boxes": int((trained == 0).sum()),
            f"images_below_{SMALLEST_SIDE}_px": int(
                (np.minimum(self.images.widths, self.images.heights) < SMALLEST_SIDE).sum()
            ),
            "repeated_file_names": len(self.images.names) - len(set(self.images.names)),
            "annotations": len(self.ids),
            "objects": dict(sorted((+objects).items())),
            "boxes": {use: int(flags.sum()) for use, flags in uses.items()},
            "boxes_beyond_the_border": int((uses["trained_on"] & beyond).sum()),
            **{what: count for what, count in self._oddities().items() if count},
        }

    def marks(self, raw: bytes) -> dict[str, int]:
        """Return what `date.datasets.protocols.marks` counts in the file; a reason not to is a problem."""
        try:
            return marks(raw, self.path)
        except UserError as error:
            self.problems.append(str(error))
            return {}

    def _oddities(self) -> dict[str, int]:
        """Return the counts of legal but rare records, each of which is only reported where it occurs."""
        return {
            "annotations_with_id_0": int((self.ids == 0).sum()),
            "annotations_without_iscrowd": self.without_crowd,
            **regions(dict(zip(self.category_ids.tolist(), self.classes, strict=True)), self.label_ids, self.iscrowd),
        }

    def _uses(self, widths: Floats, heights: Floats) -> dict[str, Flags]:
        """Group the annotations by what training does with them; MMDetection's CocoDataset drops all but the first two.

        Args:
            widths: (A,) of each annotation's image, px.
            heights: (A,).
        """
        x, y, w, h = self.boxes.T
        across = np.maximum(np.minimum(x + w, widths) - np.maximum(x, 0), 0)
        down = np.maximum(np.minimum(y + h, heights) - np.maximum(y, 0), 0)
        kinds = {
            "ignored": self.ignore,
            "negative_size": (w < 0) | (h < 0),
            "zero_size": (w == 0) | (h == 0),
            "outside_the_image": across * down == 0,
            "smaller_than_a_pixel": (w < 1) | (h < 1),
            "without_area": self.areas <= 0,
            "iscrowd": self.iscrowd,
        }
        uses, left = {}, np.ones(len(w), dtype=bool)
        for kind, flags in kinds.items():
            uses[kind] = left & flags
            left = left & ~flags
        return {"trained_on": left, "iscrowd": uses.pop("iscrowd"), **uses}
