"""Where jobs keep caches: in the clone, where nobody can write to the home folder."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "XDG_CACHE_HOME"


def keep_caches(folder: Path) -> None:
    """Keep the caches of this process's jobs in a folder of the user's, unless the usual place can be written.

    Every job starts Snakemake anew, in a step that takes over the environment and not the profile, and Snakemake makes
    a folder in the cache before it reads anything.

    Args:
        folder: in the clone, which several people may share: programs keep others out of what they cache.
    """
    usual = Path(os.environ.get(VARIABLE) or Path("~/.cache").expanduser())
    there = next(parent for parent in (usual, *usual.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        os.environ[VARIABLE] = str(folder.resolve() / str(os.getuid()))
