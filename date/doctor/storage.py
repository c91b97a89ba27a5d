"""Check the file system of ``runs/``: what a training relies on, and free space."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date.doctor import Finding
from date.doctor.profile import trainings_at_a_time
from date.files import replace_text, sync_folder
from date.formatting import format_size

if TYPE_CHECKING:
    from date.catalogue import Tier, Training

LOCK_FROM_ANOTHER_PROCESS = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(1)
"""


def file_system(runs: Path) -> Iterator[Finding]:
    """Try in ``runs/`` what a training does: write, sync, rename over, rename a folder, lock."""
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
        yield Finding(
            "file system", "ok", f"{place} ({kind}): writable; renames replace files, locks exclude other processes"
        )
    else:
        text = f"{place} ({kind}): locks do not exclude other processes; only heartbeats protect a run"
        yield Finding(
            "file system", "warning", text, "type the command in one terminal only, or use another file system"
        )


def writable(places: dict[str, Path]) -> Iterator[Finding]:
    """Check that the folders in which Snakemake and libraries keep files can be written, by what each is."""
    for what, folder in places.items():
        try:
            with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder):
                pass
        except OSError as error:
            remedy = "make it writable, or keep the clone and HOME where you may write"
            yield Finding("file system", "error", f"{what}, {folder}, can't be written to ({error.strerror})", remedy)


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
    runs: Path, results: Path, tier: Tier, trainings: list[Training], runs_of: dict[str, int], profile: dict[str, Any]
) -> Iterator[Finding]:
    """Compare the room for ``runs/`` with what `date.planning.disk` expects to be kept there, as `plan` does.

    Args:
        runs: folder of all runs.
        results: folder of all results.
        tier: of the runs.
        trainings: that are to be trained.
        runs_of: how many seeds each has, by name.
        profile: of Snakemake, for the number of trainings at a time.
    """
    from date.planning.disk import checkpoints_at_work, disk
    from date.planning.durations import Durations
    from date.runs.state import Runs

    jobs = trainings_at_a_time(profile, tier, sum(runs_of.values()))
    durations, there = Durations(tier, results, runs), Runs(tier, results, runs)
    try:
        sizes = {training.name: disk(training, durations, there) for training in trainings}
    except ImportError:
        return  # reported by the check of the stack
    sealed = sum(runs_of[name] * (size.sealed + size.detections) for name, size in sizes.items())
    working = checkpoints_at_work((size for name, size in sizes.items() for _ in range(runs_of[name])), jobs)
    room = shutil.disk_usage(existing(runs)).free
    text = (
        f"{format_size(room)} free; {sum(runs_of.values())} runs need {format_size(sealed)} for weights and detections "
        f"and {format_size(working)} for checkpoints while {jobs} at a time are trained, less what is there already "
        f"(basis: {', '.join(sorted({size.basis for size in sizes.values()}))})"
    )
    if room < working:
        yield Finding("disk", "error", text, "make room, or keep the clone on a larger file system")
    elif room < sealed + working:
        yield Finding("disk", "warning", text, "make room, or keep the clone on a larger file system")
    else:
        yield Finding("disk", "ok", text)
