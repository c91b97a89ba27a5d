"""Files of other forms than those that are read: named, with what to do, by every reader that may be given them."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from date.catalogue import Dataset, DatasetSplit, load, load_dataset
from date.catalogue.loading import load_tier
from date.datasets.annotations import check_annotations
from date.datasets.boxes import KEY, OPTION
from date.datasets.crowdhuman import read_odgt
from date.datasets.foreign import other_annotations, other_form
from date.datasets.prepare import examine
from date.datasets.protocols import SENTENCES, marks, protocol_notes
from date.datasets.verify import describe
from date.errors import UserError
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.imports.checkpoint import import_checkpoint
from date.imports.logs import read_training_log
from tests.support.command import date
from tests.unit.test_foreign_forms import plain, results


def archive(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name in names:
            opened.writestr(name, b"\x80\x02}.")
    return stream.getvalue()


def events(records: int = 2) -> bytes:
    """TensorFlow's records as far as anything looks at them: length, checksum, content, checksum."""
    return b"".join(len(text).to_bytes(8, "little") + b"\xaa\xbb\xcc\xdd" + text + b"abcd" for text in [b"\x09\x00\x80brain.Event:2"] * records)  # fmt: skip


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b" \n", "is empty; restore it from its source"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "is a pointer of Git LFS and not the file itself; fetch that by `git lfs pull`"),
    "web page": (b"\n<!DOCTYPE HTML><title>Sign in</title>", "is a web page, as failed downloads leave it; download the file again"),
    "utf-16": (json.dumps(plain()).encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "voc": (b'<?xml version="1.0"?><annotation><object/></annotation>', "is XML, as Pascal VOC and CVAT write annotations; "),
    "yolo": (b"0 0.5 0.5 0.1 0.2\n1 0.25 0.25 0.1 1e-1\n", "is lines of numbers, as YOLO's text files; "),
    "yolo scores": (b"0 0.5 0.5 0.1 0.2 0.9\r\n", "is lines of numbers, as YOLO's text files; "),
    "pickle": (pickle.dumps([{"img_id": 1}]), "is a pickle, as MMDetection's results.pkl, which is not read since that could execute code; "),
    "old pickle": (pickle.dumps([{"img_id": 1}], protocol=0), "is a pickle, as MMDetection's results.pkl, "),
    "pytorch": (archive("archive/data.pkl"), "is a file of PyTorch's; "),
    "parquet": (b"PAR1\x15\x04", "is a Parquet file; "),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; "),
    "tensorboard": (events(), "is an event file of TensorBoard or another file of TensorFlow's records; "),
}  # fmt: skip
TABLE = (b"ImageID,LabelName,XMin,XMax,YMin,YMax\n0,/m/01yrx,0.1,0.2,0.3,0.4\n", "is a table with commas (CSV); ")
ANNOTATIONS = "annotations are read in COCO's JSON and as CrowdHuman's odgt; export them in one of these."


def said(read: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("content", "sentence"), [*FILES.values(), TABLE], ids=[*FILES, "table"])
def test_every_reader_names_the_form(content: bytes, sentence: str, packed: bool, tmp_path: Path) -> None:
    path, truth = tmp_path / "file", tmp_path / "gt.json"
    path.write_bytes(gzip.compress(content) if packed else content)
    truth.write_text(json.dumps(plain()))
    complete = sentence + ANNOTATIONS if sentence.endswith("; ") else sentence
    assert complete in said(read_ground_truth, path)
    assert complete in said(read_odgt, path) or content.strip() == b""
    (problem,) = check_annotations(path, ["cat", "dog"]).problems
    assert complete in problem
    text = said(read_detections, path, read_ground_truth(truth))
    assert sentence in text and ("detections are a list of" in text or not sentence.endswith("; "))
    if (content, sentence) != TABLE:  # some of which are logs
        text = said(read_training_log, path, 10)
        assert sentence in text and ("the logs that are read are" in text or not sentence.endswith("; "))


