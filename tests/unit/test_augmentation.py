"""The augmentation of each schedule, really run: sizes and crops as the paper's code has them, boxes where they belong.

Instead of a photograph the pipelines get an image whose pixels hold their own coordinates. Whatever a pipeline did can
be read off what it returns, with no knowledge of its steps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from date.catalogue import load, load_tier
from date.identity.config import resolve

TRAININGS = {"12e": "date_f-r50-coco-12e", "36e": "date_f-r50-coco-36e", "crowdhuman": "date_f-r50-crowdhuman-30k"}
SHORTS = {"36e": range(480, 801, 32), "crowdhuman": range(640, 897, 32)}
LONGEST = {"12e": 1333, "36e": 1333, "crowdhuman": 1400}
SIZES = [(640, 480), (427, 640), (500, 333), (1500, 500), (300, 900)]
RUNS = 100


@dataclass
class Output:
    """What a pipeline made of an image: out = scale * in + shift on each axis, scale x being negative where flipped."""

    size: tuple[int, int]
    scale: tuple[float, float]
    shift: tuple[float, float]
    covered: tuple[float, float, float, float]
    boxes: NDArray[Any]
    ignored: NDArray[Any]
    labels: list[int]

    @property
    def flipped(self) -> bool:
        return self.scale[0] < 0


def coordinates(width: int, height: int) -> NDArray[np.float32]:
    """An image whose first channel is x and whose second is y, at the pixels' centres."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y, np.zeros_like(x)], -1).astype(np.float32)


def pipeline(name: str, split: str = "train") -> Any:
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    import mmdet.datasets  # noqa: F401 - registers the transforms

    config = resolve(load().training(TRAININGS[name]), load_tier("paper"), 0, None)
    source = config[f"{split}_dataloader"]["dataset"]
    steps = source["dataset"]["pipeline"]
    assert steps[0]["type"] == "LoadImageFromFile"
    return Compose(steps[1:])


def run(steps: Any, width: int, height: int, boxes: list[list[float]], ignored: list[int]) -> Output:
    instances = [dict(bbox=b, bbox_label=i, ignore_flag=int(i in ignored)) for i, b in enumerate(boxes)]
    shape = (height, width)
    results = dict(
        img=coordinates(width, height), img_shape=shape, ori_shape=shape, instances=instances, img_id=1, img_path=""
    )
    packed = steps(results | dict(height=height, width=width))
    image = packed["inputs"].numpy()
    sample = packed["data_samples"]
    (scale_x, shift_x), (scale_y, shift_y) = fit(image[0]), fit(image[1].T)
    rows, columns = image.shape[1:]
    assert tuple(sample.metainfo["img_shape"]) == (rows, columns)
    x = sorted((-shift_x / scale_x, (columns - shift_x) / scale_x))
    y = sorted((-shift_y / scale_y, (rows - shift_y) / scale_y))
    return Output(
        (columns, rows),
        (scale_x, scale_y),
        (shift_x, shift_y),
        (x[0], y[0], x[1], y[1]),
        np.asarray(sample.gt_instances.bboxes.tensor),
        np.asarray(sample.ignored_instances.bboxes.tensor),
        sample.gt_instances.labels.tolist(),
    )


