"""Several processes, on one machine or many, as `torchrun` starts them; one process where it did not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """A process's place among those that train one network together."""

    rank: int
    count: int
    device: torch.device
    control: Any = None
    """Process group on the CPU by which the processes agree without waiting for their devices."""

    @property
    def start_of_workers(self) -> str | None:
        """How loading processes start: None as Python starts them, by a fork, after which NCCL on InfiniBand may hang.

        Beside NCCL a server that was started for that forks them: it has neither its threads nor its memory.
        """
        return "forkserver" if self.count > 1 and self.device.type == "cuda" else None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def agree(self, reason: str | None, reasons: Sequence[str]) -> str | None:
        """Return the same reason in all processes, where any of them has one.

        Args:
            reason: this process's.
            reasons: all that there are.
        """
        if self.count == 1:
            return reason
        number = torch.tensor(0 if reason is None else 1 + reasons.index(reason))
        distributed.all_reduce(number, op=distributed.ReduceOp.MAX, group=self.control)
        return None if number == 0 else reasons[int(number) - 1]

    def share(self, thing: Any) -> Any:
        """Return the first process's thing, a simple one, in all processes."""
        if self.count == 1:
            return thing
        things = [thing]
        distributed.broadcast_object_list(things, src=0, group=self.control)
        return things[0]

    def gather(self, thing: Any) -> list[Any] | None:
        """Return every process's thing, a simple one, in the first process, in the order of ranks; None elsewhere."""
        if self.count == 1:
            return [thing]
        things: list[Any] | None = [None] * self.count if self.first else None
        distributed.gather_object(thing, things, dst=0, group=self.control)
        return things

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over the processes."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values / self.count


def rank() -> int:
    """Return this process's number among those that `torchrun` started, 0 where it did not, without PyTorch's help."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that train together, on this process's own GPU or on the CPU; leave them at the end."""
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    try:
        yield Processes(rank(), count, device, distributed.new_group(backend="gloo"))
    finally:
        distributed.destroy_process_group()
