"""The committed records: packed results beside their reports."""

from __future__ import annotations

import tarfile
from pathlib import Path

from date.catalogue import ROOT


def unpack_record(name: str, folder: Path) -> Path:
    """Unpack the results of a committed record and return their folder, which several records share.

    Args:
        name: of the record's tier.
        folder: that gets the folder ``results``.
    """
    with tarfile.open(ROOT / "reports" / name / "results.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "results"
