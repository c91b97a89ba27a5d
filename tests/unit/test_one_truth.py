"""A legal annotation file means the same to verification, training, evaluation, `score`, `nms-recall` and imports."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from date.catalogue import Dataset, DatasetSplit
from date.datasets.content import ID_KEYS
from date.datasets.files import data_files
from date.datasets.prepare import examine
from date.evaluation.coco import coco_metrics
from date.evaluation.crowdhuman import crowdhuman_metrics
from date.evaluation.ground_truth import GroundTruth, read_ground_truth
from date.evaluation.nms_recall import nms_recall
from date.imports import detections as imports
from tests.support.examples import examples

CLASSES = ["a", "b", "c"]
COCO = Dataset(
    name="toy",
    classes=CLASSES,
    root="toy",
    train=DatasetSplit(annotations="gt", images="images"),
    val=DatasetSplit(annotations="gt", images="images"),
)
CROWD = Dataset(
    name="crowd",
    classes=["person"],
    protocol="crowdhuman",
    format="crowdhuman",
    root="toy",
    train=DatasetSplit(annotations="gt", images="images"),
    val=DatasetSplit(annotations="gt", images="images"),
)
numbers = st.integers(-20, 80) | st.floats(-20, 80, width=32).map(lambda value: round(value, 2))
lengths = (
    st.sampled_from([0, 0.5, 1]) | st.integers(2, 60) | st.floats(1, 60, width=32).map(lambda value: round(value, 2))
)


@st.composite
def coco_files(draw: st.DrawFn) -> dict[str, Any]:
    """A COCO file that verification accepts, with all that tools leave out or write otherwise; without its images' folder."""
    ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))
    images = [{"id": i, "file_name": f"{n}.png", "width": draw(st.integers(1, 90)), "height": draw(st.integers(1, 90))} for n, i in enumerate(ids)]  # fmt: skip
    category_ids = draw(st.lists(st.integers(0, 9), min_size=3, max_size=3, unique=True))
    objects: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 8))):
        record = {
            "id": number,
            "image_id": draw(st.sampled_from(ids)),
            "category_id": draw(st.sampled_from(category_ids)),
            "bbox": [draw(numbers), draw(numbers), draw(lengths), draw(lengths)],
        }
        for key, values in {
            "area": st.floats(0, 4000),
            "iscrowd": st.integers(0, 1),
            "ignore": st.integers(0, 1),
        }.items():
            if draw(st.booleans()):
                record[key] = draw(values)
        objects.append(record)
    # Without a box to train on a training split is refused.
    objects.append({"id": 99, "image_id": ids[0], "category_id": category_ids[0], "bbox": [0, 0, 1, 1], "area": 1})
    categories = draw(st.permutations([{"id": i, "name": n} for i, n in zip(category_ids, CLASSES, strict=True)]))
    data = {"images": images, "annotations": objects, "categories": list(categories)}
    for name, keys in ID_KEYS.items():
        for key in keys:
            if draw(st.booleans()):  # as tables with gaps write them
                for record in data[name]:
                    record[key] = float(record[key])
    return data


