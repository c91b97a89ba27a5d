"""``metrics.jsonl``: means over intervals, exact across interruptions, and the watch for losses not finite."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from date.errors import UserError
from date.results import METRICS_SCHEMA, read_metrics
from date.training.processes import Processes
from date.training.recorder import NonFiniteLoss, Recorder
from tests.support.examples import examples

CPU = torch.device("cpu")
ONE = Processes(0, 1, CPU)
TIMES = {"time", "seconds", "seconds_per_step", "memory_mb"}
NAN, INF = float("nan"), float("inf")


def loss(step: int) -> dict[str, Tensor]:
    """Losses of a step that binary fractions hold exactly, so that sums and means are exact, too."""
    parts = {"o2o.loss_cls": step / 4, "o2m.loss_iou": 8.0 - step / 8}
    values = {"loss": sum(parts.values())} | parts
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def recorder(path: Path, interval: int = 4, steps: int = 20, epoch_steps: int = 6, **processes: Any) -> Recorder:
    return Recorder(path, interval, steps, epoch_steps, Processes(**processes) if processes else ONE)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def test_lines_hold_means_over_the_interval(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    record = recorder(path, steps=10)
    record.open(0, None)
    means_by_step = [record.add(step, 0.5 / step, loss(step), [step]) for step in range(1, 11)]
    record.evaluated(10, {"AP": 12.3456789, "APs": None}, 1.234)
    record.close()
    assert [step for step, means in enumerate(means_by_step, 1) if means is not None] == [4, 8, 10], "and at the end"
    start, *trained, evaluated = lines(path)
    assert start == {"kind": "start", "schema_version": METRICS_SCHEMA, "steps": 10, "epochs": round(10 / 6, 4)}
    for line, steps in zip(trained, ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10]), strict=True):
        mean = sum(steps) / len(steps)
        assert (line["kind"], line["step"], line["lr"]) == ("train", steps[-1], 0.5 / steps[-1])
        assert line["epoch"] == round(steps[-1] / 6, 4)
        assert (line["o2o.loss_cls"], line["o2m.loss_iou"], line["loss"]) == (mean / 4, 8 - mean / 8, 8 + mean / 8)
        assert line["memory_mb"] > 10 and line["seconds_per_step"] >= 0
    assert timeless([evaluated]) == [{"kind": "eval", "step": 10, "epoch": 1.6667, "AP": 12.345679, "APs": None}]
    assert record.last_ap == 12.3456789


def train(path: Path, first: int, last: int, state: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Let a process go on after a step and take steps up to another, with evaluations after every 6th and the last.

    Return the states that checkpoints would hold: after the first step given, and after each one taken.
    """
    record = recorder(path)
    record.open(first, state)
    states = [record.state()]
    for step in range(first, last + 1):
        if step > first:
            record.add(step, 0.5, loss(step), [step])
            states.append(record.state())
        evaluates = step % 6 == 0 or step == 20  # after the step's checkpoint
        if step and evaluates and (step < last or last == 20):
            record.evaluated(step, {"AP": float(step)}, 0.0)
    record.close()
    return states


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("undisturbed") / "metrics.jsonl"
    train(path, 0, 20, None)
    return timeless(lines(path))


