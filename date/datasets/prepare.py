"""Prepare datasets before any training: generate or convert them, verify them, and write their manifest.

The digest of the manifest is part of a run's identity. `prepare` is what training and evaluation call and may recall a
verification; `examine` always looks anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from date.catalogue import Dataset, DatasetSplit, Tier, Weights
from date.data.synthetic import generate
from date.datasets.annotations import Checked, Images, check_annotations
from date.datasets.cache import Splits, cache_key, recall, remember
from date.datasets.crowdhuman import convert, read_odgt
from date.datasets.files import DataFiles, conversions, data_files, obtaining, weights_file
from date.datasets.images import ABSENT, Listing, Progress, listing_digest, parent_folders, undecodable
from date.datasets.normal import INFO, normal_path
from date.errors import UserError, listed
from date.files import exclusive, file_digest, replace_text

MANIFEST_SCHEMA = 2
DIGITS = 8
"""Of digests that a message shows."""


@dataclass(frozen=True)
class Examination:
    """The result of examining a dataset.

    Attributes:
        manifest: of the data, None where anything is wrong.
        problems: what is wrong, each a sentence.
    """

    manifest: dict[str, Any] | None
    problems: list[str]


def prepare(dataset: Dataset, root: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Make sure that a dataset is there and sane, generating or converting what is to be made; return its manifest.

    Data that were found sane before are recognised by their annotation files' digests and their image files' names and
    sizes, and not checked again.

    Args:
        dataset: of the catalogue.
        root: the data root.
        progress: called with (images done, images in all) while scenes are generated or annotations converted.

    Raises:
        UserError: something is missing or wrong; all of it is listed, with where to get the data.
    """
    problems = make(dataset, root, progress)
    splits = _splits(data_files(dataset, root))
    if not problems and all(os.access(path, os.R_OK) and path.is_file() for _, path, _ in splits):
        key = _key(dataset, {name: file_digest(path) for name, path, _ in splits})
        manifest = recall(root, key, splits, manifest_digest)
        if manifest is not None:
            return manifest
    examination = examine(dataset, root, progress)
    if examination.manifest is None:
        raise UserError(refusal(dataset, examination.problems))
    return examination.manifest


def refusal(dataset: Dataset, problems: list[str]) -> str:
    """Return the message for a dataset with problems, one a line if there are several."""
    if len(problems) == 1:
        return problems[0] if problems[0].startswith("dataset ") else f"dataset {dataset.name!r}: {problems[0]}"
    return "\n  - ".join([f"dataset {dataset.name!r} has {len(problems)} problems:", *problems])


def examine(dataset: Dataset, root: Path, progress: Progress | None = None, deep: bool = False) -> Examination:
    """Look at everything in a dataset anew, generating or converting what is to be made.

    Args:
        dataset: of the catalogue.
        root: the data root.
        progress: called with (images done, images in all) during what takes long.
        deep: decode every image, too.
    """
    problems = make(dataset, root, progress)
    files = data_files(dataset, root)
    splits = _splits(files)
    listings = {images: Listing(images) for _, _, images in splits}
    parts: dict[str, dict[str, Any]] = {}
    folders: dict[str, list[str]] = {}
    for (name, path, images), source in zip(splits, files.sources, strict=True):
        try:
            checked = _checked(dataset, files, name, listings[images], progress)
            checked = _normalised(checked, source, dataset, root)
            parts[name], found = verify_split(checked, path, source, listings[images], dataset, name)
        except UserError as error:
            found = [str(error)]
        problems += [problem for problem in found if problem not in problems]
        if name in parts and checked.images is not None:
            folders[name] = parent_folders(checked.images.names)
            if deep and images.is_dir():
                problems += _decode(source, checked.images, listings[images], progress)
    if absent := incomplete(dataset, root):
        problems.append(absent)
    if problems:
        return Examination(None, problems)
    content = {"schema_version": MANIFEST_SCHEMA, "dataset": dataset.name, "splits": parts}
    manifest = content | {"digest": manifest_digest(content)}
    key = _key(dataset, {name: part["annotations_sha256"] for name, part in parts.items()})
    remember(root, key, splits, folders, manifest, listings)
    return Examination(manifest, [])


