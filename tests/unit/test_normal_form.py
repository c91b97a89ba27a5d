"""Files of other tools that mean one thing are brought into one form, which everything reads alike."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from date.catalogue import Dataset, DatasetSplit
from date.datasets.files import data_files
from date.datasets.normal import INFO
from date.datasets.prepare import examine, prepare
from date.evaluation.coco import coco_metrics
from date.evaluation.ground_truth import read_ground_truth

DATASET = Dataset(
    name="toy",
    classes=["a", "b", "c"],
    root="toy",
    train=DatasetSplit(annotations="train.json", images="images"),
    val=DatasetSplit(annotations="val.json", images="images"),
)


def annotations() -> dict[str, Any]:
    objects = [
        {"id": k, "image_id": k % 2, "category_id": [7, 3, 5][k % 3], "bbox": [k, 2, 9, 8], "area": 72, "iscrowd": 0} for k in range(6)
    ]  # fmt: skip
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(2)],
        "annotations": objects,
        "categories": [{"id": i, "name": n} for i, n in ((7, "a"), (3, "b"), (5, "c"))],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "toy" / "images").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "toy" / "images" / f"{i}.png").write_bytes(b"x")
    for name in ("train", "val"):
        (tmp_path / "toy" / f"{name}.json").write_text(json.dumps(annotations()))
    return tmp_path


def pop_areas(data: dict[str, Any], root: Path) -> None:
    for record in data["annotations"][:4]:
        del record["area"]


def reorder(data: dict[str, Any], root: Path) -> None:
    data["categories"].reverse()


def absolute(data: dict[str, Any], root: Path) -> None:
    for record in data["images"]:
        record["file_name"] = str(root / "toy" / "images" / record["file_name"])


def points(data: dict[str, Any], root: Path) -> None:
    for record in data["annotations"]:
        record["image_id"], record["category_id"] = float(record["image_id"]), float(record["category_id"])
    data["categories"][0]["id"] = 7.0
    data["images"][1]["id"] = 1.0


CHANGES: list[tuple[Callable[[dict[str, Any], Path], None], dict[str, int]]] = [
    (pop_areas, {"areas_computed": 4}),
    (reorder, {"categories_in_another_order": 2}),
    (absolute, {"absolute_file_names": 2}),
    (points, {"ids_with_a_point": 14}),
]


def labels(path: Path) -> list[list[tuple[str, int]]]:
    """What MMDetection makes of a file: file names and labels per image."""
    from mmdet.datasets import CocoDataset

    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDataset(
            ann_file=str(path), data_prefix=dict(img="."), metainfo=dict(classes=tuple(DATASET.classes)), pipeline=[]
        )
    infos = [data.get_data_info(i) for i in range(len(data))]
    return [[(Path(info["img_path"]).name, i["bbox_label"]) for i in info["instances"]] for info in infos]


@pytest.mark.parametrize(("change", "counts"), CHANGES, ids=["areas", "order", "absolute", "points"])
def test_what_has_one_meaning_is_read_as_that(change: Any, counts: dict[str, int], root: Path) -> None:
    expected = labels(root / "toy" / "train.json")
    data = annotations()
    change(data, root)
    (root / "toy" / "train.json").write_text(json.dumps(data))
    manifest = prepare(DATASET, root)
    path = data_files(DATASET, root).train_annotations
    assert (
        path.parent == root / "toy-converted" and data_files(DATASET, root).val_annotations == root / "toy" / "val.json"
    )
    assert manifest["splits"]["train"][INFO]["changes"] == counts and INFO not in manifest["splits"]["val"]
    assert labels(path) == expected
    found = np.array([[o["image_id"], *o["bbox"], 0.5, o["category_id"]] for o in data["annotations"]])
    scores = coco_metrics(path, found)
    assert scores == coco_metrics(root / "toy" / "train.json", found) and scores["AP"] == pytest.approx(100)
    assert prepare(DATASET, root) == manifest == examine(DATASET, root).manifest, "also the second time"


@pytest.mark.parametrize("packed", [True, False])
def test_packed_and_marked_files(packed: bool, root: Path) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(annotations()).encode()
    (root / "toy" / "train.json").write_bytes(gzip.compress(content) if packed else content)
    part = prepare(DATASET, root)["splits"]["train"]
    assert part[INFO]["changes"] == ({"packed": 1} if packed else {"byte_order_marks": 1})
    assert len(read_ground_truth(data_files(DATASET, root).train_annotations).bboxes) == 6
    if packed:
        (root / "toy" / "train.json").write_bytes(gzip.compress(content)[:-9])
        (problem,) = examine(DATASET, root).problems
        assert "is not valid JSON (a damaged gzip file" in problem


def test_a_file_in_normal_form_is_used_as_it_is(root: Path) -> None:
    manifest = prepare(DATASET, root)
    assert data_files(DATASET, root).train_annotations == root / "toy" / "train.json"
    assert INFO not in manifest["splits"]["train"] and not (root / "toy-converted").exists()


def test_a_changed_file_is_brought_into_normal_form_anew(root: Path) -> None:
    data = annotations()
    pop_areas(data, root)
    (root / "toy" / "train.json").write_text(json.dumps(data))
    before = prepare(DATASET, root)
    data["annotations"].pop()
    (root / "toy" / "train.json").write_text(json.dumps(data))
    after = prepare(DATASET, root)
    assert after["splits"]["train"]["annotations"] == 5 and after["digest"] != before["digest"]
    (root / "toy" / "train.json").write_text(json.dumps(annotations()))
    assert INFO not in prepare(DATASET, root)["splits"]["train"]


def test_the_id_0_and_a_missing_iscrowd_are_counted(root: Path) -> None:
    data = annotations()
    del data["annotations"][1]["iscrowd"]
    (root / "toy" / "train.json").write_text(json.dumps(data))
    splits = prepare(DATASET, root)["splits"]
    assert splits["train"]["annotations_without_iscrowd"] == splits["train"]["annotations_with_id_0"] == 1
    assert "annotations_without_iscrowd" not in splits["val"]


def test_absolute_names_elsewhere_stay_a_mistake(root: Path) -> None:
    data = annotations()
    data["images"][0]["file_name"] = "/elsewhere/0.png"
    (root / "toy" / "train.json").write_text(json.dumps(data))
    assert "not paths below the image folder: '/elsewhere/0.png'" in "".join(examine(DATASET, root).problems)


def test_deep_tells_of_missing_images_once(root: Path) -> None:
    (root / "toy" / "images" / "1.png").unlink()
    problems = examine(DATASET, root, deep=True).problems
    assert len(problems) == 4, "two files, each with a missing and an undecodable image"
    assert [p for p in problems if "1.png" in p] == [p for p in problems if "that are not in" in p]
    assert not any("Errno" in problem for problem in problems)
