"""Numbers that follow from the training annotations of a dataset, kept beside its verified manifests."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from date.catalogue import Dataset
from date.datasets.cache import cache_folder
from date.datasets.content import annotation_bytes
from date.datasets.files import data_files
from date.datasets.lean import annotation_file
from date.files import file_digest, replace_text

Content = dict[str, Any]
"""The lists ``images`` and ``annotations`` of a COCO file, whose records are read as dicts are."""
Count = Callable[[Content], "float | list[float]"]


def number_of(dataset: Dataset, root: Path, name: str, key: str, count: Count) -> Any:
    """Return what ``count`` finds in a dataset's training annotations, or None where they can't be read.

    Args:
        dataset: whose annotations they are.
        root: the data root.
        name: what the kept file's name begins with; it says all that the number depends on besides the annotations.
        key: of the number, or the list of numbers, in the kept file.
        count: finds them; one and the same function each time.
    """
    path = data_files(dataset, root).train_annotations
    try:
        status = path.stat()
    except OSError:
        return None
    return _number(path, status.st_size, status.st_mtime_ns, root, name, key, count)


@functools.cache
def _number(path: Path, size: int, changed: int, root: Path, name: str, key: str, count: Count) -> Any:
    known = cache_folder(root) / f"{name}-{file_digest(path)}.json"
    try:
        found = json.loads(known.read_text())[key]
        if all(map(_is_number, found if isinstance(found, list) else [found])):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        found = count(_content(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ZeroDivisionError):
        return None  # verifying the data tells what is wrong
    with contextlib.suppress(OSError):  # it only costs time
        replace_text(known, json.dumps({key: found}), durable=False)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _content(path: Path) -> Content:
    raw = annotation_bytes(path)
    found = annotation_file(raw)
    return json.loads(raw) if found is None else {"images": found.images, "annotations": found.annotations}
