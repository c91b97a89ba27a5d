"""Annotations changed at random places into anything: refused in words, or accepted with counts that are right.

Right is what MMDetection's own CocoDataset makes of the file, and what a slow count says.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from date.catalogue import Dataset
from date.datasets.columns import SPARSE, positions
from date.datasets.crowdhuman import read_odgt
from date.datasets.files import data_files
from date.datasets.prepare import examine
from date.errors import UserError
from date.evaluation.coco import coco_metrics
from tests.support.examples import examples

SPLIT = {"annotations": "a.json", "images": "images"}
DATASET = Dataset.model_validate({"name": "fuzz", "classes": ["a", "b"], "root": ".", "train": SPLIT, "val": SPLIT})
FILES = ("1.png", "2.png", "deep/3.png")


def annotations() -> dict[str, Any]:
    sizes = ((64, 48), (40, 30), (100, 100))
    records = [
        {"id": i, "file_name": name, "width": width, "height": height}
        for i, (name, (width, height)) in enumerate(zip(FILES, sizes, strict=True), 1)
    ]
    boxes = ((1, [0, 0, 10, 10]), (1, [-5, 5.5, 10, 20]), (2, [20, 20, 20, 9.25]), (2, [39, 29, 5, 5]))
    return {
        "images": records,
        "categories": [{"id": 5, "name": "a"}, {"id": 9, "name": "b"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 5 + 4 * (n % 2), "bbox": b, "area": b[2] * b[3], "iscrowd": n // 4}
            for n, (i, b) in enumerate(boxes, 1)
        ],
    }


numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(-130, 130),
    st.floats(-130, 130),
    st.floats(),
    st.integers(),
    st.sampled_from([0, 0.0, -0.0, 1, 0.5, 1e-200, 2**53, 2**63, 2**64, 10**400, 1e308, -1e308, True, False]),
)
scalars = st.one_of(
    numbers, st.none(), st.text(max_size=4), st.sampled_from(["1.png", "../1.png", "/", "a\0", "\ud800", "a", "64"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MARKS = ("neg_category_ids", "IsGroupOf", "difficult", "attributes", "rotation")
extra_keys = st.sampled_from(["ignore", "iscrowd", "area", "bbox", "id", "info", "segmentation", *MARKS])


@st.composite
def changed(draw: st.DrawFn, structure: Any) -> Any:
    """The structure with values replaced, removed, repeated or added at up to four places."""
    structure = copy.deepcopy(structure)
    for _ in range(draw(st.integers(1, 4))):
        holder, key = [structure], 0
        while isinstance(holder[key], list | dict) and holder[key] and draw(st.integers(0, 9)):
            holder = holder[key]
            key = draw(st.sampled_from(sorted(holder, key=repr) if isinstance(holder, dict) else range(len(holder))))
        action = draw(st.sampled_from(["number", "number", "value", "remove", "repeat", "add"]))
        if action == "number":
            holder[key] = draw(numbers)
        elif action == "value":
            holder[key] = draw(values)
        elif action == "remove" and holder is not structure and len(holder) > 0:
            del holder[key]
        elif action == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif isinstance(holder, dict):
            holder[draw(extra_keys)] = draw(scalars)
        if not isinstance(structure, dict):
            break
    return structure


def slow_uses(data: dict[str, Any]) -> Counter[str]:
    """What becomes of each annotation, one by one in plain Python."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    uses: Counter[str] = Counter()
    for a in data["annotations"]:
        (x, y, w, h), (width, height) = a["bbox"], sizes[a["image_id"]]
        if a.get("ignore"):
            uses["ignored"] += 1
        elif w == 0 or h == 0:
            uses["zero_size"] += 1
        elif max(0, min(x + w, width) - max(x, 0)) * max(0, min(y + h, height) - max(y, 0)) == 0:
            uses["outside_the_image"] += 1
        elif w < 1 or h < 1:
            uses["smaller_than_a_pixel"] += 1
        elif a["area"] <= 0:
            uses["without_area"] += 1
        else:
            uses["iscrowd" if a.get("iscrowd") else "trained_on"] += 1
    return uses


