"""The size at which networks see images: the tier's, or, where a tier has data of its own, what its objects need."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from date.catalogue import Tier, load_dataset
from date.catalogue.settings import data_root
from date.datasets.kept_numbers import number_of
from date.errors import UserError
from date.experiments.fragments import fragment

FINEST_STRIDE = 8
"""Pixels between the points of the finest level."""
SMALLER = 0.05
"""Share of the training boxes that may be smaller than the finest stride."""
SIDES = 32
"""Short sides are multiples of so many pixels, the coarsest stride of a small network."""
MOST = 2
"""A short side becomes at most so many times the tier's, and a step then costs the square of it."""


def paper_scale() -> tuple[int, int]:
    """Return the long and the short side (px) to which the paper's recipe resizes images, whichever is met first."""
    return next(step["scale"] for step in fragment("schedules/base.py")["test_pipeline"] if step["type"] == "Resize")


def pixel_scale(tier: Tier, part: str) -> float:
    """Return what multiplies every size in pixels of the paper's pipelines, for the dataset in a part.

    With ``fit_pixels``, it is the least at which 95 % of the training boxes are as large as the finest stride: in steps
    of 32 px of the short side, from the tier's own to twice as much, and never above the paper's.

    Raises:
        UserError: it follows from annotations that can't be read.
    """
    if not _follows(tier, part):
        return tier.pixel_scale
    dataset = load_dataset(tier.datasets[part])
    size = number_of(dataset, data_root(), f"sizes-{SMALLER:g}", "size", unit_size)
    if size is None:
        raise UserError(
            f"the size of images is chosen by the boxes in the annotations of {dataset.name!r}, which do not exist yet "
            f"or can't be read; make or find them by `python -m date data verify --tier {tier.option}`, or write "
            f"'pixel_scale' into the tier."
        )
    return fitted_scale(tier.pixel_scale, size)


def fitted_sides(tier: Tier, parts: Iterable[str]) -> dict[str, int]:
    """Return the short side (px) of images by part, of those parts whose data choose it; see `pixel_scale`."""
    chosen = [part for part in dict.fromkeys(parts) if _follows(tier, part)]
    return {part: round(min(paper_scale()) * pixel_scale(tier, part)) for part in chosen}


def _follows(tier: Tier, part: str) -> bool:
    """Return whether the size of images in a part follows from the data."""
    if not tier.fit_pixels or part not in tier.datasets or tier.pixel_scale >= 1:
        return False
    return load_dataset(tier.datasets[part]).scenes is None


def fitted_scale(scale: float, size: float) -> float:
    """Return the factor of sizes in pixels that objects need.

    Args:
        scale: the tier's own factor, the least one.
        size: of the smallest boxes that count, at a short side of one pixel; 0 where there are no boxes.
    """
    paper = min(paper_scale())
    own = paper * scale
    most = min(MOST * own, paper)
    if size <= 0 or own * size >= FINEST_STRIDE:
        return scale
    side = SIDES * math.ceil(min(FINEST_STRIDE / size, most) / SIDES - 1e-9)
    return min(max(side, own), most) / paper


def unit_size(data: dict[str, Any]) -> float:
    """Return the size that all but 5 % of the boxes reach, at a short side of one pixel.

    A box's size is the root of its area. It goes with the short side, as the limit of the long side does.

    Args:
        data: content of a COCO file. Crowd regions and boxes without area do not count.

    Returns:
        0 where there are no boxes.
    """
    long, short = paper_scale()
    factors = {
        image["id"]: min(1 / min(image["width"], image["height"]), long / short / max(image["width"], image["height"]))
        for image in data["images"]
    }
    sizes = sorted(
        factors[box["image_id"]] * math.sqrt(box["bbox"][2]) * math.sqrt(box["bbox"][3])
        for box in data["annotations"]
        if not box.get("iscrowd") and min(box["bbox"][2:]) > 0
    )
    return sizes[math.floor(SMALLER * len(sizes))] if sizes else 0.0
