"""What goes wrong in a training ends it with one sentence: the cause, the step, the images, the last checkpoint."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from date.catalogue import load, load_tier
from date.cli import main
from date.errors import UserError
from date.training.interruption import Interrupted
from date.training.journal import read_segments
from date.training.loop import Trainer
from date.training.metric import DetectionMetric
from date.training.options import Options
from date.training.run import train
from date.training.sampling import SeededDataset

TRAINING = "date_f-r50-coco-12e"


def go(runs: Path, tier: str = "", training: str = TRAINING, options: Options = Options()) -> Path:  # noqa: B008
    path = runs.parent / "tier.yaml"
    path.write_text(f"extends: smoke\n{tier}")
    return train(load().training(training), load_tier(str(path)), 0, runs, 1, options)


def fails(
    runs: Path,
    sentence: str,
    tier: str = "",
    training: str = TRAINING,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Train and expect a sentence, which status and segments have, too."""
    with pytest.raises(UserError, match=sentence) as error:
        go(runs, tier, training, options)
    (work,) = (runs / ".work").iterdir()
    status = json.loads((work / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("failed", str(error.value))
    assert read_segments(work)[-1]["reason"] == str(error.value)
    assert "failed: " in (work / "train.log").read_text().splitlines()[-1]


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let a weight be NaN from a step on."""
    original = Trainer._step

    def patched(trainer: Trainer, at: int) -> None:
        if at == step:
            next(trainer.model.bbox_head.parameters()).data.fill_(float("nan"))
        original(trainer, at)

    monkeypatch.setattr(Trainer, "_step", patched)


@pytest.mark.slow
def test_a_loss_that_is_not_finite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found at the interval's end, two steps later, but told of the step and the images where it began."""
    poison(monkeypatch, 7)
    sentence = (
        r"^the loss is not finite \(.*loss nan.*\) at step 8 \(images \d+, \d+, \d+, \d+\); "
        r"the last checkpoint is of step 6; lower the tier's lr, or check the data, then run the same command again\.$"
    )
    fails(folder / "nan", sentence, "log_interval: 5\n", "fcos-r50-coco-12e")


@pytest.mark.slow
def test_no_checkpoint_has_weights_that_are_not_finite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch ends before the interval does."""
    poison(monkeypatch, 11)
    fails(
        folder / "nan late",
        r"^the loss is not finite .*at step 12 \(images .*the last checkpoint is of step 6;",
        "log_interval: 50\n",
        "fcos-r50-coco-12e",
    )


@pytest.mark.slow
def test_predictions_that_are_not_finite_are_noticed_by_the_matching(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 8)
    sentence = (
        r"^the predictions are not finite \(the quality of image 0 holds .*\) at step 9 \(images "
        r".*the last checkpoint is of step 6;"
    )
    fails(folder / "nan matched", sentence, "log_interval: 50\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=["gpu", "python", "cpu", "driver", "cudnn", "fork"],
)
def test_out_of_memory(error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = Trainer._backward, []

    def patched(trainer: Trainer, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 9:
            raise error
        return original(trainer, batch)

    monkeypatch.setattr(Trainer, "_backward", patched)
    sentence = r"^memory ran out at step 9 \(images .*\); the last checkpoint is of step 6; .*--images-per-pass"
    fails(folder / f"memory {type(error).__name__} {len(str(error))}", sentence)


@pytest.mark.slow
def test_out_of_memory_in_the_evaluation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state was saved before; fewer images at a time help there as well, and change no number."""
    original = DetectionMetric.process

    def patched(metric: DetectionMetric, batch: Any, samples: Any) -> None:
        if len(samples) > 3:
            raise RuntimeError("CUDA error: out of memory")
        original(metric, batch, samples)

    tier = """
compute: {precision: fp64}
"""
    before = precisions(go(folder / "memory enough", tier))
    monkeypatch.setattr(DetectionMetric, "process", patched)
    path = folder / "memory evaluation"
    sentence = r"^memory ran out in the evaluation at step 6; the last checkpoint is of step 6; .*--images-per-pass"
    fails(path, sentence, tier)
    fewer = Options(images_per_pass=3)
    after = precisions(train(load().training(TRAINING), load_tier(str(folder / "tier.yaml")), 0, path, 1, fewer))
    assert len(after) == len(before) > 1
    assert after == pytest.approx(before, abs=1e-4)


def precisions(run: Path) -> list[float]:
    """Return AP after every epoch."""
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["AP"] for record in records if record["kind"] == "eval"]


@pytest.mark.slow
def test_out_of_memory_before_the_first_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another process has the GPU."""
    monkeypatch.setattr(
        "date.training.loop.build_network", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory"))
    )
    fails(
        folder / "memory at the start",
        r"^memory ran out \(CUDA error: out of memory\); see that nothing else uses the GPU or",
    )


def test_out_of_memory_in_the_evaluation_of_a_sealed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burst(*arguments: Any) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr("date.inference.evaluate.evaluate", burst)
    assert main(["evaluate", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: memory ran out (CUDA error: out of memory") and "a job with more" in said


@pytest.mark.slow
def test_other_errors_are_not_taken_for_want_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_backward", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        go(folder / "bug")
    (work,) = (folder / "bug" / ".work").iterdir()
    assert json.loads((work / "status.json").read_text())["reason"] == "RuntimeError: a bug"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_training_image(workers: int, folder: Path) -> None:
    go(folder / "before")
    (image,) = (folder / "data").glob("scenes-smoke-*/train/000005.png")
    content = image.read_bytes()
    image.write_bytes(b"\0" * len(content))  # the same size: listing the folder does not show it
    try:
        sentence = rf"^{image} can't be loaded \(.*\) at step \d \(images .*\b5\b.*\); there is no checkpoint yet; restore the file"
        fails(folder / f"image {workers}", sentence, f"workers: {workers}\n")
    finally:
        image.write_bytes(content)


@pytest.mark.slow
def test_an_unreadable_validation_image(folder: Path) -> None:
    go(folder / "before")
    (image,) = (folder / "data").glob("scenes-smoke-*/val/000003.png")
    content = image.read_bytes()
    image.write_bytes(b"\0" * len(content))
    try:
        fails(folder / "val image", rf"^{image} can't be loaded \(.*the last checkpoint is of step 6; restore the file")
    finally:
        image.write_bytes(content)


def kill_worker_at(monkeypatch: pytest.MonkeyPatch, folder: Path, times: int) -> None:
    """Let the loading process that meets a certain sample die, so many times."""
    original = SeededDataset.__getitem__

    def patched(dataset: SeededDataset, number: int) -> Any:
        if number // len(dataset) == 1 and dataset.image_id(number) == 7:  # in the second epoch
            marks = len(list(folder.glob("mark*")))
            if marks < times:
                (folder / f"mark{marks}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return original(dataset, number)

    monkeypatch.setattr(SeededDataset, "__getitem__", patched)


def weights(run: Path) -> bytes:
    return (run / "final.safetensors").read_bytes()


@pytest.mark.slow
def test_a_dead_loading_process_is_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = weights(go(folder / "before"))
    kill_worker_at(monkeypatch, tmp_path, 2)
    assert weights(go(folder / "worker", "workers: 2\n")) == undisturbed
    assert capsys.readouterr().err.count("starting them anew") == 2
    assert len(list(tmp_path.glob("mark*"))) == 2


@pytest.mark.slow
def test_loading_processes_that_keep_dying(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_worker_at(monkeypatch, tmp_path, 99)
    sentence = r"^the loading processes die \(.+\) at step \d+ \(images .*the last checkpoint is of step 6; give the job more memory"
    fails(folder / "workers", sentence, "workers: 2\n")


def stop_workers_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let every loading process stop, as by SIGSTOP from outside, from an epoch on."""
    original = SeededDataset.__getitem__

    def patched(dataset: SeededDataset, number: int) -> Any:
        if number // len(dataset) == epoch:
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(dataset, number)

    monkeypatch.setattr(SeededDataset, "__getitem__", patched)


@pytest.mark.slow
@pytest.mark.timed
def test_loading_processes_that_are_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_workers_at(monkeypatch, 1)
    began = time.monotonic()
    sentence = (
        r"^no batch came for 2 s \(loading processes \d+, \d+ stopped\) at step \d+ \(images .*the last checkpoint is of "
        r"step 6; look for what keeps them from loading \(a file server, memory, a signal\), or set fewer 'workers', then"
    )
    fails(folder / "stopped", sentence, "workers: 2\n", options=Options(batch_timeout=2))
    assert time.monotonic() - began < 60
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.timed
def test_loading_processes_that_are_stopped_in_an_evaluation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer._evaluate

    def patched(trainer: Trainer, step: int) -> None:
        stop_workers_at(monkeypatch, 0)  # the numbers of validation images are of the epoch 0
        original(trainer, step)

    monkeypatch.setattr(Trainer, "_evaluate", patched)
    sentence = (
        r"^no batch came for 2 s \(loading processes \d+, \d+ stopped\) at step 6; the last checkpoint is of step 6"
    )
    fails(folder / "stopped late", sentence, "workers: 2\n", options=Options(batch_timeout=2))


@pytest.mark.slow
@pytest.mark.timed
def test_one_signal_ends_a_training_that_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_workers_at(monkeypatch, 1)
    threading.Timer(12, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Interrupted, match="interrupted after step 6 .SIGTERM.; the state is saved"):
        go(folder / "waits", "workers: 2\n", options=Options(batch_timeout=120))


@pytest.mark.slow
def test_an_image_of_another_size_than_its_record(folder: Path) -> None:
    """Halved after it was annotated: its boxes would lie beside the objects."""
    go(folder / "before")
    (image,) = (folder / "data").glob("scenes-smoke-*/train/000005.png")
    content = image.read_bytes()
    small = cv2.imencode(".png", cv2.resize(cv2.imdecode(np.frombuffer(content, np.uint8), 1), None, fx=0.5, fy=0.5))[1]
    image.write_bytes(small.tobytes().ljust(len(content), b"\0"))  # listing the folder does not show it
    try:
        sentence = rf"^{image} can't be loaded \(it has 32x32 pixels, and 64x64 in its record, .*restore the file .`python -m date data verify --deep --tier '{folder / 'tier.yaml'}'`"
        fails(folder / "halved", sentence)
    finally:
        image.write_bytes(content)


@pytest.mark.slow
def test_one_writer(folder: Path) -> None:
    """A second process is refused while the first one trains, and told who that is."""
    original = Trainer._step
    refused = []

    def patched(trainer: Trainer, at: int) -> None:
        if at == 3:
            with pytest.raises(UserError) as error:
                go(folder / "two")
            refused.append(str(error.value))
        original(trainer, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", patched)
        run = go(folder / "two")
    assert refused == [
        f"training {run.name} is being done by process {os.getpid()} on {os.uname().nodename}; wait for it or stop it first."
    ]
