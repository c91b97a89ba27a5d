"""COCO-format datasets: verification before any training, and the manifest whose digest is part of a run's identity."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from date.catalogue import Dataset, Tier, Weights
from date.config import DataFiles, data_files
from date.data.synthetic import generate
from date.errors import UserError
from date.files import exclusive, file_digest

MANIFEST_SCHEMA = 1
LISTED_PROBLEMS = 10
"""How many problems of a split a message lists; the rest is counted."""


def prepare(dataset: Dataset, root: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Make sure that a dataset is there and sane, generating scenes where it is made of them; return its manifest.

    Args:
        dataset: of the catalogue.
        root: the data root.
        progress: called with (images done, images in all) while scenes are generated.

    Raises:
        UserError: something is missing or wrong; all of it is listed, with where to get the data.
    """
    files = data_files(dataset, root)
    if dataset.scenes is not None:
        files.root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(files.root.with_name(f".{files.root.name}.lock"), wait=True):
            if not files.root.exists():
                generate(dataset.scenes, files.root, progress=progress)
    missing = [
        str(path)
        for path in (files.train_annotations, files.train_images, files.val_annotations, files.val_images)
        if not path.exists()
    ]
    if missing:
        obtain = f" Get it from: {dataset.obtain}" if dataset.obtain else ""
        raise UserError(
            f"dataset {dataset.name!r} is not complete below {root}: no {', '.join(missing)}. "
            f"Put it there, or set data_root in experiments/config.yaml or DATE_DATA_ROOT.{obtain}"
        )
    splits, problems = {}, []
    for split, annotation_file, images in _splits(files):
        splits[split], found = verify_split(annotation_file, images, dataset.classes)
        problems += found
    if problems:
        raise UserError(f"dataset {dataset.name!r}: " + " ".join(problems))
    manifest = {"schema_version": MANIFEST_SCHEMA, "dataset": dataset.name, "splits": splits}
    return manifest | {"digest": manifest_digest(manifest)}


def _splits(files: DataFiles) -> list[tuple[str, Path, Path]]:
    return [
        ("train", files.train_annotations, files.train_images),
        ("val", files.val_annotations, files.val_images),
    ]


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, its own ``digest`` left out."""
    content = {k: v for k, v in manifest.items() if k != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def verify_split(annotations: Path, images: Path, classes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Check an annotation file against its image folder.

    Images are checked by listing the folder, not by decoding. Boxes without extent are legal in COCO files; training
    drops them, and the manifest counts them.

    Returns:
        The split's part of the manifest, and the problems found, each a sentence; at most `LISTED_PROBLEMS` of a kind
        are spelled out.
    """
    raw = annotations.read_bytes()
    try:
        data = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return {}, [f"{annotations} is not valid JSON ({error}); restore it from its source."]
    absent = [k for k in ("images", "annotations", "categories") if not isinstance(data, dict) or k not in data]
    if absent:
        return {}, [f"{annotations} has no {', '.join(absent)}; it is not a COCO annotation file."]

    found: list[str] = []
    names = [c["name"] for c in data["categories"]]
    if names != classes:
        found.append(
            f"{annotations} has the categories {names}, but the dataset's 'classes' are {classes}; "
            f"list the same names in the file's order."
        )
    _check_images(data["images"], annotations, images, found)
    statistics = _check_annotations(data, annotations, found)
    part = {
        "annotations_sha256": hashlib.sha256(raw).hexdigest(),
        "images": len(data["images"]),
        "files_sha256": _listing_digest(images, [i["file_name"] for i in data["images"]]) if not found else "",
        **statistics,
    }
    return part, found


def _check_images(records: list[dict[str, Any]], annotations: Path, images: Path, found: list[str]) -> None:
    ids = Counter(record["id"] for record in records)
    _report(
        [f"image id {i}" for i, n in ids.items() if n > 1], f"{annotations} repeats {{}}; ids must be unique.", found
    )
    # One listing per folder instead of one look-up per image: network file systems answer a listing in one go.
    present: dict[Path, set[str]] = {}
    missing = []
    for record in records:
        path = images / record["file_name"]
        if path.parent not in present:
            present[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        if path.name not in present[path.parent]:
            missing.append(record["file_name"])
    _report(missing, f"{annotations} refers to images that are not in {images}: {{}}; add them or drop them.", found)


def _check_annotations(data: dict[str, Any], annotations: Path, found: list[str]) -> dict[str, Any]:
    image_ids = {record["id"] for record in data["images"]}
    categories = {c["id"]: c["name"] for c in data["categories"]}
    ids: Counter[Any] = Counter()
    strangers, foreign, insane = [], [], []
    objects: Counter[str] = Counter()
    crowds = degenerate = 0
    annotated = set()
    for a in data["annotations"]:
        ids[a["id"]] += 1
        if a["image_id"] not in image_ids:
            strangers.append(f"{a['id']} (image {a['image_id']})")
        if a["category_id"] not in categories:
            foreign.append(f"{a['id']} (category {a['category_id']})")
            continue
        box = a.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box)) and box[2] >= 0 and box[3] >= 0):
            insane.append(f"{a['id']} ({box})")
            continue
        crowds += bool(a.get("iscrowd"))
        degenerate += box[2] < 1 or box[3] < 1
        annotated.add(a["image_id"])
        objects[categories[a["category_id"]]] += 1
    repeated = [str(i) for i, n in ids.items() if n > 1]
    _report(repeated, f"{annotations} repeats annotation ids: {{}}; ids must be unique.", found)
    _report(strangers, f"{annotations} has annotations of unknown images: {{}}; remove them.", found)
    _report(foreign, f"{annotations} has annotations of unknown categories: {{}}; remove them.", found)
    _report(insane, f"{annotations} has boxes that are not finite x, y, width, height: {{}}; mend them.", found)
    return {
        "annotations": len(data["annotations"]),
        "objects": dict(sorted(objects.items())),
        "iscrowd": crowds,
        "smaller_than_a_pixel": degenerate,
        "images_without_objects": len(image_ids - annotated),
    }


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _report(items: list[str], sentence: str, found: list[str]) -> None:
    if items:
        more = f" and {len(items) - LISTED_PROBLEMS} more" if len(items) > LISTED_PROBLEMS else ""
        found.append(sentence.format(", ".join(items[:LISTED_PROBLEMS]) + more))


def _listing_digest(images: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0{(images / name).stat().st_size}\0".encode())
    return digest.hexdigest()


def verify_weights(tier: Tier, name: str, root: Path) -> None:
    """Check that the pretrained weights of a backbone are there and are the right file, where the tier uses any.

    Raises:
        UserError: the file is absent, or its digest differs.
    """
    weights: Weights | None = tier.weights.get(name)  # type: ignore[call-overload]
    if weights is None:
        return
    path = root / weights.file
    if not path.exists():
        raise UserError(f"the pretrained weights {path} are missing; get them from {weights.obtain}.")
    digest = file_digest(path)
    if not digest.startswith(weights.sha256):
        raise UserError(
            f"{path} has the SHA-256 {digest[: len(weights.sha256)]}... and not {weights.sha256}...; "
            f"get it again from {weights.obtain}."
        )