def test_a_zip_archive_is_no_file_of_pytorchs(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(archive("train.json"))
    assert "is a zip archive; unpack it." in said(read_ground_truth, tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["git lfs", "web page", "empty"])
def test_a_checkpoint_that_was_not_downloaded(kind: str, tmp_path: Path) -> None:
    content, sentence = FILES[kind]
    (tmp_path / "a.pth").write_bytes(content)
    training = load().trainings["fcos-r50-coco-12e"]
    assert sentence in said(import_checkpoint, tmp_path / "a.pth", training, load_tier("smoke"), tmp_path)


@given(st.binary(max_size=60))
def test_any_bytes_have_a_form_or_none(content: bytes) -> None:
    form = other_form(content)
    assert form is None or form.name


@pytest.mark.parametrize(
    "content",
    [json.dumps(plain()), "[]", '{"lr": 0.1}\n{"lr": 1}', "1", "1 2 3", "null", "epoch 1, loss 2", "2026-01-01 00:00:00,000 - mmdet - INFO"],
)  # fmt: skip
def test_what_may_be_read_or_is_unknown_is_not_named(content: str) -> None:
    assert other_form(content.encode()) is None


OTHERS: list[tuple[Any, str]] = [
    ({"version": "5.0", "shapes": [], "imagePath": "0.jpg"}, "LabelMe's, which has a file for each image"),
    ({"metainfo": {}, "data_list": []}, "MMDetection 3's own form"),
    ({"videos": [], "annotations": [], "categories": []}, "annotations of videos"),
    (plain() | {"annotations": [{"image_id": 1, "segments_info": []}]}, "COCO's panoptic segments"),
    ({"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}, "COCO's captions"),
    ({"images": plain()["images"], "categories": []}, "a list of images without annotations, as COCO's of its test images"),
    ({"0.jpg9": {"filename": "0.jpg", "regions": []}}, "VIA's own project"),
    ({"ID": "0", "gtboxes": []}, "CrowdHuman's odgt: its dataset's entry needs format: crowdhuman"),
    ([{"name": "0.jpg", "labels": []}], "BDD100K's"),
    ([{"image": "0.jpg", "annotations": []}], "CreateML's"),
    ([{"id": 1, "annotations": [], "data": {}}], "Label Studio's own JSON"),
    ([{"ID": "0", "gtboxes": []}], "CrowdHuman's odgt as a list"),
    (results()(Path()), "COCO's results, which are detections and no annotations"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "name"), OTHERS, ids=[name.split(",")[0] for _, name in OTHERS])
def test_json_of_other_tools_and_tasks_is_named(data: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    assert check_annotations(path, ["cat", "dog"]).problems == [
        f"{path} is not a COCO annotation file: it looks like {name}; export the boxes in COCO's form."
    ]
    if "odgt" not in name:  # which `score` reads
        assert said(read_ground_truth, path) == f"{path} looks like {name}; give a COCO annotation file or a CrowdHuman odgt file."  # fmt: skip


@pytest.mark.parametrize("data", [None, [], {}, [1], {"a": [1]}, plain(), plain() | {"videos": []}])
def test_other_json_is_not_named(data: Any) -> None:
    assert other_annotations(data) is None


def test_each_format_of_a_dataset_names_the_other(tmp_path: Path) -> None:
    odgt, coco = tmp_path / "a.odgt", tmp_path / "a.json"
    odgt.write_text('{"ID": "0", "gtboxes": []}\n{"ID": "1", "gtboxes": []}\n')
    coco.write_text(json.dumps(plain()))
    (problem,) = check_annotations(odgt, ["person"]).problems
    assert problem == f"{odgt} looks like CrowdHuman's odgt; write 'format: crowdhuman' into the dataset's entry."
    assert said(read_odgt, coco) == f"{coco} looks like COCO's JSON; leave 'format: crowdhuman' out of the dataset's entry."  # fmt: skip


def test_lines_of_json_that_are_no_odgt(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "0.jpg", "objects": {}}\n{"file_name": "1.jpg", "objects": {}}\n')
    (problem,) = check_annotations(path, ["cat", "dog"]).problems
    assert problem == f"{path} has several JSON objects and not one, perhaps one a line; {ANNOTATIONS}"
    assert said(read_ground_truth, path) == f"{path} has JSON objects without an 'ID', one a line: it is no odgt file; {ANNOTATIONS}"  # fmt: skip


# ------------------------------------------------------------------------------------------------- names of images


def toy(folder: Path, names: list[str], there: list[str]) -> list[str]:
    """Return what is wrong with a data set whose images have names, of which others are there."""
    for name in there:
        (folder / "toy" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "toy" / "images" / name).write_bytes(b"x")
    data = plain()
    for record, name in zip(data["images"], names, strict=True):
        record["file_name"] = name
    (folder / "toy" / "gt.json").write_text(json.dumps(data))
    split = DatasetSplit(annotations="gt.json", images="images")
    return examine(Dataset(name="toy", classes=["cat", "dog"], root="toy", train=split, val=split), folder).problems


@pytest.mark.parametrize(
    ("named", "alike"),
    [("images/{}.jpg", "0.jpg"), ("images\\{}.jpg", "0.jpg"), ("C:\\data\\{}.jpg", "0.jpg"), ("https://x.org/{}.jpg", "0.jpg"),
     ("{}", "0.jpg"), ("{}.JPG", "0.jpg"), ("{}.png", "0.jpg"), ("{}0.jpg", None)],
)  # fmt: skip
def test_a_name_that_is_almost_there_is_shown(named: str, alike: str | None, tmp_path: Path) -> None:
    (problem,) = toy(tmp_path, [named.format(i) for i in range(2)], ["0.jpg", "1.jpg"])
    hint = f" ({alike!r} is there: correct the names or the dataset's 'images')" if alike else ""
    assert problem.endswith(f"{named.format(0)}, {named.format(1)}; restore them{hint}.")


# ------------------------------------------------------------------------------------------------- forms of boxes


def many(boxes: np.ndarray) -> dict[str, Any]:
    """Annotations of an image of 100 x 80 px."""
    objects = [{"id": k, "image_id": 1, "category_id": 1, "bbox": box, "area": 1.0, "iscrowd": 0} for k, box in enumerate(boxes.tolist())]  # fmt: skip
    return plain() | {"images": [{"id": 1, "file_name": "0.jpg", "width": 100, "height": 80}], "annotations": objects}


@pytest.fixture
def boxes() -> np.ndarray:
    """(40, 4) boxes inside the image, as x, y, width, height."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, [60, 50], (40, 2)), rng.uniform(3, 30, (40, 2))
    return np.column_stack([corner, size])


def test_annotated_boxes_of_another_form_are_refused_by_all(boxes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    corners = np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    for form, sentence in [
        (corners, r"% of the boxes leave their image: they look like x1, y1, x2, y2, and not x, y, width, height; write"),
        (boxes / [100, 80, 100, 80], "almost all boxes lie in the first pixel: they look like fractions of the image"),
    ]:  # fmt: skip
        path.write_text(json.dumps(many(form)))
        (problem,) = check_annotations(path, ["cat", "dog"]).problems
        assert sentence in problem and said(read_ground_truth, path, None, KEY) == problem
        path.write_text(json.dumps(many(form[:9])))
        assert check_annotations(path, ["cat", "dog"]).problems == [], "too few to judge"
        read_ground_truth(path, None, KEY)


@pytest.mark.parametrize("kind", ["usual", "amodal", "whole image", "tiny"])
def test_boxes_that_are_as_they_should_be(kind: str, boxes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    forms = {
        "usual": boxes,
        "amodal": boxes * [1, 1, 3, 3] - [20, 20, 0, 0],  # reach out of the image
        "whole image": np.tile([0.0, 0.0, 100.0, 80.0], (40, 1)),
        "tiny": np.tile([50.0, 40.0, 1.0, 1.0], (40, 1)),
    }
    path.write_text(json.dumps(many(forms[kind])))
    assert check_annotations(path, ["cat", "dog"]).problems == []
    assert len(read_ground_truth(path, None, KEY).bboxes) == 40


@pytest.fixture
def beyond(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A legal data set whose 40 boxes reach out of the image, so that they look like corners, and these boxes."""
    rng = np.random.default_rng(1)
    boxes = np.column_stack([rng.uniform(30, 48, 40), rng.uniform(25, 38, 40), np.full(40, 95.0), np.full(40, 75.0)])
    (tmp_path / "toy" / "images").mkdir(parents=True)
    (tmp_path / "toy" / "images" / "0.jpg").write_bytes(b"x")
    (tmp_path / "toy" / "gt.json").write_text(json.dumps(many(boxes)))
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes.tolist()]
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path, boxes


def test_a_dataset_whose_boxes_look_like_corners_says_that_they_are_not(beyond: tuple[Path, np.ndarray]) -> None:
    folder, boxes = beyond
    split = DatasetSplit(annotations="gt.json", images="images")
    entry = {"name": "toy", "classes": ["cat", "dog"], "root": "toy", "train": split, "val": split}
    (problem,) = examine(Dataset(**entry), folder).problems
    assert problem.endswith(f"or, if they are that, {KEY}.") and "boxes_as_written: true" in KEY
    dataset = Dataset(**entry, boxes_as_written=True)
    found = examine(dataset, folder)
    assert found.problems == [] and found.manifest is not None
    assert found.manifest["splits"]["val"]["boxes"]["trained_on"] == 40
    np.testing.assert_array_equal(read_ground_truth(folder / "toy" / "gt.json").bboxes, boxes), "as evaluation reads"


def test_a_dataset_that_says_nothing_of_its_boxes_has_the_identity_of_before() -> None:
    """Verifications and evaluations that are kept have an entry's content in their names."""
    assert not any(
        "boxes_as_written" in load_dataset(name).model_dump() for name in ("coco2017", "crowdhuman", "scenes-mini")
    )


@pytest.mark.parametrize("command", ["score", "nms-recall"])
def test_commands_take_boxes_that_look_like_corners_when_asked_to(
    command: str, beyond: tuple[Path, np.ndarray]
) -> None:
    folder, _ = beyond
    words = ["data", "nms-recall", "--gt", folder / "toy" / "gt.json", "--json"]
    if command == "score":
        words = ["score", "--protocol", "coco", *words[2:], "--detections", folder / "found.json"]
    refused = date(*words, data=folder, check=False)
    assert refused.returncode == 2 and f"or, if they are that, {OPTION}." in refused.stderr
    numbers = json.loads(date(*words, "--boxes-as-written", data=folder).stdout)
    assert (numbers["AP"] == pytest.approx(100)) if command == "score" else (numbers["objects"] == 40)


# ------------------------------------------------------------------------------------------------- LVIS, CVAT


def test_lvis_is_read_by_its_urls_and_its_protocol_is_named(tmp_path: Path) -> None:
    data = plain()
    for record in data["images"]:
        record |= {
            "coco_url": f"http://images.cocodataset.org/val2017/{record.pop('file_name')}",
            "neg_category_ids": [2],
        }
    (tmp_path / "toy" / "images" / "val2017").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "toy" / "images" / "val2017" / f"{i}.jpg").write_bytes(b"x")
    (tmp_path / "toy" / "gt.json").write_text(json.dumps(data))
    split = DatasetSplit(annotations="gt.json", images="images")
    found = examine(Dataset(name="toy", classes=["cat", "dog"], root="toy", train=split, val=split), tmp_path)
    assert found.manifest is not None, found.problems
    part = found.manifest["splits"]["val"]
    assert part["normal_form"]["changes"] == {"file_names_of_urls": 2}
    (normal,) = (tmp_path / "toy-converted").glob("*.json")
    assert [r["file_name"] for r in json.loads(normal.read_text())["images"]] == ["val2017/0.jpg", "val2017/1.jpg"]
    (sentence,) = protocol_notes(part)
    assert sentence.startswith(
        "2 images have 'neg_category_ids', as LVIS's have: annotations are complete for some cat"
    )
    for path in (normal, tmp_path / "toy" / "gt.json"):
        assert sentence in read_ground_truth(path).notes
    record = {"dataset": "toy", "seconds": 0, "manifest": found.manifest}
    assert f"  4{sentence[1:]}" in describe(record, deep=False).splitlines(), "of both splits"
    assert "LVIS" not in " ".join(read_ground_truth(write(tmp_path, plain())).notes)


def write(folder: Path, data: Any) -> Path:
    (folder / "a.json").write_text(json.dumps(data))
    return folder / "a.json"


MARKED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "Open Images, FiftyOne": ([{"IsGroupOf": True}, {"IsGroupOf": False}], "boxes_of_groups"),
    "Open Images, openimages2coco": ([{"isgroupof": 0}, {"isgroupof": 1}], "boxes_of_groups"),
    "Open Images, not known": ([{"IsGroupOf": -1}, {"IsGroupOf": "0"}], ""),
    "Open Images, crowds": ([{"IsGroupOf": 1, "iscrowd": 1}, {}], ""),
    "VOC, datumaro": ([{"attributes": {"difficult": True}}, {"attributes": {"difficult": False}}], "boxes_marked_difficult"),
    "VOC, own keys": ([{"difficult": "1"}, {"difficult": None}], "boxes_marked_difficult"),
    "VOC, crowds": ([{"difficult": 1, "iscrowd": 1}, {"attributes": None}], ""),
    "CVAT": ([{"attributes": {"occluded": False, "rotation": 30.5}}, {"attributes": {"rotation": 0.0}}], "boxes_with_a_rotation"),
    "a name": ([{"attributes": {"difficulty": 1}}, {"note": "difficult"}], ""),
}  # fmt: skip
"""What two boxes have, and the count that the first or the second of them is in."""


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", MARKED)
def test_what_other_protocols_leave_out_is_counted_and_reported(kind: str, packed: bool, tmp_path: Path) -> None:
    changes, what = MARKED[kind]
    data = plain()
    for record, change in zip(data["annotations"], changes, strict=True):
        record |= change
    content = json.dumps(data).encode()
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(content) if packed else content)
    counts = check_annotations(path, ["cat", "dog"]).counts
    assert marks(path.read_bytes(), path) == ({what: 1} if what else {})
    assert [key for key in counts if key in SENTENCES] == ([what] if what else [])
    notes = [note for note in read_ground_truth(path).notes if "here" in note]
    assert notes == protocol_notes(counts) and len(notes) == bool(what)
    assert all(note.startswith("1 box has '") or note.startswith("1 box has CVAT's") for note in notes)


