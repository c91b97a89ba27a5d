"""What a training tells: the log, plain lines, the status file, and the processes that worked on it."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from date.training import journal as module
from date.training.journal import LOG, SEGMENTS, STATUS, Journal, begin_segment, end_segment, read_segments


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "utc", lambda: f"T{self.now:06.0f}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATUS).read_text())


# ------------------------------------------------------------------------------------------------- segments


def test_segments_in_order_with_their_ends(tmp_path: Path, clock: Clock) -> None:
    assert read_segments(tmp_path) == []
    begin_segment(tmp_path, {"host": "a"})
    assert read_segments(tmp_path) == [{"began": "T001000", "host": "a"}]
    clock.now += 5
    end_segment(tmp_path, 12, "SIGTERM")
    begin_segment(tmp_path, {"host": "b"})
    assert read_segments(tmp_path) == [
        {"began": "T001000", "host": "a", "ended": "T001005", "step": 12, "reason": "SIGTERM"},
        {"began": "T001005", "host": "b"},
    ]


def test_a_killed_predecessor_gets_its_end_where_it_was_last_heard(tmp_path: Path, clock: Clock) -> None:
    begin_segment(tmp_path, {"host": "a"})
    with Journal(tmp_path, "it") as journal:
        journal.begin(100, 0)
        clock.now += 7
        journal.show(3, "training")
    clock.now += 1000
    begin_segment(tmp_path, {"host": "b"})
    first = read_segments(tmp_path)[0]
    assert (first["ended"], first["step"], first["reason"]) == ("T001007", 3, "killed")


def test_the_word_of_an_earlier_process_is_not_a_killed_ones(tmp_path: Path, clock: Clock) -> None:
    begin_segment(tmp_path, {})
    with Journal(tmp_path, "it") as journal:
        journal.begin(100, 0)
        journal.show(3, "training")
        journal.end("interrupted", "SIGTERM")
    end_segment(tmp_path, 3, "SIGTERM")
    clock.now += 60
    begin_segment(tmp_path, {})  # killed before its first step
    clock.now += 60
    begin_segment(tmp_path, {})
    _, second, _ = read_segments(tmp_path)
    assert (second["began"], second["ended"], second["step"]) == ("T001060", "T001060", None), "no negative duration"


def test_a_predecessor_that_wrote_nothing(tmp_path: Path, clock: Clock) -> None:
    begin_segment(tmp_path, {})
    clock.now += 60
    (tmp_path / STATUS).write_bytes(b"\0\0\xff")
    begin_segment(tmp_path, {})
    assert read_segments(tmp_path)[0] == {"began": "T001000", "ended": "T001000", "step": None, "reason": "killed"}


@given(st.data())
def test_torn_lines_cost_nothing_but_themselves(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("run")
    begin_segment(folder, {"host": "a"})
    end_segment(folder, 5, "SIGTERM")
    whole = (folder / SEGMENTS).read_bytes()
    begin_segment(folder, {"host": "b"})
    line = (folder / SEGMENTS).read_bytes()[len(whole) :]
    cut = data.draw(st.integers(0, len(line) - 2))
    (folder / SEGMENTS).write_bytes(whole + line[:cut])
    begin_segment(folder, {"host": "c"})
    end_segment(folder, 9, "finished")
    segments = read_segments(folder)
    assert [(s["host"], s["step"], s["reason"]) for s in segments] == [("a", 5, "SIGTERM"), ("c", 9, "finished")]


# ------------------------------------------------------------------------------------------------- status, lines


def test_status_tells_step_and_time_left(tmp_path: Path, clock: Clock) -> None:
    with Journal(tmp_path, "it") as journal:
        journal.begin(steps=100, step=40)
        clock.now += 10
        journal.show(45, "training", epoch=4.5)
    assert status(tmp_path) == {
        "title": "it", "log": LOG, "state": "training", "step": 45, "steps": 100, "epoch": 4.5,
        "eta_seconds": 110.0, "updated": "T001010", "pid": os.getpid(),
    }  # fmt: skip


def test_status_is_written_now_and_then_and_at_every_change(tmp_path: Path, clock: Clock) -> None:
    with Journal(tmp_path, "it") as journal:
        journal.begin(100, 0)
        journal.show(1, "training")
        clock.now += module.STATUS_SECONDS / 2
        journal.show(2, "training")
        assert status(tmp_path)["step"] == 1
        journal.show(2, "evaluating")
        assert (status(tmp_path)["step"], status(tmp_path)["state"]) == (2, "evaluating")
        clock.now += module.STATUS_SECONDS
        journal.show(2, "evaluating", ap=12.5)
        assert status(tmp_path)["ap"] == 12.5
        journal.end("interrupted", "SIGUSR1")
    assert (status(tmp_path)["state"], status(tmp_path)["reason"]) == ("interrupted", "SIGUSR1")
    assert (tmp_path / LOG).read_text().endswith(" interrupted: SIGUSR1\n")


def test_plain_progress_lines(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal: a line every half minute, and no control characters."""
    with Journal(tmp_path, "date_f seed 0") as journal:
        journal.begin(1000, 0)
        for step in range(1, 301):
            clock.now += 1
            journal.show(step, "training", note="epoch 0.1  loss 2.345" if step % 10 == 0 else None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "date_f seed 0: step 30/1000  epoch 0.1  loss 2.345  16.2 min left"
    assert len(lines) == 10
    assert [line.split(": ")[1] for line in lines] == [
        line.split(" ", 1)[1] for line in (tmp_path / LOG).read_text().splitlines()
    ], "the log has the same"


def test_a_line_is_reported_on_standard_error_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("first", "second [brackets]"):
        with Journal(tmp_path, "it") as journal:
            journal.say(text)
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "it: first\nit: second [brackets]\n")
    log = (tmp_path / LOG).read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ first\n\S+ second \[brackets\]\n", log), "appended"


def test_all_but_the_first_process_are_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path, "it", quiet=True) as journal:
        journal.begin(10, 0)
        journal.say("a line")
        journal.show(1, "training", note="loss 1")
        journal.end("failed", "reason")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    with Journal(tmp_path, "date_f seed 0") as journal:
        journal.begin(10, 4)
        assert journal.progress is not None
        journal.show(6, "training", note="loss 2.3")
        journal.say("a line")
        task = journal.progress.tasks[0]
        assert (task.completed, task.total, task.fields["note"]) == (6, 10, "loss 2.3")
    assert journal.progress is None
    assert "date_f seed 0: a line" in capsys.readouterr().err


def test_a_training_goes_on_without_a_log_that_can_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so once; its lines stand on standard error all the same, and how it ends is not hidden."""
    (tmp_path / LOG).symlink_to("/dev/full")

    def fail() -> None:
        with Journal(tmp_path, "it") as journal:
            journal.begin(10, 0)
            journal.say("a line")
            journal.say("another")
            journal.show(1, "training")
            assert json.loads((tmp_path / STATUS).read_text())["step"] == 1
            raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        fail()
    with Journal(tmp_path, "it") as journal:
        journal.say("a third")
    said = capsys.readouterr().err.splitlines()
    complaint = f"it: {tmp_path / LOG} can't be written (No space left on device); the training goes on without it"
    assert said == [complaint, "it: a line", "it: another", complaint, "it: a third"]


def test_a_training_goes_on_without_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("date.training.journal.replace_text", full)
    with Journal(tmp_path, "it") as journal:
        journal.begin(10, 0)
        journal.show(1, "training")
        journal.end("finished", "sealed")
    assert capsys.readouterr().err.count("the training goes on without it") == 1
    assert "finished: sealed" in (tmp_path / LOG).read_text()
