"""Annotations that the processes of a machine have in memory once: the first one reads them and hands them over."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from date.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from date.training.processes import Processes


class SharedBytes:
    """Bytes in memory that processes share: pickled for another process, they are the same ones there.

    Args:
        content: (N,) uint8.

    Raises:
        UserError: the machine's shared memory is too small.
    """

    def __init__(self, content: NDArray[np.uint8]) -> None:
        try:
            self.content = torch.from_numpy(content).share_memory_()
        except RuntimeError as error:
            raise UserError(
                f"The annotations don't fit into shared memory: {error}. Enlarge /dev/shm (docker run --shm-size)."
            ) from error

    def __getitem__(self, part: slice) -> NDArray[np.uint8]:
        """Return a part as an array that shares the memory."""
        return self.content[part].numpy()


def share_annotations(dataset: Any) -> None:
    """Move the annotations of a `date.training.sampling.SeededDataset` into memory that processes share, if need be."""
    annotations = dataset.dataset
    if not isinstance(annotations.data_bytes, SharedBytes):
        annotations.data_bytes = SharedBytes(annotations.data_bytes)


@functools.cache
def _agree_on_a_key(processes: Processes) -> None:
    """Let processes that did not start one another trust each other when they hand over memory, as Python's do."""
    multiprocessing.current_process().authkey = processes.share(os.urandom(32))


def once_a_machine(build: Callable[[], Any], processes: Processes) -> Any:
    """Build a dataset in the first process of each machine, and return it, or one that shares its annotations.

    Only the first process has to read the annotation file, which takes several times the memory of what is kept.

    Args:
        build: returns a `date.training.sampling.SeededDataset`, the same in every process.
        processes: that train together; `torchrun` numbers those of a machine one after the other.
    """
    place, neighbours = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    _agree_on_a_key(processes)
    dataset, copies = None, {}
    if place == 0:
        dataset = build()
        share_annotations(dataset)
        # Each copy has a handle of its own for the memory, which can be taken once.
        copies = {other: bytes(ForkingPickler.dumps(dataset)) for other in range(1, neighbours)}
    everywhere = processes.share(processes.gather(copies))
    if place > 0:
        dataset = pickle.loads(everywhere[processes.rank - place][place])
    processes.share(processes.gather(None))  # the first process must live until the others have taken the memory
    return dataset
