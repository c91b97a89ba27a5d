"""The steps of an epoch, counted from the data and the batch, so that no tier has to state them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from date.catalogue import Dataset, Tier, load_dataset
from date.catalogue.settings import data_root
from date.datasets.kept_numbers import number_of
from date.errors import UserError

LEAST_SIDE = 32
"""Images with a shorter side (px) are not trained on at the paper's resolution, as in MMDetection's configurations."""


def least_side(tier: Tier) -> int:
    """Return the shorter side (px) that an image must have to be trained on."""
    return LEAST_SIDE if tier.pixel_scale == 1 else 1


def steps_per_epoch(tier: Tier, part: str) -> int:
    """Return the steps of an epoch of the dataset in a part: the tier's number, or else what the data give.

    Raises:
        UserError: the tier has no number, and the annotations can't be read.
    """
    given = tier.steps_per_epoch.get(part)
    if given is not None:
        return given
    if part not in tier.datasets:
        raise UserError(f"tier {tier.name!r} has no dataset in the part of {part!r}; add it to 'datasets' of the tier.")
    dataset = load_dataset(tier.datasets[part])
    images = _images(dataset, tier, data_root())
    if images is None:
        raise UserError(
            f"the steps of an epoch are counted in the annotations of {dataset.name!r}, which do not exist yet; "
            f"make or find them by `python -m date data verify --tier {tier.option}`."
        )
    return _steps(images, tier)


def check_steps(tier: Tier, part: str, root: Path) -> None:
    """Raise a `UserError` where a tier states a number of steps that its data do not have."""
    dataset = load_dataset(tier.datasets[part])
    given, images = tier.steps_per_epoch.get(part), _images(dataset, tier, root)
    if given is None or images is None or given == (steps := _steps(images, tier)):
        return
    raise UserError(
        f"tier {tier.name!r} says {given} in 'steps_per_epoch' for {part!r}, but the {images:,} images with objects of "
        f"{dataset.name!r} make {steps} steps in batches of {tier.batch_size}; write {steps}, or leave it out."
    )


def _steps(images: int, tier: Tier) -> int:
    return max(1, math.ceil(images / tier.batch_size))


def _images(dataset: Dataset, tier: Tier, root: Path) -> int | None:
    """Return the number of training images that an epoch has; None where there are no annotations yet."""
    side = least_side(tier)
    found: int | None = number_of(dataset, root, f"images-{side}px", "images", _counter(side))
    return found


@functools.cache
def _counter(side: int) -> Callable[[dict[str, Any]], int]:
    """Return `count_trained_images` for a side, one and the same function for each."""
    return functools.partial(count_trained_images, side=side)


def count_trained_images(data: dict[str, Any], side: int) -> int:
    """Return how many images have an annotation and no shorter side, as MMDetection's CocoDataset counts them.

    Args:
        data: content of a COCO file.
        side: least shorter side in px.
    """
    annotated = {annotation["image_id"] for annotation in data["annotations"]}
    return sum(image["id"] in annotated and min(image["width"], image["height"]) >= side for image in data["images"])
