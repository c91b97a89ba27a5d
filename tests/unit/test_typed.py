"""Files read by type and record by record: the same arrays, the same sentences; msgspec reads nothing that json refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from date.datasets import parsing
from date.datasets.annotations import check_annotations
from date.datasets.lean import AnnotationRecord, ImageRecord, annotation_file, column, lacking
from date.errors import UserError
from date.evaluation import detections as reading
from date.evaluation import ground_truth as truths
from date.evaluation import typed
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from tests.support.examples import examples
from tests.unit.test_fuzz_readers import damaged

FUZZ = settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TRUTH: dict[str, Any] = {
    "info": {},
    "images": [
        {"id": 3, "file_name": "a/one.jpg", "width": 40, "height": 30},
        {"id": 1, "file_name": "two.jpg", "width": 50, "height": 60},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2.5, 10, 10], "area": 90, "iscrowd": 0, "x": "é"},
        {"id": 2, "image_id": 3, "category_id": 7, "bbox": [0, 0, 5, 0], "iscrowd": 1, "area": 3.5},
        {"id": 4, "image_id": 3, "category_id": 7, "bbox": [2, 3, 5, 6.0], "ignore": 1, "iscrowd": 0, "area": 30},
    ],
}
FOUND: list[dict[str, Any]] = [
    {"image_id": 1, "category_id": 2, "bbox": [1, 2, 10.5, 9], "score": 0.5},
    {"image_id": 3, "category_id": 7, "bbox": [-1, 0, 5, 0], "score": 1, "segmentation": {"size": [1, 2]}},
    {"image_id": "one", "file_name": "one.jpg", "category_id": 2, "bbox": [3, 4, 5, 6], "score": 0.25},
    {"image_id": 9, "file_name": "two.jpg", "category_id": 2, "bbox": [3, 4, 5, 6], "score": 0.25},
]
NAMED = [record | {"category": {7: "Cat", 2: "dog"}[record["category_id"]]} for record in FOUND[:3]] + FOUND[3:]
"""As `date detect` writes them."""
MISNAMED = [*NAMED, FOUND[0] | {"category": "cow"}, FOUND[1] | {"category": ["cat"]}, FOUND[1] | {"category": "\u00e9"}]
ODGT: list[dict[str, Any]] = [
    {"ID": "one", "width": 40, "height": 30, "dtboxes": [{"box": [1, 2, 3, 4], "score": 0.5, "tag": 1}]},
    {"ID": "two", "dtboxes": []},
]


@pytest.fixture
def by_record(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Call a reader as if no file could be read by type."""

    def read(reader: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(truths, "coco_annotations", lambda *_: None)
            patch.setattr(reading, "_typed", lambda *_: None)
            patch.setattr(parsing, "annotation_file", lambda _: None)
            return outcome(reader)

    return read


def outcome(reader: Callable[[], Any]) -> Any:
    try:
        return reader()
    except UserError as error:
        return str(error)


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other), (one, other)
    if isinstance(one, str):
        assert one == other
        return
    for key, value in vars(one).items():
        np.testing.assert_equal(value, getattr(other, key), err_msg=key)


def write(path: Path, value: Any, lines: bool = False) -> Path:
    text = "\n".join(map(json.dumps, value)) if lines and isinstance(value, list) else json.dumps(value)
    path.write_text(text, encoding="utf-8")
    return path


@FUZZ
@given(st.one_of(st.just(TRUTH), damaged(TRUTH)))
def test_annotations(tmp_path: Path, by_record: Any, value: Any) -> None:
    path = write(tmp_path / "gt.json", value)
    assert_equal(outcome(lambda: read_ground_truth(path)), by_record(lambda: read_ground_truth(path)))
    classes = ["cat", "dog"]
    for negative in (False, True):
        one, other = (
            read(lambda negative=negative: check_annotations(path, classes, negative)) for read in (outcome, by_record)
        )
        images = one.images, other.images
        assert (images[0] is None) is (images[1] is None)
        if images[0] is not None:
            assert_equal(*images)
        assert {**vars(one), "images": 0} == {**vars(other), "images": 0}


@FUZZ
@given(st.data(), st.sampled_from([FOUND, NAMED, MISNAMED, ODGT]), st.booleans(), st.booleans(), st.integers(1, 200))
def test_detections(
    tmp_path: Path, by_record: Any, data: st.DataObject, sound: Any, harm: bool, lines: bool, piece: int
) -> None:
    value = data.draw(damaged(sound)) if harm else sound
    truth = read_ground_truth(write(tmp_path / "gt.json", TRUTH))
    path = write(tmp_path / "found", value, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed, "PIECE", piece)
        found = outcome(lambda: read_detections(path, truth))
    assert_equal(found, by_record(lambda: read_detections(path, truth)))


