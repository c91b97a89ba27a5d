"""The record of a training: ``metrics.jsonl``, progress for the eye, and a stop when the loss is not finite."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from date.errors import UserError

METRICS_SCHEMA = 1
PLAIN_SECONDS = 30.0
"""Seconds between two progress lines where standard error is not a terminal."""


class NonFiniteLossError(UserError):
    """The loss is NaN or infinite; the training stops."""


@HOOKS.register_module()
class MetricsHook(Hook):
    """Write one JSON object per line to ``metrics.jsonl`` and show how far the training is.

    Lines of kind ``train`` hold means over the last ``interval`` steps: step, epoch, lr, loss, every loss by its name,
    seconds per step and the share of it spent waiting for data. Lines of kind ``eval`` hold COCO's metrics in percent
    after an epoch. The first line, kind ``start``, has the schema's version.

    Losses are summed on the device and read once per interval, so no step waits for the device.

    Args:
        path: of the file.
        interval: steps between two lines.
        title: shown with the progress.
    """

    priority = "VERY_LOW"

    def __init__(self, path: str, interval: int, title: str) -> None:
        self.path = Path(path)
        self.interval = interval
        self.title = title
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def before_train(self, runner: Runner) -> None:
        """Open the file and the progress display."""
        self.stream: TextIO = self.path.open("w", encoding="utf-8")
        self.epochs = round(runner.max_iters / len(runner.train_dataloader), 4)
        self._write(kind="start", schema_version=METRICS_SCHEMA, steps=runner.max_iters, epochs=self.epochs)
        self.display = _Display(self.title, runner.max_iters)
        self.mark = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Read the learning rate that the step will use, before the schedulers move it on."""
        self.lr = runner.optim_wrapper.get_lr()["lr"][-1]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Add the step's losses; at the interval's end write the means.

        Raises:
            NonFiniteLossError: the mean loss is not finite.
        """
        for name, value in (outputs or {}).items():
            if isinstance(value, torch.Tensor) and "loss" in name:
                self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.count += 1
        step = runner.iter + 1
        if step % self.interval and step != runner.max_iters:
            return
        now = time.perf_counter()
        losses = {name: float(value) / self.count for name, value in self.sums.items()}
        epoch = round(step / len(runner.train_dataloader), 4)
        self._write(
            kind="train",
            step=step,
            epoch=epoch,
            lr=self.lr,
            **losses,
            seconds_per_step=round((now - self.mark) / self.count, 5),
        )
        self.display.show(step, f"epoch {epoch:.1f}/{self.epochs:g}  loss {losses['loss']:.3f}")
        self.sums, self.count, self.mark = {}, 0, now
        if not math.isfinite(losses["loss"]):
            parts = ", ".join(f"{k} {v:.4g}" for k, v in losses.items())
            raise NonFiniteLossError(
                f"the loss of {self.title} is not finite at step {step} ({parts}); lower the tier's lr or check data"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the evaluation after an epoch."""
        named = {name.removeprefix("coco/"): value for name, value in (metrics or {}).items()}
        values = {k: (round(v, 6) if math.isfinite(v) else None) for k, v in named.items() if not k.endswith("time")}
        epoch = round(runner.iter / len(runner.train_dataloader), 4)
        self._write(kind="eval", step=runner.iter, epoch=epoch, **values)
        self.display.say(f"{self.title}: epoch {epoch:g}/{self.epochs:g}  AP {values['AP'] or 0:.1f}")
        self.mark = time.perf_counter()

    def after_train(self, runner: Runner) -> None:
        """Close what was opened."""
        self.stream.close()
        self.display.close()

    def _write(self, **record: Any) -> None:
        self.stream.write(json.dumps(record) + "\n")
        self.stream.flush()


class _Display:
    """A bar with the time left on a terminal, plain lines in a log file."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps = title, steps
        self.began = self.last = time.monotonic()
        self.progress: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self.task = self.progress.add_task(title, total=steps, note="")
            self.progress.start()

    def show(self, step: int, note: str) -> None:
        if self.progress is not None:
            self.progress.update(self.task, completed=step, note=note)
        elif time.monotonic() - self.last >= PLAIN_SECONDS:
            self.last = time.monotonic()
            left = (self.last - self.began) / step * (self.steps - step)
            print(
                f"{self.title}: step {step}/{self.steps}  {note}  {left / 60:.1f} min left", file=sys.stderr, flush=True
            )

    def say(self, line: str) -> None:
        if self.progress is not None:
            self.progress.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
