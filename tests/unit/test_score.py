"""Scoring files: every format gives the same numbers, every defect a sentence, and nothing is dropped in silence."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from date.catalogue import ROOT
from date.cli import main
from date.errors import UserError
from date.evaluation.coco import DETECTION_COLUMNS
from date.evaluation.coco import METRICS as COCO_METRICS
from date.evaluation.crowdhuman import METRICS as CROWD_METRICS
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.inference.evaluate import IDENTITY, write_evaluation
from tests.support.examples import examples

NAMES = ["a,1", "b,2", "c,3"]
SIZES = [(100, 80), (120, 90), (60, 60)]


class Crowd:
    """One small crowd in every format of annotations and of detections."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        objects = []
        for i in range(2):  # the third image has no objects
            for k in range(9):
                box = [float(v) for v in np.round([*rng.uniform(-10, 80, 2), *rng.uniform(10, 50, 2)], 1)]
                objects.append((i, box, k == 8))
        self.found = []
        for i, box, _ in objects:
            for _ in range(3):
                moved = np.round(np.array(box) + rng.normal(0, 4, 4), 1)
                self.found.append(
                    (i, [*moved[:2].tolist(), *np.maximum(moved[2:], 1).tolist()], round(float(rng.random()), 2))
                )
        self.coco = {
            "images": [{"id": i + 1, "file_name": f"val/{n}.jpg", "width": w, "height": h} for i, (n, (w, h)) in enumerate(zip(NAMES, SIZES, strict=True))],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{"id": k, "image_id": i + 1, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": int(c)} for k, (i, b, c) in enumerate(objects, 1)],
        }  # fmt: skip
        self.odgt = [
            {"ID": name, "gtboxes": [{"tag": "mask" if c else "person", "fbox": b, "extra": {"ignore": 1} if c else {}} for j, b, c in objects if j == i]}
            for i, name in enumerate(NAMES)
        ]  # fmt: skip
        self.results = [{"image_id": i + 1, "category_id": 1, "bbox": b, "score": s} for i, b, s in self.found]
        self.dtboxes = [
            {"ID": name, "dtboxes": [{"box": b, "score": s, "tag": 1} for j, b, s in self.found if j == i]}
            for i, name in enumerate(NAMES)
        ]

    def json(self, name: str, data: Any) -> str:
        path = self.folder / name
        path.write_text(json.dumps(data))
        return str(path)

    def lines(self, name: str, records: list[Any]) -> str:
        path = self.folder / name
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
        return str(path)

    def npz(self, name: str = "detections.npz", **arrays: Any) -> str:
        rows = np.array([[i + 1, *b, s, 1] for i, b, s in self.found])
        record = dict.fromkeys(IDENTITY) | {"variants": {}}
        write_evaluation(record, arrays or {"o2o": rows, "o2o_nms50": rows[:5]}, {}, self.folder / name)
        return str(self.folder / name / "detections.npz")

    def images(self) -> str:
        folder = self.folder / "images"
        folder.mkdir(exist_ok=True)
        for name, size in zip(NAMES, SIZES, strict=True):
            Image.new("RGB", size).save(folder / f"{name}.jpg")
        return str(folder)


@pytest.fixture
def crowd(tmp_path: Path) -> Crowd:
    return Crowd(tmp_path)


def score(
    capsys: pytest.CaptureFixture[str], protocol: str, gt: str, detections: str, *options: str
) -> tuple[dict[str, Any], str]:
    assert main(["score", "--protocol", protocol, "--gt", gt, "--detections", detections, "--json", *options]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1, "one object on one line"
    return json.loads(out), err


@pytest.mark.parametrize("protocol", ["coco", "crowdhuman"])
def test_every_format_gives_the_same_numbers(crowd: Crowd, capsys: pytest.CaptureFixture[str], protocol: str) -> None:
    coco, odgt = crowd.json("gt.json", crowd.coco), crowd.lines("gt.odgt", crowd.odgt)
    by_name = [r | {"image_id": NAMES[r["image_id"] - 1]} for r in crowd.results]
    sized = [r | {"width": w, "height": h} for r, (w, h) in zip(crowd.dtboxes, SIZES, strict=True)]
    results = crowd.json("results.json", crowd.results)
    reference, _ = score(capsys, protocol, coco, results)
    assert tuple(reference) == (COCO_METRICS if protocol == "coco" else CROWD_METRICS)
    assert 0 < reference["AP"] < 100  # type: ignore[operator]
    pairs = [
        (coco, crowd.json("named.json", by_name), ()),
        (coco, crowd.lines("found.odgt", crowd.dtboxes), ()),
        (coco, crowd.npz(o2o=np.array([[i + 1, *b, s, 1] for i, b, s in crowd.found])), ()),
        (odgt, crowd.lines("sized.odgt", sized), ()),
        (odgt, results, ("--images", crowd.images())),
        (crowd.lines("sized_gt.odgt", [r | {"width": w, "height": h} for r, (w, h) in zip(crowd.odgt, SIZES, strict=True)]), results, ()),
    ]  # fmt: skip
    for gt, detections, options in pairs:
        found, notes = score(capsys, protocol, gt, detections, *options)
        tolerance = 1e-3 if detections.endswith("npz") else 1e-9  # boxes kept in single precision
        assert found == pytest.approx(reference, abs=tolerance), (gt, detections)
        assert notes == "note: 1 of 3 images have no detection.\n"


def test_without_sizes_boxes_are_not_clipped_and_it_is_said(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    odgt, results = crowd.lines("gt.odgt", crowd.odgt), crowd.json("results.json", crowd.results)
    unclipped, notes = score(capsys, "crowdhuman", odgt, results)
    assert "the size of 2 of 3 images is in neither file, so their boxes are not clipped" in notes
    clipped, notes = score(capsys, "crowdhuman", odgt, results, "--images", crowd.images())
    assert "size" not in notes and clipped != unclipped


def test_the_table_and_the_engines(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    gt, results = crowd.json("gt.json", crowd.coco), crowd.json("results.json", crowd.results)
    reference, _ = score(capsys, "coco", gt, results)
    assert score(capsys, "coco", gt, results, "--engine", "pycocotools")[0] == pytest.approx(reference, abs=1e-10)
    moved, _ = score(capsys, "coco", gt, results, "--area-thresholds", "200", "300")
    assert moved["APs"] == moved["AP"] and moved["APm"] is None
    assert main(["score", "--protocol", "coco", "--gt", gt, "--detections", results]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(COCO_METRICS)
    assert lines[0] == f"AP      {reference['AP']:6.2f}" and lines[5] == "APl          -"
    assert (
        main(["score", "--protocol", "coco", "--gt", gt, "--detections", results, "--area-thresholds", "9", "5"]) == 2
    )
    with pytest.raises(SystemExit):
        main(["score", "--protocol", "coco", "--gt", gt, "--detections", results, "--area-thresholds", "a", "5"])


def test_variants_of_an_npz(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    gt, npz = crowd.json("gt.json", crowd.coco), crowd.npz()
    first, notes = score(capsys, "crowdhuman", gt, npz)
    assert "variant 'o2o' is scored; --variant chooses another of 'o2o_nms50'" in notes
    assert score(capsys, "crowdhuman", gt, npz, "--variant", "o2o") == (
        first,
        "note: 1 of 3 images have no detection.\n",
    )
    assert score(capsys, "crowdhuman", gt, npz, "--variant", "o2o_nms50")[0] != first
    assert main(["score", "--protocol", "coco", "--gt", gt, "--detections", npz, "--variant", "o2o_nms5"]) == 2
    assert "unknown variant 'o2o_nms5'; did you mean 'o2o_nms50'?" in capsys.readouterr().err
    results = crowd.json("r.json", crowd.results)
    assert main(["score", "--protocol", "coco", "--gt", gt, "--detections", results, "--variant", "o2o"]) == 2
    assert "has no variants" in capsys.readouterr().err


def test_large_ids_survive_the_npz(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    """Single precision would round an image id over 2**24."""
    big = 2**24 + 1
    gt = {
        "images": [{"id": big}],
        "categories": [{"id": 1}],
        "annotations": [{"image_id": big, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    npz = crowd.npz("big", o2o=np.array([[big, 0.1, 0, 9, 9, 0.5, 1]]))
    assert score(capsys, "coco", crowd.json("gt.json", gt), npz)[0]["AP"] == pytest.approx(100)


def test_what_is_treated_in_a_standard_way_is_counted(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    many = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.1}] * 110
    odd = [
        {"image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 5], "score": 0.1},
        {"image_id": 3, "category_id": 1, "bbox": [0, 0, 0, 5], "score": 1},
    ]
    crowd.coco["annotations"].append({"image_id": 3, "category_id": 1, "bbox": [1, 1, 0, 4]})  # type: ignore[attr-defined]
    _, notes = score(capsys, "coco", crowd.json("gt.json", crowd.coco), crowd.json("r.json", many + odd))
    assert notes.splitlines() == [
        "note: 1 annotation has no 'area': the areas of boxes are used.",
        "note: 1 annotation has no 'iscrowd': counted as objects.",
        "note: 1 annotated box has no extent: always missed.",
        "note: 1 detection is of unknown categories, which no metric counts: 8 (1).",
        "note: 1 detection has no extent and can find nothing.",
        "note: 1 of 3 images have no detection.",
        "note: 10 detections come after the best 100 of their image and category, which is all that COCO's metrics judge.",
    ]


def test_no_detections_are_a_result(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    gt, nothing = crowd.json("gt.json", crowd.coco), crowd.json("nothing.json", [])
    assert score(capsys, "crowdhuman", gt, nothing)[0] == {"AP": 0.0, "mMR": 100.0, "Recall": 0.0}
    found, notes = score(capsys, "coco", gt, nothing)
    assert found["AP"] == 0 and found["APl"] is None
    assert "3 of 3 images have no detection" in notes


def test_scoring_needs_no_torch_and_no_network(crowd: Crowd) -> None:
    arguments = [
        "score",
        "--protocol",
        "coco",
        "--gt",
        crowd.json("gt.json", crowd.coco),
        "--detections",
        crowd.npz(),
        "--json",
    ]
    code = (
        "import socket, sys; socket.socket = None\n"
        f"from date.cli import main; assert main({arguments!r}) == 0\n"
        "assert not {'torch', 'mmdet', 'mmengine', 'snakemake'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


ENTRY = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
NAN, BIG = float("nan"), 10**400
DETECTION_DEFECTS: list[tuple[Any, str]] = [
    ({"annotations": []}, "holds a JSON object; detections are a list"),
    (
        {"images": [], "annotations": [7], "categories": []},
        r"has annotations that are not objects: annotation 0 \(7\)",
    ),
    (7, "holds a JSON number"),
    ([ENTRY, 3, "x"], r"2 entries that are not objects: entry 1 \(3\), entry 2 \('x'\)"),
    ([ENTRY | {"score": NAN}], r"has scores that are not finite numbers: entry 0 \(nan\)"),
    ([ENTRY | {"score": "0.5"}], r"scores that are not finite numbers: entry 0 \('0.5'\)"),
    ([ENTRY | {"score": BIG}], "scores that are not finite numbers"),
    ([ENTRY | {"score": True}], "scores that are not finite numbers"),
    ([{k: v for k, v in ENTRY.items() if k != "score"}], r"entries without a 'score': entry 0; correct"),
    ([ENTRY | {"bbox": [0, 0, NAN, 5]}], r"boxes \('bbox'\) that are not four finite numbers"),
    ([ENTRY | {"bbox": [0, 0, 5]}], "that are not four finite numbers"),
    ([ENTRY | {"bbox": None}], "that are not four finite numbers"),
    (
        [ENTRY | {"bbox": [9, 9, -5, 5]}] * 7,
        r"7 boxes of negative size: detection 0 \(9, 9, -5, 5\), .* and 2 more; correct",
    ),
    ([ENTRY | {"image_id": 99}], r"has detections of unknown images: detection 0 \(99\); correct"),
    ([ENTRY | {"image_id": "zzz"}], r"detections of unknown images: entry 0 \(image 'zzz'\)"),
    ([ENTRY | {"image_id": 1.5}], "without an 'image_id' that is an integer of at most 2.53"),
    (
        [ENTRY | {"image_id": 2**53}],
        r"without an 'image_id' that is an integer of at most 2.53: entry 0 \(9007199254740992\)",
    ),
    ([ENTRY | {"image_id": BIG}], "without an 'image_id' that is an integer of at most 2.53"),
    (
        [ENTRY | {"category_id": "person"}],
        r"without a 'category_id' that is an integer of at most 2.53: entry 0 \('person'\)",
    ),
    (
        [ENTRY | {"category_id": 5}],
        r"no detection in .*bad\.json is of an annotated category: it has the ids 5 \(1\), .*gt\.json has 1; ",
    ),
    ([ENTRY | {"image_id": None}, ENTRY | {"score": None}], "has entries without .*; scores that"),
]


@pytest.mark.parametrize(("content", "sentence"), DETECTION_DEFECTS)
def test_defects_of_results_are_sentences(
    crowd: Crowd, capsys: pytest.CaptureFixture[str], content: Any, sentence: str
) -> None:
    fails(capsys, crowd.json("gt.json", crowd.coco), crowd.json("bad.json", content), sentence)


def fails(
    capsys: pytest.CaptureFixture[str], gt: str, detections: str, sentence: str, protocol: str = "crowdhuman"
) -> None:
    assert main(["score", "--protocol", protocol, "--gt", gt, "--detections", detections]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and re.search(sentence, err), err


LINE = {"ID": NAMES[0], "dtboxes": [{"box": [0, 0, 5, 5], "score": 0.5}]}
ODGT_DEFECTS: list[tuple[list[Any], str]] = [
    ([LINE, LINE], r"has repeated image IDs: line 2 \('a,1'\)"),
    ([LINE, {"ID": "zzz", "dtboxes": []}], r"detections of unknown images: line 2 \('zzz'\)"),
    ([LINE, {"ID": NAMES[1]}], "records without a list 'dtboxes': line 2"),
    ([LINE, {"ID": 4, "dtboxes": []}, 5], "2 records without a text 'ID': line 2, line 3"),
    ([LINE, {"ID": NAMES[1], "dtboxes": [{"box": [0, 0, 1], "score": 1}]}], r"line 2, box 0 \(\[0, 0, 1\]\)"),
    (
        [LINE, {"ID": NAMES[1], "dtboxes": [{"box": [0, 0, 1, 1], "score": NAN}, 3]}],
        "has scores .*; entries of 'dtboxes'",
    ),
    ([LINE, {"ID": NAMES[1], "dtboxes": [{"box": [0, 0, -1, 1], "score": 1}]}], "has boxes of negative size"),
]


@pytest.mark.parametrize(("records", "sentence"), ODGT_DEFECTS)
def test_defects_of_odgt_detections(
    crowd: Crowd, capsys: pytest.CaptureFixture[str], records: list[Any], sentence: str
) -> None:
    fails(capsys, crowd.lines("gt.odgt", crowd.odgt), crowd.lines("bad.odgt", records), sentence)


GT_DEFECTS: list[tuple[Any, str]] = [
    ([], "has no list 'images', 'annotations', 'categories'; give a COCO annotation file"),
    ({"images": [], "annotations": {}, "categories": []}, "has no list 'annotations'"),
    (("images", {"id": 1}), "has repeated image ids: 1"),
    (("images", {"id": "5"}), "has ids that are texts and should be numbers, without quotation marks: image 3; correct"),
    (("images", {"id": 5.5}), "has images without an integer 'id': image 3"),
    (("images", None), "has images without an integer 'id': image 3"),
    (("categories", {"id": 1}), "has repeated category ids: 1"),
    (("categories", {}), "categories without an integer 'id'"),
    (("annotations", {"image_id": "0", "category_id": 1, "bbox": [0, 0, 1, 1]}), r"numbers, without quotation marks: annotation 18 \('image_id' '0'\)"),
    (("annotations", {"image_id": 44, "category_id": 1, "bbox": [0, 0, 1, 1]}), r"annotations of unknown images: annotation 18 \(image 44\)"),
    (("annotations", {"image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1]}), r"annotations of unknown categories: .*\(category 4\)"),
    (("annotations", {"image_id": 1, "category_id": 1, "bbox": [0, 0, -1, 1]}), "boxes that are not finite x, y, width, height"),
    (("annotations", {"image_id": 1, "category_id": 1, "bbox": [0, NAN, 1, 1]}), "boxes that are not finite x, y, width, height"),
    (("annotations", {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 2}), "'iscrowd' that are not 0 or 1"),
    (("annotations", {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": "big"}), "areas that are not finite numbers"),
    (("annotations", 3), "annotations that are not objects"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), GT_DEFECTS)
def test_defects_of_coco_annotations(
    crowd: Crowd, capsys: pytest.CaptureFixture[str], change: Any, sentence: str
) -> None:
    data: Any = crowd.coco
    if isinstance(change, tuple):
        data[change[0]].append(change[1])
    else:
        data = change
    fails(capsys, crowd.json("bad.json", data), crowd.json("r.json", crowd.results), sentence, protocol="coco")


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([{"ID": "x", "gtboxes": []}, {"ID": "x", "gtboxes": []}], r"repeated image IDs: line 2 \('x'\)"),
        (
            [{"ID": "x", "gtboxes": [{"fbox": [0, 0, 1, NAN]}, 3]}],
            r"2 boxes \('fbox'\) that are not four finite numbers",
        ),
        ([{"ID": "x"}], "records without a list 'gtboxes': line 1"),
    ],
)
def test_defects_of_odgt_annotations(
    crowd: Crowd, capsys: pytest.CaptureFixture[str], records: list[Any], sentence: str
) -> None:
    fails(capsys, crowd.lines("bad.odgt", records), crowd.json("r.json", crowd.results), sentence)


def test_files_that_are_no_json(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    gt = crowd.json("gt.json", crowd.coco)

    def bad(content: bytes) -> str:
        path = crowd.folder / "bad"
        path.write_bytes(content)
        return str(path)

    whole = json.dumps(crowd.results).encode()
    lines = Path(crowd.lines("f.odgt", crowd.dtboxes)).read_bytes()
    for content, sentence in [
        (b"", "bad is empty; restore it"),
        (whole[:-10], "bad is not valid JSON"),
        (lines[:-20], r"line 3 of .*bad is not valid JSON"),
        (b"\xff\xfe[]", "bad is UTF-16 text; save it as UTF-8"),
        (
            b"[\xff]",
            "bad is not UTF-8 text .invalid start byte at byte 1.; (annotations are read in|detections are a list)",
        ),
        (b"[" * 100_000, "bad is not valid JSON .nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "bad is not valid JSON .a number has more than 4300 digits.; restore"),
    ]:
        fails(capsys, gt, bad(content), sentence)
        fails(capsys, bad(content), gt, sentence)
    fails(capsys, gt, str(crowd.folder / "gone.json"), r"gone\.json does not exist; correct the name")
    fails(capsys, gt, str(crowd.folder), "can't be read")


def test_images_that_are_missing_or_damaged(crowd: Crowd) -> None:
    odgt, images = Path(crowd.lines("gt.odgt", crowd.odgt)), Path(crowd.images())
    (images / "b,2.jpg").unlink()
    with pytest.raises(UserError, match="lacks annotated images: 'b,2'; give the folder that has them"):
        read_ground_truth(odgt, images)
    (images / "b,2.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"has images that can't be read: b,2\.jpg"):
        read_ground_truth(odgt, images)


class Payload:
    """Pickles as the making of a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        import os

        return os.mkdir, (self.folder,)


def test_npz_files_that_are_not_ours(crowd: Crowd, capsys: pytest.CaptureFixture[str]) -> None:
    gt, path = crowd.json("gt.json", crowd.coco), crowd.folder / "bad.npz"
    ours = Path(crowd.npz()).read_bytes()
    columns = np.array(DETECTION_COLUMNS)

    def saved(**arrays: Any) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    evil = np.array([Payload(str(crowd.folder / "made"))], dtype=object)
    stranger = io.BytesIO()
    with zipfile.ZipFile(stranger, "w") as archive:
        archive.writestr("readme.txt", "hello")
    for content, sentence in [
        (ours[: len(ours) // 2], "is damaged or not a detections.npz"),
        (ours[:-30], "is damaged or not a detections.npz"),
        (stranger.getvalue(), "is not a detections.npz of this project"),
        (saved(rows=np.zeros((2, 7))), "is not a detections.npz of this project"),
        (saved(columns=np.array(["a"]), rows=np.zeros((2, 7))), "is not a detections.npz of this project"),
        (saved(columns=columns), "holds no variant"),
        (saved(columns=columns, o2o=np.zeros((2, 6))), r"'o2o' is an array \(2, 6\) of float64, not \(D, 7\) of floats"),
        (saved(columns=columns, o2o=np.zeros((2, 7), dtype="U3")), r"of <U3, not \(D, 7\) of floats"),
        (saved(columns=columns, o2o=evil), "is damaged or not a detections.npz .*allow_pickle=False"),
        (saved(columns=columns, o2o=np.full((2, 7), np.nan)), r"2 detections that are not finite numbers: detection 0 \(nan, "),
        (saved(columns=columns, o2o=np.array([[9, 0, 0, 1, 1, 0.5, 1]], dtype=float)), r"unknown images: detection 0 \(9\)"),
        (saved(columns=columns, o2o=np.array([[1, 0, 0, -1, 1, 0.5, 1]], dtype=float)), "has boxes of negative size"),
    ]:  # fmt: skip
        path.write_bytes(content)
        fails(capsys, gt, str(path), sentence)
    assert not (crowd.folder / "made").exists()


# Fuzzing: valid files with some values exchanged for junk, cut off, or with bytes flipped.

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([NAN, float("inf"), -1.0, 1e308, -1e308, 2**60, BIG, "", "a,1", "\ud800", "1", "\u2028"]),
    st.lists(st.floats(), max_size=5),
    st.dictionaries(st.sampled_from(["id", "ID", "bbox", "score"]), st.integers(), max_size=2),
)
FUZZ = settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, inner in items for place in places(inner, (*here, key)))]


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """The value with one to three of its parts exchanged for junk or removed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            value = draw(JUNK)
            continue
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        if draw(st.integers(0, 4)) == 0:
            del inner[place[-1]]
        else:
            inner[place[-1]] = draw(JUNK)
    return value


def survives(arguments: list[str]) -> None:
    """The command ends with numbers or with one sentence, and no warning of a library reaches the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(arguments) in (0, 2)


TEMPLATE = Crowd(Path())


@FUZZ
@given(damaged(TEMPLATE.results[:6]), st.sampled_from(["coco", "crowdhuman"]))
def test_fuzzed_results(crowd: Crowd, content: Any, protocol: str) -> None:
    gt, path = crowd.json("gt.json", crowd.coco), crowd.json("fuzzed.json", content)
    survives(["score", "--protocol", protocol, "--gt", gt, "--detections", path])
    try:
        read = read_detections(Path(path), read_ground_truth(Path(gt)))
    except UserError:
        return
    unknown = sum(
        int(m[1]) for note in read.notes if (m := re.match(r"(\d+) detections? (?:are|is) of unknown categories", note))
    )
    if isinstance(content, list):
        assert len(read.rows) + unknown == len(content), "nothing is dropped in silence"


@FUZZ
@given(damaged([r | {"dtboxes": r["dtboxes"][:3]} for r in TEMPLATE.dtboxes]))
def test_fuzzed_odgt_detections(crowd: Crowd, records: Any) -> None:
    gt = crowd.lines("gt.odgt", crowd.odgt)
    path = crowd.lines("fuzzed.odgt", records if isinstance(records, list) else [records])
    survives(["score", "--protocol", "crowdhuman", "--gt", gt, "--detections", path])
    try:
        read = read_detections(Path(path), read_ground_truth(Path(gt)))
    except UserError:
        return
    if isinstance(records, list):
        if len(records) == 1 and isinstance(records[0], list):  # one line is one JSON document: a list of results
            assert len(read.rows) == len(records[0])
        else:
            assert len(read.rows) == sum(len(r["dtboxes"]) for r in records), "nothing is dropped in silence"


@FUZZ
@given(damaged(TEMPLATE.coco), st.sampled_from(["coco", "crowdhuman"]))
def test_fuzzed_coco_annotations(crowd: Crowd, content: Any, protocol: str) -> None:
    path, results = crowd.json("fuzzed.json", content), crowd.json("r.json", crowd.results)
    survives(["score", "--protocol", protocol, "--gt", path, "--detections", results])
    survives(["data", "nms-recall", "--gt", path])
    try:
        read = read_ground_truth(Path(path))
    except UserError:
        return
    assert (len(read.image_ids), len(read.bboxes)) == (len(content["images"]), len(content["annotations"]))


@FUZZ
@given(damaged(TEMPLATE.odgt))
def test_fuzzed_odgt_annotations(crowd: Crowd, records: Any) -> None:
    path = crowd.lines("fuzzed.odgt", records if isinstance(records, list) else [records])
    survives(["score", "--protocol", "crowdhuman", "--gt", path, "--detections", crowd.json("r.json", crowd.results)])
    survives(["data", "nms-recall", "--gt", path])
    try:
        read = read_ground_truth(Path(path))
    except UserError:
        return
    if isinstance(records, list):
        assert len(read.bboxes) == sum(len(r["gtboxes"]) for r in records)


@FUZZ
@given(st.data())
def test_fuzzed_bytes(crowd: Crowd, data: st.DataObject) -> None:
    """Files cut off anywhere, and files with a few bytes exchanged."""
    gt, npz, odgt = crowd.json("gt.json", crowd.coco), crowd.npz(), crowd.lines("found.odgt", crowd.dtboxes)
    content = bytearray(Path(data.draw(st.sampled_from([gt, npz, odgt]))).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path = crowd.folder / "fuzzed"
    path.write_bytes(bytes(content))
    survives(["score", "--protocol", "coco", "--gt", gt, "--detections", str(path)])
    survives(["score", "--protocol", "crowdhuman", "--gt", str(path), "--detections", odgt])
