"""The evaluator against pycocotools, against COCO's published example, and by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from date.catalogue import COCO_AREA_THRESHOLDS
from date.evaluation.coco import METRICS, coco_metrics
from date.evaluation.ground_truth import GroundTruth, read_ground_truth
from date.evaluation.resamples import whole_and_resampled
from date.training.metric import category_ids, detection_rows
from tests.support.examples import examples


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
    found = [coco_metrics(ground_truth, np.array(rows), engine=engine) for engine in ENGINES]
    found.append(own_metrics(ground_truth, np.array(rows)))
    for metrics in found:
        assert [round(metrics[name] / 100, 3) for name in METRICS] == published
        assert metrics == pytest.approx(found[1], abs=1e-10), "not only to the three digits published"


ENGINES: list[Any] = ["hotcoco", "pycocotools"]


def own_metrics(ground_truth: Path | GroundTruth, rows: Any, thresholds: Any = COCO_AREA_THRESHOLDS) -> dict[str, Any]:
    """Return the metrics as `date score --interval` finds them."""
    if isinstance(ground_truth, Path):
        ground_truth = read_ground_truth(ground_truth)
    return whole_and_resampled(ground_truth, rows, thresholds)[0]


IMAGE_IDS, CATEGORIES = [30, 7, 2**40, -5], [3, 7, 9]

# On a coarse grid equal boxes, equal overlaps, IoUs of exactly a threshold and empty boxes are common.
_place, _extent = st.integers(-2, 10).map(lambda n: 10.0 * n), st.integers(0, 8).map(lambda n: 10.0 * n)
_box = st.one_of(
    st.tuples(_place, _place, _extent, _extent),
    st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(0, 150)] * 2),
)
_annotation = st.tuples(
    st.integers(0, 3), st.sampled_from(CATEGORIES[:2]), _box, st.sampled_from([0, 0, 0, 1]), st.sampled_from([1.0, 0.4])
)
_score = st.one_of(st.integers(0, 4).map(lambda n: n / 4), st.floats(-1e3, 1e3), st.sampled_from([-0.0, 1e-320, 1e300]))
_detection = st.tuples(st.integers(0, 3), st.sampled_from([*CATEGORIES, 11]), _box, _score)
_flood = st.tuples(st.integers(0, 3), st.sampled_from(CATEGORIES), st.integers(0, 250), st.integers(0, 2**16))


@settings(max_examples=examples(250))
@given(
    st.lists(_annotation, max_size=12),
    st.lists(_detection, max_size=30),
    st.one_of(st.none(), _flood),
    st.sampled_from([(32.0, 96.0), (16.0, 40.0), (10.0, 10.0), (0.0, 1e5)]),
)
def test_equal_to_pycocotools_on_anything(
    annotations: list[Any], detections: list[Any], flood: Any, thresholds: tuple[float, float]
) -> None:
    """Crowd regions, images and categories without objects or detections, ties, unknown categories, over 100 boxes."""
    rows = [[IMAGE_IDS[i], *box, score, category] for i, category, box, score in detections]
    if flood is not None:  # many detections of one category in one image, beyond the 100 that are judged
        image, category, count, seed = flood
        rng = np.random.default_rng(seed)
        boxes = np.round(rng.uniform(0, 100, (count, 4)), -1)
        rows += [
            [IMAGE_IDS[image], *b, s, category] for b, s in zip(boxes, rng.integers(0, 40, count) / 40, strict=True)
        ]
    boxes = np.array([a[2] for a in annotations], dtype=float).reshape(-1, 4)
    ground_truth = GroundTruth(
        path=Path("gt.json"),
        image_ids=IMAGE_IDS,
        image_names=[str(i) for i in IMAGE_IDS],
        sizes=np.full((len(IMAGE_IDS), 2), np.nan),
        categories={category: str(category) for category in CATEGORIES},
        image=np.array([a[0] for a in annotations], dtype=int),
        category_ids=np.array([a[1] for a in annotations], dtype=int),
        bboxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3] * np.array([a[4] for a in annotations]),
        ignored=np.array([a[3] for a in annotations], dtype=bool),
    )
    found = np.array(rows, dtype=float).reshape(-1, 7)
    mine, theirs = (coco_metrics(ground_truth, found, thresholds, engine) for engine in ENGINES)
    own = own_metrics(ground_truth, found, thresholds)
    assert tuple(mine) == tuple(own) == METRICS
    for name in METRICS:
        expected = None if theirs[name] is None else pytest.approx(theirs[name], abs=1e-10)
        assert mine[name] == expected and own[name] == expected, name


@pytest.mark.parametrize("engine", [*ENGINES, None])
def test_what_the_libraries_stumble_over(tmp_path: Path, engine: Any) -> None:
    """Both count an annotation with the id 0 as not found; pycocotools fails without ``iscrowd``; area may be absent."""
    annotations: list[dict[str, Any]] = [
        {"id": i, "image_id": 10, "bbox": [100 * i, 0, 40, 40], "category_id": 3, "ignore": 1} for i in range(3)
    ]
    annotations[2]["id"] = 1  # of two annotations with one id, both libraries lose the first
    path = write_ground_truth(tmp_path / "gt.json", 1, annotations)
    data = json.loads(path.read_text())
    for annotation in data["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    path.write_text(json.dumps(data))
    rows = np.array([[10, 100 * i, 0, 40, 40, 0.9, 3] for i in range(3)])
    metrics = coco_metrics(path, rows, engine=engine) if engine else own_metrics(path, rows)
    assert metrics["AP"] == pytest.approx(100) and metrics["APm"] == pytest.approx(100)
    assert metrics["AR1"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("engine", [*ENGINES, None])
def test_no_images_no_categories(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    rows = np.empty((0, 7))
    found = coco_metrics(path, rows, engine=engine) if engine else own_metrics(path, rows)
    assert found == dict.fromkeys(METRICS)


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


@pytest.mark.parametrize("engine", ENGINES)
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


def test_a_fork_of_a_process_that_used_hotcoco_is_refused(tmp_path: Path) -> None:
    """It would wait forever for threads that it lacks."""
    ground_truth = write_ground_truth(
        tmp_path / "gt.json", 1, [{"image_id": 10, "bbox": [0, 0, 9, 9], "category_id": 3}]
    )
    program = f"""
import os, numpy, pathlib
from date.evaluation.coco import coco_metrics
ground_truth = pathlib.Path({str(ground_truth)!r})
score = lambda engine: round(coco_metrics(ground_truth, numpy.array([[10, 0, 0, 9, 9, 0.5, 3.0]]), engine=engine)["AP"], 9)
print(score("hotcoco"), flush=True)
if os.fork() == 0:
    print(score("pycocotools"), flush=True)
    try:
        score("hotcoco")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.startswith("100.0\n100.0\nhotcoco was used before this process was forked"), done.stderr
