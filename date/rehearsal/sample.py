"""A few images of a dataset with their annotations, as a dataset of its own; the images stay where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from date.catalogue import Dataset
from date.datasets.content import annotation_bytes
from date.datasets.crowdhuman import read_odgt
from date.datasets.files import data_files
from date.datasets.prepare import prepare
from date.files import replace_bytes, replace_text


@dataclass(frozen=True)
class Wanted:
    """The numbers of images in a sample, at most."""

    train: int
    val: int
    loading: int
    """To be loaded as fast as possible: others than those of ``train``, where there are enough."""
    side: int
    """The least shorter side in px of images to train on; see `date.datasets.lengths.least_side`."""


@dataclass(frozen=True)
class Sample:
    """A sample of a dataset, with its numbers of images."""

    name: str
    """Of the sampled dataset."""
    all_images: dict[str, int]
    """Of the whole dataset, by split."""
    train: int
    val: int
    loading: int


def take_sample(dataset: Dataset, root: Path, folder: Path, wanted: Wanted) -> Sample:
    """Verify a dataset and write a sample of it as the datasets ``rehearsal-NAME`` and ``rehearsal-NAME-loading``.

    Args:
        dataset: to be sampled.
        root: the data root.
        folder: of experiments: gets ``datasets/*.yaml`` and, in ``data/``, the annotation files.
        wanted: how many images.

    Raises:
        UserError: the dataset is not complete, or damaged.
    """
    manifest = prepare(dataset, root)
    files = data_files(dataset, root)
    entry: dict[str, Any] = {
        "classes": dataset.classes,
        "protocol": dataset.protocol,
        "format": dataset.format,
        "root": str(folder / "data"),
    }
    taker = _take_coco if files.odgt is None else _take_odgt
    sources = files.odgt or (files.train_annotations, files.val_annotations)
    name = f"rehearsal-{dataset.name}"
    target = folder / "data" / name
    suffix = ".json" if files.odgt is None else ".odgt"
    train, loading = taker(
        sources[0], [target / f"{part}{suffix}" for part in ("train", "loading")], [wanted.train, wanted.loading],
        wanted.side,
    )  # fmt: skip
    (val,) = taker(sources[1], [target / f"val{suffix}"], [wanted.val], None)
    images = {"train": str(files.train_images.resolve()), "val": str(files.val_images.resolve())}
    for title, part in ((name, "train"), (f"{name}-loading", "loading")):
        splits = {
            split: {"annotations": f"{name}/{stem}{suffix}", "images": images[split]}
            for split, stem in (("train", part), ("val", "val"))
        }
        replace_text(folder / "datasets" / f"{title}.yaml", json.dumps(entry | splits, indent=1) + "\n")
    counts = {split: part["images"] for split, part in manifest["splits"].items()}
    return Sample(name, counts, train, val, loading)


def choose(number: int, counts: Sequence[int]) -> list[list[int]]:
    """Return places among so many, at random but always the same: lists of these lengths, apart where there is room."""
    order = np.random.default_rng(0).permutation(number).tolist()
    begins = np.concatenate([[0], np.cumsum(counts)]).tolist()
    chosen = [order[begin : begin + count] for begin, count in zip(begins, counts, strict=False)]
    return [sorted(part if len(part) == count else order[-count:]) for part, count in zip(chosen, counts, strict=True)]


def _take_coco(source: Path, targets: list[Path], counts: list[int], side: int | None) -> list[int]:
    """Write some of a COCO file's images; with ``side``, of those that are trained on. Return their numbers."""
    data = json.loads(annotation_bytes(source))
    images = data["images"]
    if side is not None:
        annotated = {annotation["image_id"] for annotation in data["annotations"]}
        images = [i for i in images if i["id"] in annotated and min(i["width"], i["height"]) >= side]
    found = []
    for target, places in zip(targets, choose(len(images), counts), strict=True):
        chosen = [images[place] for place in places]
        ids = {image["id"] for image in chosen}
        annotations = [a for a in data["annotations"] if a["image_id"] in ids]
        part = {"images": chosen, "annotations": annotations, "categories": data["categories"]}
        replace_text(target, json.dumps(part))
        found.append(len(chosen))
    return found


def _take_odgt(source: Path, targets: list[Path], counts: list[int], side: int | None) -> list[int]:
    """Write some of an odgt file's lines; with ``side``, of those with people to train on. Return their numbers."""
    lines = annotation_bytes(source).rstrip().split(b"\n")
    able = [
        place
        for place, record in enumerate(read_odgt(source))
        if side is None or any(not person.ignore for person in record.persons)
    ]
    found = []
    for target, places in zip(targets, choose(len(able), counts), strict=True):
        chosen = [lines[able[place]] for place in places]
        replace_bytes(target, b"\n".join(chosen) + b"\n")
        found.append(len(chosen))
    return found
