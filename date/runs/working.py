"""Unfinished runs, read from their working folders, whoever works on them. Needs no PyTorch, writes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.files import read_replaced
from date.formatting import format_duration
from date.results import CHECKPOINTS, METRICS, last_evaluation
from date.training.journal import LOG, STATUS, read_segments
from date.training.lease import HOLDER, SILENCE, known_dead, read_holder, slurm_job_state

STATES = (
    "running",
    "stalled",
    "dead",
    "failed",
    "interrupted",
    "stale",
    "waiting",
    "cached",
    "imported",
    "done",
)
"""``stalled``: held by a process that is not heard of, or makes no step; ``dead``: left by a process that is gone;
``interrupted``: left with its state saved. The same command resumes all but the first two. For ``stale``, ``cached``,
``imported`` and ``done`` see `date.runs.state.Runs.status`."""
NO_NEWS = 1800.0
"""Seconds after which a process that is alive but has made no step counts as stalled."""


@dataclass
class RunStatus:
    """The state of one training with one seed."""

    training: str
    seed: int
    state: str = "waiting"
    run: str | None = None
    """Name of its folder, if there is one here."""
    step: int | None = None
    steps: int | None = None
    eta_seconds: float | None = None
    ap: float | None = None
    """Of the last evaluation, in percent."""
    host: str | None = None
    job: str | None = None
    heard_seconds: float | None = None
    """Since a run that is not done was last heard of."""
    reason: str = ""
    log: str | None = None
    older: int = 0
    """Runs of other code, settings or data."""
    older_running: int = 0


class Worker:
    """Looks at one working folder.

    Args:
        folder: the working folder of a run.
        job_state: answers for a Slurm job's state.
    """

    def __init__(self, folder: Path, job_state: Callable[[str], str | None] = slurm_job_state) -> None:
        self.folder, self.job_state = folder, job_state
        self.segments = read_segments(folder)

    def changed(self) -> float:
        """Return when the folder last changed."""
        return max(changed_at(path) for path in (self.folder, self.folder / STATUS, self.folder / HOLDER))

    def saved_step(self) -> int:
        """Return the step of the last checkpoint, 0 where there is none."""
        names = (path.name.split("-") for path in (self.folder / CHECKPOINTS).glob("step-*-*.ckpt"))
        return max((int(parts[1]) for parts in names if parts[1].isdecimal()), default=0)

    def status(self, training: str, seed: int) -> RunStatus:
        """Tell the state from the lease, the last word of the run's process, and its segments."""
        folder = self.folder
        written, holder = read_or_empty(folder / STATUS), read_holder(folder / HOLDER)
        status = RunStatus(training, seed, run=folder.name, step=written.get("step"), steps=written.get("steps"))
        status.ap = (last_evaluation(folder / METRICS) or {}).get("AP")
        if (folder / LOG).exists():
            status.log = str(folder / LOG)
        worker = holder or (self.segments[-1] if self.segments else {})
        status.host, status.job = worker.get("host"), worker.get("job")
        heard = max(changed_at(folder / HOLDER), changed_at(folder / STATUS))
        status.heard_seconds = None if heard == 0 else round(max(0.0, time.time() - heard), 1)
        if holder is not None:
            self._held(status, holder, written, folder)
        elif written.get("state") in ("interrupted", "failed"):
            status.state, status.reason = written["state"], written.get("reason", "")
        elif written.get("state") == "finished":
            status.state, status.reason = "interrupted", "trained, and not sealed yet"
        elif self.segments or written:
            status.state, status.reason = "dead", f"the process ended without saving a reason, {_ago(status)}"
        return status

    def _held(self, status: RunStatus, holder: dict[str, Any], written: dict[str, Any], folder: Path) -> None:
        """Tell the state of a run that a lease is on."""
        here = known_dead(holder, ask=lambda job: None)
        silent = time.time() - changed_at(folder / HOLDER) > SILENCE
        if here or (here is None and silent and known_dead(holder, self.job_state)):
            status.state, status.reason = "dead", f"killed, {_ago(status)}"
        elif here is None and silent:
            status.state, status.reason = "stalled", f"no heartbeat, {_ago(status)}; whoever resumes it takes it over"
        elif here is False and _stopped(holder["pid"]):
            status.state = "stalled"
            status.reason = f"process {holder['pid']} is stopped; let it go on by `kill -CONT {holder['pid']}`"
        elif written.get("pid") != holder["pid"]:
            status.state, status.reason = "running", "starting"
        elif (quiet := time.time() - changed_at(folder / STATUS)) > NO_NEWS:
            status.state, status.reason = (
                "stalled",
                f"the process is alive but has made no step for {format_duration(quiet)}",
            )
        else:
            status.state, status.eta_seconds = "running", written.get("eta_seconds")
            status.reason = "" if written["state"] == "training" else written["state"]


def _stopped(pid: int) -> bool:
    """Return whether a process of this machine is stopped by a signal (SIGSTOP, Ctrl-Z)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def changed_at(path: Path) -> float:
    """Return a file's time of change, 0 where it is absent."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def read_or_empty(path: Path) -> dict[str, Any]:
    """Return a JSON file's content, empty where it is absent or damaged."""
    try:
        return json.loads(read_replaced(path))
    except (FileNotFoundError, ValueError):
        return {}


def _ago(status: RunStatus) -> str:
    return "never heard" if status.heard_seconds is None else f"last heard {format_duration(status.heard_seconds)} ago"
