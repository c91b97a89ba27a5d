"""Training logs of other libraries as records like those of our own ``metrics.jsonl``.

Losses, learning rate and the metrics of evaluations in percent stand at steps counted over the whole training. Logs
that count within an epoch, or name evaluations by their epoch, need the steps of an epoch: they are the recipe's where
the log agrees with it, else the fewest that the log allows. `date.imports.log_lines` has the forms that are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from date.errors import UserError
from date.evaluation.score import metric_names
from date.formatting import counted
from date.imports.log_lines import FORMS, Line, Protocol, Reading, read_lines

TOLERANCE = 0.5
"""Epochs by which a log's end may differ from the recipe's: logs tell every 50th step or so."""


@dataclass(frozen=True)
class TrainingLog:
    """A training, as read from its log."""

    records: list[dict[str, Any]]
    """Of kind ``train`` and ``eval``, by step, as in ``metrics.jsonl``."""
    steps: int
    epochs: float
    protocol: Protocol
    steps_per_epoch: int
    """By which steps and epochs were placed."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what was left out or assumed, with counts."""

    @property
    def last_metrics(self) -> dict[str, float | None]:
        """The metrics of the last evaluation, in percent; empty without any."""
        evaluations = [record for record in self.records if record["kind"] == "eval"]
        return {k: v for k, v in evaluations[-1].items() if k in metric_names(self.protocol)} if evaluations else {}

    @property
    def evaluated_until(self) -> float:
        """The epochs after which it was evaluated last; 0 for never."""
        return max((record["epoch"] for record in self.records if record["kind"] == "eval"), default=0.0)


def read_training_log(path: Path, steps_per_epoch: int, protocol: Protocol = "coco") -> TrainingLog:
    """Read a log.

    Args:
        path: of the file.
        steps_per_epoch: of the recipe that the training is said to follow.
        protocol: of the dataset, whose metrics alone count.

    Raises:
        UserError: a line, other than a last one that was cut off, is damaged; or there is no training in it.
    """
    reading = read_lines(path, protocol)
    if not reading.lines:
        raise UserError(f"{path} has no losses and no metrics that could be read{_why(reading)}; {FORMS}.")
    notes = [*reading.notes, *(f"{reason}; left out." for reason in _reasons(reading))]
    trained = [line for line in reading.lines if line.kind == "train"]
    within = _counts_within_epoch(trained, steps_per_epoch)
    length = _epoch_length(reading.lines, within, steps_per_epoch, notes)
    records = _placed(reading.lines, within, length, notes)
    steps = records[-1]["step"]
    return TrainingLog(records, steps, round(steps / length, 4), protocol, length, notes)


def check_length(path: Path, log: TrainingLog, epochs: float, training: str) -> None:
    """Raise a `UserError` where a log is shorter or longer than the training.

    Args:
        path: of the log.
        log: its content.
        epochs: of the training's schedule.
        training: its name.
    """
    if log.epochs > epochs + TOLERANCE:
        raise UserError(
            f"{path} goes on for {log.epochs:.4g} epochs of {log.steps_per_epoch} steps, but {training} has "
            f"{epochs:.4g}; name the training that it is the log of."
        )
    if log.epochs < epochs - TOLERANCE:
        raise UserError(
            f"{path} ends after {log.epochs:.4g} of the {epochs:.4g} epochs of {training}: its last numbers are not "
            f"those of the finished training; import it when it is complete."
        )


def _why(reading: Reading) -> str:
    reasons = _reasons(reading)
    return f" ({'; '.join(reasons)})" if reasons else ""


def _reasons(reading: Reading) -> list[str]:
    """Return why lines are left out, each with its number."""
    parted = [(n, *why.partition(" ")) for why, n in reading.left_out.items()]
    return [f"{counted(n, 'lines', verb)} {rest}" for n, verb, _, rest in parted]


def _placed(lines: Sequence[Line], within: bool, length: int, notes: list[str]) -> list[dict[str, Any]]:
    """Return the lines as records by step.

    A log that goes back is of a training that was resumed, or of another one: what it recorded from there on before
    no longer counts.
    """
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    step = taken_back = 0
    interval = _interval(lines, within, length)
    for line in lines:
        if line.kind == "eval":
            place = _evaluation_place(line, step, within, length, interval)
        else:
            place = _train_place(line, within, length)
            if place < step or (place, False) in records:
                gone = [key for key in records if key[0] >= place]
                taken_back += len(gone)
                for key in gone:
                    del records[key]
            step = place
        key = (place, line.kind == "eval")
        taken_back += key in records
        records[key] = {"kind": line.kind, "step": place, "epoch": round(place / length, 4), **line.values}
    if taken_back:
        notes.append(
            f"{taken_back} records are of steps that later lines tell again, by a resumed or another training."
        )
    return [records[key] for key in sorted(records)]


def _train_place(line: Line, within: bool, length: int) -> int:
    if line.step is None:
        return (line.epoch or 0) * length
    counted_in_epoch = within if line.in_epoch is None else line.in_epoch
    return (line.epoch - 1) * length + line.step if counted_in_epoch and line.epoch else line.step


def _interval(lines: Sequence[Line], within: bool, length: int) -> int:
    """Return the most steps between two lines of training."""
    places = [_train_place(line, within, length) for line in lines if line.kind == "train"]
    return max((after - before for before, after in itertools.pairwise([0, *places])), default=length)


def _evaluation_place(line: Line, step: int, within: bool, length: int, interval: int) -> int:
    """Return the step of an evaluation that comes after a step in the log."""
    if line.step is not None and not line.or_epoch:
        return line.step
    if line.or_epoch and line.step is not None and line.step >= max(step, 1):
        return line.step  # counted in steps
    epoch = line.epoch or (line.step if line.or_epoch else None)  # MMEngine calls the number of the epoch "step"
    if epoch is None:
        return step
    end = epoch * length
    # mmcv's first epoch looks the same whether epochs or iterations are counted.
    slack = length if line.or_epoch else interval if epoch == 1 else 0
    return end if within or step == 0 or step <= end < step + slack else step


def _counts_within_epoch(trained: Sequence[Line], recipe: int) -> bool:
    """Return whether counts begin again with each epoch; a log that was resumed goes back in its epochs, too.

    Where there are lines of one epoch alone, its number tells: step 50 of epoch 25 can't be counted over all.
    """
    pairs = [(line.epoch, line.step) for line in trained if line.in_epoch is None and line.epoch and line.step]
    if any(before[0] < after[0] and after[1] <= before[1] for before, after in itertools.pairwise(pairs)):
        return True
    return len({epoch for epoch, _ in pairs}) == 1 and pairs[0][0] > 1 and max(count for _, count in pairs) <= recipe


def _epoch_length(lines: Sequence[Line], within: bool, recipe: int, notes: list[str]) -> int:
    """Return the steps of an epoch: the recipe's, unless the log speaks against it."""
    pairs = [(line.epoch, line.step) for line in lines if line.epoch and line.step and not line.or_epoch]
    if not pairs:
        return recipe
    if within:
        fewest = max(count for _, count in pairs)
        interval = min(count for _, count in pairs)
        agrees = fewest <= recipe < fewest + interval or len({epoch for epoch, _ in pairs}) == 1
    else:
        fewest = max(-(-count // epoch) for epoch, count in pairs)
        agrees = all((epoch - 1) * recipe < count <= epoch * recipe for epoch, count in pairs)
    if agrees:
        return recipe
    notes.append(
        f"an epoch of the log has {fewest} steps or some more, not the recipe's {recipe}; {fewest} are assumed."
    )
    return fewest
