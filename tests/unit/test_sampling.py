"""Data order and augmentation are functions of the seed alone; batches, and images that can't be loaded."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from date.errors import UserError
from date.training import sampling
from date.training.components import EpochSampler, GlobalBatchSampler, SeededDataset
from date.training.sampling import READ_ATTEMPTS, LoadFailure, build_loader
from date.training.sharing import SharedBytes


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


# ------------------------------------------------------------------------------------------------- batches


class Shapes:
    """A dataset of images of which some are higher than wide."""

    def __init__(self, landscape: list[bool]) -> None:
        self.shapes = landscape

    def __len__(self) -> int:
        return len(self.shapes)

    def landscape(self) -> list[bool]:
        return self.shapes


def batch_sampler(
    landscape: list[bool], batch_size: int, rank: int = 0, processes: int = 1, seed: int = 3
) -> GlobalBatchSampler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "get_rank", lambda: rank)
        patch.setattr(sampling, "get_world_size", lambda: processes)
        return GlobalBatchSampler(EpochSampler(Shapes(landscape), seed), batch_size)


SHAPES = st.lists(st.booleans(), min_size=1, max_size=60)


@given(SHAPES, st.sampled_from([1, 2, 4, 6, 12]), st.integers(0, 5))
def test_every_batch_is_full_and_every_epoch_has_all_images(shapes: list[bool], size: int, epoch: int) -> None:
    sampler = batch_sampler(shapes, size)
    sampler.start_at(epoch, 0)
    batches = list(sampler)
    count = len(shapes)
    assert len(batches) == len(sampler) == -(-count // size)
    assert all(len(batch) == size for batch in batches)
    numbers = [number for batch in batches for number in batch]
    assert {number // count for number in numbers} == {epoch}, "the number tells the epoch"
    times = Counter(number % count for number in numbers)
    assert times.keys() == set(range(count))
    assert max(times.values()) - min(times.values()) <= 1, "images that fill are taken in turn"


@given(SHAPES, st.sampled_from([2, 4, 12]))
def test_batches_are_of_one_shape_but_for_what_is_left(shapes: list[bool], size: int) -> None:
    batches = list(batch_sampler(shapes, size))
    alike = [len({shapes[number % len(shapes)] for number in batch}) == 1 for batch in batches]
    left = sum(shapes) % size + (len(shapes) - sum(shapes)) % size
    assert all(alike[: len(batches) - -(-left // size)]), "and what is left comes last"


def test_batches_by_hand() -> None:
    sampler = batch_sampler([True, False, True, False, True], 2)
    order = [number % 5 for number in sampler.sampler]
    wide, high = [i for i in order if i % 2 == 0], [i for i in order if i % 2]
    full = sorted([wide[:2], high], key=lambda batch: order.index(batch[-1]))
    assert list(sampler) == [*full, [wide[2], order[0]]], "filled from the epoch's beginning"


@given(SHAPES, st.sampled_from([(4, 2), (4, 4), (12, 3)]), st.integers(0, 3), st.data())
def test_the_processes_parts_make_up_the_one_process_batch(
    shapes: list[bool], division: tuple[int, int], epoch: int, data: st.DataObject
) -> None:
    size, processes = division
    whole = batch_sampler(shapes, size)
    first = data.draw(st.integers(0, len(whole)))
    whole.start_at(epoch, first)
    parts = [batch_sampler(shapes, size, rank, processes) for rank in range(processes)]
    for part in parts:
        part.start_at(epoch, first)
    together = [[number for share in shares for number in share] for shares in zip(*parts, strict=True)]
    assert together == list(whole)
    assert all(len(share) == size // processes for part in parts for share in part)


def test_starting_in_mid_epoch_skips_the_batches_before() -> None:
    sampler = batch_sampler([True] * 10, 2)
    sampler.start_at(4, 0)
    whole = list(sampler)
    for first in range(6):
        sampler.start_at(4, first)
        assert list(sampler) == whole[first:]
    assert len(sampler) == 5, "an epoch's length stays"
    sampler.start_at(5, 0)
    assert list(sampler) != whole


def test_processes_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match="3 processes can't share batches of 16 images equally; start a number of processes that divides 16"):  # fmt: skip
        batch_sampler([True] * 20, 16, processes=3)


# ------------------------------------------------------------------------------------------------- bad images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A COCO dataset of four images of which one can't be decoded."""
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((24, 32, 3), 50 * i, np.uint8))
    (tmp_path / "2.png").write_bytes(b"\x89PNG and nothing else")
    records = [{"id": 10 + i, "file_name": f"{i}.png", "width": 32, "height": 24} for i in range(4)]
    objects = [
        {"id": i, "image_id": 10 + i, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0}
        for i in range(4)
    ]
    annotations = {"images": records, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "train.json").write_text(json.dumps(annotations))
    return tmp_path


def load_all(images: Path, workers: int) -> list[Any]:
    source = dict(
        type="CocoDataset", ann_file=str(images / "train.json"), data_prefix=dict(img=str(images)), metainfo=dict(classes=("a",)),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")],
    )  # fmt: skip
    config = ConfigDict(
        batch_size=2, num_workers=workers, persistent_workers=False, drop_last=False,
        sampler=dict(type="EpochSampler", seed=0), batch_sampler=dict(type="GlobalBatchSampler"),
        dataset=dict(type="SeededDataset", dataset=source, seed=0),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope("mmdet"):
        return list(build_loader(config, torch.device("cpu")))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_decoded_comes_as_a_failure(images: Path, workers: int) -> None:
    batches = load_all(images, workers)
    assert len(batches) == 2
    (failure,) = [batch for batch in batches if isinstance(batch, LoadFailure)]
    assert failure.image == str(images / "2.png")
    assert failure.reason == "it can't be decoded as an image"
    (good,) = [batch for batch in batches if not isinstance(batch, LoadFailure)]
    assert len(good["inputs"]) == 2


class Flaky:
    """A dataset on a file server that has bad moments."""

    metainfo: dict[str, Any] = {}

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors

    def __len__(self) -> int:
        return 10

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"img_path": f"images/{index}.jpg", "img_id": 100 + index}

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
        if self.errors:
            raise self.errors.pop()
        return index, *drawn


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(sampling.time, "sleep", slept.append)
    return slept


def flaky(*errors: Exception) -> SeededDataset:
    return SeededDataset(Flaky(list(errors)), seed=5)  # type: ignore[arg-type]


def test_an_error_of_the_file_system_is_tried_again_with_the_same_augmentation(slept: list[float]) -> None:
    assert flaky(*[OSError("Input/output error")] * (READ_ATTEMPTS - 1))[37] == flaky()[37]
    assert slept == [1, 2]


def test_an_error_that_stays_is_a_failure(slept: list[float]) -> None:
    dataset = flaky(*[FileNotFoundError(2, "No such file or directory")] * READ_ATTEMPTS)
    assert dataset[37] == LoadFailure("images/7.jpg", "FileNotFoundError: [Errno 2] No such file or directory")
    assert len(slept) == READ_ATTEMPTS - 1
    assert dataset.image_id(37) == 107


def test_any_other_error_is_not_tried_again(slept: list[float]) -> None:
    assert flaky(ValueError("a transform's"))[37] == LoadFailure("images/7.jpg", "ValueError: a transform's")
    assert slept == []


def test_annotations_too_large_for_the_shared_memory_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </x>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"don't fit into shared memory: .*\(28\)\. Enlarge /dev/shm"):
        SharedBytes(np.zeros(3, np.uint8))
