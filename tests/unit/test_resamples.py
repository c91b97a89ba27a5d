"""Metrics on resamples of the images against the plain evaluators on images that are really duplicated."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_crowdhuman import literal_metrics
from numpy.typing import NDArray

from date.evaluation import coco_resamples, crowdhuman_resamples
from date.evaluation import drawn as sums
from date.evaluation.coco import METRICS as COCO_METRICS
from date.evaluation.coco import coco_metrics
from date.evaluation.crowdhuman import METRICS as CROWD_METRICS
from date.evaluation.crowdhuman import crowdhuman_metrics
from date.evaluation.ground_truth import GroundTruth
from date.evaluation.resamples import (
    RESAMPLES,
    STORED,
    images_digest,
    interval,
    resample_weights,
    resampled_metrics,
    stored_resamples,
)
from date.evaluation.stored import read_resamples
from tests.support.examples import examples

IMAGE_IDS, CATEGORIES = [30, 7, 2**40, -5], [3, 7, 9]
AREAS = (32.0, 96.0)

_place, _extent = st.integers(-2, 10).map(lambda n: 10.0 * n), st.integers(0, 8).map(lambda n: 10.0 * n)
_box = st.one_of(
    st.tuples(_place, _place, _extent, _extent),
    st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(0, 150)] * 2),
)
_annotation = st.tuples(
    st.integers(0, 3), st.sampled_from(CATEGORIES[:2]), _box, st.sampled_from([0, 0, 0, 1]), st.sampled_from([1.0, 0.4])
)
_detection = st.tuples(st.integers(0, 3), st.sampled_from([*CATEGORIES, 11]), _box)
_weights = st.lists(st.integers(0, 3), min_size=4, max_size=4)


def truth(annotations: list[Any], categories: list[int] = CATEGORIES) -> GroundTruth:
    """Return annotations of four images; equal areas and boxes are common."""
    table = np.array([[i, c, *b, b[2] * b[3] * share, crowd] for i, c, b, crowd, share in annotations]).reshape(-1, 8)
    return GroundTruth(
        path=Path("annotations.json"),
        image_ids=IMAGE_IDS,
        image_names=["a", "b", "c", "d"],
        sizes=np.array([[120.0, 90.0]] * 4),
        categories={c: str(c) for c in categories},
        image=table[:, 0].astype(np.int64),
        category_ids=table[:, 1].astype(np.int64),
        bboxes=table[:, 2:6],
        areas=table[:, 6],
        ignored=table[:, 7] != 0,
    )


def rows_of(detections: list[Any], scores: list[float]) -> NDArray[np.float64]:
    """Return detections as an array."""
    rows = [[IMAGE_IDS[i], *b, s, c] for (i, c, b), s in zip(detections, scores, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 7)


def duplicated(
    ground_truth: GroundTruth, rows: NDArray[np.float64], weights: list[int]
) -> tuple[GroundTruth, NDArray[np.float64]]:
    """Return the images as often as they weigh, each copy under an id of its own that keeps the order of the ids."""
    place = {i: n for n, i in enumerate(sorted(IMAGE_IDS))}
    copies = [(i, 100 * place[IMAGE_IDS[i]] + k) for i, w in enumerate(weights) for k in range(w)]
    chosen = [np.nonzero(ground_truth.image == i)[0] for i, _ in copies]
    picked = np.concatenate([*chosen, np.zeros(0, dtype=np.int64)])
    found = [rows[rows[:, 0] == IMAGE_IDS[i]] for i, _ in copies]
    copied = [np.concatenate([np.full((len(r), 1), new), r[:, 1:]], axis=1) for r, (_, new) in zip(found, copies, strict=True)]  # fmt: skip
    return replace(
        ground_truth,
        image_ids=[new for _, new in copies],
        image_names=[str(new) for _, new in copies],
        sizes=ground_truth.sizes[[i for i, _ in copies]],
        image=np.repeat(np.arange(len(copies)), [len(c) for c in chosen]),
        category_ids=ground_truth.category_ids[picked],
        bboxes=ground_truth.bboxes[picked],
        areas=ground_truth.areas[picked],
        ignored=ground_truth.ignored[picked],
    ), np.concatenate([*copied, np.zeros((0, 7))])


def assert_same(found: dict[str, NDArray[np.float64]], r: int, plain: dict[str, float | None]) -> None:
    """Compare the values of a resample with a plain evaluator's."""
    for name, value in plain.items():
        assert found[name][r] == pytest.approx(math.nan if value is None else value, abs=1e-9, nan_ok=True), name


