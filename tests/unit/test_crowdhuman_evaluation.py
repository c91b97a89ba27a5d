"""CrowdHuman's AP, mMR and Recall against the protocol in plain loops, and by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_crowdhuman import literal_metrics

from date.errors import UserError
from date.evaluation.crowdhuman import REFERENCE_FPPI, crowdhuman_metrics, greedy_matches
from date.evaluation.ground_truth import GroundTruth
from tests.support.examples import examples

Image = dict[str, Any]


def image(objects: list[Any] = (), found: list[Any] = (), size: Any = (1000.0, 1000.0)) -> Image:  # type: ignore[assignment]
    """An image of boxes x, y, width, height; a bare box is a valid object."""
    pairs = [o if isinstance(o, tuple) else (o, False) for o in objects]
    return {"size": size, "objects": pairs, "found": list(found)}


def arrays(images: list[Image]) -> tuple[GroundTruth, np.ndarray]:
    """The images as the evaluator takes them; ids are neither contiguous nor ascending."""
    ids = [1000 - 3 * i for i in range(len(images))]
    boxes = [(i, *box, ignored) for i, entry in enumerate(images) for box, ignored in entry["objects"]]
    table = np.array(boxes, dtype=float).reshape(-1, 6)
    ground_truth = GroundTruth(
        path=Path("crowd.json"),
        image_ids=ids,
        image_names=[str(i) for i in ids],
        sizes=np.array([entry["size"] or (np.nan, np.nan) for entry in images], dtype=float).reshape(-1, 2),
        categories={1: "person"},
        image=table[:, 0].astype(int),
        category_ids=np.ones(len(table), dtype=int),
        bboxes=table[:, 1:5],
        areas=table[:, 3] * table[:, 4],
        ignored=table[:, 5] != 0,
    )
    rows = [(ids[i], *box, score, 1) for i, entry in enumerate(images) for box, score in entry["found"]]
    return ground_truth, np.array(rows, dtype=float).reshape(-1, 7)


def metrics(images: list[Image]) -> dict[str, float | None]:
    return crowdhuman_metrics(*arrays(images))


def same(images: list[Image]) -> None:
    expected = literal_metrics(images)
    found = metrics(images)
    assert list(found) == ["AP", "mMR", "Recall"]
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


# Coordinates on a coarse grid: equal boxes, equal IoUs and equal scores are common.
grid = st.integers(-2, 8).map(lambda n: 10.0 * n)
side = st.integers(0, 5).map(lambda n: 10.0 * n)
box = st.tuples(grid, grid, side, side).map(list)
any_box = st.one_of(
    box, st.lists(st.floats(-50, 150), min_size=4, max_size=4).map(lambda b: [*b[:2], abs(b[2]), abs(b[3])])
)
crowd_image = st.builds(
    image,
    st.lists(st.tuples(any_box, st.booleans()), max_size=7),
    st.lists(st.tuples(any_box, st.integers(0, 5).map(lambda n: n / 5)), max_size=12),
    st.sampled_from([(60.0, 50.0), (100.0, 100.0), (37.0, 200.0), None]),
)


@settings(max_examples=examples(400))
@given(st.lists(crowd_image, min_size=1, max_size=5))
def test_equal_to_the_literal_protocol_on_small_crowds(images: list[Image]) -> None:
    same(images)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_literal_protocol_on_big_crowds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(30):
        objects, found = [], []
        for _ in range(rng.integers(0, 40)):
            person = [*rng.uniform(-50, 700, 2), *rng.uniform(20, 120, 2)]
            objects.append((person, bool(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 8)):
                jittered = np.array(person) + rng.normal(0, 10, 4)
                found.append(([*jittered[:2], *np.abs(jittered[2:])], round(float(rng.random()), 2)))
        found += [([*rng.uniform(0, 700, 2), *rng.uniform(5, 90, 2)], float(rng.random())) for _ in range(20)]
        images.append(image(objects, found, (640.0, 480.0)))
    same(images)


def test_taking_turns_and_asking_agree_on_chains() -> None:
    """Every detection prefers the object that the one before it holds: the longest chain of displacements."""
    n = 60
    detection = np.repeat(np.arange(n), 2)
    candidate = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1).ravel()
    overlap = np.tile([0.6, 0.9], n)
    assert greedy_matches(detection, candidate, overlap, n, n).all()
    # All want object 0 first, then 1, ...: only the foremost three are placed on three objects.
    detection, candidate = np.repeat(np.arange(n), 3), np.tile(np.arange(3), n)
    found = greedy_matches(detection, candidate, np.tile([0.9, 0.8, 0.7], n), n, 3)
    assert found.tolist() == [True] * 3 + [False] * (n - 3)


A, B, FAR = [0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 100.0, 100.0], [700.0, 700.0, 100.0, 100.0]


def test_area_begins_at_the_first_detection() -> None:
    """Two objects found without a false one: the trapezoids reach from recall 1/2 to 1, so AP is 50, not 100."""
    assert metrics([image([A, B], [(A, 0.9), (B, 0.8)])]) == {"AP": 50.0, "mMR": 0.0, "Recall": 100.0}


def test_a_perfect_detector_has_no_miss_rate() -> None:
    """log 0 at every reference point: mMR is 0, as in the official tool."""
    n = 40
    boxes = [[120.0 * (i % 8), 120.0 * (i // 8), 100.0, 100.0] for i in range(n)]
    found = metrics([image(boxes, [(b, 0.5 + i / 100) for i, b in enumerate(boxes)])])
    assert found == {"AP": pytest.approx(100 * (n - 1) / n), "mMR": 0.0, "Recall": 100.0}


def test_one_miss_rate_of_zero_is_enough_for_none() -> None:
    """The first reference points have a miss rate of 1/2; the last one, reached by the false detection, has 0."""
    found = metrics([image([A, B], [(A, 0.9), (B, 0.7), (FAR, 0.6)])])
    assert found["mMR"] == 0.0


def test_reference_points_that_are_not_reached_take_the_last_miss_rate() -> None:
    """One false detection in 20 images: FPPI 0.05 reaches 3 of 9 reference points, where 3 of 4 objects are missed.

    The other 6 take the end of the curve, where 2 of 4 are missed.
    """
    first = image([A, B], [(A, 0.9), (FAR, 0.8), (B, 0.7)])
    images = [first, image([A, B]), *(image() for _ in range(18))]
    expected = 100 * math.exp((3 * math.log(3 / 4) + 6 * math.log(2 / 4)) / 9)
    assert sum(r <= 1 / 20 for r in REFERENCE_FPPI) == 3
    assert metrics(images)["mMR"] == pytest.approx(expected)


def test_by_hand_with_false_detections() -> None:
    """True, false, true, true of 4 objects: recall 1/4, 1/4, 1/2, 3/4; precision 1, 1/2, 2/3, 3/4; one image."""
    c, d = [400.0, 0.0, 100.0, 100.0], [600.0, 0.0, 100.0, 100.0]
    found = metrics([image([A, B, c, d], [(A, 0.9), (FAR, 0.8), (B, 0.7), (c, 0.6)])])
    area = (1 / 2 + 2 / 3) / 2 / 4 + (2 / 3 + 3 / 4) / 2 / 4
    # FPPI is 1 from the false detection on, so every reference point is reached there, at a miss rate of 3/4.
    assert found == {"AP": pytest.approx(100 * area), "mMR": pytest.approx(75), "Recall": pytest.approx(75)}


def test_an_ignored_region_absorbs_any_number_of_detections() -> None:
    crowd = ([500.0, 500.0, 300.0, 300.0], True)
    inside = [([520.0 + 30 * i, 520.0, 60.0, 120.0], 0.99) for i in range(6)]
    with_region = metrics([image([A, B, crowd], [(A, 0.9), *inside, (B, 0.8)])])
    assert with_region == {"AP": 50.0, "mMR": 0.0, "Recall": 100.0}
    assert metrics([image([A, B], [(A, 0.9), *inside, (B, 0.8)])])["AP"] < 50  # type: ignore[operator]


def test_a_region_absorbs_by_the_share_of_the_detection_inside_strictly_over_a_half() -> None:
    def absorbed(x: float) -> bool:
        found = metrics([image([A, ([500.0, 0.0, 100.0, 100.0], True)], [([x, 0.0, 20.0, 100.0], 0.9), (A, 0.5)])])
        return found["mMR"] == 0.0

    assert absorbed(490.1) and not absorbed(490.0), "the IoU with the region is far below 0.5 in both cases"


def test_an_object_comes_before_a_region_and_a_taken_object_does_not() -> None:
    region = ([0.0, 0.0, 300.0, 300.0], True)
    # The first finds A although the region covers it, too; the second finds A taken and is absorbed, not false.
    assert metrics([image([region, A, B], [(A, 0.9), (A, 0.8), (FAR, 0.1)])])["Recall"] == 50.0
    assert metrics([image([region, A], [(A, 0.9), (A, 0.8)])]) == {"AP": 0.0, "mMR": 0.0, "Recall": 100.0}
    doubled = metrics([image([A, B], [(A, 0.9), (A, 0.8)])])
    assert doubled["mMR"] == pytest.approx(50), "without the region the second is false"


def test_an_iou_of_exactly_a_half_does_not_match() -> None:
    half = [0.0, 0.0, 50.0, 100.0]
    assert metrics([image([A], [(half, 0.9)])])["Recall"] == 0.0
    assert metrics([image([A], [([0.0, 0.0, 50.1, 100.0], 0.9)])])["Recall"] == 100.0


def test_equal_scores_are_taken_in_the_order_of_the_input() -> None:
    """Both fit A only; whichever comes first finds it. The other one fits B as well and needs A free to fail."""
    a, b = [0.0, 0.0, 100.0, 100.0], [40.0, 0.0, 100.0, 100.0]
    only_a, both = ([0.0, 0.0, 90.0, 100.0], 0.5), ([18.0, 0.0, 100.0, 100.0], 0.5)
    assert metrics([image([a, b], [only_a, both])])["Recall"] == 100.0
    assert metrics([image([a, b], [both, only_a])])["Recall"] == 50.0, "the first took A, its best"


def test_equal_scores_of_different_images_are_sorted_by_the_annotation_file() -> None:
    hit, miss = image([A, B], [(A, 0.5), (B, 0.5)]), image([], [(FAR, 0.5)])
    first, second = metrics([hit, miss]), metrics([miss, hit])
    assert first["AP"] == 50.0
    # False, true, true: precision 0, 1/2, 2/3 at recall 0, 1/2, 1.
    assert second["AP"] == pytest.approx(100 * ((0 + 1 / 2) / 2 / 2 + (1 / 2 + 2 / 3) / 2 / 2))
    same([hit, miss])
    same([miss, hit])


def test_equal_ious_take_the_object_annotated_first() -> None:
    left, right = [0.0, 0.0, 100.0, 100.0], [20.0, 0.0, 100.0, 100.0]
    between, only_left = ([10.0, 0.0, 100.0, 100.0], 0.9), ([0.0, 0.0, 80.0, 100.0], 0.8)
    only_right = ([60.0, 0.0, 60.0, 100.0], 0.8)
    assert metrics([image([left, right], [between, only_left])])["Recall"] == 50.0
    assert metrics([image([left, right], [between, only_right])])["Recall"] == 100.0
    assert metrics([image([right, left], [between, only_left])])["Recall"] == 100.0


def test_boxes_are_clipped_to_the_image() -> None:
    beyond, inside = [-100.0, 0.0, 200.0, 100.0], ([0.0, 0.0, 100.0, 100.0], 0.9)
    assert metrics([image([beyond], [inside])])["Recall"] == 100.0
    assert metrics([image([beyond], [inside], size=None)])["Recall"] == 0.0
    # x1 is clipped to W - 1 and x2 to W: a box right of the image becomes a column one pixel wide.
    column = [([999.0, 0.0, 1.0, 100.0], 0.9)]
    assert metrics([image([[1500.0, 0.0, 50.0, 100.0]], column)])["Recall"] == 100.0


def test_images_without_objects_count_for_the_false_positives_per_image() -> None:
    one = image([A, B], [(A, 0.9), (FAR, 0.8), (B, 0.7)])
    few, many = metrics([one]), metrics([one, *(image() for _ in range(99))])
    assert few["mMR"] == pytest.approx(50), "FPPI 1 at the false one: all points are reached there"
    assert many["mMR"] == 0.0, "FPPI 0.01: the last 8 points are not reached and take the end, where nothing is missed"
    assert (few["AP"], few["Recall"]) == (many["AP"], many["Recall"])


def test_no_detections() -> None:
    assert metrics([image([A])]) == {"AP": 0.0, "mMR": 100.0, "Recall": 0.0}
    absorbed = image([A, ([500.0, 500.0, 300.0, 300.0], True)], [([550.0, 550.0, 50.0, 50.0], 0.9)])
    assert metrics([absorbed]) == {"AP": 0.0, "mMR": 100.0, "Recall": 0.0}


def test_no_objects() -> None:
    nothing = dict.fromkeys(("AP", "mMR", "Recall"))
    assert metrics([image([], [(A, 0.9)])]) == nothing
    assert metrics([image([(A, True)], [(A, 0.9)])]) == nothing
    assert metrics([]) == nothing


def test_several_categories_are_refused() -> None:
    ground_truth, rows = arrays([image([A])])
    ground_truth.categories[2] = "dog"
    with pytest.raises(UserError, match="judges one category, but crowd.json has 2"):
        crowdhuman_metrics(ground_truth, rows)
