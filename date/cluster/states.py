"""What Slurm's answers mean for a job that Snakemake waits for; no Snakemake here."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from date.formatting import counted

DONE = "COMPLETED"
ENDED = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT"}
MAYBE_ENDED = {"NODE_FAIL", "PREEMPTED"}
"""States that Slurm also shows for a moment before it queues a job again."""
LOOKS, DOUBT = 3, 10.0
"""How many answers in a row, over how many seconds, have to say so before a job counts as ended by `MAYBE_ENDED`, or as
forgotten."""
UNKNOWN = "UNKNOWN"
"""Of a job that neither queue nor records know."""

UNREACHABLE = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Connection timed out",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Unexpected message received",
    "Resource temporarily unavailable",
    "temporarily unable to accept job",
    "Slurm backup controller in standby mode",
    "Communication connection failure",
)
"""What ``sbatch`` says of a controller that is away or busy."""
FULL = re.compile(r"\b\w*(?:MaxSubmit|GrpSubmit)\w*\b|\bMaxJobCount\b")
"""Names of the limits on the number of jobs in the queue, e.g. ``QOSMaxSubmitJobPerUserLimit``."""


def postponed(said: str) -> str | None:
    """Return why a submission that Slurm refused is to be tried again later; None where it would be refused again."""
    if (limit := FULL.search(said)) is not None:
        return f"the queue is full ({limit[0]})"
    if any(words in said for words in UNREACHABLE):
        return "Slurm's controller does not answer"
    return None


@dataclass
class _Seen:
    state: str
    since: float
    looks: int = 1


class Watch:
    """Decides, answer by answer, what has become of the jobs.

    Args:
        recorded: asks Slurm's records for the state of a job that the queue does not show; `UNKNOWN` where there are
            none, None where they can't be asked.
        now: a clock, in seconds.
    """

    def __init__(self, recorded: Callable[[str], str | None], now: Callable[[], float] = time.monotonic) -> None:
        self.recorded, self.now = recorded, now
        self.doubtful: dict[str, _Seen] = {}

    def look(self, job: str, shown: str | None) -> str | None:
        """Return the state that a job has ended in, `DONE` or another; None while it lives or that is not sure.

        Args:
            job: its number.
            shown: its state in the queue; None where an answer did not name it.
        """
        state = (shown or UNKNOWN).split()[0]  # sacct says "CANCELLED by 1000"
        if state not in MAYBE_ENDED | {UNKNOWN}:
            self.doubtful.pop(job, None)
            return state if state == DONE or state in ENDED else None
        seen = self.doubtful.get(job)
        if seen is None or seen.state != state:
            self.doubtful[job] = _Seen(state, self.now())
            return None
        seen.looks += 1
        if seen.looks < LOOKS or self.now() - seen.since < DOUBT:
            return None
        return state if state in MAYBE_ENDED else self._ended_by_records(job)

    def _ended_by_records(self, job: str) -> str | None:
        found = self.recorded(job)
        if found is None:
            return None
        state = found.split()[0] if found else UNKNOWN
        # A job that the records have running, and the queue does not know, is lost: its end was never written down.
        return state if state == DONE or state in ENDED | MAYBE_ENDED else UNKNOWN


def recorded(job: str) -> str | None:
    """Return a job's state by the queue once more, or by Slurm's records; see `Watch`."""
    queue = _ask("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job)
    if queue is None or (queue.returncode and "Invalid job id" not in queue.stderr):
        return None
    if queue.returncode == 0 and queue.stdout.strip():
        return queue.stdout.strip()
    records = _ask("sacct", "-X", "--noheader", "--parsable2", "--format=State", "--jobs", job)
    if records is None or records.returncode:
        return UNKNOWN
    return records.stdout.strip().splitlines()[-1] if records.stdout.strip() else UNKNOWN


def _ask(*words: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None


class Silence:
    """Tells when something stops answering, again from time to time, and when it answers again.

    Args:
        say: gets the lines.
        now: a clock, in seconds.
    """

    REMINDER = 1800.0

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self.say, self.now = say, now
        self.since: float | None = None
        self.polls = 0

    def unanswered(self, asked: float) -> None:
        """Note that a question got no answer.

        Args:
            asked: when it was asked, by the clock.
        """
        now = self.now()
        if self.since is None:
            self.since, self._said = asked, now
            self.say("Slurm does not answer; its jobs go on, and it is asked again until it does.")
        elif now - self._said >= self.REMINDER:
            self._said = now
            self.say(f"Slurm has not answered for {(now - self.since) / 60:.0f} minutes; asking on.")
        self.polls += 1

    def answered(self) -> None:
        """Note that a question got an answer."""
        if self.since is not None:
            took = self.now() - self.since
            self.say(f"Slurm answers again, after {took:.0f} s and {counted(self.polls, 'questions')} in vain.")
        self.since, self.polls = None, 0