@settings(max_examples=examples(120))
@given(
    st.lists(_annotation, max_size=12),
    st.lists(_detection, max_size=30),
    st.lists(_weights, min_size=1, max_size=3),
    st.randoms(use_true_random=False),
    st.sampled_from([AREAS, (16.0, 40.0), (10.0, 10.0)]),
)
def test_coco_equals_pycocotools_on_duplicated_images(
    annotations: list[Any], detections: list[Any], weights: list[list[int]], random: Any, areas: tuple[float, float]
) -> None:
    """Crowd regions, empty images, categories that a resample lacks, images drawn never or thrice, ties of images."""
    scores = [random.random() for _ in detections]
    for other in range(1, len(scores)):  # equal scores in different images
        if random.random() < 0.3 and detections[other][0] != detections[other - 1][0]:
            scores[other] = scores[other - 1]
    ground_truth, rows = truth(annotations), rows_of(detections, scores)
    found = resampled_metrics("coco", ground_truth, rows, COCO_METRICS, areas, np.array(weights))
    for r, drawn in enumerate(weights):
        copied, copied_rows = duplicated(ground_truth, rows, drawn)
        if copied.image_ids:
            assert_same(found, r, coco_metrics(copied, copied_rows, areas, engine="pycocotools"))
        else:
            assert all(math.isnan(values[r]) for values in found.values())


