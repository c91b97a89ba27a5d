"""Boxes and names that can be read on any image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import ImageColor

from date.inference.drawing import LEAST_SIDE, _luminance, color_of, draw
from date.inference.sources import _distinct


def contrast(a: float, b: float) -> float:
    """WCAG 2's ratio of two relative luminances."""
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def luminance(pixel: np.ndarray) -> float:
    return _luminance("#{:02x}{:02x}{:02x}".format(*pixel))


@pytest.mark.parametrize("label", range(7))
@pytest.mark.parametrize("ground", ["black", "white", "grey", "own"])
def test_a_box_stands_out_on_any_ground(ground: str, label: int) -> None:
    color = ImageColor.getrgb(color_of(label) if ground == "own" else ground)
    pixels = np.full((400, 640, 3), color, dtype=np.uint8)
    drawn = np.asarray(draw(pixels, np.array([[100, 100, 500, 300]]), np.array([0.9]), [label], [*"abcdefg"]))
    line = [luminance(p) for p in drawn[200, 90:110]]  # across the left side
    steps = [contrast(a, b) for a, b in pairwise(line)]
    assert max(steps) >= 3
    assert (drawn[200, 90:110] == ImageColor.getrgb(color_of(label))).all(-1).any(), "its class's colour"
    assert (drawn[120:280, 120:480] == color).all(), "nothing is drawn inside"


@pytest.mark.parametrize("label", range(7))
def test_a_name_can_be_read_on_its_plate(label: int) -> None:
    pixels = np.full((400, 640, 3), 127, dtype=np.uint8)
    drawn = draw(pixels, np.array([[100, 100, 500, 300]]), np.array([0.9]), [label], ["name"] * 7)
    plate = np.asarray(drawn)[80:98, 96:150].reshape(-1, 3)
    background = _luminance(color_of(label))
    assert max(contrast(luminance(p), background) for p in np.unique(plate, axis=0)) >= 4.5


def test_names_keep_apart_where_they_can() -> None:
    pixels = np.zeros((300, 640, 3), dtype=np.uint8)
    boxes = np.array([[100.0, 100, 300, 200]] * 4)
    one = np.asarray(draw(pixels, boxes[:1], np.ones(1), [0], ["name"]))
    four = np.asarray(draw(pixels, boxes, np.array([0.9, 0.8, 0.7, 0.6]), [0, 1, 2, 3], ["name"] * 4))
    plates = {label: (four == ImageColor.getrgb(color_of(label))).all(-1).sum() for label in range(4)}
    alone = (one == ImageColor.getrgb(color_of(0))).all(-1).sum()
    assert all(count > 0.2 * alone for count in plates.values()), "each has a plate of its own"


def test_small_images_are_enlarged_and_large_ones_kept() -> None:
    def size(width: int, height: int) -> tuple[int, int]:
        return draw(np.zeros((height, width, 3), np.uint8), np.zeros((0, 4)), np.zeros(0), [], []).size

    assert size(128, 100) == (640, 500)
    assert size(1, 1) == (8, 8), "no more than eightfold"
    assert size(2000, 1500) == (2000, 1500)
    assert size(LEAST_SIDE, 10) == (LEAST_SIDE, 10)


def test_boxes_at_and_beyond_the_border_and_without_extent_are_drawn() -> None:
    pixels = np.zeros((50, 50, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 50, 50], [-5, -5, 70, 70], [20, 20, 20, 20], [49.5, 49.5, 50, 50]])
    drawn = np.asarray(draw(pixels, boxes, np.array([0.5, 0.6, 0.7, 0.8]), [0, 1, 2, 3], ["größer"] * 4))
    assert drawn.shape == (400, 400, 3)
    assert (drawn != 0).any()


def test_names_that_occur_again_get_a_number() -> None:
    assert _distinct(["a.jpg", "b.jpg", "a.jpg", "a.jpg", "c", "c"]) == [
        "a.jpg", "b.jpg", "a-2.jpg", "a-3.jpg", "c", "c-2"
    ]  # fmt: skip
    assert _distinct(["a.jpg", "a-2.jpg", "a.jpg"]) == ["a.jpg", "a-2.jpg", "a-3.jpg"]
