"""Data order and augmentation as functions of the seed: neither workers, processes nor interruptions change a run."""

from __future__ import annotations

import atexit
import copy
import functools
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import Runner
from torch.utils.data import Dataset, Sampler

from date.datasets.decoding import check_size, decode
from date.errors import UserError
from date.training import waiting
from date.training.interruption import SIGNALS
from date.training.processes import Processes
from date.training.sharing import once_a_machine, share_annotations

READ_ATTEMPTS = 3
"""How often an image is read before an error of the file system counts; file servers have bad moments."""


@dataclass(frozen=True)
class LoadFailure:
    """What `SeededDataset` returns in place of a sample that it can't load.

    An exception would lose its kind and its message on the way from a worker process.
    """

    image: str
    reason: str


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[int]):
    """A permutation of the dataset that is a function of (seed, epoch).

    Yields ``epoch * len(dataset) + index``, so that the number tells `SeededDataset` the epoch wherever it is loaded.

    Args:
        dataset: that is sampled.
        seed: of the permutations.
        round_up: unused, taken because MMEngine passes it.
    """

    def __init__(self, dataset: Any, seed: int, round_up: bool = True) -> None:
        self.dataset = dataset
        self.size = len(dataset)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose permutation is yielded next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.size)
        return iter((self.epoch * self.size + order).tolist())