def _key(dataset: Dataset, digests: dict[str, str]) -> str:
    return cache_key(dataset.model_dump(mode="json", exclude={"root", "obtain"}), digests)


def _splits(files: DataFiles) -> Splits:
    return [
        ("train", files.train_annotations, files.train_images),
        ("val", files.val_annotations, files.val_images),
    ]


def incomplete(dataset: Dataset, root: Path) -> str | None:
    """Return the sentence on the files and folders of a dataset that are missing, and where to get it; None if none."""
    files = data_files(dataset, root)
    annotations = files.sources
    present = ((path, path.is_file()) for path in annotations)
    folders = ((path, path.is_dir()) for path in dict.fromkeys((files.train_images, files.val_images)))
    missing = [str(path) for path, there in (*present, *folders) if not there]
    if not missing:
        return None
    obtain = f" Get it from: {dataset.obtain}" if dataset.obtain else ""
    return (
        f"dataset {dataset.name!r} is not complete below {root}: no {', '.join(missing)}. "
        f"Put it there, or set data_root in experiments/config.yaml or DATE_DATA_ROOT.{obtain}"
    )


# --------------------------------------------------------------------------------------------------------------- making


def make(dataset: Dataset, root: Path, progress: Progress | None = None) -> list[str]:
    """Generate scenes and convert odgt files where that has not been done; return the problems of the latter."""
    files = data_files(dataset, root)
    if dataset.scenes is not None and not files.root.exists():
        files.root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(files.root.with_name(f".{files.root.name}.lock"), wait=True):
            if not files.root.exists():
                if progress is not None:
                    progress(0, dataset.scenes.train_images + dataset.scenes.val_images)
                generate(dataset.scenes, files.root, progress=progress)
    problems = []
    for (name, target, images), odgt in zip(_splits(files), files.odgt or (), strict=False):
        try:
            if images.is_dir() and odgt.is_file() and not target.exists():
                _convert(files, name, progress, anew=False)
            elif odgt.is_file() and not target.exists():
                read_odgt(odgt)
        except UserError as error:
            problems.append(str(error))
    return problems


def _convert(files: DataFiles, split: str, progress: Progress | None, anew: bool) -> None:
    """Convert a split's odgt file under a lock; without ``anew``, not if another process has done so meanwhile."""
    assert files.odgt is not None
    index = ("train", "val").index(split)
    _, target, images = _splits(files)[index]
    with exclusive(target.with_name(f".{target.name}.lock"), wait=True):
        if anew or not target.exists():
            convert(files.odgt[index], images, target, progress)


# ------------------------------------------------------------------------------------------------------------ verifying


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, its own ``digest`` left out."""
    content = {k: v for k, v in manifest.items() if k != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checked(dataset: Dataset, files: DataFiles, split: str, listing: Listing, progress: Progress | None) -> Checked:
    """Read a split's annotation file; one that was converted and is damaged, or of other images, is converted anew."""
    path = files.train_annotations if split == "train" else files.val_annotations
    if files.odgt is None:
        folder = files.train_images if split == "train" else files.val_images
        return check_annotations(path, dataset.classes, image_folder=folder, boxes_as_written=dataset.boxes_as_written)
    checked = check_annotations(path, dataset.classes, negative_sizes=True)
    if path.is_file() and not _current(checked, listing):
        _convert(files, split, progress, anew=True)
        checked = check_annotations(path, dataset.classes, negative_sizes=True)
    return checked


def _normalised(checked: Checked, source: Path, dataset: Dataset, root: Path) -> Checked:
    """Write the normal form of a file whose own is another, and return what was checked as that of the new file."""
    if checked.normal is None:
        return checked
    target = normal_path(source, conversions(dataset, root), dataset.classes)
    replace_text(target, json.dumps(checked.normal, separators=(",", ":")))
    return replace(checked, sha256=file_digest(target), normal=None)


def _current(checked: Checked, listing: Listing) -> bool:
    """Return whether a converted file is whole and was made with the present images."""
    if checked.images is None or checked.problems:
        return False
    sizes = listing.sizes(checked.images.names)
    files = zip(checked.images.names, sizes, strict=True)
    return ABSENT in sizes or checked.info.get("files_sha256") == listing_digest(files)


