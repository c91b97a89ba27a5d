"""What losses are divided by, where a batch is divided among processes, or within one into passes through the network.

Losses are sums over a batch divided by a number of the whole batch, e.g. of its positives, which no part of it knows
alone. Processes take the mean of theirs, as MMDetection does, since their gradients are averaged. Passes of one process
(gradient accumulation) take the sum, since their gradients are added up: `recording` collects what each pass asks for,
and `replaying` answers each with the whole process's numbers, so that passes change nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mmdet.utils
import torch
from mmdet.models.dense_heads import fcos_head
from mmengine.dist import get_world_size
from torch import Tensor

from date.models.losses import NORMALISER_EPS

_recorded: list[tuple[Tensor, bool]] | None = None
_replayed: Iterator[Tensor] | None = None


def reduce_mean(value: Tensor, over_processes: bool = True) -> Tensor:
    """Return the mean over the processes of a number that each has of its whole part of the batch.

    Args:
        value: a scalar, of the pass at hand.
        over_processes: False for this process's own number.
    """
    if _recorded is not None:
        _recorded.append((value, over_processes))
        return value
    if _replayed is not None:
        return next(_replayed)
    return _mean(value) if over_processes else value


def _mean(values: Tensor) -> Tensor:
    """Return means over the processes, to which losses add `NORMALISER_EPS` as one process would to its sum."""
    processes = get_world_size()
    if processes == 1:
        return values
    return mmdet.utils.reduce_mean(values) + (NORMALISER_EPS / processes - NORMALISER_EPS)


# MMDetection's head reduces by a name in its own module; its normalisers, too, have to know of the passes.
fcos_head.reduce_mean = reduce_mean


@contextlib.contextmanager
def recording() -> Iterator[list[tuple[Tensor, bool]]]:
    """Collect the numbers that a pass wants reduced, in order, and give them back as they are."""
    global _recorded
    recorded: list[tuple[Tensor, bool]] = []
    _recorded = recorded
    try:
        yield recorded
    finally:
        _recorded = None


@contextlib.contextmanager
def replaying(answers: list[Tensor]) -> Iterator[None]:
    """Answer a pass, in order, with numbers that were reduced before."""
    global _replayed
    _replayed = iter(answers)
    try:
        yield
    finally:
        _replayed = None


def reduced(passes: list[list[tuple[Tensor, bool]]]) -> list[Tensor]:
    """Return the answers to what the passes of this process recorded; one reduction for all of them."""
    sums = torch.stack([torch.stack([value.double() for value, _ in recorded]) for recorded in passes]).sum(0)
    means = _mean(sums)
    return [
        (means if over_processes else sums)[i].to(value.dtype) for i, (value, over_processes) in enumerate(passes[0])
    ]
