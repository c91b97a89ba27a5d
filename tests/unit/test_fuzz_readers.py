"""Files with junk in them: every reader of what people and tools write ends with a result or with a sentence."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from date.catalogue import load_dataset, load_tier
from date.errors import UserError
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.imports.logs import read_training_log
from tests.support.examples import examples

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.floats(), st.text(max_size=4),
    st.sampled_from([10**400, 2**60, -1, "1e999", "../x", "\ud800", {}, [], {"a": 1}, [1, 2, 3, 4], [[]]]),
)  # fmt: skip
FUZZ = settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, inner in items for place in places(inner, (*here, key)))]


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """The value with one to three of its parts exchanged for junk, removed or given another name."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from([place for place in places(value) if place] or [()]))
        if not place:
            return copy.deepcopy(draw(JUNK))
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        action = draw(st.integers(0, 5))
        if action == 0:
            del holder[place[-1]]
        elif action == 1 and isinstance(holder, dict):
            holder[draw(st.sampled_from(["step", "epoch", "lr", "loss", "x"]))] = holder.pop(place[-1])
        else:
            holder[place[-1]] = copy.deepcopy(draw(JUNK))  # which is shared by all examples
    return value


# ------------------------------------------------------------------------------------------------- logs

STATS = [0.3, 0.5, 0.3, 0.1, 0.3, 0.4, 0.3, 0.4, 0.5, 0.2, 0.5, 0.6]
LOGS: dict[str, list[dict[str, Any]]] = {
    "mmcv": [{"mode": "train", "epoch": 1, "iter": 10, "lr": 0.1, "loss": 1.0}, {"mode": "val", "epoch": 1, "iter": 3, "bbox_mAP": 0.3}],
    "mmengine": [{"lr": 0.1, "base_lr": 0.2, "loss": 1.0, "epoch": 1, "iter": 10, "step": 10}, {"coco/bbox_mAP": 0.3, "step": 1}],
    "detectron2": [{"iteration": 9, "lr": 0.1, "total_loss": 1.0, "loss_cls": 0.5, "bbox/AP": 30.0, "bbox/APs": float("nan")}],
    "detr": [{"epoch": 0, "train_lr": 0.1, "train_loss": 1.0, "train_loss_ce": 1.0, "test_coco_eval_bbox": STATS}],
    "hugging face": [{"epoch": 0.5, "step": 5, "loss": 1.0, "learning_rate": 0.1}, {"epoch": 1.0, "step": 10, "eval_map": 0.3, "eval_map_50": -1}],
    "lightning": [{"epoch": 0, "step": 9, "train_loss": 1.0, "lr-Adam": 0.1}, {"epoch": 0, "step": 9, "val/map": 0.3}],
}  # fmt: skip


def written(kind: str, records: Any) -> str:
    """The text in which a library writes its records."""
    if kind == "hugging face":
        return json.dumps({"log_history": records}, indent=1)
    if kind == "lightning" and isinstance(records, list) and all(isinstance(record, dict) for record in records):
        stream = io.StringIO()
        names = list(dict.fromkeys(str(name) for record in records for name in record))
        writer = csv.DictWriter(stream, ["epoch", *(name for name in names if name != "epoch")])
        writer.writeheader()
        writer.writerows({str(k): v for k, v in record.items()} for record in records)
        return stream.getvalue()
    return "\n".join(json.dumps(record) for record in (records if isinstance(records, list) else [records]))


@FUZZ
@given(st.sampled_from(sorted(LOGS)), st.data(), st.sampled_from(["coco", "crowdhuman"]), st.integers(0, 60))
def test_logs(tmp_path: Path, kind: str, data: st.DataObject, protocol: Any, cut: int) -> None:
    text = written(kind, data.draw(damaged(LOGS[kind])))
    path = tmp_path / "log"
    path.write_text(text[: len(text) - cut] if data.draw(st.booleans()) else text, encoding="utf-8", errors="replace")
    try:
        log = read_training_log(path, 10, protocol)
    except UserError as error:
        assert str(path) in str(error) and str(error).endswith((".", "source."))  # noqa: PT017 - either is right
        return
    assert log.records and all(record["step"] >= 0 for record in log.records)
    assert all(value is None or isinstance(value, float) for value in log.last_metrics.values())


# ------------------------------------------------------------------------------------------------- annotations with scores

SCORED: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [1.0, 2.0, 30.0, 40.0], "score": 0.5}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


@FUZZ
@given(damaged(SCORED), st.sampled_from([None, "ids", "labels"]), st.integers(0, 30))
def test_annotations_with_scores(tmp_path: Path, content: Any, categories: Any, cut: int) -> None:
    truth = json.loads(json.dumps(SCORED).replace('"score"', '"area"'))
    (tmp_path / "gt").write_text(json.dumps(truth))
    path = tmp_path / "found"
    text = json.dumps(content)
    path.write_text(text[: len(text) - cut], encoding="utf-8", errors="replace")
    try:
        found = read_detections(path, read_ground_truth(tmp_path / "gt"), categories=categories)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017 - either is right
        return
    assert found.rows.shape[1] == 7


# ------------------------------------------------------------------------------------------------- tiers, datasets

TIER: dict[str, Any] = {
    "extends": "smoke",
    "datasets": {"coco": "scenes-smoke"},
    "steps_per_epoch": {"coco": 6},
    "pixel_scale": 0.3,
    "backbones": {"r50": {"depth": 18}},
    "compute": {"precision": "fp32"},
    "tuned": {"lr": ["FCOS"]},
}
DATASET = {
    "classes": ["cat", "dog"],
    "root": "pets",
    "train": {"annotations": "train.json", "images": "images", "count": 3},
    "val": {"annotations": "val.json", "images": "images"},
    "protocol": "coco",
}


def dumped(value: Any) -> str:
    try:
        return yaml.safe_dump(value, allow_unicode=False)
    except (yaml.YAMLError, UnicodeError, ValueError):
        return repr(value)


@FUZZ
@given(damaged(TIER), st.integers(0, 30))
def test_tiers(tmp_path: Path, content: Any, cut: int) -> None:
    path = tmp_path / "mine.yaml"
    text = dumped(content)
    path.write_text(text[: len(text) - cut], encoding="utf-8", errors="replace")
    try:
        tier = load_tier(str(path))
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
        return
    assert tier.name == "mine"


@FUZZ
@given(damaged(DATASET), st.integers(0, 30))
def test_datasets(tmp_path: Path, content: Any, cut: int) -> None:
    path = tmp_path / "pets.yaml"
    text = dumped(content)
    path.write_text(text[: len(text) - cut], encoding="utf-8", errors="replace")
    try:
        dataset = load_dataset(str(path))
    except UserError:
        return
    assert dataset.name


@FUZZ
@given(st.binary(max_size=200))
def test_yaml_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.yaml").write_bytes(content)
    for load in (load_tier, load_dataset):
        with pytest.raises(UserError):
            load(str(tmp_path / "any.yaml"))


def test_a_tier_that_extends_itself(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}\n")
    two.write_text(f"extends: {one}\n")
    with pytest.raises(UserError, match="one.yaml extends itself; name another tier in 'extends'"):
        load_tier(str(one))