@DATA_SAMPLERS.register_module()
class GlobalBatchSampler(Sampler[list[int]]):
    """An epoch's batches of all processes together, of which this process yields its part.

    Which images make up a batch is a function of (seed, epoch), whatever the number of processes, and every batch is
    full: the last one is filled from the epoch's beginning, as MMDetection's samplers round up. Portrait and landscape
    images come in batches of their own, since a batch is padded to its largest height and width; what is left of both
    at the end comes in one (MMDetection's ``AspectRatioBatchSampler``, there for each GPU's two images).

    Args:
        sampler: an `EpochSampler`.
        batch_size: images in a batch, over all processes.
        drop_last: unused, taken because MMEngine passes it.

    Raises:
        UserError: the processes can't share the batch equally.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank, self.processes = get_rank(), get_world_size()
        if batch_size % self.processes:
            raise UserError(
                f"{self.processes} processes can't share batches of {batch_size} images equally; start a number of "
                f"processes that divides {batch_size}."
            )
        self.landscape = sampler.dataset.landscape()
        self.first = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Choose the epoch, and the batch in it, that come next; the batches before are not loaded."""
        self.sampler.set_epoch(epoch)
        self.first = batch

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def batches(self) -> list[list[int]]:
        """Return the chosen epoch's batches, of all processes, as `EpochSampler`'s numbers."""
        buckets: tuple[list[int], list[int]] = ([], [])
        order, full = list(self.sampler), []
        for number in order:
            bucket = buckets[int(self.landscape[number % len(self.sampler)])]
            bucket.append(number)
            if len(bucket) == self.batch_size:
                full.append(bucket.copy())
                bucket.clear()
        rest = buckets[0] + buckets[1]
        missing = -len(rest) % self.batch_size
        rest += [order[i % len(order)] for i in range(missing)]
        return full + [rest[i : i + self.batch_size] for i in range(0, len(rest), self.batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.processes
        mine = slice(self.rank * share, (self.rank + 1) * share)
        return iter([batch[mine] for batch in self.batches()[self.first :]])


@TRANSFORMS.register_module()
class LoadRecordedImage(BaseTransform):
    """Decodes an image as everything else here does and compares its size with the annotation file's record.

    Boxes are in pixels of the record: where the sizes differ they lie beside their objects.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img`` (H, W, 3; BGR), ``img_shape`` and ``ori_shape`` to a sample.

        Raises:
            OSError: the file can't be read.
            ImageError: it can't be decoded, or has another size than its record.
        """
        image = decode(Path(results["img_path"]).read_bytes())
        check_size(image, results["width"], results["height"])
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


def _recorded(source: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset's config whose pipeline loads images by `LoadRecordedImage`, the project's one decoder."""
    source = copy.deepcopy(source)
    source["pipeline"] = [
        {"type": LoadRecordedImage.__name__} if step["type"] == "LoadImageFromFile" else step
        for step in source["pipeline"]
    ]
    return source


@DATASETS.register_module()
class SeededDataset(Dataset[Any]):
    """A dataset whose augmentation of a sample is a function of (seed, epoch, index), and whose images are checked.

    Args:
        dataset: config of an MMDetection dataset, or the dataset.
        seed: of the augmentation.
    """

    def __init__(self, dataset: dict[str, Any] | BaseDataset, seed: int) -> None:
        self.dataset = DATASETS.build(_recorded(dataset)) if isinstance(dataset, dict) else dataset
        self.seed = seed

    def __deepcopy__(self, memo: dict[int, Any]) -> SeededDataset:
        """Return itself: MMEngine copies the config of a loader, and would copy all annotations in it."""
        return self

    @property
    def metainfo(self) -> dict[str, Any]:
        """The dataset's classes."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def landscape(self) -> Sequence[bool]:
        """Return whether each image is at least as wide as high."""
        infos = map(self.dataset.get_data_info, range(len(self)))
        return [info["width"] >= info["height"] for info in infos]

    @property
    def ann_file(self) -> str:
        """Path of the annotations."""
        return self.dataset.ann_file

    def image_id(self, number: int) -> int:
        """Return the annotation file's id of the image behind `EpochSampler`'s number."""
        return self.dataset.get_data_info(number % len(self))["img_id"]

    def __getitem__(self, number: int) -> Any:
        """Return a sample by `EpochSampler`'s number, ``epoch * len + index``, or a `LoadFailure`."""
        sample = self._sample_or_failure(*divmod(number, len(self.dataset)))
        waiting.beat()
        return sample

    def _sample_or_failure(self, epoch: int, index: int) -> Any:
        attempt = 1
        while True:
            try:
                return self._sample(epoch, index)
            except Exception as error:  # whatever a decoder or a transform raises: the trainer stops and tells it
                if isinstance(error, OSError) and attempt < READ_ATTEMPTS:
                    time.sleep(attempt)
                    attempt += 1
                    continue
                path = self.dataset.get_data_info(index)["img_path"]
                return LoadFailure(
                    path, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                )

    def _sample(self, epoch: int, index: int) -> Any:
        # MMDetection's transforms draw from the global generators of `random` and numpy (and some from torch).
        words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(words[2]))
            return self.dataset[index]


def build_dataset(config: Any, processes: Processes) -> SeededDataset:
    """Return a dataloader's dataset; the processes of a machine have its annotations in memory once.

    Args:
        config: an MMEngine dataloader.
        processes: that train together, all of which call this.
    """
    if processes.count == 1:
        return DATASETS.build(config.dataset)
    return once_a_machine(lambda: DATASETS.build(config.dataset), processes)


def build_loader(
    config: Any, device: torch.device, start: str | None = None, dataset: SeededDataset | None = None
) -> Any:
    """Return PyTorch's loader of a config's dataloader, whose batches are MMEngine's, or a `LoadFailure`.

    Args:
        config: an MMEngine dataloader.
        device: that the batches are for; for a GPU, images are put into memory that it can fetch by itself.
        start: how loading processes start, see `multiprocessing.get_context`; None as Python starts them.
        dataset: that was built of the config; None builds it.
    """
    if config.num_workers > 0:
        waiting.raise_file_limit()
    config = config.copy()
    if start is not None and config.num_workers:
        multiprocessing.set_forkserver_preload(["date.training.components"])
        config.multiprocessing_context = start
    config.update(
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    if dataset is not None:
        config["dataset"] = dataset
    loader = Runner.build_dataloader(config)
    loader.worker_init_fn = functools.partial(_start_worker, memory=waiting.MEMORY)
    if loader.multiprocessing_context is not None:  # else loading processes have the annotations from the fork
        share_annotations(loader.dataset)
    return loader


def _collate(samples: list[Any]) -> Any:
    failures = [sample for sample in samples if isinstance(sample, LoadFailure)]
    return failures[0] if failures else pseudo_collate(samples)


@atexit.register
def _end_workers() -> None:
    """End loading processes that are left, before Python waits for them: it asks by SIGTERM, which they ignore."""
    for worker in multiprocessing.active_children():
        worker.kill()


def _start_worker(worker: int, memory: Any) -> None:
    for number in SIGNALS:  # which come to every process of a job or a terminal, and the trainer alone acts on them
        signal.signal(number, signal.SIG_IGN)
    waiting.start_worker(memory)
    cv2.setNumThreads(0)  # as many workers as cores, each with threads of its own, get into each other's way
