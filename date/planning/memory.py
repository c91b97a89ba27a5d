"""The GPU memory that a step takes, and the number of images that fit, before a job is submitted.

The table beside this file was measured on a stand-in for a GPU (``python -m tests.cuda.table``), at the reference
tier's size. What it cannot know, the CUDA context and the convolutions' workspace, is `BESIDES`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from date.catalogue import Tier, Training, load
from date.planning.durations import kind

TABLE = Path(__file__).with_name("memory.json")
FAST = {"precision": "bf16", "channels_last": True}
"""Fields of ``compute`` of the table's ``fast`` rows."""
BESIDES = 1536
"""MiB for the context and for workspaces, an allowance that was not measured."""
RESERVED = 512
"""MiB of a GPU's stated memory that it does not give to programs, an allowance as well."""
GPUS = (12, 16, 24, 32, 40, 48, 80, 96, 141)
"""GiB of memory of common GPUs."""


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


@functools.cache
def _names() -> dict[Any, str]:
    trainings = load().trainings
    return {kind(trainings[name]): name for name in _table()["mib"] if name in trainings}


def memory(training: Training, tier: Tier, images: int) -> int | None:
    """Return the MiB that a step takes with a number of images at a time; None where the table has no entry.

    It knows the reference tier's sizes, and networks of the kinds that it names; in double precision none.
    """
    name = _names().get(kind(training))
    if name is None or not tier.reference or tier.compute.precision == "fp64":
        return None
    row = _table()["mib"][name]["fast" if tier.compute.precision == "bf16" else "fp32"]
    return round(row["resting"] + (row["peak"] - row["resting"]) * images / _table()["images"]) + BESIDES


def images_that_fit(training: Training, tier: Tier, images: int, mib: int) -> int:
    """Return how many of the images at a time fit into a GPU's memory in MiB: all, fewer, or 0."""
    return next((n for n in range(images, 0, -1) if (memory(training, tier, n) or 0) <= mib), 0)


def smallest_gpu(mib: int) -> int | None:
    """Return the GiB of the smallest common GPU that has a number of MiB; None where none has."""
    return next((size for size in GPUS if size * 1024 - RESERVED >= mib), None)


def gpu_memory(trainings: Sequence[Training], tier: Tier) -> list[str]:
    """Return, as lines for a reader, which GPUs the trainings of a plan need, and with fewer images which do."""
    needs = {each.name: memory(each, tier, tier.batch_size) for each in trainings}
    known = {name: need for name, need in needs.items() if need is not None}
    if not known:
        return []
    by_size: dict[int | None, list[str]] = {}
    for name, need in sorted(known.items(), key=lambda item: item[1]):
        by_size.setdefault(smallest_gpu(need), []).append(name)
    least, most = (f"{value / 1024:.1f}" for value in (min(known.values()), max(known.values())))
    lines = [
        f"GPU memory with all {tier.batch_size} images at a time: {least} to {most} GiB (measured on a stand-in, "
        f"{BESIDES / 1024:.1f} GiB of it an allowance)"
    ]
    for size, names in by_size.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        gpu = f"{size} GiB" if size else "no common GPU"
        lines.append(f"  {gpu:>8}  {', '.join(names[:3])}{more}")
    by_name = {each.name: each for each in trainings}  # of several seeds one
    for size in (16, 24):
        fit = min(images_that_fit(by_name[name], tier, tier.batch_size, size * 1024 - RESERVED) for name in known)
        if 0 < fit < tier.batch_size:
            lines.append(f"  all of them fit {size} GiB with --images-per-pass {fit}")
    return lines
