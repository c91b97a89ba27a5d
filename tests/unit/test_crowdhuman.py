"""CrowdHuman's odgt files: reading, and their COCO form as the official code makes it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from date.catalogue import Dataset, load_dataset
from date.datasets import crowdhuman
from date.datasets.crowdhuman import convert, read_odgt
from date.datasets.files import data_files
from date.datasets.images import header_sizes
from date.datasets.prepare import examine, prepare
from date.errors import UserError


def person(fbox: list[float], vbox: list[float] | None = None, **extra: int) -> dict[str, Any]:
    return {"tag": "person", "fbox": fbox, "vbox": vbox or fbox, "hbox": [0, 0, 1, 1], "extra": extra}


LINES = {
    "train": [
        {"ID": "273,a", "gtboxes": [person([-5, 10, 30, 60], [0, 10, 20, 40]), person([1, 2, 3, 4], ignore=1)]},
        {"ID": "284,b", "gtboxes": []},
        {"ID": "285,c", "gtboxes": [person([10, 10, -5, 20]), person([200, 10, 20, 20]), {**person([0, 0, 9, 9]), "tag": "mask"}]},
    ],
    "val": [{"ID": "9,d", "gtboxes": [person([0, 0, 10.5, 20], occ=1, ignore=0)]}],
}  # fmt: skip


def write_lines(root: Path, split: str, lines: list[Any]) -> Path:
    path = root / "crowdhuman" / f"annotation_{split}.odgt"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = tmp_path / "crowdhuman" / "Images"
    images.mkdir(parents=True)
    for name in ("273,a", "284,b", "285,c", "9,d"):
        Image.new("RGB", (100, 80)).save(images / f"{name}.jpg")
    for split, lines in LINES.items():
        write_lines(tmp_path, split, lines)
    return tmp_path


@pytest.fixture
def dataset() -> Dataset:
    """CrowdHuman as it is configured, but for the numbers of images."""
    data = load_dataset("crowdhuman").model_dump()
    data["train"]["count"], data["val"]["count"] = 3, 1
    return Dataset.model_validate(data)


def converted(dataset: Dataset, root: Path, split: str = "train") -> dict[str, Any]:
    files = data_files(dataset, root)
    return json.loads((files.train_annotations if split == "train" else files.val_annotations).read_text())


def test_the_configured_counts_are_crowdhumans() -> None:
    data = load_dataset("crowdhuman")
    assert data.train is not None and data.val is not None
    assert (data.train.count, data.val.count) == (15_000, 4_370)
    assert data.train.images == data.val.images == "Images"


def test_the_coco_form(root: Path, dataset: Dataset) -> None:
    part = prepare(dataset, root)["splits"]["train"]
    data = converted(dataset, root)
    assert data["images"] == [
        {"id": i, "file_name": f"{name}.jpg", "width": 100, "height": 80}
        for i, name in enumerate(("273,a", "284,b", "285,c"), 1)
    ]
    assert data["categories"] == [{"id": 1, "name": "person"}]
    columns = ("id", "image_id", "category_id", "bbox", "bbox_vis", "area", "iscrowd")
    assert [tuple(a[c] for c in columns) for a in data["annotations"]] == [
        (1, 1, 1, [-5, 10, 30, 60], [0, 10, 20, 40], 1800, 0),
        (2, 1, 1, [1, 2, 3, 4], [1, 2, 3, 4], 12, 1),
        (3, 3, 1, [10, 10, -5, 20], [10, 10, -5, 20], 0, 0),
        (4, 3, 1, [200, 10, 20, 20], [200, 10, 20, 20], 400, 0),
        (5, 3, 1, [0, 0, 9, 9], [0, 0, 9, 9], 81, 1),
    ]
    assert {k: n for k, n in part["boxes"].items() if n} == dict(
        trained_on=1, iscrowd=2, negative_size=1, outside_the_image=1
    )
    assert part["images_without_annotations"] == 1


def test_mmdetection_trains_on_the_coco_form(root: Path, dataset: Dataset) -> None:
    from mmdet.datasets import CocoDataset

    prepare(dataset, root)
    files = data_files(dataset, root)
    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDataset(
            ann_file=str(files.train_annotations),
            data_prefix=dict(img=str(files.train_images)),
            metainfo=dict(classes=("person",)),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[],
        )
    found = [data.get_data_info(i) for i in range(len(data))]
    assert [Path(info["img_path"]).name for info in found] == ["273,a.jpg", "285,c.jpg"]
    boxes = [[(i["bbox"], i["ignore_flag"]) for i in info["instances"]] for info in found]
    assert boxes == [[([-5, 10, 25, 70], 0), ([1, 2, 4, 6], 1)], [([0, 0, 9, 9], 1)]]


def test_the_conversion_is_written_once_per_content(
    root: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setattr("date.datasets.prepare.convert", lambda odgt, *a: calls.append(odgt) or convert(odgt, *a))
    first = prepare(dataset, root)
    assert [path.name for path in calls] == ["annotation_train.odgt", "annotation_val.odgt"]
    for path in calls:
        os.utime(path)
    assert prepare(dataset, root) == first
    assert examine(dataset, root).manifest == first
    assert len(calls) == 2
    before = data_files(dataset, root)
    write_lines(root, "train", [*LINES["train"][:2], {**LINES["train"][2], "gtboxes": [person([0, 0, 50, 50])]}])
    second = prepare(dataset, root)
    assert len(calls) == 3
    assert second["splits"]["val"] == first["splits"]["val"]
    assert second["digest"] != first["digest"]
    assert len(converted(dataset, root)["annotations"]) == 3
    assert before.train_annotations.exists(), "what an older run was trained on stays"
    monkeypatch.setattr(crowdhuman, "CONVERSION_VERSION", 99)
    assert data_files(dataset, root).train_annotations not in (before.train_annotations, calls[0])


def test_other_images_are_converted_anew(root: Path, dataset: Dataset) -> None:
    first = prepare(dataset, root)
    Image.new("RGB", (50, 90)).save(root / "crowdhuman" / "Images" / "284,b.jpg")
    second = prepare(dataset, root)
    assert second["digest"] != first["digest"]
    assert (converted(dataset, root)["images"][1]["width"], converted(dataset, root)["images"][1]["height"]) == (50, 90)
    assert examine(dataset, root).manifest == second


def test_a_damaged_conversion_is_made_anew(root: Path, dataset: Dataset) -> None:
    first = prepare(dataset, root)
    path = data_files(dataset, root).train_annotations
    path.write_bytes(path.read_bytes()[:100])
    assert prepare(dataset, root) == first


def test_an_interrupted_conversion_leaves_nothing(
    root: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, root, interrupt)
    assert [p.name for p in (root / "crowdhuman-converted").iterdir() if not p.name.startswith(".")] == []
    prepare(dataset, root)


def test_what_is_missing_or_no_image_is_listed(root: Path, dataset: Dataset) -> None:
    images = root / "crowdhuman" / "Images"
    (images / "284,b.jpg").unlink()
    (images / "9,d.jpg").write_text("no image")
    with pytest.raises(UserError) as error:
        prepare(dataset, root)
    assert "not in" in str(error.value) and "284,b.jpg" in str(error.value)
    assert "not images: 9,d.jpg" in str(error.value) and "absent.json" not in str(error.value)
    (root / "crowdhuman" / "annotation_val.odgt").unlink()
    with pytest.raises(
        UserError, match=r"(?s)284,b\.jpg.*no .*annotation_val\.odgt\. .*Get it from: https://www\.crowdhuman"
    ):
        prepare(dataset, root)


def test_broken_lines_are_listed_without_images(root: Path, dataset: Dataset) -> None:
    path = write_lines(root, "train", [LINES["train"][0], 5, LINES["train"][0]])
    (root / "crowdhuman" / "Images").rename(root / "crowdhuman" / "Elsewhere")
    with pytest.raises(UserError) as error:
        prepare(dataset, root)
    message = str(error.value)
    assert f"{path} is damaged: line 2 is not a JSON object, several lines have the same ID: 273,a (2 times)" in message
    assert "no " in message and "Images. Put it there" in message


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"ID": "a", "gtboxes": [', "line 2 is not valid JSON"),
        ("\xff", "line 2 is not valid JSON"),
        ("[" * 100_000, "line 2 is not valid JSON"),
        ("", "line 2 is not valid JSON"),
        ("null", "line 2 is not a JSON object"),
        ('{"gtboxes": []}', "line 2 has no ID that can name an image, but None"),
        ('{"ID": "../a", "gtboxes": []}', r"line 2 has no ID that can name an image, but '\.\./a'"),
        ('{"ID": "a"}', "line 2 has no list 'gtboxes'"),
        ('{"ID": "a", "gtboxes": [1]}', "line 2 has a box 1 that is not a JSON object"),
        ('{"ID": "a", "gtboxes": [{"vbox": [1, 1, 1, 1]}]}', "line 2 has a box 1 whose fbox is not x, y, width, height, but None"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 1, 1, NaN]}]}', "line 2 has a box 1 whose fbox"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 1, 1, 1e400]}]}', "line 2 has a box 1 whose fbox"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 1, 1, "1"]}]}', "line 2 has a box 1 whose fbox"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 1, 1, 1], "vbox": 3}]}', "line 2 has a box 1 whose vbox"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 1, 1, 1], "extra": {"ignore": 2}}]}', "whose extra.ignore is neither 0 nor 1"),
        ('{"ID": "a", "gtboxes": [{"fbox": [1, 1, 1, 1], "extra": null}]}', "whose extra.ignore is neither 0 nor 1"),
        ('{"ID": "a", "gtboxes": [], "width": 0}', "line 2 has the width 0, which is not a number of pixels"),
    ],
)  # fmt: skip
def test_broken_lines_are_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "a.odgt"
    good = json.dumps(LINES["val"][0]).encode()
    path.write_bytes(b"\n".join([good, line.encode("latin-1"), good.replace(b"9,d", b"8,e"), b""]))
    with pytest.raises(UserError, match=problem) as error:
        read_odgt(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", None])
def test_empty_and_absent_files(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.odgt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.odgt (is empty|cannot be read \(No such file)"):
        read_odgt(tmp_path / "a.odgt")


def test_sizes_are_those_that_the_decoder_gives(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    paths = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(tmp_path / f"{orientation}.jpg")
        Image.fromarray(pixels).save(paths[-1], exif=exif)
    decoded = [cv2.imread(str(path)).shape[1::-1] for path in paths]
    assert header_sizes(paths) == decoded
    assert {(40, 30), (30, 40)} == set(decoded)


def test_a_genuine_record(shared_data: Path) -> None:
    (record,) = read_odgt(shared_data / "crowdhuman_format" / "mmdet_real_sample.odgt")
    assert record.image == "283554,35288000868e92d4"
    assert [p.ignore for p in record.persons] == [False] * 6 + [True]
    assert record.persons[1].fbox == [792, 24, 723, 2017] and record.persons[1].vbox == [792, 24, 723, 1332]
    assert (record.width, record.height) == (None, None)


def test_another_number_of_images_names_the_odgt_file(root: Path, dataset: Dataset) -> None:
    path = write_lines(root, "train", LINES["train"][:2])
    with pytest.raises(UserError, match=f"{path} has 2 images and not 3; restore the complete file"):
        prepare(dataset, root)