def same(one: GroundTruth, other: GroundTruth) -> None:
    assert (one.image_ids, one.categories) == (other.image_ids, {i: other.categories[i] for i in one.categories})
    for name in ("sizes", "image", "category_ids", "bboxes", "areas", "ignored"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert nms_recall(one) == nms_recall(other) or list(one.categories) != list(other.categories)
    assert nms_recall(one)["recall"] == nms_recall(other)["recall"]
    clipped = [nms_recall(truth, clip=True)["recall"] for truth in (one, other)]
    assert clipped[0] == clipped[1]


def trained_on(dataset: Dataset, path: Path) -> list[tuple[str, list[float], str]]:
    """What MMDetection trains on: file name, box and class of every object that is no region to be ignored."""
    from mmdet.datasets import CocoDataset

    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDataset(
            ann_file=str(path), data_prefix=dict(img="."), metainfo=dict(classes=tuple(dataset.classes)), pipeline=[]
        )
    return [
        (Path(info["img_path"]).name, [float(v) for v in instance["bbox"]], dataset.classes[instance["bbox_label"]])
        for info in (data.get_data_info(i) for i in range(len(data)))
        for instance in info["instances"]
        if not instance["ignore_flag"]
    ]


def agree(dataset: Dataset, root: Path, original: GroundTruth, patch: pytest.MonkeyPatch) -> GroundTruth:
    """Compare what all readers make of a file; return what evaluation makes of it."""
    found = examine(dataset, root)
    assert found.manifest is not None, found.problems
    part = found.manifest["splits"]["train"]
    path = data_files(dataset, root).train_annotations
    evaluated = read_ground_truth(path)
    same(original, evaluated)
    patch.setenv("DATE_DATA_ROOT", str(root))
    same(evaluated, imports._ground_truth(dataset))
    assert (part["images"], part["annotations"]) == (len(original.image_ids), len(original.bboxes))
    names = {i: n for n, i in enumerate(original.image_ids)}
    trained = trained_on(dataset, path)
    assert len(trained) == part["boxes"]["trained_on"]
    objects = [
        (image, [x, y, x + w, y + h], original.categories[int(category)])
        for image, (x, y, w, h), category, ignored in zip(
            original.image.tolist(), original.bboxes.tolist(), original.category_ids, original.ignored, strict=True
        )
        if not ignored
    ]
    files = {Path(name).name: n for n, name in enumerate(evaluated.files)}
    for name, box, label in trained:
        assert (files[name], box, label) in objects, "what is trained on is to be found"
    assert len(names) == len(files)
    return evaluated


@settings(max_examples=examples(12), deadline=None)
@given(coco_files(), st.sampled_from(["plain", "gzip", "mark"]), st.booleans(), st.integers(0, 2**32 - 1))
def test_coco_files(data: dict[str, Any], form: str, absolute: bool, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        (root / "toy" / "images").mkdir(parents=True)
        for record in data["images"]:
            (root / "toy" / "images" / record["file_name"]).write_bytes(b"x")
            if absolute:
                record["file_name"] = str(root / "toy" / "images" / record["file_name"])
        content = json.dumps(data).encode()
        packed = {"plain": content, "gzip": gzip.compress(content), "mark": b"\xef\xbb\xbf" + content}
        (root / "toy" / "gt").write_bytes(packed[form])
        original = read_ground_truth(root / "toy" / "gt")
        evaluated = agree(COCO, root, original, patch)
        rows = detections(original, seed)
        assert coco_metrics(original, rows) == coco_metrics(evaluated, rows)


def detections(truth: GroundTruth, seed: int) -> np.ndarray:
    """The annotated boxes, some moved, with random scores."""
    rng = np.random.default_rng(seed)
    rows = np.empty((len(truth.bboxes), 7))
    rows[:, 0] = np.array(truth.image_ids)[truth.image]
    rows[:, 1:5] = truth.bboxes
    rows[:, 1:3] += rng.integers(-3, 4, (len(rows), 2))
    rows[:, 5], rows[:, 6] = rng.random(len(rows)), truth.category_ids
    return rows


@st.composite
def odgt_lines(draw: st.DrawFn) -> list[dict[str, Any]]:
    lines = []
    for number in range(draw(st.integers(1, 3))):
        boxes: list[dict[str, Any]] = []
        for _ in range(draw(st.integers(0, 5))):
            box: dict[str, Any] = {
                "fbox": [draw(numbers), draw(numbers), draw(lengths | numbers), draw(lengths | numbers)]
            }
            if draw(st.booleans()):
                box["tag"] = draw(st.sampled_from(["person", "mask", "other"]))
            if draw(st.booleans()):
                box["extra"] = draw(st.sampled_from([{}, {"ignore": 0}, {"ignore": 1}, {"box_id": 3, "ignore": 1}]))
            boxes.append(box)
        lines.append({"ID": f"{number},x", "gtboxes": boxes})
    lines[0]["gtboxes"].append({"tag": "person", "fbox": [0, 0, 1, 1]})
    return lines


@settings(max_examples=examples(8), deadline=None)
@given(odgt_lines(), st.lists(st.integers(1, 8), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_odgt_files(lines: list[dict[str, Any]], orientations: list[int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        (root / "toy" / "images").mkdir(parents=True)
        for line, orientation in zip(lines, orientations, strict=False):
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.new("RGB", (90, 50)).save(root / "toy" / "images" / f"{line['ID']}.jpg", exif=exif)
        (root / "toy" / "gt").write_text("\n".join(map(json.dumps, lines)))
        original = read_ground_truth(root / "toy" / "gt", root / "toy" / "images")
        evaluated = agree(CROWD, root, original, patch)
        rows = detections(original, seed)
        assert crowdhuman_metrics(original, rows) == crowdhuman_metrics(evaluated, rows)
