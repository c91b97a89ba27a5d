"""The size of images that follows from the boxes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from date.catalogue import load, load_dataset, load_tier
from date.datasets import kept_numbers
from date.datasets.sizes import fitted_scale, fitted_sides, pixel_scale, unit_size
from date.datasets.verify import scaled_sizes
from date.errors import UserError
from date.identity.config import resolve

ENTRY = """
classes: [a]
root: own
train: {annotations: train.json, images: images}
val: {annotations: train.json, images: images}
"""
LENGTH = st.just(0.0) | st.floats(0.01, 300)
BOXES = st.lists(st.tuples(st.integers(0, 2), LENGTH, LENGTH), max_size=60)


def content(boxes: list[tuple[int, float, float]], sizes: list[tuple[int, int]]) -> dict[str, Any]:
    return {
        "images": [
            {"id": number, "width": w, "height": h, "file_name": f"{number}.png"} for number, (w, h) in enumerate(sizes)
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": [0, 0, w, h], "area": w * h, "iscrowd": 0}
            for n, (i, w, h) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "a"}],
    }


def own_tier(folder: Path, boxes: list[tuple[int, float, float]], more: str = "", base: str = "mini") -> Path:
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "train.json").write_text(json.dumps(content(boxes, [(640, 640)] * 3)))
    (folder / "entry.yaml").write_text(ENTRY)
    tier = folder / "fitted.yaml"
    tier.write_text(f"extends: {base}\ndatasets: {{coco: {folder / 'entry.yaml'}}}\n{more}")
    return tier


def side(path: Path) -> int:
    return round(800 * pixel_scale(load_tier(str(path)), "coco"))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (40, 128),  # 40 of 640 px are 8 px at a side of 128
        (39, 160),  # 7.8 px at 128, and 9.75 at 160
        (30, 192),  # 7.5 px at 160, and 9 at 192
        (10, 256),  # 4 px at 256, which is the most
        (600, 128),  # not less than the tier's own
    ],
)
def test_small_boxes_have_larger_images(box: int, expected: int, tmp_path: Path) -> None:
    tier = own_tier(tmp_path, [(0, box, box)] * 10)
    assert side(tier) == expected
    config = resolve(load().training("date_f-r50-coco-12e"), load_tier(str(tier)), 0, None)
    resizing = next(step for step in config["val_dataloader"]["dataset"]["dataset"]["pipeline"] if "scale" in step)
    assert min(resizing["scale"]) == expected


def test_one_box_in_twenty_may_be_smaller(tmp_path: Path) -> None:
    assert side(own_tier(tmp_path, [(0, 10, 10)] + [(0, 40, 40)] * 19)) == 128
    assert side(own_tier(tmp_path, [(0, 10, 10)] * 2 + [(0, 40, 40)] * 18)) == 256


def test_crowds_and_no_boxes_change_nothing(tmp_path: Path) -> None:
    tier = own_tier(tmp_path, [])
    assert side(tier) == 128
    data = content([(0, 5, 5)] * 10, [(640, 640)] * 3)
    for box in data["annotations"]:
        box["iscrowd"] = 1
    assert unit_size(data) == 0


def test_a_tiers_own_size_holds(tmp_path: Path) -> None:
    small = [(0, 10, 10)] * 10
    assert side(own_tier(tmp_path, small, "pixel_scale: 0.1\n")) == 80
    assert side(own_tier(tmp_path, small, base="paper")) == 800
    assert side(own_tier(tmp_path, small, "pixel_scale: 0.1\nfit_pixels: true\n")) == 160
    again = tmp_path / "again.yaml"
    fitted = own_tier(tmp_path, small)
    again.write_text(f"extends: {fitted}\nepoch_scale: 1.0\n")
    assert side(again) == 256, "what is inherited from a tier with data of its own follows from them"
    again.write_text(f"extends: {fitted}\npixel_scale: 0.2\n")
    assert side(again) == 160
    assert fitted_sides(load_tier(str(fitted)), ["coco", "coco"]) == {"coco": 256}
    assert fitted_sides(load_tier(str(again)), ["coco"]) == fitted_sides(load_tier("mini"), ["coco"]) == {}


def test_what_sizes_become_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's 450 MB were parsed by every `data verify`, also where the verification itself was recalled."""
    tier = load_tier(str(own_tier(tmp_path, [(0, 10, 10)] + [(0, 40, 40)] * 3)))
    dataset = load_dataset(str(tmp_path / "entry.yaml"))
    text = scaled_sizes(dataset, tier, tmp_path)
    assert text.startswith(
        "  short sides of 640 px (median) become 256 px at this tier; 25 % of the training boxes are"
    )
    kept_numbers._number.cache_clear()  # another process
    monkeypatch.setattr(kept_numbers, "_content", lambda path: pytest.fail("parsed again"))
    assert scaled_sizes(dataset, tier, tmp_path) == text
    other = tier.model_copy(update={"pixel_scale": 0.1})
    with pytest.raises(pytest.fail.Exception):
        scaled_sizes(dataset, other.model_copy(update={"fit_pixels": False}), tmp_path)
    (tmp_path / "own" / "train.json").unlink()
    with pytest.raises(UserError, match="of 'entry' can't be read any more; verify them again"):
        scaled_sizes(dataset, tier.model_copy(update={"fit_pixels": False}), tmp_path)


