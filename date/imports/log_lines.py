"""The training logs of several libraries as one kind of line: losses or metrics, with the place that the log tells.

Each reader knows one library's keys. Metrics come out in percent, under our names; only those that the dataset's own
protocol computes count: VOC's ``mAP``, at one IoU, is not COCO's AP, whatever its name.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from date.errors import UserError
from date.evaluation.coco import METRICS as COCO_METRICS
from date.evaluation.reading import is_integer, is_number, parse_json, read_text

Protocol = Literal["coco", "crowdhuman"]

FORMS = (
    "the logs that are read are MMDetection 2's *.log.json, MMEngine's vis_data/scalars.json, detectron2's "
    "metrics.json, DETR's and D-FINE's log.txt, and, with torchmetrics' map, Lightning's metrics.csv and Hugging "
    "Face's trainer_state.json"
)
MMDETECTION = {
    "coco": {
        "bbox_mAP": "AP",
        "bbox_mAP_50": "AP50",
        "bbox_mAP_75": "AP75",
        "bbox_mAP_s": "APs",
        "bbox_mAP_m": "APm",
        "bbox_mAP_l": "APl",
    },
    "crowdhuman": {"mAP": "AP", "mMR": "mMR"},
}
"""Ours by MMDetection's names, which may follow a prefix and a slash; fractions, -1 for undefined."""
DETECTRON2 = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "APs", "APm": "APm", "APl": "APl"}
"""Ours by detectron2's names after ``bbox/``; in percent."""
TORCHMETRICS = {
    "map": "AP",
    "map_50": "AP50",
    "map_75": "AP75",
    "map_small": "APs",
    "map_medium": "APm",
    "map_large": "APl",
    "mar_1": "AR1",
    "mar_10": "AR10",
    "mar_100": "AR100",
    "mar_small": "ARs",
    "mar_medium": "ARm",
    "mar_large": "ARl",
}
"""Ours by the names of torchmetrics' MeanAveragePrecision, which asks pycocotools; fractions, -1 for undefined."""
VOC = ("mAP", "AP50")
"""Names of VOC's metrics in MMDetection's logs, after a prefix or none."""
CROWDHUMAN = "mMR"
"""Name of a metric that stands beside CrowdHuman's ``mAP`` alone."""
OTHER_METRIC = re.compile(r"(?:^|[/_])m?AP(?:$|[/_\d])|accuracy|mIoU")
"""What names of metrics have that no protocol here computes, such as masks' ``segm_mAP`` or LVIS's ``bbox_AP``."""
RF_DETR = "RF-DETR, whose AP counts up to 500 detections an image, and COCO's 100"


@dataclass(frozen=True)
class Line:
    """A line with losses or with metrics, and where it says that it belongs."""

    kind: Literal["train", "eval"]
    values: dict[str, float | None]
    """Losses, ``lr`` and ``seconds_per_step``, or metrics in percent."""
    step: int | None = None
    """Steps of the whole training, or, with ``in_epoch``, of the epoch; None where the log does not say."""
    epoch: int | None = None
    """Counted from 1."""
    in_epoch: bool | None = None
    """Whether ``step`` is counted within the epoch; None where only other lines can tell."""
    or_epoch: bool = False
    """Whether ``step`` may be the number of an epoch, as in MMEngine's evaluations."""


@dataclass
class Reading:
    """The lines of a log, and the counts of those left out."""

    lines: list[Line]
    left_out: dict[str, int] = field(default_factory=dict)
    """How many lines are left out, by what they are."""
    notes: list[str] = field(default_factory=list)

    def leave_out(self, why: str) -> None:
        """Count a line that is left out."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


def read_lines(path: Path, protocol: Protocol) -> Reading:
    """Read a log of any of the known forms, told apart by their content.

    Raises:
        UserError: it is none of them, or a line is damaged.
    """
    text = read_text(path, FORMS, tables=True)
    first = next((line for line in text.split("\n") if line.strip()), "").strip()
    if first.startswith("{"):
        if _is_trainer_state(text):
            return _trainer_state(path, parse_json(text, str(path)), protocol)
        return _json_lines(path, text, protocol)
    if "," in first and "epoch" in [name.strip() for name in first.split(",")]:
        return _csv(path, text, protocol)
    raise UserError(f"{path} has none of the known forms; {FORMS}.")


def _is_trainer_state(text: str) -> bool:
    """Return whether a text is one JSON object over several lines, or has Hugging Face's list of what was logged."""
    first, _, rest = text.strip().partition("\n")
    return not first.rstrip().endswith("}") or (not rest and '"log_history"' in first)


def _json_lines(path: Path, text: str, protocol: Protocol) -> Reading:
    reading = Reading([])
    reader: Callable[[dict[str, Any], Protocol, Reading], None] | None = None
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for place, (number, line) in enumerate(numbered):
        try:
            record = parse_json(line, f"line {number} of {path}")
        except UserError:
            if place + 1 < len(numbered) or place == 0:
                raise
            reading.notes.append("the last line was cut off; it is left out.")
            break
        if not isinstance(record, dict):
            raise UserError(f"line {number} of {path} is not a JSON object; {FORMS}.")
        reader = reader or _reader_of(record)
        if reader is None:
            reading.leave_out("have neither losses nor metrics")
        else:
            reader(record, protocol, reading)
    return reading


