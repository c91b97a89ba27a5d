"""What losses are divided by: means over the processes, and over the parts of a batch that share a step.

A batch may be divided among processes, and within a process into passes through the network, one after the other
(gradient accumulation). Losses are sums over the batch divided by a normaliser of the whole batch, e.g. its number of
positives, which no part knows alone. `recording` collects each pass's own numbers, and `replaying` gives every pass
their mean, so that the mean of the passes' losses is the loss of the undivided batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mmdet.utils
import torch
from mmdet.models.dense_heads import fcos_head
from mmengine.dist import get_world_size
from torch import Tensor

_recorded: list[tuple[Tensor, bool]] | None = None
_replayed: Iterator[Tensor] | None = None


def undivided() -> bool:
    """Return whether the batch at hand is whole: one process, one pass."""
    return get_world_size() == 1 and _recorded is None and _replayed is None


def reduce_mean(value: Tensor, over_processes: bool = True) -> Tensor:
    """Return the mean of a number over the processes and over the passes of the step at hand.

    Args:
        value: a scalar, this part's own.
        over_processes: False for the mean over this process's passes alone.
    """
    if _recorded is not None:
        _recorded.append((value, over_processes))
        return value
    if _replayed is not None:
        return next(_replayed)
    return mmdet.utils.reduce_mean(value) if over_processes else value


# MMDetection's head reduces by a name in its own module; its normalisers, too, have to know of the passes.
fcos_head.reduce_mean = reduce_mean


@contextlib.contextmanager
def recording() -> Iterator[list[tuple[Tensor, bool]]]:
    """Collect the numbers that a pass asks the mean of, in order, and give them back as they are."""
    global _recorded
    recorded: list[tuple[Tensor, bool]] = []
    _recorded = recorded
    try:
        yield recorded
    finally:
        _recorded = None


@contextlib.contextmanager
def replaying(means: list[Tensor]) -> Iterator[None]:
    """Answer a pass, in order, with means computed before."""
    global _replayed
    _replayed = iter(means)
    try:
        yield
    finally:
        _replayed = None


def means_of(passes: list[list[tuple[Tensor, bool]]]) -> list[Tensor]:
    """Return the means over processes and passes of what the passes recorded; one reduction for all of them."""
    values = torch.stack([torch.stack([value.double() for value, _ in recorded]) for recorded in passes]).mean(0)
    reduced = mmdet.utils.reduce_mean(values)
    return [
        (reduced if over_processes else values)[i].to(value.dtype)
        for i, (value, over_processes) in enumerate(passes[0])
    ]
