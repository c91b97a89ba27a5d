"""Verification of COCO-format data: what is wrong is said in a sentence, all of it at once; the manifest is content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from date.catalogue import Dataset, load_dataset, load_tier
from date.data.coco import manifest_digest, prepare, verify_split, verify_weights
from date.errors import UserError

DATASET = Dataset.model_validate(
    {
        "name": "toy",
        "classes": ["a", "b"],
        "root": "toy",
        "train": {"annotations": "train.json", "images": "images"},
        "val": {"annotations": "val.json", "images": "images"},
        "obtain": "the toy shop",
    }
)


def annotations() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in (1, 2, 3)],
        "categories": [{"id": 5, "name": "a"}, {"id": 9, "name": "b"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 9, "bbox": [5, 5, 10, 0.5], "area": 5, "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 9, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0},
        ],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    (folder / "images").mkdir(parents=True)
    for i in (1, 2, 3):
        (folder / "images" / f"{i}.png").write_bytes(b"x" * i)
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(annotations()))
    return tmp_path


def spoil(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = annotations()
    change(data)
    (root / "toy" / "train.json").write_text(json.dumps(data))


def test_the_manifest_counts_what_is_there(root: Path) -> None:
    part = prepare(DATASET, root)["splits"]["train"]
    expected = dict(
        images=3, annotations=3, objects={"a": 1, "b": 2}, iscrowd=1, smaller_than_a_pixel=1, images_without_objects=1
    )
    assert {k: part[k] for k in expected} == expected


def test_the_digest_follows_content_and_not_place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    digest = prepare(DATASET, root)["digest"]
    elsewhere = tmp_path_factory.mktemp("else where")
    shutil.copytree(root / "toy", elsewhere / "toy")
    assert prepare(DATASET, elsewhere)["digest"] == digest
    (elsewhere / "toy" / "images" / "2.png").write_bytes(b"another size")
    assert prepare(DATASET, elsewhere)["digest"] != digest
    assert manifest_digest({"a": 1, "digest": "x"}) == manifest_digest({"a": 1})


def test_missing_dataset_says_what_where_and_how(root: Path) -> None:
    shutil.rmtree(root / "toy" / "images")
    (root / "toy" / "val.json").unlink()
    with pytest.raises(UserError, match=r"'toy' is not complete .*images.*val\.json.*DATE_DATA_ROOT.*the toy shop"):
        prepare(DATASET, root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"].append({"id": 4, "file_name": "4.png"}), r"images that are not in .*: 4\.png"),
        (lambda d: d["images"].append({"id": 1, "file_name": "1.png"}), r"repeats image id 1"),
        (lambda d: d["annotations"][0].update(image_id=77), r"unknown images: 1 \(image 77\)"),
        (lambda d: d["annotations"][0].update(category_id=77), r"unknown categories: 1 \(category 77\)"),
        (lambda d: d["annotations"][0].update(id=2), r"repeats annotation ids: 2"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, -1, 5]), r"not finite x, y, width, height: 1 \(\[0, 0, -1, 5\]\)"),
        (lambda d: d["annotations"][0].update(bbox=[0, float("nan"), 1, 5]), r"not finite"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, 1]), r"not finite"),
        (lambda d: d["annotations"][0].pop("bbox"), r"not finite"),
        (lambda d: d["categories"].reverse(), r"categories \['b', 'a'\], but the dataset's 'classes' are \['a', 'b'\]"),
        (lambda d: d.pop("categories"), r"has no categories; it is not a COCO annotation file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(root: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    spoil(root, change)
    with pytest.raises(UserError, match=message):
        prepare(DATASET, root)


def test_everything_wrong_is_said_at_once(root: Path) -> None:
    (root / "toy" / "images" / "2.png").unlink()
    spoil(root, lambda d: d["annotations"][0].update(bbox=[0, 0, -1, 5]))
    with pytest.raises(UserError) as error:
        prepare(DATASET, root)
    assert str(error.value).count("2.png") == 2, "both splits"
    assert "not finite" in str(error.value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400))
def test_truncated_json_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = tmp_path_factory.mktemp("truncated")
    (folder / "a.json").write_text(json.dumps(annotations())[:length])
    _, problems = verify_split(folder / "a.json", folder, ["a", "b"])
    assert len(problems) == 1
    assert "is not valid JSON" in problems[0]


def test_json_that_is_not_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    assert "it is not a COCO annotation file" in verify_split(tmp_path / "a.json", tmp_path, ["a"])[1][0]


def test_pretrained_weights_are_asked_for_and_checked(tmp_path: Path) -> None:
    paper = load_tier("paper")
    with pytest.raises(UserError, match=r"resnet50_caffe-788b5fa3\.pth are missing; get them from https://"):
        verify_weights(paper, "r50", tmp_path)
    path = tmp_path / paper.weights["r50"].file
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"and not 788b5fa3\.\.\.; get it again"):
        verify_weights(paper, "r50", tmp_path)
    verify_weights(load_tier("mini"), "r50", tmp_path)


def test_the_coco_sample_is_sane(shared_data: Path) -> None:
    manifest = prepare(load_dataset("coco-sample"), shared_data)
    assert {s: p["images"] for s, p in manifest["splits"].items()} == {"train": 62, "val": 42}
    assert all(p["iscrowd"] > 0 for p in manifest["splits"].values())


def test_coco_classes_are_cocos(shared_data: Path) -> None:
    categories = json.loads((shared_data / "coco_sample" / "annotations" / "instances_val2017.json").read_text())[
        "categories"
    ]
    assert load_dataset("coco2017").classes == [c["name"] for c in categories]
