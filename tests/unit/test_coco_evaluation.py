"""The evaluator against pycocotools, against COCO's published example, and by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from date.evaluation.coco import METRICS, coco_metrics
from date.training.metric import category_ids, detection_rows


def write_ground_truth(path: Path, images: int, annotations: list[dict[str, Any]]) -> Path:
    data = {
        "images": [{"id": 10 + i, "width": 200, "height": 200, "file_name": f"{i}.png"} for i in range(images)],
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": [{"id": i + 1, "iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a} for i, a in enumerate(annotations)],
    }  # fmt: skip
    path.write_text(json.dumps(data))
    return path


def test_cocos_published_example(shared_data: Path) -> None:
    folder = shared_data / "coco_eval_oracle"
    ground_truth = folder / "instances_val2014_100.json"
    records = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    rows = [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in records]
    text = (folder / "val2014_fake_eval_res.txt").read_text().split("type=bbox")[1].split("type=")[0]
    published = [float(x) for x in re.findall(r"= (-?[\d.]+)\s*$", text, re.MULTILINE)]
    assert len(rows) == 734 and len(published) == 12
    for engine in ("faster-coco-eval", "pycocotools"):
        metrics = coco_metrics(ground_truth, np.array(rows), engine=engine)  # type: ignore[arg-type]
        assert [round(metrics[name] / 100, 3) for name in METRICS] == published


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("thresholds", [(32.0, 96.0), (16.0, 40.0)])
def test_equal_to_pycocotools_on_random_detections(tmp_path: Path, seed: int, thresholds: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    images = 6
    annotations, rows = [], []
    for image in range(10, 10 + images - 1):  # the last image stays empty
        for _ in range(rng.integers(0, 12)):
            box = [*rng.uniform(0, 140, 2), *rng.uniform(4, 60, 2)]
            category = int(rng.choice([3, 7]))
            annotations.append(
                {"image_id": image, "bbox": box, "category_id": category, "iscrowd": int(rng.random() < 0.15)}
            )
            for _ in range(rng.integers(0, 4)):
                jitter = np.array(box) * rng.normal(1, 0.15, 4)
                rows.append([image, *jitter, round(rng.random(), 1), rng.choice([category, 3])])  # ties in the scores
    for _ in range(150):  # more than 100 of a category in one image
        rows.append([10, *rng.uniform(0, 140, 2), *rng.uniform(4, 60, 2), rng.random(), 3])
    rows.append([10 + images - 1, 0, 0, 5, 5, 0.9, 7])
    ground_truth = write_ground_truth(tmp_path / "gt.json", images, annotations)
    mine = coco_metrics(ground_truth, np.array(rows), thresholds)
    theirs = coco_metrics(ground_truth, np.array(rows), thresholds, engine="pycocotools")
    assert set(mine) == set(METRICS)
    for name in METRICS:
        assert mine[name] == pytest.approx(theirs[name], abs=1e-9), name


def test_by_hand(tmp_path: Path) -> None:
    ground_truth = write_ground_truth(
        tmp_path / "gt.json",
        1,
        [
            {"image_id": 10, "bbox": [0, 0, 40, 40], "category_id": 3},
            {"image_id": 10, "bbox": [100, 0, 40, 40], "category_id": 3},
        ],
    )
    # One object found exactly, one not found: precision 1 up to recall 0.5, then 0: 51 of COCO's 101 recall points.
    metrics = coco_metrics(ground_truth, np.array([[10, 0, 0, 40, 40, 0.9, 3]]))
    assert metrics["AP"] == pytest.approx(100 * 51 / 101)
    assert metrics["AR100"] == pytest.approx(50)
    assert metrics["APm"] == pytest.approx(100 * 51 / 101)
    assert metrics["APs"] is None and metrics["APl"] is None, "no object falls in these ranges"
    moved = coco_metrics(ground_truth, np.array([[10, 0, 0, 40, 40, 0.9, 3]]), area_thresholds=(50.0, 60.0))
    assert moved["APs"] == pytest.approx(100 * 51 / 101) and moved["APm"] is None


@pytest.mark.parametrize("engine", ["faster-coco-eval", "pycocotools"])
def test_no_detections_at_all_score_zero(tmp_path: Path, engine: Any) -> None:
    ground_truth = write_ground_truth(
        tmp_path / "gt.json", 1, [{"image_id": 10, "bbox": [0, 0, 40, 40], "category_id": 3}]
    )
    metrics = coco_metrics(ground_truth, np.empty((0, 7)), engine=engine)
    assert (metrics["AP"], metrics["AR100"], metrics["APs"]) == (0, 0, None)


def test_detection_rows(tmp_path: Path) -> None:
    ids = category_ids(write_ground_truth(tmp_path / "gt.json", 1, []))
    rows = detection_rows(10, np.array([[1.0, 2, 4, 8]]), np.array([0.5]), np.array([1]), ids)
    assert rows.tolist() == [[10, 1, 2, 3, 6, 0.5, 7]]
    assert detection_rows(10, np.empty((0, 4)), np.empty(0), np.empty(0, int), ids).shape == (0, 7)
