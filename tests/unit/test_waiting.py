"""Whatever keeps a batch from coming is noticed, in a time that tests make short."""

from __future__ import annotations

import functools
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from date.training import waiting
from date.training.options import Options
from date.training.sampling import _start_worker
from date.training.waiting import (
    Leave,
    LoadingFailed,
    all_batches,
    end_processes,
    next_batch,
    open_batches,
    processes_of,
    raise_file_limit,
    start_worker,
)

pytestmark = pytest.mark.timed

PATIENCE = 1.5


class Numbers(Dataset[Any]):
    """Samples that are tensors, after which something may happen in the loading process."""

    def __init__(self, act: Callable[[int], None] = lambda index: None, length: int = 40) -> None:
        self.act, self.length = act, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.act(index)
        waiting.beat()
        return torch.full((1000,), index)


def started(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the trainer's loading processes do
    start_worker()


def loader(dataset: Any, workers: int = 2) -> Any:
    return DataLoader(dataset, batch_size=2, num_workers=workers, worker_init_fn=started, collate_fn=list)


def take(batches: Any, count: int) -> None:
    for _ in range(count):
        next_batch(batches, PATIENCE)


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Opens batches whose loading processes are ended with the test."""
    found: list[Any] = []

    def opening(loader: Any) -> Any:
        found.append(open_batches(loader))
        return found[-1]

    yield opening
    for batches in found:
        end_processes(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_batches_come(workers: int) -> None:
    firsts = [int(batch[0][0]) for batch in all_batches(loader(Numbers(), workers))]
    assert firsts == list(range(0, 40, 2))


def test_without_an_option_a_wait_ends_within_a_minute() -> None:
    assert Options().batch_timeout == waiting.PATIENCE and waiting.PATIENCE + 2 * waiting.LOOK < 60


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_stopped_loading_processes_are_noticed(taken: int, opened: Any) -> None:
    """They stop after some batches were taken, with others on their way: wherever the wait is, it ends."""
    batches = opened(loader(Numbers(length=400)))
    take(batches, taken)
    if taken:
        time.sleep(0.5)  # their prefetched batches lie ready, the memory of which they have to hand over themselves
    for process in processes_of(batches):
        os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    pids = ", ".join(str(process.pid) for process in processes_of(batches))
    with pytest.raises(
        LoadingFailed, match=rf"^no batch came for 1.5 s \(loading processes {pids} stopped\)$"
    ) as failed:
        take(batches, 10)
    assert not failed.value.again and "fewer 'workers'" in failed.value.remedy
    assert time.monotonic() - began < PATIENCE + 3
    began = time.monotonic()
    end_processes(batches)
    del batches
    assert time.monotonic() - began < 3, "ending waits for no stopped process"


def test_a_slow_loading_process_that_goes_on_is_waited_for() -> None:
    slow = Numbers(lambda index: time.sleep(0.4), length=8)
    assert len(list(all_batches(loader(slow, 1), patience=0.7))) == 4


def slowly(index: int) -> None:
    time.sleep(0.4)


def test_so_is_one_that_a_server_started(opened: Any) -> None:
    """It shares no memory with this process but what it was handed."""
    slow = DataLoader(
        Numbers(slowly, length=8),
        batch_size=2,
        num_workers=1,
        collate_fn=list,
        worker_init_fn=functools.partial(_start_worker, memory=waiting.MEMORY),
        multiprocessing_context="forkserver",
    )
    batches = opened(slow)
    next_batch(batches, 120.0)  # once it has imported what it needs
    assert len([next_batch(batches, 0.7) for _ in range(3)]) == 3


def test_one_that_sleeps_for_ever_is_not(opened: Any) -> None:
    batches = opened(loader(Numbers(lambda index: time.sleep(3600))))
    with pytest.raises(LoadingFailed, match=r"no batch came for 1.5 s \(loading processes .* idle\)"):
        next_batch(batches, PATIENCE)


def test_dying_processes_are_noticed(opened: Any) -> None:
    batches = opened(loader(Numbers(lambda index: os.kill(os.getpid(), signal.SIGKILL))))
    with pytest.raises(LoadingFailed, match=r"the loading processes die \(DataLoader worker .* exited") as failed:
        next_batch(batches)
    assert failed.value.again


def test_a_batch_that_cannot_be_handed_over_is_noticed_with_its_reason(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor on its way needs an open file: here there is none left for it."""

    def starve(index: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    batches = opened(loader(Numbers(starve)))
    with pytest.raises(LoadingFailed, match=r"the loading processes can't hand over a batch \(.*(files|file|fd).*\)") as failed:  # fmt: skip
        next_batch(batches)
    assert failed.value.again and "/dev/shm" in failed.value.remedy
    assert waiting._reason_left_behind() == "", "the next failure is not given this one's reason"


def test_the_wait_is_left_when_told_to(opened: Any) -> None:
    batches = opened(loader(Numbers(lambda index: time.sleep(3600))))
    began = time.monotonic()
    with pytest.raises(Leave):
        next_batch(batches, 60, lambda: time.monotonic() - began > 0.2)
    assert time.monotonic() - began < 3


def test_the_timer_and_its_handler_are_as_before() -> None:
    before = signal.getsignal(signal.SIGALRM)
    list(all_batches(loader(Numbers(length=4))))
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_errors_of_another_kind_pass(opened: Any) -> None:
    def bug(index: int) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        next_batch(opened(loader(Numbers(bug))))


def test_processes_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(LoadingFailed, match="the loading processes can't be started .*temporarily unavailable"):
        open_batches(loader(Numbers()))


def test_the_limit_of_open_files_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
