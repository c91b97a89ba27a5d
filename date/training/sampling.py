"""Data order and augmentation as functions of the seed, so that neither workers nor interruptions change a run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset, Sampler


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
        self.size = len(dataset)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose permutation is yielded next; MMEngine calls it before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.size)
        return iter((self.epoch * self.size + order).tolist())


@DATASETS.register_module()
class SeededDataset(Dataset[Any]):
    """A dataset whose augmentation of a sample is a function of (seed, epoch, index).

    Args:
        dataset: config of an MMDetection dataset, or the dataset.
        seed: of the augmentation.
    """

    def __init__(self, dataset: dict[str, Any] | BaseDataset, seed: int) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.seed = seed

    @property
    def metainfo(self) -> dict[str, Any]:
        """The dataset's classes."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        """Return a sample by `EpochSampler`'s number, ``epoch * len + index``."""
        epoch, index = divmod(number, len(self.dataset))
        # MMDetection's transforms draw from the global generators of `random` and numpy (and some from torch).
        words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(words[2]))
            return self.dataset[index]
