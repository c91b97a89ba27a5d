"""Annotation files of other tools: gzip, byte order marks, ids as floats, JSON that can't be read."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path
from typing import Any

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
ID_KEYS = {"images": ("id",), "categories": ("id",), "annotations": ("id", "image_id", "category_id")}
"""Keys of a COCO annotation file that hold ids, by list."""


def annotation_bytes(path: Path) -> bytes:
    """Return a file's content, unpacked where it is packed by gzip, without a byte order mark.

    Raises:
        OSError: it can't be read.
        ValueError: it is packed, and damaged.
    """
    return plain(path.read_bytes())


def plain(content: bytes) -> bytes:
    """Return content unpacked where it is packed by gzip, without a byte order mark; see `annotation_bytes`."""
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"a damaged gzip file: {error}") from None
    return content.removeprefix(BYTE_ORDER_MARK)


def whole_ids(data: Any) -> int:
    """Write the ids of a COCO file's content that are whole numbers with a point (``3.0``) as integers, in place.

    Tables with gaps in a column make such files; pycocotools and MMDetection take them.

    Returns:
        How many there were.
    """
    count = 0
    for name, keys in ID_KEYS.items():
        records = data.get(name) if isinstance(data, dict) else None
        for record in records if isinstance(records, list) else ():
            for key in keys if isinstance(record, dict) else ():
                value = record.get(key)
                if type(value) is float and value.is_integer():
                    record[key] = int(value)
                    count += 1
    return count


def why_not_json(error: ValueError | RecursionError) -> str:
    """Return what Python's parser found wrong, without its advice to programmers."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: {error.reason} at byte {error.start}"
    if "int_max_str_digits" in str(error):
        return f"a number has more than {sys.get_int_max_str_digits()} digits"
    return str(error)