@settings(max_examples=examples(120))
@given(
    st.lists(_annotation, max_size=12),
    st.lists(_detection, max_size=30),
    st.lists(_weights, min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_crowdhuman_equals_plain_loops_on_duplicated_images(
    annotations: list[Any], detections: list[Any], weights: list[list[int]], random: Any
) -> None:
    """The protocol word for word on images that are really there several times."""
    scores = [random.random() for _ in detections]
    ground_truth = truth([(i, 3, *rest) for i, _, *rest in annotations], [3])
    rows = rows_of(detections, scores)
    found = resampled_metrics("crowdhuman", ground_truth, rows, CROWD_METRICS, weights=np.array(weights))
    for r, drawn in enumerate(weights):
        copied, copied_rows = duplicated(ground_truth, rows, drawn)
        if not (~copied.ignored).any():
            assert all(math.isnan(values[r]) for values in found.values())
            continue
        assert_same(found, r, crowdhuman_metrics(copied, copied_rows))
        assert_same(found, r, literal(copied, copied_rows))


def literal(ground_truth: GroundTruth, rows: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the metrics of the literal implementation."""
    images = []
    for i, (image_id, size) in enumerate(zip(ground_truth.image_ids, ground_truth.sizes.tolist(), strict=True)):
        mine = ground_truth.image == i
        objects = zip(ground_truth.bboxes[mine].tolist(), ground_truth.ignored[mine].tolist(), strict=True)
        found = [(row[1:5].tolist(), float(row[5])) for row in rows[rows[:, 0] == image_id]]
        images.append({"size": tuple(size), "objects": list(objects), "found": found})
    return literal_metrics(images)


def scene(images: int, objects: int, found: int, seed: int) -> tuple[GroundTruth, NDArray[np.float64]]:
    """Return annotations of several categories and detections near them, with rounded scores."""
    rng = np.random.default_rng(seed)
    image, category = np.sort(rng.integers(0, images, objects)), rng.integers(1, 6, objects)
    bboxes = np.concatenate([rng.uniform(0, 400, (objects, 2)), rng.uniform(5, 200, (objects, 2))], axis=1)
    ground_truth = GroundTruth(
        path=Path("annotations.json"),
        image_ids=[int(i) for i in rng.permutation(images) + 5],
        image_names=[str(i) for i in range(images)],
        sizes=np.full((images, 2), 640.0),
        categories={c: str(c) for c in range(1, 6)},
        image=image,
        category_ids=category,
        bboxes=bboxes,
        areas=bboxes[:, 2] * bboxes[:, 3],
        ignored=rng.random(objects) < 0.05,
    )
    near = rng.integers(0, objects, found)
    moved = bboxes[near] + rng.normal(0, 0.1, (found, 4)) * bboxes[near][:, [2, 3, 2, 3]]
    moved[:, 2:] = np.abs(moved[:, 2:])
    ids = np.array(ground_truth.image_ids, dtype=np.float64)[image[near]]
    return ground_truth, np.column_stack([ids, moved, np.round(rng.random(found), 2), category[near]])


@pytest.mark.parametrize("protocol", ["coco", "crowdhuman"])
def test_weights_of_one_give_the_plain_metrics(protocol: str) -> None:
    """Also with many equal scores within an image."""
    ground_truth, rows = scene(60, 400, 3000, 0)
    if protocol == "crowdhuman":
        ground_truth = replace(ground_truth, categories={1: "person"}, category_ids=np.ones(400, dtype=np.int64))
        plain, names = crowdhuman_metrics(ground_truth, rows), CROWD_METRICS
    else:
        plain, names = coco_metrics(ground_truth, rows), COCO_METRICS
    found = resampled_metrics(protocol, ground_truth, rows, names, weights=np.ones((2, 60), dtype=int))
    for r in (0, 1):
        assert_same(found, r, plain)


def test_sums_in_blocks_are_plain_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of every length about a block's and a piece's, with images of no and of large weight."""
    monkeypatch.setattr(sums, "PIECE", 3 * sums.LENGTH * 7)
    rng = np.random.default_rng(0)
    for length in [0, 1, 15, 16, 17, 47, 48, 49, 150]:
        weights = rng.poisson(1, (7, 9)) * rng.choice([1, 400], (7, 9))
        image = rng.integers(0, 9, length)
        ends = np.sort(rng.integers(0, length + 1, 20))
        found = sums.Drawn.of(weights).until(image, ends, sums.Room())
        expected = np.concatenate([np.zeros((1, 7)), np.cumsum(weights.T[image], axis=0)])[ends]
        assert (found == expected).all()
        rows = rng.integers(-3, 4, (length, 5)).astype(float)
        summed = rows.copy()
        sums.prefix_sums(summed)
        assert (summed == np.cumsum(rows, axis=0)).all()


def test_coco_in_small_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves one by one or together, and resamples some at a time."""
    ground_truth, rows = scene(60, 1500, 6000, 0)
    whole = resampled_metrics("coco", ground_truth, rows, COCO_METRICS)
    monkeypatch.setattr(coco_resamples, "BLOCK", 1 << 12)
    monkeypatch.setattr(coco_resamples, "FEWEST", 60)
    for name, values in resampled_metrics("coco", ground_truth, rows, COCO_METRICS).items():
        np.testing.assert_allclose(values, whole[name], rtol=0, atol=1e-12)


def test_crowds_in_small_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One true detection at a time, or some; a resample that draws an image many times, and one that draws none."""
    ground_truth, rows = scene(60, 1500, 6000, 0)
    ground_truth = replace(ground_truth, categories={1: "person"}, category_ids=np.ones(1500, dtype=np.int64))
    weights = resample_weights(ground_truth.image_ids, 20).astype(np.int64)
    weights[0], weights[1], weights[1, 7] = 0, 0, 400
    whole = resampled_metrics("crowdhuman", ground_truth, rows, CROWD_METRICS, weights=weights)
    for block in (1, 1000):
        monkeypatch.setattr(crowdhuman_resamples, "BLOCK", block)
        for name, values in resampled_metrics("crowdhuman", ground_truth, rows, CROWD_METRICS, weights=weights).items():
            np.testing.assert_allclose(values, whole[name], rtol=0, atol=1e-12)
            assert np.isnan(values[0]) and np.isfinite(values[1:]).all()


@pytest.mark.parametrize(
    ("protocol", "digest"),
    [
        ("coco", "e83cc3c06fb31d0df7c1fc359aa95deecc299d4706c657d0a04ed974842564a2"),
        ("crowdhuman", "104fcca4357ddc1e0bff37d90c2274cf52ff36fd8f3ae9eba3c504540082ff08"),
    ],
)
def test_stored_values_never_change(protocol: str, digest: str) -> None:
    """Those of sealed results were made by older code, whose bytes these are."""
    ground_truth, rows = scene(60, 1500, 6000, 2)
    if protocol == "crowdhuman":
        ground_truth = replace(ground_truth, categories={1: "person"}, category_ids=np.ones(1500, dtype=np.int64))
    stored = json.dumps(stored_resamples(protocol, ground_truth, rows))
    assert hashlib.sha256(stored.encode()).hexdigest() == digest


def test_resamples_are_a_function_of_the_ids_alone() -> None:
    """Whatever the order of the file, and the same on every machine and day."""
    ids = [7, 2**40, -5, 30, 12]
    weights = resample_weights(ids)
    assert weights.shape == (RESAMPLES, 5) and (weights.sum(axis=1) == 5).all()
    turned = resample_weights(ids[::-1])
    assert (turned[:, ::-1] == weights).all() and images_digest(ids) == images_digest(ids[::-1])
    assert (resample_weights([1, 2, 3, 4, 5]) != weights).any() and images_digest([1, 2]) != images_digest([12])
    assert weights[:3].tolist() == GOLDEN, "stored values of older evaluations pair with new ones only while this holds"
    many = resample_weights(range(1000))
    assert many.mean() == 1 and 0.97 < many.var() < 1.03, "multinomial: the variance of a count is 1 - 1/n"


GOLDEN = [[2, 0, 1, 1, 1], [1, 1, 2, 0, 1], [1, 2, 1, 1, 0]]


@pytest.mark.parametrize("protocol", ["coco", "crowdhuman"])
def test_stored_values_are_small_and_come_back(protocol: str) -> None:
    """Three decimals; undefined ones too."""
    ground_truth, rows = scene(60, 400, 3000, 1)
    if protocol == "crowdhuman":
        ground_truth = replace(ground_truth, categories={1: "person"}, category_ids=np.ones(400, dtype=np.int64))
    stored = stored_resamples(protocol, ground_truth, rows)
    assert tuple(stored) == STORED[protocol] and sum(map(len, stored.values())) < 1500 * len(stored)
    exact = resampled_metrics(protocol, ground_truth, rows, STORED[protocol])
    for name, values in read_resamples(stored).items():
        assert values.shape == (RESAMPLES,) and np.abs(values - exact[name]).max() <= 0.5e-3 + 1e-12
    assert np.isnan(read_resamples({"AP": "1.000 - 2.500"})["AP"]).tolist() == [False, True, False]


def test_the_interval_is_that_of_the_images() -> None:
    """Over fresh sets of images the metric scatters as the resamples of one set say."""
    values, deviations = [], []
    for seed in range(24):
        ground_truth, rows = scene(120, 500, 2500, seed)
        values.append(coco_metrics(ground_truth, rows)["AP50"])
        deviations.append(resampled_metrics("coco", ground_truth, rows, ["AP50"])["AP50"].std(ddof=1))
    assert 0.7 < np.mean(deviations) / np.std(values, ddof=1) < 1.4
    found = interval(50.0, np.array([49.0, 51.0, math.nan, 50.0]))
    assert found is not None and (found.value, found.sd) == (50.0, 1.0)
    assert (found.low, found.high) == pytest.approx((50 - 1.959964, 50 + 1.959964), abs=1e-5)
    assert interval(None, np.ones(3)) is None and interval(1.0, np.full(3, math.nan)) is None
