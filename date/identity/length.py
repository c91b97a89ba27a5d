"""The length of a training at a tier, from the catalogue alone."""

from __future__ import annotations

from dataclasses import dataclass

from date.catalogue import Dataset, Tier, Training, load_dataset
from date.catalogue.settings import dataset_name
from date.identity.config import resolve, schedule_steps


@dataclass(frozen=True)
class Length:
    """The length of a training at a tier."""

    steps: int
    validations: int
    images: int
    """Of the validation set."""


def length(training: Training, tier: Tier) -> Length:
    """Return the work of a training, from the catalogue alone.

    Raises:
        UserError: the tier has no dataset for it.
    """
    dataset = load_dataset(dataset_name(training, tier))
    loop = resolve(training, tier, 0, None)["train_cfg"]
    duration = loop["max_epochs"] if loop["type"] == "EpochBasedTrainLoop" else loop["max_iters"]
    validations = duration // loop["val_interval"]
    return Length(schedule_steps(loop, training.data, tier), validations, validation_images(dataset))


def validation_images(dataset: Dataset) -> int:
    """Return the number of a dataset's validation images, 0 where its entry does not state it."""
    if dataset.scenes is not None:
        return dataset.scenes.val_images
    assert dataset.val is not None
    return dataset.val.count or 0
