"""Check the datasets and pretrained weights of the chosen trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from date.catalogue import Dataset, Tier, Training
from date.datasets.lengths import check_steps, steps_per_epoch
from date.datasets.prepare import incomplete, prepare, verify_weights
from date.datasets.sizes import fitted_sides
from date.doctor import Finding
from date.errors import UserError
from date.experiments.entries import shown
from date.experiments.folders import folders
from date.formatting import counted
from date.progress import progress_lines, step


def absent(dataset: Dataset, root: Path) -> str | None:
    """Return what of a dataset is not there and where to get it, or None; nothing is read."""
    return incomplete(dataset, root) if dataset.scenes is None else None


def datasets(datasets: list[Dataset], root: Path) -> Iterator[Finding]:
    """Verify datasets as every training does, generating and converting what is to be made."""
    for dataset in datasets:
        title = f"preparing {dataset.name}"
        try:
            with step(title):
                manifest = prepare(dataset, root, progress_lines(title))
        except UserError as error:
            yield Finding("data", "error", str(error))
        except OSError as error:
            yield Finding(
                "data", "error", f"{dataset.name} can't be made: {error}", "let data_root be a writable folder"
            )
        else:
            images = ", ".join(f"{name} {part['images']:,} images" for name, part in manifest["splits"].items())
            yield Finding("data", "ok", f"{dataset.name}: {images}")


def steps(trainings: list[Training], tier: Tier, root: Path) -> Iterator[Finding]:
    """Say how long an epoch is, and how large images are, where a tier leaves it to the data."""
    for part in dict.fromkeys(training.data for training in trainings):
        try:
            number = steps_per_epoch(tier, part)
            check_steps(tier, part, root)
            sides = fitted_sides(tier, [part])
        except UserError as error:
            yield Finding("epoch", "error", str(error))
        else:
            yield Finding("epoch", "ok", f"{counted(number, 'steps')} in the part of {part!r}")
            for side in sides.values():
                yield Finding("images", "ok", f"short side {side} px in the part of {part!r}, chosen by the boxes")


def weights(trainings: list[Training], tier: Tier, root: Path) -> Iterator[Finding]:
    """Look at the pretrained backbones, and the files of weights that trainings start from."""
    names = [name for name in dict.fromkeys(training.weights for training in trainings) if name in tier.weights]
    for name in names:
        try:
            verify_weights(tier, name, root)
        except UserError as error:
            yield Finding("weights", "error", str(error))
        else:
            weights = tier.weights[name]
            yield Finding("weights", "ok", weights.file if weights.package is None else weights.package)
    for training in trainings:
        if training.init_file is not None and not training.init_file.is_file():
            text = f"{training.name} starts from {training.init_file}, which is not a file"
            folder = training.folder or shown(folders()[0])
            yield Finding("weights", "error", text, f"correct 'init' in {folder}/trainings.yaml")
    if not names:
        yield Finding("weights", "ok", f"none needed: the tier {tier.name!r} trains from random weights")