def fit(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return scale and shift of out = scale * value + shift along the second axis; the rim, where resizing extrapolates, is left out."""
    line = values[len(values) // 2].astype(float)
    inner = slice(4, len(line) - 4)
    out = np.arange(len(line)) + 0.5
    slope, start = np.polyfit(line[inner], out[inner], 1)
    assert np.abs(slope * line[inner] + start - out[inner]).max() < 0.02, (
        "the pixels are not a resized part of the image"
    )
    return float(slope), float(start)


def expected_boxes(output: Output, boxes: list[list[float]], width: int, height: int) -> dict[int, NDArray[Any]]:
    """Where boxes belong: clipped to the image, moved as the pixels were, clipped to what is left; none without extent."""
    found = {}
    for i, box in enumerate(boxes):
        clipped = np.clip(np.reshape(box, (2, 2)), 0, [width, height])
        moved = np.sort(clipped * output.scale + output.shift, axis=0)
        moved = np.clip(moved, 0, output.size)
        if (moved[1] - moved[0] > 1e-3).all():
            found[i] = moved.ravel()
    return found


def resized(width: float, height: float, short: int, longest: int) -> tuple[int, int]:
    """Size with a given short side, or with the longest side allowed where that is smaller; the ratio is kept."""
    factor = min(short / min(width, height), longest / max(width, height))
    return int(width * factor + 0.5), int(height * factor + 0.5)


def some_boxes(width: int, height: int) -> list[list[float]]:
    """Three boxes inside, one reaching out on two sides, two to be ignored."""
    relative = np.array(
        [(0.1, 0.1, 0.3, 0.4), (0.5, 0.45, 0.55, 0.5), (0.02, 0.6, 0.98, 0.97), (-0.2, 0.7, 0.2, 1.4), (0.4, 0.1, 0.9, 0.3), (0, 0, 1, 1)]
    )  # fmt: skip
    return (relative * [width, height, width, height]).tolist()


IGNORED = [4, 5]


@pytest.fixture(scope="module")
def outputs() -> dict[tuple[str, tuple[int, int]], list[Output]]:
    """What each training pipeline makes of images of several sizes, many times."""
    np.random.seed(0)
    found = {}
    for name in TRAININGS:
        steps = pipeline(name)
        for size in SIZES:
            found[name, size] = [
                run(steps, *size, some_boxes(*size), IGNORED) for _ in range(RUNS // (10 if name == "12e" else 1))
            ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("size", SIZES)
def test_boxes_move_with_the_pixels(name: str, size: tuple[int, int], outputs: dict[Any, list[Output]]) -> None:
    boxes = some_boxes(*size)
    for output in outputs[name, size]:
        expected = expected_boxes(output, boxes, *size)
        kept = [i for i in expected if i not in IGNORED]
        assert output.labels == kept, "ignored boxes are no objects; nothing else is lost or made up"
        np.testing.assert_allclose(output.boxes, np.array([expected[i] for i in kept]).reshape(-1, 4), atol=0.05)
        ignored = np.array([expected[i] for i in expected if i in IGNORED]).reshape(-1, 4)
        np.testing.assert_allclose(output.ignored, ignored, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_half_of_the_images_are_flipped(name: str, outputs: dict[Any, list[Output]]) -> None:
    flipped = [output.flipped for size in SIZES for output in outputs[name, size]]
    assert np.mean(flipped) == pytest.approx(0.5, abs=3 * 0.5 / len(flipped) ** 0.5)
    assert all(output.scale[1] > 0 for size in SIZES for output in outputs[name, size])


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_12_epochs_have_a_single_scale(size: tuple[int, int], outputs: dict[Any, list[Output]]) -> None:
    assert {output.size for output in outputs["12e", size]} == {resized(*size, 800, 1333)}


def whole(output: Output, size: tuple[int, int]) -> bool:
    """Whether the output shows the whole image."""
    return bool(np.allclose(output.covered, (0, 0, *size), atol=0.5))


def resized_alone(output: Output, name: str, size: tuple[int, int]) -> bool:
    """Whether the output is the resized image. A crop, too, can show all of it; it is then a pixel off for its rounding."""
    return whole(output, size) and output.size in {resized(*size, short, LONGEST[name]) for short in SHORTS[name]}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORTS)
@pytest.mark.parametrize("size", SIZES)
def test_half_are_resized_to_a_random_scale(name: str, size: tuple[int, int], outputs: dict[Any, list[Output]]) -> None:
    uncropped = [output.size for output in outputs[name, size] if resized_alone(output, name, size)]
    assert len(uncropped) / RUNS == pytest.approx(0.5, abs=3 * 0.5 / RUNS**0.5)
    # Scales that the longest side caps give one size.
    possible = Counter(resized(*size, short, LONGEST[name]) for short in SHORTS[name])
    found = Counter(uncropped)
    assert set(found) == set(possible)
    for result, number in possible.items():
        share = number / len(SHORTS[name])
        error = (share * (1 - share) / len(uncropped)) ** 0.5
        assert found[result] / len(uncropped) == pytest.approx(share, abs=4 * error)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORTS)
@pytest.mark.parametrize("size", SIZES)
def test_half_are_cropped_in_between(name: str, size: tuple[int, int], outputs: dict[Any, list[Output]]) -> None:
    # Middle sizes that the longest side caps are one.
    middles = sorted({resized(*size, short, LONGEST[name]) for short in (400, 500, 600)})
    cropped = [output for output in outputs[name, size] if not resized_alone(output, name, size)]
    seen: Counter[tuple[int, int]] = Counter()
    sides = []
    for output in cropped:
        covered = np.array(output.covered).reshape(2, 2)
        fits = []
        for middle in middles:
            # The crop in px of the image that it was taken from: whole numbers between 384 and 600, less if that is less.
            corners = covered * middle / size
            crop = corners[1] - corners[0]
            least, most = np.minimum(middle, 384), np.minimum(middle, 600)
            exact = np.abs(corners - np.round(corners)).max() < 0.06
            if exact and (np.round(crop) >= least).all() and (np.round(crop) <= most).all():
                fits.append((middle, tuple(np.round(crop).astype(int).tolist())))
        sizes = {resized(*crop, short, LONGEST[name]) for _, crop in fits for short in SHORTS[name]}
        assert output.size in sizes, "not a random crop of a middle size, resized to one of the scales"
        if len(fits) == 1:
            seen[fits[0][0]] += 1
            sides.append(fits[0][1])
    assert min(seen[middle] for middle in middles) > 0.1 * len(cropped), f"every middle size is drawn: {seen}"
    assert np.min(sides) < 390
    assert np.max(sides) > 560


@pytest.mark.slow
def test_crops_without_objects_are_kept() -> None:
    np.random.seed(1)
    steps = pipeline("36e")
    found = [run(steps, 640, 480, [[1, 1, 20, 20]], []) for _ in range(100)]
    empty = [output for output in found if len(output.boxes) == 0]
    assert 10 <= len(empty) <= 60
    assert not any(whole(output, (640, 480)) for output in empty)


@pytest.mark.parametrize(("name", "short"), [("12e", 800), ("36e", 800), ("crowdhuman", 800)])
@pytest.mark.parametrize("size", SIZES)
def test_test_images_are_resized_alone(name: str, short: int, size: tuple[int, int]) -> None:
    output = run(pipeline(name, "test"), *size, [[10, 10, 50, 60]], [])
    assert output.size == resized(*size, short, LONGEST[name])
    assert not output.flipped and whole(output, size)
