"""What Slurm's answers are taken for, who may work in a clone, and what is said before jobs are submitted."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from date.catalogue import ROOT, load_tier
from date.cluster import states
from date.cluster.beforehand import obstacles, unfit_path
from date.cluster.caches import VARIABLE as CACHES
from date.cluster.caches import keep_caches
from date.cluster.occupied import occupy
from date.cluster.states import DONE, ENDED, LOOKS, MAYBE_ENDED, UNKNOWN, Silence, Watch, postponed
from date.errors import UserError
from date.files import replace_bytes

LIVING = ["PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "SIGNALING"]


class Clock:
    """A clock that goes on by so many seconds with every look."""

    def __init__(self, tick: float) -> None:
        self.tick, self.time = tick, 0.0

    def __call__(self) -> float:
        self.time += self.tick
        return self.time


def watch(records: str | None = UNKNOWN, tick: float = 60.0) -> Watch:
    return Watch(lambda job: records, Clock(tick))


@given(st.lists(st.sampled_from([*LIVING, None, *MAYBE_ENDED]), max_size=12), st.sampled_from([DONE, *ENDED]))
def test_a_clear_end_counts_at_once_and_nothing_before_it_that_is_in_doubt(shown: list[str | None], end: str) -> None:
    asked = watch(None)
    runs = [list(run) for run in zip(*(shown[i:] for i in range(LOOKS)), strict=False)]
    ended = [state for state in (asked.look("7", answer) for answer in shown) if state is not None]
    if not any(run[0] in MAYBE_ENDED and len(set(run)) == 1 for run in runs):
        assert ended == []
    assert asked.look("7", end) == end


@pytest.mark.parametrize("state", LIVING)
def test_a_job_that_lives_never_ends(state: str) -> None:
    asked = watch()
    assert [asked.look("7", state) for _ in range(20)] == [None] * 20


@pytest.mark.parametrize("state", sorted(MAYBE_ENDED))
def test_what_slurm_shows_before_it_queues_a_job_again_counts_when_it_stays(state: str) -> None:
    assert [watch_one.look("7", state) for watch_one in [watch()] for _ in range(LOOKS)] == [None] * (LOOKS - 1) + [
        state
    ]
    again = watch()
    assert [again.look("7", s) for s in [state, state, "PENDING", state, state, "RUNNING"]] == [None] * 6
    quick = watch(tick=0.1)
    assert [quick.look("7", state) for _ in range(20)] == [None] * 20, "within two seconds"


@pytest.mark.parametrize(
    ("records", "ended"),
    [
        ("COMPLETED", DONE),
        ("CANCELLED by 1000", "CANCELLED"),
        ("NODE_FAIL", "NODE_FAIL"),
        (UNKNOWN, UNKNOWN),
        ("RUNNING", UNKNOWN),  # as records have it for ever of a job whose end nobody wrote down
        ("", UNKNOWN),
        (None, None),  # they can't be asked: not now
    ],
)
def test_the_records_tell_of_a_job_that_the_queue_forgot(records: str | None, ended: str | None) -> None:
    asked = watch(records)
    assert [asked.look("7", None) for _ in range(LOOKS)] == [None] * (LOOKS - 1) + [ended]


def test_one_answer_without_a_job_is_not_its_end() -> None:
    asked = watch("FAILED")
    assert [asked.look("7", s) for s in (None, "RUNNING", None, None, "PENDING", None)] == [None] * 6


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
         "policy (job submit limit, user's size and/or time limits)", "the queue is full (QOSMaxSubmitJobPerUserLimit)"),
        ("sbatch: error: AssocGrpSubmitJobsLimit", "the queue is full (AssocGrpSubmitJobsLimit)"),
        ("sbatch: error: AssocMaxSubmitJobLimit", "the queue is full (AssocMaxSubmitJobLimit)"),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
         "Slurm's controller does not answer"),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
         "Slurm's controller does not answer"),
        ("sbatch: error: QOSMaxCpuPerJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
         "(job submit limit, user's size and/or time limits)", None),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", None),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", None),
    ],
)  # fmt: skip
def test_which_refusals_are_postponements(said: str, why: str | None) -> None:
    assert postponed(f"SLURM sbatch failed. The error message was '{said}'.") == why


def test_silence_is_reported_once_again_after_a_while_and_at_its_end() -> None:
    said: list[str] = []
    clock = Clock(0)
    silence = Silence(said.append, clock)
    silence.answered()
    assert said == []
    for minute in range(65):
        clock.time = 60.0 * minute
        silence.unanswered(clock.time - 5)
    assert len(said) == 3 and "does not answer" in said[0] and "30 minutes" in said[1] and "60 minutes" in said[2]
    silence.answered()
    silence.answered()
    assert said[3:] == ["Slurm answers again, after 3845 s and 65 questions in vain."]
    silence.unanswered(clock.time - 5)
    silence.answered()
    assert said[-1] == "Slurm answers again, after 5 s and 1 question in vain."


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that come before all others."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("queue", "records", "state"),
    [
        ("echo RUNNING", "exit 9", "RUNNING"),
        ("echo Invalid job id specified >&2; exit 1", "echo COMPLETED", "COMPLETED"),
        ("echo Invalid job id specified >&2; exit 1", "echo 'CANCELLED by 0'", "CANCELLED by 0"),
        ("exit 0", "echo 'Slurm accounting storage is disabled' >&2; exit 1", UNKNOWN),
        ("exit 0", "exit 0", UNKNOWN),
        ("echo Unable to contact slurm controller >&2; exit 1", "echo COMPLETED", None),
    ],
)
def test_how_slurm_is_asked(queue: str, records: str, state: str | None, slurm: Path) -> None:
    command(slurm, "squeue", queue)
    command(slurm, "sacct", records)
    assert states.recorded("7") == state


# --------------------------------------------------------------------------------------------------- one at a time


def test_a_second_snakemake_hears_of_the_first_until_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from date.cluster.occupied import occupy; occupy(Path(sys.argv[1]), 'paper');"
        " print('here', flush=True); sys.stdin.read()"
    )
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) as first:  # type: ignore[call-overload]
        assert first.stdout is not None and first.stdout.readline() == b"here\n"
        with pytest.raises(UserError, match=rf"^Snakemake \(process {first.pid} of \S+ on \S+ since .*Z\) is at work"):
            occupy(tmp_path, "paper")
        assert occupy(tmp_path, "mini") is None, "another tier is free"
        first.kill()
        first.wait()
    assert occupy(tmp_path, "paper") is None, "it ends with its holder, however that ends"


@pytest.mark.timed
def test_who_has_just_taken_the_lock_is_named_as_soon_as_it_says_who_it_is(tmp_path: Path) -> None:
    with (tmp_path / "paper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.2, lambda: (lock.write("Snakemake (process 7)\n"), lock.flush()))
        timer.start()
        with pytest.raises(UserError, match=r"^Snakemake \(process 7\) is at work"):
            occupy(tmp_path, "paper")
        timer.join()


def test_the_line_of_a_holder_that_is_gone_is_not_the_present_ones(tmp_path: Path) -> None:
    """Between the lock and the new line the file still names who was killed before."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    line = f"Snakemake (process %d of ada on {host} since 2026-01-01T00:00:00Z)\n"
    with (tmp_path / "paper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(line % ended.pid)
        lock.flush()

        def take_over() -> None:
            lock.seek(0)
            lock.truncate()
            lock.write(line % os.getpid())
            lock.flush()

        timer = threading.Timer(0.2, take_over)
        timer.start()
        with pytest.raises(UserError, match=rf"^Snakemake \(process {os.getpid()} of ada on"):
            occupy(tmp_path, "paper")
        timer.join()
        lock.seek(0)
        lock.write((line % ended.pid).replace(host, "another-host"))
        lock.flush()
        with pytest.raises(UserError, match=rf"^Snakemake \(process {ended.pid} of ada on another-host"):
            occupy(tmp_path, "paper")


def test_a_lock_whose_holder_says_nothing_is_held_by_another_snakemake(tmp_path: Path) -> None:
    with (tmp_path / "paper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="^another Snakemake is at work"):
            occupy(tmp_path, "paper")


def write_often(path: str, content: bytes) -> None:
    for _ in range(200):
        replace_bytes(Path(path), content, durable=False)


def test_of_two_writers_no_file_is_torn(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [b"a" * 30_000, b"b" * 50_000]
    writers = [multiprocessing.Process(target=write_often, args=(str(path), content)) for content in contents]
    path.write_bytes(contents[0])
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= set(contents)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_gives(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        replace_bytes(tmp_path / "file", b"")
        occupy(tmp_path, f"mask {mask}")
    finally:
        os.umask(before)
    for name in ("file", f"mask {mask}.lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


# --------------------------------------------------------------------------------------------------- beforehand


@pytest.mark.parametrize("character", list("%$`\"'\\\n"))
def test_paths_that_jobs_can_not_work_in(character: str) -> None:
    assert "move the clone" in (unfit_path(Path(f"/home/a{character}j/date")) or "")


@pytest.mark.parametrize("path", ["/home/a/date", "/home/a b/date (2)", "/home/é/date-1_2.3", "/a&b;c"])
def test_paths_that_are_fine(path: str) -> None:
    assert unfit_path(Path(path)) is None


def test_jobs_of_the_papers_size_without_a_gpu() -> None:
    paper, smoke = load_tier("paper"), load_tier("smoke")
    jobs = [("train", {"gpu": 1}), ("evaluate", {"gres": "gpu:a100:1"}), ("prepare_data", {})]
    assert list(obstacles(ROOT, paper, jobs)) == []
    jobs.append(("train", {"runtime": 120}))
    (sentence,) = obstacles(ROOT, paper, jobs)
    assert sentence.startswith("jobs of train ask for no GPU") and "--set-resources" in sentence
    assert list(obstacles(ROOT, smoke, jobs)) == []


def test_threads_of_one_process_share_its_lock(tmp_path: Path) -> None:
    occupy(tmp_path, "paper")
    refused: list[str] = []

    def again() -> None:
        try:
            occupy(tmp_path, "paper")
        except UserError as error:
            refused.append(str(error))

    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    assert len(refused) == 1


@pytest.mark.parametrize("home", ["/dev/null", "/proc/1/no", "/dev/null/x"])
def test_caches_lie_in_the_clone_where_the_home_can_not_be_written(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv(CACHES, "")
    if home.startswith("/proc"):
        monkeypatch.setattr("date.cluster.caches.os.access", lambda *_: False)  # root may write anywhere
    keep_caches(tmp_path / "cache")
    assert os.environ[CACHES] == str(tmp_path / "cache" / str(os.getuid()))


def test_caches_stay_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(CACHES, raising=False)
    keep_caches(tmp_path / "cache")
    assert CACHES not in os.environ
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv(CACHES, str(tmp_path / "mine"))
    keep_caches(tmp_path / "cache")
    assert os.environ[CACHES] == str(tmp_path / "mine")