@pytest.mark.parametrize("kept", ["[1, 2, true]", "[1, 2, null]", '"1"', "{}", "null", "true"])
def test_what_is_no_number_is_counted_anew(kept: str, tmp_path: Path) -> None:
    own_tier(tmp_path, [(0, 10, 10)])
    dataset = load_dataset(str(tmp_path / "entry.yaml"))
    found = kept_numbers.number_of(dataset, tmp_path, "sides", "sides", sides)
    assert found == [640, 640, 640]
    (path,) = (tmp_path / ".verified").glob("sides-*.json")
    path.write_text(f'{{"sides": {kept}}}')
    kept_numbers._number.cache_clear()
    assert kept_numbers.number_of(dataset, tmp_path, "sides", "sides", sides) == found
    assert json.loads(path.read_text()) == {"sides": found}


def sides(data: dict[str, Any]) -> list[float]:
    return [image["width"] for image in data["images"]]


def test_unreadable_annotations_are_a_sentence(tmp_path: Path) -> None:
    tier = own_tier(tmp_path, [(0, 10, 10)])
    (tmp_path / "own" / "train.json").write_text('{"images": [], "annotations": [{}]}')
    with pytest.raises(UserError, match=r"chosen by the boxes .* of 'entry'.*, or write 'pixel_scale' into the tier\."):
        side(tier)


@pytest.mark.parametrize(("name", "expected"), [("bccd", 128), ("deeppcb", 192)])
def test_real_images_get_sizes_near_those_that_were_chosen_by_hand(name: str, expected: int, shared_data: Path) -> None:
    """By hand: 128 px for the cells, and 256 for the circuit boards."""
    scale = fitted_scale(
        load_tier("mini").pixel_scale, unit_size(json.loads((shared_data / name / "train.json").read_text()))
    )
    assert round(800 * scale) == expected


@given(BOXES, st.lists(st.tuples(st.integers(50, 2000), st.integers(50, 2000)), min_size=3, max_size=3))
def test_the_rule_against_trying_every_side(
    boxes: list[tuple[int, float, float]], sizes: list[tuple[int, int]]
) -> None:
    def smaller(short: float) -> float:
        """Return the share of the boxes below the finest stride at a short side, each resized by itself."""
        found = 0
        for image, w, h in solid:
            factor = min(short / min(sizes[image]), short * 1333 / 800 / max(sizes[image]))
            found += math.sqrt(w) * math.sqrt(h) * factor < 8 - 1e-6
        return found / max(1, len(solid))

    solid = [(image, w, h) for image, w, h in boxes if w > 0 and h > 0]
    expected = next((s for s in (128, 160, 192, 224) if smaller(s) <= 0.05), 256)
    if not any(abs(smaller(s * (1 + d)) - smaller(s)) > 0 for s in (128, 160, 192, 224, 256) for d in (-1e-9, 1e-9)):
        assert round(800 * fitted_scale(0.16, unit_size(content(boxes, sizes)))) == expected
