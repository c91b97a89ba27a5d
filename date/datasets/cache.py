"""Manifests of verified data, so that the next training need not read hundreds of megabytes of JSON again.

An entry is found by the content of the annotation files and holds for the names and sizes of the image files that were
there: all that a manifest depends on. No time stamp and no path is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from date.datasets.images import Listing
from date.files import exclusive, replace_text

CACHE_VERSION = 1
"""Of what is checked and counted: another version verifies anew."""

Splits = list[tuple[str, Path, Path]]
"""Name, annotation file and image folder of each split."""


def cache_folder(root: Path) -> Path:
    """Return where verified manifests are kept: in the data root, or the user's cache where that is read-only."""
    # A folder without any permission to write is meant to stay as it is, even where the superuser could write to it.
    if os.access(root, os.W_OK) and root.stat().st_mode & 0o222:
        return root / ".verified"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "date-reproduction"


def cache_key(dataset: dict[str, Any], digests: dict[str, str]) -> str:
    """Return the SHA-256 of what a verification started from: the dataset's entry and its annotation files' digests."""
    content = {"version": CACHE_VERSION, "dataset": dataset, "annotations": digests}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def recall(root: Path, key: str, splits: Splits, digest: Any) -> dict[str, Any] | None:
    """Return the manifest kept under a key if the image folders are as they were then, else None.

    Args:
        root: the data root.
        key: see `cache_key`.
        splits: of the dataset.
        digest: function that gives a manifest's digest.
    """
    path = cache_folder(root) / f"{key}.json"
    try:
        entry = json.loads(path.read_text())
        manifest, folders = entry["manifest"], entry["folders"]
        listings = {images: Listing(images) for _, _, images in splits}
        same = digest(manifest) == manifest["digest"] and entry["files"] == _fingerprint(splits, folders, listings)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path} is damaged ({error!r}); verifying the data anew", file=sys.stderr)
        return None
    return manifest if same else None


def remember(
    root: Path,
    key: str,
    splits: Splits,
    folders: dict[str, list[str]],
    manifest: dict[str, Any],
    listings: dict[Path, Listing],
) -> None:
    """Keep a manifest; where that fails, say so and go on, since it only costs time.

    Args:
        root: the data root.
        key: see `cache_key`.
        splits: of the dataset.
        folders: per split the folders that its images lie in, relative to its image folder.
        manifest: of the verified data.
        listings: of the image folders, as they were when they were verified.
    """
    entry = {"folders": folders, "files": _fingerprint(splits, folders, listings), "manifest": manifest}
    folder = cache_folder(root)
    try:
        with exclusive(folder / ".lock", wait=True):
            replace_text(folder / f"{key}.json", json.dumps(entry))
    except OSError as error:
        print(f"the verification of {manifest['dataset']} could not be kept: {error}", file=sys.stderr)


def _fingerprint(splits: Splits, folders: dict[str, list[str]], listings: dict[Path, Listing]) -> str:
    parts = [listings[images].fingerprint(folders[name]) for name, _, images in splits]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