def verify_split(
    checked: Checked, path: Path, source: Path, listing: Listing, dataset: Dataset, split: str
) -> tuple[dict[str, Any], list[str]]:
    """Check annotations against their image folder, which is listed; no image is decoded.

    Args:
        checked: content of the annotation file.
        path: the annotation file.
        source: the file that a user knows it by: CrowdHuman's own, or the same.
        listing: of the image folder.
        dataset: that the split is of.
        split: ``"train"`` or ``"val"``.

    Returns:
        The split's part of the manifest, and what is wrong, each a sentence.
    """
    if checked.images is None:
        return {}, checked.problems if path.is_file() else []
    names = checked.images.names
    sizes = listing.sizes(names)
    problems = [
        *checked.problems,
        *(_file_problems(source, listing, names, sizes) if listing.root.is_dir() else ()),
        *(_count_problems(source, getattr(dataset, split), checked.counts, split) if checked.counts else ()),
    ]
    if problems:
        return {}, problems
    origin = {"odgt_sha256": checked.info["odgt_sha256"]} if dataset.format == "crowdhuman" else {}
    origin |= {INFO: checked.info[INFO]} if isinstance(checked.info.get(INFO), dict) else {}
    files_sha256 = listing_digest(zip(names, sizes, strict=True))
    return {"annotations_sha256": checked.sha256, "files_sha256": files_sha256, **origin, **checked.counts}, []


def _file_problems(path: Path, listing: Listing, names: list[str], sizes: list[int]) -> Iterator[str]:
    for value, what in ((ABSENT, "are not in"), (0, "are empty files in")):
        wrong = [name for name, size in zip(names, sizes, strict=True) if size == value]
        if wrong:
            alike = listing.alike(wrong[0]) if value == ABSENT else None
            there = f" ({alike!r} is there: correct the names or the dataset's 'images')" if alike else ""
            yield f"{path} refers to images that {what} {listing.root}: {listed(wrong)}; restore them{there}."


def _count_problems(path: Path, entry: DatasetSplit | None, counts: dict[str, Any], split: str) -> Iterator[str]:
    if entry is not None and entry.count not in (None, counts["images"]):
        yield (
            f"{path} has {counts['images']:,} images and not {entry.count:,}; restore the complete file, or "
            f"correct 'count' of {split!r} in the dataset's entry."
        )
    if split == "train" and counts["boxes"]["trained_on"] == 0:
        found = [f"{n:,} {use.replace('_', ' ')}" for use, n in counts["boxes"].items() if n]
        yield f"{path} has no box that training could use ({', '.join(found) or 'none at all'}); choose another file."


def _decode(source: Path, records: Images, listing: Listing, progress: Progress | None) -> list[str]:
    """Return what is wrong inside the images that are there, as a sentence; missing ones are reported elsewhere."""
    there = [size > 0 for size in listing.sizes(records.names)]
    columns = zip(records.names, records.widths.tolist(), records.heights.tolist(), there, strict=True)
    wrong = undecodable(
        [(listing.root / name, int(w), int(h)) for name, w, h, is_there in columns if is_there], progress=progress
    )
    if not wrong:
        return []
    return [
        f"{source} refers to images in {listing.root} that do not decode, or not to their record: {listed(wrong)}; "
        f"restore them."
    ]


def verify_weights(tier: Tier, name: str, root: Path) -> None:
    """Check that the pretrained weights of a backbone are there and are the right file, where the tier uses any.

    Raises:
        UserError: the file or its package is absent, or its digest differs.
    """
    weights: Weights | None = tier.weights.get(name)
    if weights is None:
        return
    path = weights_file(weights, root)
    if not path.is_file():
        raise UserError(f"the pretrained weights {path} are missing; {obtaining(weights)}.")
    digest = file_digest(path)
    if not digest.startswith(weights.sha256):
        raise UserError(
            f"the pretrained weights {path} are not the expected file: their SHA-256 begins with {digest[:DIGITS]} "
            f"instead of {weights.sha256[:DIGITS]}; {obtaining(weights)}."
        )