def _reader_of(record: dict[str, Any]) -> Callable[[dict[str, Any], Protocol, Reading], None] | None:
    """Return the reader for a file's lines, chosen by a line; None if the line does not decide."""
    if "iteration" in record:
        return _detectron2
    if "epoch" in record and ("train_loss" in record or "test_coco_eval_bbox" in record):
        return _detr
    return _mmdetection if "iter" in record or "step" in record else None


# --------------------------------------------------------------------------------------------------------- MMDetection


def _mmdetection(record: dict[str, Any], protocol: Protocol, reading: Reading) -> None:
    """Read a line of MMDetection 2 (mmcv: a ``mode``, counts in the epoch or over all) or 3 (MMEngine: a ``step``)."""
    given: Any = record.get("epoch")
    engine = "step" in record
    epoch = given if is_integer(given) and given > 0 else None
    count: Any = record["step"] if engine else record.get("iter")
    if not is_integer(count) or count < 0:
        reading.leave_out("have no number of a step")
        return
    names = MMDETECTION[protocol]
    metrics = _fractions(record, {name: names.get(_last(name)) for name in record if not _foreign(name)})
    if "AP" in metrics:
        # mmcv gives an evaluation the number of the validation batches, which says nothing of its place.
        reading.lines.append(Line("eval", metrics, count if engine else None, epoch, or_epoch=engine))
    elif protocol == "coco" and any(_last(name) == CROWDHUMAN for name in record):
        reading.leave_out("have CrowdHuman's metrics, and not COCO's")
    elif protocol == "coco" and any(_last(name) in VOC for name in record):
        reading.leave_out("have VOC's mAP, at one IoU, which is not COCO's AP")
    elif record.get("mode") == "val":
        reading.leave_out("are of validation, without the protocol's metrics")
    else:
        lr = record.get("base_lr", record.get("lr"))  # MMEngine's lr is the first group's, often the backbone's
        _train(record, lr, count, epoch, None if not engine else False, reading)


def _foreign(name: str) -> bool:
    return name.rpartition("/")[0].rpartition("/")[2] == "pascal_voc"


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _train(
    record: Mapping[str, Any], lr: Any, count: int, epoch: int | None, in_epoch: bool | None, reading: Reading
) -> None:
    """Add a line of training, or count why it is none."""
    losses = {name: value for name, value in record.items() if "loss" in name}
    if "loss" not in losses:
        other = next((name for name in record if OTHER_METRIC.search(name)), None)
        reading.leave_out(f"have other metrics ({other!r})" if other else "have neither losses nor metrics")
    elif not is_number(lr):
        kind = {dict: "an object", list: "a list", type(None): "missing"}.get(type(lr), "not a number")
        reading.leave_out(f"have a learning rate that is {kind}")
    elif not all(map(is_number, losses.values())):
        reading.leave_out("have losses that are not finite numbers")
    elif count == 0:
        reading.leave_out("are of step 0")
    else:
        values: dict[str, Any] = {"lr": float(lr)} | {k: float(v) for k, v in losses.items()}
        if is_number(record.get("time")):
            values["seconds_per_step"] = round(float(record["time"]), 5)
        reading.lines.append(Line("train", values, count, epoch, in_epoch))


def _fractions(record: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, float | None]:
    """Return metrics that are given as fractions in percent, by our names; None where they are negative: undefined."""
    return {
        ours: None if record[name] < 0 else round(100 * float(record[name]), 6)
        for name, ours in names.items()
        if ours is not None and is_number(record[name])
    }


# ---------------------------------------------------------------------------------------------------- other JSON lines


def _detectron2(record: dict[str, Any], protocol: Protocol, reading: Reading) -> None:
    """Read the line of an iteration, counted from 0; an evaluation stands in the line of the iteration before it."""
    count: Any = record.get("iteration")
    if not is_integer(count) or count < 0:
        reading.leave_out("have no number of a step")
        return
    found: dict[str, float | None] = {}
    if protocol == "coco":
        for name, ours in DETECTRON2.items():
            value: Any = record.get(f"bbox/{name}")
            if is_number(value):
                found[ours] = round(float(value), 6)
    losses = {name: value for name, value in record.items() if "loss" in name and name != "total_loss"}
    if "total_loss" in record:
        _train(losses | {"loss": record["total_loss"]}, record.get("lr"), count + 1, None, False, reading)
    elif "AP" not in found:
        reading.leave_out("have neither losses nor metrics")
    if "AP" in found:
        reading.lines.append(Line("eval", found, count + 1, None, False))


