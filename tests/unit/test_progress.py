"""What long commands say on standard error."""

from __future__ import annotations

import time

import pytest

from date import progress


def test_a_step_is_named_while_it_works_and_its_time_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.05)
    with progress.step("writing a.onnx"):
        deadline = time.monotonic() + 30
        while not (said := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert said == "writing a.onnx ...\n"
    end = capsys.readouterr().err
    assert end.startswith("writing a.onnx: ") and end.endswith(" s\n") and end.count("\n") == 1


def test_a_step_that_takes_a_moment_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("writing a.onnx"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_step_that_fails_leaves_the_word_to_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with pytest.raises(ValueError, match="no"), progress.step("writing a.onnx"):
        raise ValueError("no")
    assert "s\n" not in capsys.readouterr().err


def test_images_are_counted_at_once_then_every_few_seconds_and_at_the_end_of_what_took_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    report = progress.progress_lines("preparing scenes")
    for seconds, done in ((0.0, 0), (1.0, 5), (5.0, 6), (9.0, 7), (11.0, 1999), (12.0, 2000)):
        clock[0] = 100 + seconds
        report(done, 2000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "preparing scenes: 2,000 images"
    assert [line.split(": ")[1].split("/")[0] for line in lines[1:]] == ["6", "1,999", "2,000"]
    quick = progress.progress_lines("preparing scenes")
    for done in (1, 2):
        quick(done, 2)
    assert capsys.readouterr().err == ""
