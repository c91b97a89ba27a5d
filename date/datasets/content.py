"""The bytes of annotation files from other tools: gzipped, or with a byte order mark."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"


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