def _detr(record: dict[str, Any], protocol: Protocol, reading: Reading) -> None:
    """Read the line of an epoch, counted from 0: means over it and COCO's twelve numbers after it."""
    epoch: Any = record.get("epoch")
    if not is_integer(epoch) or epoch < 0:
        reading.leave_out("have no number of an epoch")
        return
    stats: Any = record.get("test_coco_eval_bbox")
    if "test_results_json" in record:
        stats = None
        reading.leave_out(f"have metrics of {RF_DETR}")
    found: dict[str, float | None] = {}
    if protocol == "coco" and isinstance(stats, list) and len(stats) == len(COCO_METRICS):
        found = _fractions(
            dict(zip(COCO_METRICS, stats, strict=True)), dict(zip(COCO_METRICS, COCO_METRICS, strict=True))
        )
    losses = {name.removeprefix("train_"): value for name, value in record.items() if name.startswith("train_loss")}
    if losses and is_number(record.get("train_lr")) and all(map(is_number, losses.values())):
        values: dict[str, Any] = {"lr": float(record["train_lr"])} | {k: float(v) for k, v in losses.items()}
        reading.lines.append(Line("train", values, None, epoch + 1))
    elif "AP" not in found and "test_results_json" not in record:
        reading.leave_out("have neither losses nor metrics")
    if "AP" in found:
        reading.lines.append(Line("eval", found, None, epoch + 1))


# ------------------------------------------------------------------------------------------------------- torchmetrics


def _torchmetrics(record: Mapping[str, Any], protocol: Protocol) -> dict[str, float | None]:
    """Return COCO's numbers under torchmetrics' names, which may follow ``eval_``, ``val_``, ``val/`` or the like."""
    if protocol != "coco":
        return {}
    names = {}
    for name in record:
        plain = _last(name)
        for prefix in ("eval_", "val_", "valid_", "validation_", "test_"):
            plain = plain.removeprefix(prefix)
        names[name] = TORCHMETRICS.get(plain)
    return _fractions(record, names)


def _trainer_state(path: Path, state: Any, protocol: Protocol) -> Reading:
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise UserError(f"{path} is a JSON object without a list 'log_history'; {FORMS}.")
    reading = Reading([])
    for record in history:
        if not isinstance(record, dict) or not is_integer(record.get("step")) or record["step"] < 0:
            reading.leave_out("have no number of a step")
            continue
        metrics = _torchmetrics(record, protocol)
        epoch: Any = record.get("epoch")
        whole = round(epoch) if is_number(epoch) and epoch >= 0.5 and abs(epoch - round(epoch)) < 1e-6 else None
        if "AP" in metrics:
            reading.lines.append(Line("eval", metrics, record["step"], whole, False))
        else:
            losses = {
                k: v for k, v in record.items() if "loss" in k and not k.startswith("eval_") and k != "train_loss"
            }
            _train(losses, record.get("learning_rate"), record["step"], whole, False, reading)
    return reading


def _csv(path: Path, text: str, protocol: Protocol) -> Reading:
    """Read Lightning's ``metrics.csv``, which has a row for each time of logging."""
    rows = list(_cells(path, text))
    columns = set().union(*rows) if rows else set()
    if any(name.startswith(("metrics/mAP50-95", "metrics/mAP_0.5")) for name in columns):
        raise UserError(
            f"{path} is of ultralytics, whose mAP50-95 is its own evaluation and not COCO's; give the detections that "
            f"it saves (`val` with save_json=True) as a file, without --log."
        )
    if any(_last(name).removeprefix("ema_") == "mAP_50_95" for name in columns):
        raise UserError(f"{path} is of {RF_DETR}; give its detections as a file, without --log.")
    reading, rate = Reading([]), None
    for row in rows:
        rates = [value for name, value in row.items() if name.startswith("lr-") or _last(name) == "lr"]
        rate = rates[-1] if rates else rate  # which has a row of its own, before those that it holds for
        step = row.get("step")
        if step is None or step < 0 or step % 1:
            reading.leave_out("have no number of a step")
            continue
        metrics = _torchmetrics(row, protocol)
        epoch = int(row["epoch"]) + 1 if row.get("epoch") is not None and row["epoch"] >= 0 else None
        if "AP" in metrics:
            reading.lines.append(Line("eval", metrics, int(step) + 1, epoch, False))  # steps are counted from 0
            continue
        if rates and len(row) == len(rates) + 1:
            continue  # the row of a learning rate
        found = [name for name in row if _last(name) in ("train_loss", "train_loss_step", "loss")]
        _train({"loss": row[found[0]]} if found else {}, rate, int(step) + 1, epoch, False, reading)
    return reading


def _cells(path: Path, text: str) -> Iterator[dict[str, float]]:
    """Yield the numbers of each row of a CSV text by column."""
    try:
        for row in csv.DictReader(io.StringIO(text), skipinitialspace=True):
            cells: dict[str, float] = {}
            for name, value in row.items():
                try:
                    number = float(value)
                except (TypeError, ValueError):
                    continue
                if name is not None and is_number(number):
                    cells[name.strip()] = number
            yield cells
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file ({error}); {FORMS}.") from None
