"""Data order and augmentation are functions of the seed alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from date.training.components import EpochSampler, SeededDataset


class Noisy:
    """A dataset whose samples are augmented from all three global generators."""

    metainfo: dict[str, Any] = {}

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def epochs(workers: int, count: int = 3) -> list[list[tuple[Any, ...]]]:
    dataset = SeededDataset(Noisy(), seed=5)  # type: ignore[arg-type]
    sampler = EpochSampler(dataset, seed=5)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers)
    result = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        result.append([tuple(float(x) for x in sample) for sample in loader])
    return result


def test_every_epoch_is_another_permutation_and_the_same_each_time() -> None:
    first, again = epochs(workers=0), epochs(workers=0)
    assert first == again
    orders = [[sample[0] for sample in epoch] for epoch in first]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_augmentation_differs_between_epochs_and_samples() -> None:
    draws = [sample[1:] for epoch in epochs(workers=0) for sample in epoch]
    for column in zip(*draws, strict=True):
        assert len(set(column)) == len(draws)


def test_the_number_of_workers_does_not_matter() -> None:
    assert epochs(workers=2) == epochs(workers=0)


def test_another_seed_is_another_order() -> None:
    dataset = Noisy()
    assert list(EpochSampler(dataset, seed=1)) != list(EpochSampler(dataset, seed=2))
