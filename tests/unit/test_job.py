"""Jobs of the DAG: how long they may work, and which of them Slurm starts again. Real ones are in tests/slurm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from date.errors import UserError
from date.training import job
from date.training.journal import begin_segment, end_segment, read_segments
from date.training.lease import LeaseHeldError
from date.training.run import STARTS_WITHOUT_PROGRESS, _give_up_if_stuck

SHOWN = (
    "JobId=15 JobName=date_5c0e UserId=me(1000) Account=ci QOS=normal JobState={state} Reason={reason} "
    "Dependency=(null) Requeue=1 Restarts=0 BatchFlag={batch} TimeLimit=01:00:00 "
    "PreemptEligibleTime=2026-05-17T18:00:31{preempted} Comment={comment} Command=(null) WorkDir=/home/me/a clone"
)
"""Of ``scontrol --oneliner show job``, Slurm 22.05."""
PREEMPTED = " PreemptTime=2026-05-17T18:00:34"


def shown(
    state: str, reason: str = "None", preempted: str = "", comment: str = "rule_train_wildcards_x_0", batch: int = 1
) -> str:
    return SHOWN.format(state=state, reason=reason, preempted=preempted, comment=comment, batch=batch)


@pytest.mark.parametrize(("minutes", "seconds"), [(0, None), (1, 45), (4, 180), (20, 900), (60, 3300), (1440, 86100)])
def test_the_budget_leaves_a_margin_for_start_and_end(minutes: int, seconds: float | None) -> None:
    assert job.time_budget(minutes) == seconds


@pytest.mark.parametrize(
    ("text", "resumes", "again"),
    [
        (shown("RUNNING"), True, True),  # the budget's end, or SIGUSR1
        (shown("RUNNING"), False, False),  # somebody signalled an evaluation
        (shown("RUNNING", preempted=PREEMPTED), False, True),  # within the grace time
        (shown("COMPLETING", preempted=PREEMPTED), False, True),
        (shown("COMPLETING", preempted=" PreemptTime=None"), False, False),
        (shown("COMPLETING", reason="TimeLimit"), True, True),
        (shown("COMPLETING", reason="TimeLimit"), False, False),  # would meet the limit again and again
        (shown("COMPLETING"), True, False),  # scancel, or requeued already
    ],
)
def test_who_is_started_again(text: str, resumes: bool, again: bool) -> None:
    assert job.may_start_again(job.parse(text), resumes) is again


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose ``answer`` is what ``scontrol`` shows; its calls are noted in ``calls``."""
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\ncat "{tmp_path}/answer"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "own"),
    [
        (shown("RUNNING"), True),
        (shown("RUNNING", comment="(null)"), False),  # a script of the user's own
        (shown("RUNNING", batch=0), False),  # an interactive allocation
    ],
)
def test_only_a_job_that_snakemake_submitted_is_ours(slurm: Path, text: str, own: bool) -> None:
    (slurm / "answer").write_text(text)
    assert (job.own_job() is not None) is own
    assert (slurm / "calls").read_text() == "--oneliner show job 15\n"


@pytest.mark.parametrize(("gpus", "processes"), [("0,1,2", "3"), ("0", None), ("", None)])
def test_a_training_uses_all_gpus_of_its_job(
    slurm: Path, gpus: str, processes: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm / "answer").write_text(shown("RUNNING"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr("sys.argv", ["date", "train", "x", "--job", "10"])
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvpe", lambda path, words, environment: started.append(words))
    job.spread_over_gpus()
    (slurm / "answer").write_text(shown("RUNNING", comment="(null)"))  # somebody's own allocation
    job.spread_over_gpus()
    assert [words[words.index("--nproc-per-node") + 1] for words in started] == ([processes] if processes else [])
    assert all(words[-5:] == ["date", "train", "x", "--job", "10"] for words in started)


def test_a_slurm_that_does_not_answer_is_reported_and_no_disaster(
    slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm / "scontrol").write_text("#!/bin/sh\necho Unable to contact slurm controller >&2\nexit 1\n")
    assert job.own_job() is None
    assert "Unable to contact slurm controller" in capsys.readouterr().err
    monkeypatch.delenv("SLURM_JOB_ID")
    assert job.own_job() is None


def test_a_training_waits_for_another_process_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = tmp_path / "lease.json"
    holder = {"host": "elsewhere", "boot": "", "pid": 1, "started": "1", "job": None, "token": "a", "beat": 0}
    holder |= {"cluster": None, "restart": 0}
    lease.write_text(json.dumps(holder))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            lease.unlink()

    monkeypatch.setattr(job.time, "sleep", sleep)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def train(budget: float | None) -> Path:
        assert budget is None
        if lease.exists():
            raise LeaseHeldError("training x", lease, holder)
        return tmp_path

    assert job.train_as_job(0, train) == tmp_path
    assert slept == [job.POLL] * 3


def test_a_job_that_is_started_again_and_again_without_progress_gives_up(tmp_path: Path) -> None:
    class Planned:
        title, work = "fcos seed 0", tmp_path

    def start(slurm_job: str | None, step: int) -> None:
        segment = {"job": slurm_job, "from_step": step, "began": "now"}
        _give_up_if_stuck(Planned, segment, read_segments(tmp_path))  # type: ignore[arg-type]
        begin_segment(tmp_path, segment)
        end_segment(tmp_path, step, "killed")

    for step in (0, 5, 5):  # progress, and an end before any
        start("7", step)
    for _ in range(STARTS_WITHOUT_PROGRESS - 2):
        start("7", 5)
    with pytest.raises(
        UserError, match=f"started {STARTS_WITHOUT_PROGRESS} times by Slurm job 7 and is still at step 5"
    ):
        start("7", 5)
    start("8", 5)  # the user, or Snakemake, tries anew
    for _ in range(2 * STARTS_WITHOUT_PROGRESS):
        start(None, 5)  # by hand, as often as one likes
