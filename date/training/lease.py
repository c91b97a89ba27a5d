"""One writer: only one process at a time, on any machine, holds a run's working folder.

A lock of the operating system keeps the processes of one machine apart, and ends with its holder however that ends.
Between machines, whose file systems may not share locks, a small file names the holder and counts its heartbeats. A
holder is dead when its process on this machine is gone, when Slurm says that its job has ended or was started again, or
when its heartbeats have stopped for `SILENCE` seconds of this machine's own clock: clocks of different machines are
never compared. A job that Slurm does not know may live, since Slurm can lose its memory: its heartbeats decide.

A holder that finds out that another has taken over (a node that was cut off comes back) is told to leave at once.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from date.errors import UserError
from date.files import read_replaced

HOLDER = "lease.json"
BEAT = 15.0
"""Seconds between two heartbeats."""
SILENCE = 9 * BEAT  # more than the minute for which NFS may show an old file
_FIELDS = {"token", "host", "boot", "pid", "started", "job", "cluster", "restart", "beat"}
GONE = "GONE"
SLURM_ALIVE = {
    "PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "REQUEUED", "RESIZING", "SIGNALING",
}  # fmt: skip


class LeaseHeldError(UserError):
    """Another process holds the run.

    Args:
        what: it does.
        path: of the lease.
        holder: what the lease says, if it can be read.
    """

    def __init__(self, what: str, path: Path, holder: dict[str, Any] | None) -> None:
        by = "another process" if holder is None else _name(holder)
        super().__init__(f"{what} is being done by {by}; wait for it or stop it first.")
        self.path, self.holder = path, holder


class LeaseLostError(UserError):
    """Another process has taken the run over, since this one was silent for too long."""


def process_start(pid: int) -> str | None:
    """Return a process's start in clock ticks, which tells it from a later one of that number; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def slurm_job_state(job: str) -> str | None:
    """Return a Slurm job's state, `GONE` where Slurm does not know it, or None where Slurm can't be asked.

    The number of an array's last task is the array's, too: Slurm then answers for all tasks, a line each.
    """
    command = ["squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return done.stdout.strip() or GONE
    return GONE if "Invalid job id" in done.stderr else None


def read_holder(path: Path) -> dict[str, Any] | None:
    """Return who holds a lease file; None where nobody does, or where the file is damaged."""
    try:
        holder = json.loads(read_replaced(path))
    except (FileNotFoundError, ValueError):
        return None
    return holder if isinstance(holder, dict) and holder.keys() >= _FIELDS else None


def known_dead(holder: dict[str, Any], ask: Callable[[str], str | None] = slurm_job_state) -> bool | None:
    """Return whether a holder is dead, or None where only its silence could tell.

    Args:
        holder: of a lease.
        ask: answers for a Slurm job's state.
    """
    if holder["host"] == socket.gethostname() and holder["boot"] == _boot():
        return process_start(holder["pid"]) != holder["started"]
    mine = _slurm()
    if holder["job"] is not None and holder["cluster"] in (mine["cluster"], None):
        if holder["job"] == mine["job"] and holder["restart"] < mine["restart"]:
            return True  # this very job, before Slurm started it again
        state = ask(holder["job"])
        if state not in (None, GONE) and SLURM_ALIVE.isdisjoint(state.split()):
            return True
    return None


def _slurm() -> dict[str, Any]:
    """Return this process's Slurm job, its cluster and how often Slurm started it again; nothing outside of Slurm."""
    job = os.environ.get("SLURM_JOB_ID")
    cluster = os.environ.get("SLURM_CLUSTER_NAME")
    return {"job": job, "cluster": cluster, "restart": 0 if job is None else _restarts(job)}


@functools.cache
def _restarts(job: str) -> int:
    """Return how often Slurm started this process's job again.

    Slurm is asked, since Snakemake's plugin takes SLURM_RESTART_COUNT away from what runs in its jobs.
    """
    try:
        shown = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        shown = ""
    found = re.search(r"\bRestarts=(\d+)", shown)
    return int(found[1]) if found else int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Lease:
    """The right to write into a run's folder, for as long as it is entered.

    Args:
        folder: that is written into; it gets ``lock`` and ``lease.json``.
        what: is done with it, for messages.
        say: tells of a lease that is taken over.
        lose: is called, in another thread, when another process has taken over.
        beat, silence: see the module's docstring.

    Raises:
        LeaseHeldError: on entering, while another process holds the folder.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        say: Callable[[str], None] = lambda line: None,
        beat: float = BEAT,
        silence: float = SILENCE,
        lose: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.what, self.say, self.lose = folder, what, say, lose
        self.path = folder / HOLDER
        self.beat, self.silence = beat, silence
        self.lost: str | None = None
        pid = os.getpid()
        self.me = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": pid,
            "started": process_start(pid),
            **_slurm(),
        }
        self.own = folder / f".{HOLDER}.{self.me['token']}"

    def __enter__(self) -> Lease:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / "lock").open("w")
        try:
            self._lock()
            self._take()
        except BaseException:
            self.lock.close()
            raise
        self.done = threading.Event()
        self.heart = threading.Thread(target=self._live, daemon=True)
        self.heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.done.set()
        self.heart.join()
        if self._mine():
            self.path.unlink(missing_ok=True)
        self.lock.close()

    def check(self) -> None:
        """Make sure that the folder is still this process's, before something is written that others rely on.

        Raises:
            LeaseLostError: it is not.
        """
        holder = read_holder(self.path)
        if self.lost is None and not self._mine():
            self.lost = "somebody who left again" if holder is None else _name(holder)
        if self.lost is not None:
            raise LeaseLostError(
                f"{self.what} was taken over by {self.lost} while this process was silent; it goes on there."
            )

    def _lock(self) -> None:
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which the loader's processes don't inherit
        except (BlockingIOError, PermissionError):
            raise self._held(read_holder(self.path)) from None
        except OSError as error:  # a file system without locks; heartbeats are left
            self.say(f"{self.folder} can't be locked ({error.strerror}); relying on heartbeats alone")

    def _take(self) -> None:
        holder = read_holder(self.path)
        if holder is not None:
            dead = known_dead(holder)
            if dead is None:
                self.say(f"{_name(holder)} held {self.folder.name}; listening {self.silence:g} s for its heartbeats")
                dead = self._silent(holder)
            if not dead:
                raise self._held(holder)
            # Another may have taken over in the time that finding out took.
            now = read_holder(self.path)
            if now is not None and now["token"] != holder["token"]:
                raise self._held(now)
            self.say(f"taking over from {_name(holder)}, which is gone")
        elif self._create():
            return
        self._write(0)
        time.sleep(min(2.0, self.beat))  # of two that take over at once, the later writer has it
        if not self._mine():
            raise self._held(read_holder(self.path))

    def _silent(self, holder: dict[str, Any]) -> bool:
        end = time.monotonic() + self.silence
        while time.monotonic() < end:
            time.sleep(min(1.0, self.beat / 2))
            now = read_holder(self.path)
            if now is None:
                return True
            if (now["token"], now["beat"]) != (holder["token"], holder["beat"]):
                return False
        return True

    def _held(self, holder: dict[str, Any] | None) -> LeaseHeldError:
        return LeaseHeldError(self.what, self.path, holder)

    def _live(self) -> None:
        beat = 0
        while not self.done.wait(self.beat):
            try:
                holder = read_holder(self.path)
                if holder is None:  # taken over and left again, or read in a bad moment: `check` decides
                    continue
                if holder["token"] != self.me["token"]:
                    if not self.done.is_set():
                        self.lose()
                    return
                beat += 1
                self._write(beat)
            except OSError:  # a full disk or an absent file server: the next beat tries again
                continue

    def _mine(self) -> bool:
        holder = read_holder(self.path)
        return holder is not None and holder["token"] == self.me["token"]

    def _create(self) -> bool:
        """Write the lease file where there is none, and return whether it is this process's without further ado.

        Of several that start at once, a hard link lets one through on any file system that has them.
        """
        self._write(0, place=False)
        try:
            os.link(self.own, self.path)
        except FileExistsError:
            if self._mine():  # a file server answers so where it was asked twice, since its first answer got lost
                return True
            if (holder := read_holder(self.path)) is not None:
                raise self._held(holder) from None
            return False  # a damaged file, which is replaced
        except OSError:  # a file system without hard links
            return False
        finally:
            self.own.unlink()
        return True

    def _write(self, beat: int, place: bool = True) -> None:
        self.own.write_text(json.dumps(self.me | {"beat": beat}) + "\n")  # a name of its own: others may write, too
        if place:
            self.own.replace(self.path)


def _name(holder: dict[str, Any]) -> str:
    job = f" (Slurm job {holder['job']})" if holder["job"] else ""
    return f"process {holder['pid']} on {holder['host']}{job}"