def test_sound_files_are_read_by_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("read record by record")

    for module in (truths, reading):
        monkeypatch.setattr(module, "read_json_or_lines", refuse)
    monkeypatch.setattr(parsing, "_parse", refuse)
    path = write(tmp_path / "gt.json", TRUTH)
    truth = read_ground_truth(path)
    assert truth.areas.tolist() == [90, 3.5, 30] and truth.ignored.tolist() == [False, True, False]
    assert check_annotations(path, ["cat", "dog"]).counts["boxes"]["iscrowd"] == 0
    for lines in (False, True):
        rows = read_detections(write(tmp_path / "found", FOUND, lines), truth).rows
        assert rows.tolist() == [
            [1, 1, 2, 10.5, 9, 0.5, 2], [3, -1, 0, 5, 0, 1, 7], [3, 3, 4, 5, 6, 0.25, 2], [1, 3, 4, 5, 6, 0.25, 2]
        ]  # fmt: skip
        named = read_detections(write(tmp_path / "found", NAMED, lines), truth).rows
        assert named.tolist() == rows.tolist()
        wrong = write(tmp_path / "found", MISNAMED, lines)
        with pytest.raises(
            UserError, match=r"category 2 \('cow' in it, 'dog' in the annotations\), category 7 \('.xe9' in"
        ):
            read_detections(wrong, truth)
        assert len(read_detections(wrong, truth, categories="ids").rows) == len(MISNAMED)
    people = write(tmp_path / "people.json", {**TRUTH, "categories": [{"id": 7}], "annotations": []})
    found = read_detections(write(tmp_path / "found", ODGT, lines=True), read_ground_truth(people))
    assert found.rows.tolist() == [[3, 1, 2, 3, 4, 0.5, 7]] and found.sizes == {0: (40.0, 30.0)}


@pytest.mark.parametrize("piece", [1, 7, 60, 10_000])
@pytest.mark.parametrize("between", [",", " ,\n ", "\n,\t"])
def test_a_list_cut_anywhere(piece: int, between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between objects in objects and in texts, where a part alone is no JSON and nothing is read by type."""
    monkeypatch.setattr(typed, "PIECE", piece)
    plain = [{**record, "image_id": i} for i, record in enumerate(FOUND[:2] * 9)]
    text = f" [{between.join(map(json.dumps, plain))}]\n"
    read = typed.coco_results(text.encode(), dict)
    assert read is not None and read[1] is None
    assert read[0][:, 0].tolist() == list(range(18))
    for odd in ('"}, {"', "[{}, {}]", '[{"a": "}, {"}, {"b": [{}, {}]}]'):
        text = json.dumps([{**record, "x": "HERE"} for record in plain]).replace('"HERE"', odd)
        read = typed.coco_results(text.encode(), dict)
        assert read is None or read[0][:, 0].tolist() == list(range(18))
    for broken in (
        "[{},]",
        "[,{}]",
        "[{} {}]",
        "[{},{}",
        "{},{}]",
        "[{}],[{}]",
        "[[{}],[{}]]",
        "[{}}",
        "]",
        "[",
        "[{},\f{}]",
    ):
        first, second = json.dumps(plain[0]), json.dumps(plain[1])
        assert typed.coco_results(broken.replace("{}", first, 1).replace("{}", second, 1).encode(), dict) is None, (
            broken
        )


VALUES = st.one_of(
    st.sampled_from(
        ["NaN", "-Infinity", "1e400", "-0", "01", "1.", ".5", "+1", "1e", "-", "nul", "true", "[1,]", '{"a":1,}', '"\\q"', '"\\ud800"',
         '"\x01"', "18446744073709551616", "9007199254740993", "1" * 400, "0.1e-400", '"\\u00e9"', "[[[]]]", "1.0", '"', "", "\f1"]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.text("{}[]:,\"'\\0123e.-+ntf \n\x00é", max_size=6),
)  # fmt: skip


@FUZZ
@given(VALUES, st.sampled_from(["id", "width", "another"]))
def test_what_msgspec_reads_json_reads_alike(value: str, key: str) -> None:
    raw = f'{{"images": [{{"{key}": {value}}}], "annotations": [], "categories": []}}'.encode()
    found = annotation_file(raw)
    if found is None:
        return
    record = json.loads(raw)["images"][0]
    for name in ("id", "width"):
        mine, theirs = found.images[0].get(name, "absent"), record.get(name, "absent")
        assert (type(mine), repr(mine)) == (type(theirs), repr(theirs))


def test_bytes_that_are_not_text_are_not_read() -> None:
    raw = b'{"images": [{"skipped": "\xff"}], "annotations": [], "categories": []}'
    assert annotation_file(raw) is None
    assert annotation_file(raw.replace(b"\xff", "é".encode())) is not None


def test_columns_of_records_and_of_dicts() -> None:
    dicts: list[dict[str, Any]] = [{"id": 1, "area": None}, {"id": "x"}, {}]
    records = [AnnotationRecord(**each) for each in dicts]
    for key in ("id", "area", "bbox"):
        assert column(dicts, key, 5) == column(records, key, 5)
        assert lacking(dicts, key).tolist() == lacking(records, key).tolist()
    for record, each in zip(records, dicts, strict=True):
        assert {key: record[key] for key in each} == each
        for key in ("id", "area", "bbox"):
            assert record.get(key, 5) == each.get(key, 5)
            if key not in each:
                with pytest.raises(KeyError, match=key):
                    record[key]
    assert column([], "id") == [] and len(lacking([], "id")) == 0
    assert column([ImageRecord(id=1)], "id") == [1]
