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
from date.files import file_digest, replace_text


def number_of(dataset: Dataset, root: Path, name: str, key: str, count: Callable[[dict[str, Any]], float]) -> Any:
    """Return a number that ``count`` finds in a dataset's training annotations, or None where they can't be read.

    Args:
        dataset: whose annotations they are.
        root: the data root.
        name: what the kept file's name begins with; it says all that the number depends on besides the annotations.
        key: of the number in the kept file.
        count: takes the content of a COCO file.
    """
    path = data_files(dataset, root).train_annotations
    try:
        status = path.stat()
    except OSError:
        return None
    return _number(path, status.st_size, status.st_mtime_ns, root, name, key, count)


@functools.cache
def _number(
    path: Path, size: int, changed: int, root: Path, name: str, key: str, count: Callable[[dict[str, Any]], float]
) -> Any:
    known = cache_folder(root) / f"{name}-{file_digest(path)}.json"
    try:
        number = json.loads(known.read_text())[key]
        if isinstance(number, int | float) and not isinstance(number, bool):
            return number
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        found = count(json.loads(annotation_bytes(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ZeroDivisionError):
        return None  # verifying the data tells what is wrong
    with contextlib.suppress(OSError):  # it only costs time
        replace_text(known, json.dumps({key: found}), durable=False)
    return found
