"""Training logs of MMDetection 2 (``*.log.json``) and of MMDetection 3 / MMEngine (``vis_data/scalars.json``).

Both are a JSON object per line. They become records as our own ``metrics.jsonl`` has them: losses, learning rate and
the metrics of evaluations in percent, at steps counted over the whole training. MMDetection 2 counts steps within an
epoch, and both name most evaluations by their epoch, so the steps of an epoch have to be known: they are the recipe's
where the log agrees with it, else the fewest that the log allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from date.errors import UserError
from date.evaluation.reading import is_integer, is_number, parse_json, read_text

METRIC_NAMES = {
    "bbox_mAP": "AP",
    "bbox_mAP_50": "AP50",
    "bbox_mAP_75": "AP75",
    "bbox_mAP_s": "APs",
    "bbox_mAP_m": "APm",
    "bbox_mAP_l": "APl",
    "mAP": "AP",
    "mMR": "mMR",
}
"""Ours by those of MMDetection, for COCO (``bbox_...``) and CrowdHuman; they are fractions, and -1 is undefined."""


@dataclass(frozen=True)
class TrainingLog:
    """A training as its log tells it."""

    records: list[dict[str, Any]]
    """Of kind ``train`` and ``eval``, by step, as in ``metrics.jsonl``."""
    steps: int
    epochs: float
    notes: list[str] = field(default_factory=list)
    """Sentences on what was left out or assumed, with counts."""

    @property
    def last_metrics(self) -> dict[str, float | None]:
        """The metrics of the last evaluation, in percent; empty without any."""
        evaluations = [record for record in self.records if record["kind"] == "eval"]
        return {k: v for k, v in evaluations[-1].items() if k in METRIC_NAMES.values()} if evaluations else {}


@dataclass(frozen=True)
class _Line:
    """A line with losses or with metrics."""

    kind: Literal["train", "eval"]
    epoch: int | None
    count: int
    """The step of the whole training or of the epoch, or the number of the epoch, as the log has it."""
    values: dict[str, Any]


def read_training_log(path: Path, steps_per_epoch: int) -> TrainingLog:
    """Read a log.

    Args:
        path: of the file.
        steps_per_epoch: of the recipe that the training is said to follow.

    Raises:
        UserError: a line, other than a last one that was cut off, is not a JSON object; or there is no training in it.
    """
    notes: list[str] = []
    objects = _objects(path, notes)
    lines = [line for line in map(_line, objects) if line is not None]
    trained = [line for line in lines if line.kind == "train"]
    if not trained:
        raise UserError(
            f"{path} has no line with a step, a learning rate and a loss; give MMDetection 2's *.log.json or "
            f"MMEngine's vis_data/scalars.json."
        )
    if len(lines) < len(objects):
        notes.append(
            f"{len(objects) - len(lines)} lines have neither finite losses and a learning rate nor known metrics; they "
            f"are left out."
        )
    within = _counts_within_epoch(trained)
    length = _epoch_length(trained, within, steps_per_epoch, notes)
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    step = repeated = 0
    for line in lines:
        if line.kind == "train":
            step = (line.epoch - 1) * length + line.count if within and line.epoch else line.count
            place = step
        else:
            place = _place_of_evaluation(line, step, within, length)
        key = (place, line.kind == "eval")
        repeated += key in records
        records[key] = {"kind": line.kind, "step": place, "epoch": round(place / length, 4), **line.values}
    if repeated:
        notes.append(f"{repeated} records are told again by later lines, which count.")
    ordered = [records[key] for key in sorted(records)]
    steps = ordered[-1]["step"]
    return TrainingLog(ordered, steps, round(steps / length, 4), notes)


def _objects(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    objects: list[dict[str, Any]] = []
    for number, line in lines:
        try:
            value = parse_json(line, f"line {number} of {path}")
        except UserError:
            if number != lines[-1][0] or not objects:
                raise
            notes.append("the last line was cut off; it is left out.")
            continue
        if not isinstance(value, dict):
            raise UserError(f"line {number} of {path} is not a JSON object; give a training log of MMDetection.")
        objects.append(value)
    return objects


def _line(record: dict[str, Any]) -> _Line | None:
    """Return what a line tells of training or evaluation; None where it tells neither."""
    given: Any = record.get("epoch")
    epoch = given if is_integer(given) and given > 0 else None
    count: Any = record.get("step", record.get("iter"))
    if not is_integer(count) or count < 0:
        return None
    metrics = {}
    for name, value in record.items():
        ours = METRIC_NAMES.get(name.rpartition("/")[2])
        if ours is not None and is_number(value):
            metrics[ours] = None if value < 0 else round(100 * float(value), 6)
    if "AP" in metrics:
        return _Line("eval", epoch, count, metrics)
    losses = {name: value for name, value in record.items() if "loss" in name}
    numbers = [*losses.values(), record.get("lr")]
    if "loss" not in losses or not all(map(is_number, numbers)) or count == 0:
        return None
    values = {"lr": float(record["lr"])} | {name: float(value) for name, value in losses.items()}
    if is_number(record.get("time")):
        values["seconds_per_step"] = round(float(record["time"]), 5)
    return _Line("train", epoch, count, values)


def _counts_within_epoch(trained: Sequence[_Line]) -> bool:
    """Return whether counts begin again with each epoch; a log that was resumed goes back in its epochs, too."""
    told = [(line.epoch, line.count) for line in trained if line.epoch is not None]
    return any(before[0] < after[0] and after[1] <= before[1] for before, after in itertools.pairwise(told))


def _epoch_length(trained: Sequence[_Line], within: bool, recipe: int, notes: list[str]) -> int:
    """Return the steps of an epoch: the recipe's, unless the log speaks against it."""
    told = [(line.epoch, line.count) for line in trained if line.epoch is not None]
    if not told:
        return recipe
    if within:
        fewest = max(count for _, count in told)
        interval = min(count for _, count in told)
        agrees = fewest <= recipe < fewest + interval
    else:
        fewest = max(-(-count // epoch) for epoch, count in told)
        agrees = all((epoch - 1) * recipe < count <= epoch * recipe for epoch, count in told)
    if agrees:
        return recipe
    notes.append(
        f"an epoch of the log has {fewest} steps or some more, not the recipe's {recipe}; {fewest} are assumed."
    )
    return fewest


def _place_of_evaluation(line: _Line, step: int, within: bool, length: int) -> int:
    """Return the step of an evaluation that comes after a step in the log."""
    if line.epoch is not None and within:
        return line.epoch * length
    if line.count >= step:
        return line.count  # counted in steps
    epoch = line.count if line.epoch is None else line.epoch  # MMEngine calls the number of the epoch "step"
    end = epoch * length
    return end if step <= end < step + length else step
