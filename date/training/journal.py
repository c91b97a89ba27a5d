"""The output of a running training: a log, a progress bar or plain lines, and the file that `date status` reads."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from date.files import replace_text
from date.results import utc

LOG, STATUS, SEGMENTS = "train.log", "status.json", "segments.jsonl"
PLAIN_SECONDS = 30.0
"""Seconds between two progress lines where there is no terminal."""
STATUS_SECONDS = 5.0


def tell(title: str) -> Callable[[str], None]:
    """Return a function that tells a line about a run on standard error, before it has a journal."""
    return lambda line: print(f"{title}: {line}", file=sys.stderr, flush=True)


class Journal:
    """Tells what goes on in a run's working folder, for as long as it is entered.

    Args:
        folder: the working folder.
        title: of the run, for the eye.
        quiet: tell nothing, as all but the first of several processes do.
    """

    def __init__(self, folder: Path, title: str, quiet: bool = False) -> None:
        self.folder, self.title, self.quiet = folder, title, quiet
        self.progress: Progress | None = None
        self.status: dict[str, Any] = {"title": title, "log": LOG}
        self._status_written = self._plain = 0.0
        self._unwritten: set[str] = set()

    def __enter__(self) -> Journal:
        if not self.quiet:
            self.stream = (self.folder / LOG).open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
        if not self.quiet:
            with contextlib.suppress(OSError):  # on a full disk closing fails like the line before it
                self.stream.close()

    def say(self, line: str) -> None:
        """Tell a line in the log and on standard error."""
        if self.quiet:
            return
        self._log(line)
        if self.progress is not None:
            self.progress.console.print(f"{self.title}: {line}", markup=False, highlight=False)
        else:
            print(f"{self.title}: {line}", file=sys.stderr, flush=True)

    def begin(self, steps: int, step: int) -> None:
        """Show progress from a step on, of so many steps in all."""
        self.steps, self.first, self.began = steps, step, time.monotonic()
        self._plain = self.began
        if not self.quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self.task = self.progress.add_task(self.title, total=steps, completed=step, note="")
            self.progress.start()

    def show(self, step: int, state: str, note: str | None = None, **facts: Any) -> None:
        """Show how far the training is.

        Args:
            step: that it has reached.
            state: what it does now, e.g. ``training``.
            note: the latest loss, for the eye.
            facts: for the status file.
        """
        if self.quiet:
            return
        now = time.monotonic()
        if step > self.first:
            facts["eta_seconds"] = round((now - self.began) / (step - self.first) * (self.steps - step), 1)
        changed = state != self.status.get("state")
        self.status |= {"state": state, "step": step, "steps": self.steps, **facts}
        if changed or now - self._status_written >= STATUS_SECONDS:
            self._status_written = now
            self._write_status()
        if self.progress is not None:
            self.progress.update(self.task, completed=step)
            if note is not None:
                self.progress.update(self.task, note=note)
        if note is not None and now - self._plain >= PLAIN_SECONDS:
            self._plain = now
            line = f"step {step}/{self.steps}  {note}  {self.status['eta_seconds'] / 60:.1f} min left"
            self._log(line)
            if self.progress is None:
                print(f"{self.title}: {line}", file=sys.stderr, flush=True)

    def end(self, state: str, reason: str) -> None:
        """Write down how the training ended, for `date status`."""
        if not self.quiet:
            self.status |= {"state": state, "reason": reason}
            self._write_status()
            self._log(f"{state}: {reason}")

    def _log(self, line: str) -> None:
        with self._optional(LOG):
            self.stream.write(f"{utc()} {line}\n")
            self.stream.flush()

    @contextlib.contextmanager
    def _optional(self, name: str) -> Iterator[None]:
        """Go on where a file can't be written on which nothing rests, and say so once."""
        try:
            yield
        except OSError as error:
            if name not in self._unwritten:
                self._unwritten.add(name)
                text = f"{self.folder / name} can't be written ({error.strerror}); the training goes on without it"
                print(f"{self.title}: {text}", file=sys.stderr, flush=True)

    def _write_status(self) -> None:
        facts = self.status | {"updated": utc(), "pid": os.getpid()}
        with self._optional(STATUS):
            replace_text(self.folder / STATUS, json.dumps(facts) + "\n", durable=False)


def begin_segment(folder: Path, facts: dict[str, Any]) -> None:
    """Write down that a process starts to work on a run; a predecessor that took no leave was killed."""
    if (open_segment := _open_segment(folder)) is not None:
        # Its last word, unless it was killed before it could say any and the word is of one before it.
        status, began = _read_status(folder), open_segment["began"]
        current = status.get("updated", "") >= began
        ended, step = (status["updated"], status.get("step")) if current else (began, None)
        _append(folder, {"event": "end", "ended": ended, "step": step, "reason": "killed"})
    _append(folder, {"event": "begin", "began": utc(), **facts})


def end_segment(folder: Path, step: int | None, reason: str) -> None:
    """Write down that the process leaves, and why."""
    _append(folder, {"event": "end", "ended": utc(), "step": step, "reason": reason})


def read_segments(folder: Path) -> list[dict[str, Any]]:
    """Return the processes that worked on a run, in order, each with its beginning and, unless it works on, its end."""
    segments: list[dict[str, Any]] = []
    try:
        lines = (folder / SEGMENTS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if record.pop("event") == "begin":
            segments.append(record)
        elif segments:
            segments[-1] |= record
    return segments


def _open_segment(folder: Path) -> dict[str, Any] | None:
    segments = read_segments(folder)
    return segments[-1] if segments and "ended" not in segments[-1] else None


def _read_status(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _append(folder: Path, record: dict[str, Any]) -> None:
    with (folder / SEGMENTS).open("a+b") as stream:
        if stream.tell() and not _ends_with_newline(stream):
            stream.write(b"\n")
        stream.write(json.dumps(record).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _ends_with_newline(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"
