"""The record of a training, ``metrics.jsonl``, exact across interruptions, and the watch for losses not finite."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from date.files import replace_text
from date.results import METRICS_SCHEMA, read_metrics, utc
from date.training.processes import Processes

_NEVER = float("inf")


class NonFiniteLoss(Exception):
    """A loss is NaN or infinite.

    Args:
        step: the steps before the one whose loss it is.
        images: ids of this process's part of its batch; empty where another process has it.
        parts: which losses, for the message.
    """

    def __init__(self, step: int, images: list[int], parts: str) -> None:
        super().__init__(step, images, parts)
        self.step, self.images, self.parts = step, images, parts


class Recorder:
    """Writes one JSON object per line to ``metrics.jsonl``.

    Lines of kind ``train`` hold means over the last ``interval`` steps: step, epoch, lr, loss, every loss by its branch
    and name, the gradient's norm before clipping, seconds per step, peak memory. Lines of kind ``eval`` hold the
    metrics of the validation images in percent after an epoch. The first line, kind ``start``, has the schema's
    version.

    Losses are summed on the device and read once per interval, so no step waits for the device; so is the first step
    whose loss is not finite.

    Args:
        path: of the file.
        interval: steps between two lines.
        steps: of the whole training.
        epoch_steps: steps of an epoch.
        processes: that train together; the first one writes.
    """

    def __init__(self, path: Path, interval: int, steps: int, epoch_steps: int, processes: Processes) -> None:
        self.path, self.interval, self.steps, self.epoch_steps = path, interval, steps, epoch_steps
        self.processes = processes
        self.stream: TextIO | None = None
        self.names: list[str] = []
        self.sums: Tensor | None = None
        """(number of names,) in float64, on the device."""
        self.count = 0
        self.first_bad = torch.tensor(_NEVER, dtype=torch.float64, device=processes.device)
        self.images: deque[tuple[int, list[int]]] = deque(maxlen=interval)
        self.last_ap: float | None = None

    def open(self, step: int, state: dict[str, Any] | None) -> None:
        """Go on after a step: lines of later steps, which an interrupted process wrote, are taken back.

        Args:
            step: that the network stands after.
            state: what `state` gave then; None at the beginning.
        """
        if state is not None:
            self.names, self.count = list(state["sums"]), state["count"]
            values = list(state["sums"].values())
            self.sums = torch.stack(values).to(self.processes.device) if values else None
        if self.processes.first:
            records = read_metrics(self.path) if self.path.exists() else []
            kept = [r for r in records if r["kind"] == "start" or r["step"] < step + (r["kind"] == "train")]
            epochs = round(self.steps / self.epoch_steps, 4)
            start = {"kind": "start", "schema_version": METRICS_SCHEMA, "steps": self.steps, "epochs": epochs}
            lines = kept if kept else [start]
            replace_text(self.path, "".join(json.dumps(record) + "\n" for record in lines))
            self.stream = self.path.open("a", encoding="utf-8")
            scores = [r.get("AP") for r in kept if r["kind"] == "eval"]
            self.last_ap = scores[-1] if scores else None
        self.begin()

    def begin(self) -> None:
        """Start the clock of the steps that come."""
        self.mark, self.timed = time.perf_counter(), 0

    def sync(self) -> None:
        """Make what is written survive a loss of power; before a checkpoint, after which it is not written again."""
        if self.stream is not None:
            os.fsync(self.stream.fileno())

    def close(self) -> None:
        """Close the file."""
        if self.stream is not None:
            self.stream.close()

    def state(self) -> dict[str, Any]:
        """Return what the next line is made of besides the steps that come; all processes ask at the same step."""
        if self.sums is None:
            return {"sums": {}, "count": 0}
        means = self.processes.mean(self.sums)
        return {"sums": dict(zip(self.names, means.unbind(), strict=True)), "count": self.count}

    def epoch(self, step: int) -> float:
        """Return the epochs that a step completes."""
        return round(step / self.epoch_steps, 4)

    def add(self, step: int, lr: float, losses: dict[str, Tensor], images: list[int]) -> dict[str, float] | None:
        """Add a step; at the interval's end write the means and return them.

        Args:
            step: counted from 1.
            lr: that the step used.
            losses: scalars on the device by name, ``loss`` being their total.
            images: ids of this process's part of the batch.

        Raises:
            NonFiniteLoss: the loss of this step or of one since the last line is not finite.
        """
        values = torch.stack([value.detach() for value in losses.values()])
        self.names, self.sums = list(losses), values.double() if self.sums is None else self.sums + values
        loss = losses["loss"].detach()
        finite = loss - loss == 0  # the fewest kernels that tell
        self.first_bad = torch.where(finite, self.first_bad, self.first_bad.clamp(max=step))
        self.images.append((step, images))
        self.count += 1
        self.timed += 1
        if step % self.interval and step != self.steps:
            return None
        means = dict(zip(self.names, (self.processes.mean(self.sums) / self.count).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            self.raise_if_bad(means)
        now = time.perf_counter()
        self._write(
            kind="train",
            step=step,
            epoch=self.epoch(step),
            lr=lr,
            **means,
            seconds_per_step=round((now - self.mark) / self.timed, 5),
            memory_mb=peak_memory(self.processes.device),
            time=utc(),
        )
        self.sums, self.count = None, 0
        self.begin()
        return means

    def raise_if_bad(self, means: dict[str, float] | None = None) -> None:
        """Wait for the device and make sure that every loss so far is finite.

        Raises:
            NonFiniteLoss: one is not; the message names its step and images.
        """
        first = self.first_bad.item()
        if first == _NEVER and (means is None or math.isfinite(means["loss"])):
            return
        named = [] if means is None else [f"{k} {v:g}" for k, v in means.items() if not math.isfinite(v)]
        parts = f" ({', '.join(named)})" if named else ""
        if first == _NEVER:
            raise NonFiniteLoss(self.images[-1][0] - 1, [], f"{parts} in another process, in a step up to the one")
        images = next((ids for step, ids in self.images if step == first), [])
        raise NonFiniteLoss(int(first) - 1, images, parts)

    def evaluated(self, step: int, metrics: dict[str, float | None], seconds: float) -> None:
        """Write an evaluation."""
        self.last_ap = metrics.get("AP")
        values = {name: None if value is None else round(value, 6) for name, value in metrics.items()}
        self._write(kind="eval", step=step, epoch=self.epoch(step), **values, seconds=round(seconds, 2), time=utc())
        self.begin()

    def _write(self, **record: Any) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(json.dumps(record) + "\n")
            self.stream.flush()
        except OSError:
            stream, self.stream = self.stream, None
            with contextlib.suppress(OSError):  # closing tries once more to write the line whose failure is told
                stream.close()
            raise


def peak_memory(device: torch.device) -> int:
    """Return the most memory used so far in MiB: of the GPU, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
