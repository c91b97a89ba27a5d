"""Check what loading processes need to hand over batches: shared memory, open files, a folder for sockets."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date.doctor import Finding
from date.formatting import format_size
from date.identity.config import resolve

if TYPE_CHECKING:
    from date.catalogue import Tier, Training

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2
"""Batches that PyTorch has each loading process make ahead."""
TENSORS = 5
"""Of a loaded image: its pixels; boxes and labels of its objects and of its ignored regions. Each is an open file."""
OTHER_FILES = 256
"""That a training has open besides, at most."""
SOCKET_PATH, SOCKET_NAME = 107, len("/pymp-12345678/listener-12345678")
"""Bytes that the path of a socket may have, and what Python adds to the temporary folder's."""


@dataclass(frozen=True)
class Need:
    """The resources that one training's loading processes need."""

    processes: int
    memory: int
    """Shared, in bytes."""
    files: int
    """Open at once in the training's main process."""


def needed(tier: Tier, trainings: list[Training]) -> Need:
    """Return the most that a training's loading processes need: all prefetched batches of training and validation."""
    memory = 0
    for training in trainings:
        config = resolve(training, tier, 0, None)
        loaders = [config[name] for name in ("train_dataloader", "val_dataloader")]
        memory = max(memory, sum(_batch_bytes(loader) for loader in loaders) * tier.workers * PREFETCHED)
    batches = 2 * tier.workers * PREFETCHED
    return Need(tier.workers, memory, batches * tier.batch_size * TENSORS + OTHER_FILES)


def _batch_bytes(loader: dict[str, Any]) -> int:
    """Return the bytes of a batch of the largest images that a loader's pipeline makes."""
    largest = max(map(_pixels, _transforms(loader["dataset"]["dataset"]["pipeline"])), default=0)
    return 3 * largest * loader["batch_size"]


def _transforms(pipeline: list[Any]) -> Iterator[dict[str, Any]]:
    for step in pipeline:
        if isinstance(step, list):
            yield from _transforms(step)
        else:
            yield step
            yield from _transforms(step.get("transforms", []))


def _pixels(transform: dict[str, Any]) -> int:
    sizes = transform.get("scales") or [transform.get("scale") or (0, 0)]
    return max(int(width) * int(height) for width, height in sizes)


def loading(tier: Tier, trainings: list[Training], jobs: int, elsewhere: bool) -> Iterator[Finding]:
    """Compare what loading processes need with what this machine has.

    Args:
        tier: that is to be worked at.
        trainings: that are to be trained.
        jobs: trainings at a time on one machine.
        elsewhere: the jobs run on other machines, which may have less or more.
    """
    if tier.workers == 0 or not trainings:
        yield Finding("loading", "ok", f"the tier {tier.name!r} loads data without processes of its own")
        return
    need = needed(tier, trainings)
    yield from _memory(need, jobs, elsewhere)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = "any number" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    text = f"{need.files:,} open files needed by a training of {need.processes} loading processes, {limit} allowed"
    if hard != resource.RLIM_INFINITY and hard < need.files:
        remedy = "raise the hard limit (ulimit -Hn), or set fewer 'workers' in the tier"
        yield Finding("loading", "warning" if elsewhere else "error", text, remedy)
    else:
        yield Finding("loading", "ok", text)
    folder = tempfile.gettempdir()
    if not os.access(folder, os.W_OK | os.X_OK) or len(os.fsencode(folder)) + SOCKET_NAME > SOCKET_PATH:
        text = f"{folder} has no room for the sockets by which loading processes hand over batches"
        remedy = f"set TMPDIR to a writable folder whose path has at most {SOCKET_PATH - SOCKET_NAME} characters"
        yield Finding("loading", "error", text, remedy)


def _memory(need: Need, jobs: int, elsewhere: bool) -> Iterator[Finding]:
    wanted = need.memory * jobs
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError as error:
        remedy = "mount one there, or set 'workers: 0' in the tier"
        yield Finding("loading", "error", f"{SHARED_MEMORY} can't be used ({error.strerror})", remedy)
        return
    each = "" if jobs == 1 else f" of each of {jobs} trainings at a time"
    where = " on this machine; the nodes may have less" if elsewhere else ""
    room = f"{format_size(free)} free"
    text = f"{format_size(wanted)} of shared memory needed by the {need.processes} loading processes{each}, {room}"
    if free < wanted:
        remedy = "enlarge /dev/shm (docker run --shm-size), or set fewer 'workers' in the tier"
        yield Finding("loading", "warning" if elsewhere else "error", text + where, remedy)
    else:
        yield Finding("loading", "ok", text + where)