def test_an_interval_spans_a_resume(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    path = tmp_path / "metrics.jsonl"
    state = train(path, 0, 6, None)[-1]
    assert state["count"] == 2, "steps 5 and 6"
    train(path, 6, 20, state)
    assert timeless(lines(path)) == undisturbed


def test_lines_of_later_steps_are_taken_back(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    path = tmp_path / "metrics.jsonl"
    states = train(path, 0, 17, None)
    assert [r["step"] for r in lines(path)[1:]] == [4, 6, 8, 12, 12, 16]
    record = recorder(path)
    record.open(12, states[12])
    kept = [(r["kind"], r["step"]) for r in lines(path)[1:]]
    assert kept == [("train", 4), ("eval", 6), ("train", 8), ("train", 12)], "the evaluation comes again"
    assert record.last_ap == 6.0
    record.close()
    train(path, 12, 20, states[12])
    assert timeless(lines(path)) == undisturbed


def test_without_a_checkpoint_everything_is_taken_back(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    path = tmp_path / "metrics.jsonl"
    train(path, 0, 5, None)
    train(path, 0, 20, None)
    assert timeless(lines(path)) == undisturbed


def test_a_torn_last_line_is_taken_back(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    path = tmp_path / "metrics.jsonl"
    states = train(path, 0, 9, None)
    path.write_bytes(path.read_bytes()[:-20])
    train(path, 7, 20, states[7])
    assert timeless(lines(path)) == undisturbed


@settings(max_examples=examples(60))
@given(st.data())
def test_any_history_of_kills_ends_in_the_same_record(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    states: dict[int, Any] = {0: None}
    for _ in range(data.draw(st.integers(0, 5), label="kills")):
        resumed = data.draw(st.sampled_from(sorted(states)), label="checkpoint")
        last = data.draw(st.integers(resumed, 19), label="killed after")
        found = train(path, resumed, last, states[resumed])
        states = {s: state for s, state in states.items() if s <= resumed}
        states |= {resumed + i: state for i, state in enumerate(found) if i}
        newest = path.read_bytes().splitlines(keepends=True)[-1]
        unsaved = json.loads(newest).get("step", 0)
        if data.draw(st.booleans(), label="torn"):
            # What a checkpoint stands after is on the disk before it, so that only what came later can be torn.
            torn = min(len(newest), data.draw(st.integers(1, 300), label="bytes"))
            path.write_bytes(path.read_bytes()[:-torn])
            states = {s: state for s, state in states.items() if s < unsaved or s == 0}
    resumed = data.draw(st.sampled_from(sorted(states)), label="last checkpoint")
    train(path, resumed, 20, states[resumed])
    assert timeless(lines(path)) == undisturbed


# ------------------------------------------------------------------------------------------------- the reader


def written(first: int, last: int) -> list[str]:
    """Return the lines that a process writes which works from one step to another."""
    records: list[dict[str, Any]] = []
    for step in range(first + 1, last + 1):
        records.append({"kind": "train", "step": step, "loss": step / 2})
        if step % 5 == 0:
            records.append({"kind": "eval", "step": step, "AP": step / 4})
    return [json.dumps(record) for record in records]


START = json.dumps({"kind": "start", "steps": 40})


@given(st.data())
def test_any_overlap_of_killed_segments_reads_as_the_undisturbed_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """As if nobody took lines back: what a resumed process repeats counts once."""
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    text, done = [START], 0
    for _ in range(data.draw(st.integers(1, 6))):
        first = data.draw(st.integers(0, done))
        done = data.draw(st.integers(first, 40))
        text += written(first, done)

    def undisturbed_until(line: str) -> list[dict[str, Any]]:
        return [json.loads(record) for record in (START, *written(0, json.loads(line).get("step", 0)))]

    path.write_text("".join(line + "\n" for line in text))
    assert read_metrics(path) == undisturbed_until(text[-1])
    torn = min(len(text[-1]), data.draw(st.integers(1, 50), label="bytes"))  # the newline, or some of the line with it
    path.write_bytes(path.read_bytes()[:-torn])
    got, expected = read_metrics(path), undisturbed_until(text[-1] if torn == 1 else text[-2] if text[1:] else START)
    if got:
        assert got == expected or got == expected[:-1], "the last step's evaluation may be the torn line"
    else:
        assert text == [START]


def test_damage_before_the_last_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "start"}\n{"kind": "tr\n{"kind": "train", "step": 2}\n')
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl is not JSON .*; restore the file or train again"):
        read_metrics(path)


# ------------------------------------------------------------------------------------------------- not finite


def with_loss(step: int, value: float) -> dict[str, Tensor]:
    return loss(step) | {"loss": torch.tensor(value), "o2o.loss_cls": torch.tensor(value)}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_non_finite_loss_names_its_step_and_images(value: float, tmp_path: Path) -> None:
    record = recorder(tmp_path / "metrics.jsonl")
    record.open(0, None)
    for step in range(1, 8):
        record.add(step, 0.5, with_loss(step, value) if step == 6 else loss(step), [step * 10, step * 10 + 1])
    with pytest.raises(NonFiniteLoss) as caught:
        record.add(8, 0.5, loss(8), [80, 81])
    assert (caught.value.step, caught.value.images) == (5, [60, 61])
    assert caught.value.parts == f" (loss {value:g}, o2o.loss_cls {value:g})"
    record.close()
    assert [r["step"] for r in lines(tmp_path / "metrics.jsonl")[1:]] == [4], "no line of it"


def test_the_first_of_several_counts_also_before_the_intervals_end(tmp_path: Path) -> None:
    record = recorder(tmp_path / "metrics.jsonl")
    record.open(0, None)
    record.raise_if_bad()
    for step in range(1, 4):
        record.add(step, 0.5, loss(step) if step == 1 else with_loss(step, NAN), [step])
    with pytest.raises(NonFiniteLoss) as caught:
        record.raise_if_bad()
    assert (caught.value.step, caught.value.images, caught.value.parts) == (1, [2], "")
    record.close()


def test_infinities_that_cancel_are_found(tmp_path: Path) -> None:
    record = recorder(tmp_path / "metrics.jsonl", interval=2)
    record.open(0, None)
    record.add(1, 0.5, with_loss(1, INF), [7])
    with pytest.raises(NonFiniteLoss) as caught:
        record.add(2, 0.5, with_loss(2, -INF), [8])
    assert (caught.value.step, caught.value.images) == (0, [7])
    record.close()


def test_another_processes_loss_stops_this_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "mean", lambda self, values: values * NAN)
    record = recorder(tmp_path / "metrics.jsonl", rank=0, count=2, device=CPU)
    record.open(0, None)
    for step in range(1, 4):
        record.add(step, 0.5, loss(step), [step])
    with pytest.raises(NonFiniteLoss, match="in another process") as caught:
        record.add(4, 0.5, loss(4), [4])
    assert caught.value.images == []
    record.close()


def test_no_step_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two lines nothing asks a tensor for its value, which on a GPU would wait for the step."""
    record = recorder(tmp_path / "metrics.jsonl", interval=4)
    record.open(0, None)
    prepared = {step: loss(step) for step in range(1, 9)}
    asked: list[str] = []

    def watch(patch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(Tensor, name)

        def watched(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            asked.append(name)
            return original(tensor, *arguments, **options)

        patch.setattr(Tensor, name, watched)

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "numpy", "to", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__repr__"):  # fmt: skip
            watch(patch, name)
        for step in range(1, 9):
            before = len(asked)
            means = record.add(step, 0.5, prepared[step], [step])
            assert (len(asked) > before) == (means is not None) == (step % 4 == 0), asked
    record.close()


# ------------------------------------------------------------------------------------------------- processes, faults


def test_all_but_the_first_process_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "mean", lambda self, values: values)
    record = recorder(tmp_path / "metrics.jsonl", rank=1, count=2, device=CPU)
    record.open(0, None)
    means_by_step = [record.add(step, 0.5, loss(step), [step]) for step in range(1, 5)]
    record.evaluated(4, {"AP": 1.0}, 0.0)
    record.sync()
    record.close()
    assert means_by_step[-1] is not None and math.isclose(means_by_step[-1]["loss"], 8 + 2.5 / 8)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_once(tmp_path: Path) -> None:
    """The line's own failure reaches the caller, and closing does not fail anew in its place."""
    record = recorder(tmp_path / "metrics.jsonl", interval=1)
    record.open(0, None)
    record.close()
    record.stream = Path("/dev/full").open("a")  # noqa: SIM115 - closed by the recorder
    with pytest.raises(OSError, match="No space left") as caught:
        record.add(1, 0.5, loss(1), [1])
    assert caught.value.errno == errno.ENOSPC
    record.close()


def test_the_state_is_a_snapshot(tmp_path: Path) -> None:
    record = recorder(tmp_path / "metrics.jsonl")
    record.open(0, None)
    record.add(1, 0.5, loss(1), [1])
    before = record.state()
    record.add(2, 0.5, loss(2), [2])
    assert (before["count"], before["sums"]["o2o.loss_cls"].item()) == (1, 0.25)
    assert before["sums"]["o2o.loss_cls"].dtype == torch.float64
    record.close()