def check_counts(data: dict[str, Any], part: dict[str, Any], path: Path) -> None:
    assert part["images"] == len(data["images"])
    assert (
        part["annotations"] == len(data["annotations"]) == sum(part["boxes"].values()) == sum(part["objects"].values())
    )
    assert {k: n for k, n in part["boxes"].items() if n} == dict(slow_uses(data))
    from mmdet.datasets import CocoDataset

    settings = dict(ann_file=str(path), data_prefix=dict(img="."), metainfo=dict(classes=("a", "b")), pipeline=[])
    with contextlib.redirect_stdout(io.StringIO()):
        every = CocoDataset(**settings)
    instances = [every.get_data_info(i)["instances"] for i in range(len(every))]
    flags = Counter(instance["ignore_flag"] for per_image in instances for instance in per_image)
    assert (part["boxes"]["trained_on"], part["boxes"]["iscrowd"]) == (flags[0], flags[1])
    trained = [any(not instance["ignore_flag"] for instance in per_image) for per_image in instances]
    assert part["images_without_trained_boxes"] == len(trained) - sum(trained)
    annotated = {a["image_id"] for a in data["annotations"]}
    small = {image["id"] for image in data["images"] if min(image["width"], image["height"]) < 32}
    assert part["images_without_annotations"] == len({image["id"] for image in data["images"]} - annotated)
    assert part["images_below_32_px"] == len(small)
    if annotated - small:  # MMDetection's serialisation fails where no image is left
        with contextlib.redirect_stdout(io.StringIO()):
            kept = CocoDataset(**settings, filter_cfg=dict(filter_empty_gt=True, min_size=32))
        assert len(kept) == len(annotated - small)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    for name in FILES:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).write_bytes(b"x")
    return root


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(data=changed(annotations()))
def test_changed_annotations_are_refused_in_words_or_counted_right(folder: Path, data: Any) -> None:
    (folder / "a.json").write_text(json.dumps(data))
    found = examine(DATASET, folder)
    if found.manifest is None:
        assert found.problems
        assert all(problem.endswith(".") and str(folder) in problem for problem in found.problems)
        return
    assert not found.problems
    path = data_files(DATASET, folder).train_annotations
    normal = json.loads(path.read_text())
    assert path == folder / "a.json" or "normal_form" in found.manifest["splits"]["train"]
    check_counts(normal, found.manifest["splits"]["train"], path)
    boxes = [[a["image_id"], *a["bbox"], 0.5, a["category_id"]] for a in data["annotations"]]
    for detections in (np.zeros((0, 7)), np.array(boxes, dtype=np.float64)):
        scored = coco_metrics(folder / "a.json", detections)
        assert scored == coco_metrics(path, detections), "the normal form means the same"
        assert all(0 <= value <= 100 for value in scored.values() if value is not None)


def test_the_unchanged_annotations_are_accepted(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps(annotations()))
    found = examine(DATASET, folder)
    assert found.manifest is not None
    assert found.manifest["splits"]["train"]["boxes"]["trained_on"] == 3
    check_counts(annotations(), found.manifest["splits"]["train"], folder / "a.json")


@settings(max_examples=examples(200))
@given(content=st.binary(max_size=60), cut=st.integers(0, 900))
def test_damaged_bytes_are_refused_in_words(folder: Path, content: bytes, cut: int) -> None:
    whole = json.dumps(annotations()).encode()
    (folder / "a.json").write_bytes(whole[:cut] + content + whole[cut + len(content) :])
    found = examine(DATASET, folder)
    assert found.problems or found.manifest is not None


# ------------------------------------------------------------------------------------------------------ CrowdHuman

PERSON = {"tag": "person", "fbox": [1, -2, 30, 40], "vbox": [1, 0, 3, 4], "hbox": [1, 1, 1, 1], "extra": {"box_id": 0}}
MASK = {"tag": "mask", "fbox": [0, 0, 9, 9], "vbox": [0, 0, 9, 9], "head_attr": {}, "extra": {"ignore": 1}}
LINES = [{"ID": "1,a", "gtboxes": [PERSON, MASK]}, {"ID": "2,b", "gtboxes": []}, {"ID": "3,c", "gtboxes": [PERSON]}]


@settings(max_examples=examples(300))
@given(lines=st.lists(st.sampled_from(LINES).flatmap(changed) | st.sampled_from(LINES), min_size=1, max_size=3))
def test_changed_odgt_lines_are_refused_in_words_or_read(folder: Path, lines: list[Any]) -> None:
    path = folder / "a.odgt"
    path.write_text("\n".join(map(json.dumps, lines)))
    try:
        records = read_odgt(path)
    except UserError as error:
        assert str(path) in str(error) and "line" in str(error)  # noqa: PT017 - whether it is refused is not known
        return
    assert [record.image for record in records] == [line["ID"] for line in lines]
    for record, line in zip(records, lines, strict=True):
        assert [p.fbox for p in record.persons] == [box["fbox"] for box in line["gtboxes"]]
        assert [p.ignore for p in record.persons] == [
            box.get("tag", "person") != "person" or box.get("extra", {}).get("ignore", 0) == 1
            for box in line["gtboxes"]
        ]


@settings(max_examples=examples(100))
@given(content=st.binary(max_size=40), cut=st.integers(0, 700))
def test_damaged_odgt_bytes_are_refused_in_words(folder: Path, content: bytes, cut: int) -> None:
    whole = "\n".join(map(json.dumps, LINES)).encode()
    (folder / "a.odgt").write_bytes(whole[:cut] + content + whole[cut + len(content) :])
    with contextlib.suppress(UserError):
        assert len(read_odgt(folder / "a.odgt")) >= 1


@given(
    st.lists(st.one_of(st.integers(0, 9), st.integers(0, 5 * SPARSE), st.integers(0, 2**53)), unique=True, min_size=1),
    st.data(),
)
def test_ids_are_looked_up_as_by_a_dictionary(ids: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(ids)))
    places = {number: place for place, number in enumerate(ids)}
    found = positions(np.array(ids, dtype=np.int64), np.array(wanted, dtype=np.int64))
    assert found.tolist() == [places[number] for number in wanted]