@pytest.mark.parametrize(("value", "why"), [("9" * 5000, "a number has more than 4300 digits"), ("[" * 3000 + "]" * 3000, "nested too deeply")], ids=["digits", "nested"])  # fmt: skip
def test_marks_that_cannot_be_read_are_a_sentence(value: str, why: str, tmp_path: Path) -> None:
    """The fast reader skips what it does not know, and the one that counts the marks does not."""
    path = write(tmp_path, plain())
    path.write_text(path.read_text().replace('"iscrowd": 0', f'"iscrowd": 0, "difficult": 1, "note": {value}'))
    sentence = f"{path} is not valid JSON ({why}); restore it from its source."
    assert check_annotations(path, ["cat", "dog"]).problems == [sentence] == [said(read_ground_truth, path)]


@pytest.mark.parametrize("name", ["DontCare", "ignored regions", "ignore", "Don't care"])
def test_categories_of_regions_to_ignore_are_reported(name: str, tmp_path: Path) -> None:
    data = plain()
    data["categories"][1]["name"] = name
    counts = check_annotations(write(tmp_path, data), ["cat", name]).counts
    (note,) = protocol_notes(counts)
    assert counts["boxes_of_ignored_regions"] == 1 and note in read_ground_truth(tmp_path / "a.json").notes
    data["annotations"][1]["iscrowd"] = 1
    assert protocol_notes(check_annotations(write(tmp_path, data), ["cat", name]).counts) == [], (
        "evaluation ignores it, too"
    )


def test_boxes_with_ignore_are_reported_by_verify(tmp_path: Path) -> None:
    data = plain()
    data["annotations"][0]["ignore"] = 1
    part = check_annotations(write(tmp_path, data), ["cat", "dog"]).counts
    text = describe({"dataset": "toy", "seconds": 0, "manifest": {"digest": "0" * 64, "splits": {"train": part, "val": part}}}, deep=True)  # fmt: skip
    assert "  2 boxes have 'ignore: 1'. Training drops them; evaluation goes by 'iscrowd' alone" in text
