"""The file system of ``runs/``: what a training relies on, and room for the work."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date.catalogue.publication import load_paper
from date.doctor import Finding
from date.files import replace_text, sync_folder
from date.identity.config import resolve

if TYPE_CHECKING:
    from date.catalogue import Tier, Training

KEPT_CHECKPOINTS = 2
"""Of a training that runs, as `date.training.checkpoint.KEPT`, which is not imported for PyTorch's sake."""
BYTES_PER_DETECTION = 24
"""Box, score, class and image in ``detections.npz``, not compressed."""
LOCK_FROM_ANOTHER_PROCESS = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(1)
"""


def file_system(runs: Path) -> Iterator[Finding]:
    """Do in ``runs/`` what a training does: write, sync, rename over, rename a folder, lock."""
    place = existing(runs)
    kind = type_of(place)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as name:
            folder = Path(name)
            replaceable(folder)
            locks = locked_out(folder / "lock")
    except OSError as error:
        text = f"{place} ({kind}): {error.strerror or error}"
        remedy = "keep the clone where you may write, on a file system with room"
        yield Finding("file system", "error", text, remedy)
        return
    if locks:
        yield Finding("file system", "ok", f"{place} ({kind}): writable, renames replace, locks exclude")
    else:
        text = f"{place} ({kind}): locks do not exclude; trainings rely on heartbeats alone"
        yield Finding(
            "file system", "warning", text, "type the command in one terminal only, or use another file system"
        )


def replaceable(folder: Path) -> None:
    """Write, replace and rename as a training does.

    Raises:
        OSError: it does not work.
    """
    replace_text(folder / "file", "before")
    replace_text(folder / "file", "after")
    if (folder / "file").read_text() != "after":
        raise OSError("a rename does not replace a file")
    sealed = folder / "work" / "sealed"
    sealed.mkdir(parents=True)
    replace_text(sealed / "file", "")
    sync_folder(sealed)
    sealed.rename(folder / "sealed")
    if sealed.exists() or not (folder / "sealed" / "file").is_file():
        raise OSError("a rename does not move a folder")


def locked_out(lock: Path) -> bool:
    """Return whether a lock of this process keeps another one out, both ways that are used."""
    with lock.open("w") as ours, lock.open("w") as other:
        try:
            fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
        else:
            return False
    with lock.open("w") as ours:
        try:
            fcntl.lockf(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        words = [sys.executable, "-I", "-S", "-c", LOCK_FROM_ANOTHER_PROCESS, str(lock)]
        return subprocess.run(words, stdin=subprocess.DEVNULL).returncode == 1


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above that is there."""
    return path if path.is_dir() else existing(path.parent)


def type_of(path: Path) -> str:
    """Return the type of the file system that a path lies on, e.g. ``ext4``, ``nfs4`` or ``lustre``."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    point = path.resolve()
    found = {mount.replace("\\040", " "): kind for mount, kind in mounts}
    while str(point) not in found and point != point.parent:
        point = point.parent
    return found.get(str(point), "unknown")


def space(
    runs: Path, tier: Tier, trainings: list[Training], runs_of: dict[str, int], profile: dict[str, Any]
) -> Iterator[Finding]:
    """Compare the room for ``runs/`` with an estimate of what is to be kept there."""
    jobs = min(int(profile.get("jobs") or os.cpu_count() or 1), sum(runs_of.values()))
    try:
        parameters = largest(tier, trainings)
    except ImportError:
        return  # told by the check of the stack
    sealed, working = sizes(parameters, tier, trainings, runs_of, jobs)
    room = shutil.disk_usage(existing(runs)).free
    basis = f"{sum(runs_of.values())} runs of up to {parameters / 1e6:.1f} million weights, {jobs} at a time"
    text = f"{shown(room)} free; {shown(sealed + working)} needed for {basis} (less what is there already)"
    if room < working:
        yield Finding("disk", "error", text, "make room, or keep the clone on a larger file system")
    elif room < sealed + working:
        yield Finding("disk", "warning", text, "make room, or keep the clone on a larger file system")
    else:
        yield Finding("disk", "ok", text)


def sizes(
    parameters: int, tier: Tier, trainings: list[Training], runs_of: dict[str, int], jobs: int
) -> tuple[float, float]:
    """Return estimates in bytes of what finished runs keep, and of what running ones need beside.

    A finished run keeps its weights, and its detections in ``results/``; a running one `KEPT_CHECKPOINTS` checkpoints
    and a new one, each with the weights, AdamW's two moments of each, all in 4 bytes.
    """
    from date.catalogue import load, load_dataset
    from date.catalogue.settings import dataset_name

    sealed = 0.0
    for training in trainings:
        dataset = load_dataset(dataset_name(training, tier))
        images = dataset.scenes.val_images if dataset.scenes else (dataset.val and dataset.val.count) or 5000
        per_image = 500 if dataset.protocol == "crowdhuman" else 100
        detections = images * per_image * BYTES_PER_DETECTION * len(load().evaluations_of(training.name))
        sealed += runs_of[training.name] * (4 * parameters + detections)
    return sealed, jobs * (KEPT_CHECKPOINTS + 1) * 3 * 4.0 * parameters


def largest(tier: Tier, trainings: list[Training]) -> int:
    """Return the number of parameters of the largest network, by building one of each kind without memory."""
    from date import compat

    compat.activate()
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import date.models  # noqa: F401 - registers the heads

    init_default_scope("mmdet")
    kinds = {(t.backbone, t.model, *t.network.cost): t for t in trainings}
    stated = {backbone: load_paper().parameters.get(backbone, math.inf) for backbone, *_ in kinds}
    deepest = max(stated.values())  # those of which the paper states no size are built, too
    counts = []
    for training in [t for (backbone, *_), t in kinds.items() if stated[backbone] == deepest]:
        with torch.device("meta"):
            network = MODELS.build(Config(resolve(training, tier, 0, None)).model)
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
    return max(counts)


def shown(size: float) -> str:
    """Return a number of bytes for a reader."""
    if size >= 1e12:
        return f"{size / 1e12:.1f} TB"
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
