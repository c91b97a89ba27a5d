"""Snakemake's executor of ours, with Slurm's answers put into its mouth: no job is ever forgotten."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_slurm import Executor
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from date.cluster import executor as module
from date.cluster.executor import PatientExecutor, select
from date.cluster.states import DONE, ENDED, LOOKS, UNKNOWN, Silence, Watch


class Reporting(PatientExecutor):
    """The executor without Snakemake around it."""

    def __init__(self, records: str | None = UNKNOWN) -> None:
        clock = iter(range(0, 10**6, 60)).__next__
        self.said: list[str] = []
        self.logger = SimpleNamespace(warning=self.said.append, error=self.said.append, debug=lambda text: None)
        self.watch, self.silence = Watch(lambda job: records, clock), Silence(self.said.append, clock)
        self.stopping, self.submission = threading.Event(), threading.local()
        self.postponements: dict[str, int] = {}
        self.longest: float | None = 180.0
        self.asked_about: list[Any] = []
        settings = SimpleNamespace(init_seconds_before_status_checks=0.01, keep_successful_logs=True)
        self.workflow = SimpleNamespace(executor_settings=settings)
        self.run_uuid, self._next_seconds_between_status_checks = "run", 1
        self._submitted_job_clusters: set[str] = set()
        self.ended: dict[str, str] = {}

        @asynccontextmanager
        async def limiter() -> Any:
            yield

        self.status_rate_limiter = SimpleNamespace(__aenter__=None)
        self._limiter = limiter

    def report_job_success(self, job: Any) -> None:
        self.ended[job.external_jobid] = "success"

    def report_job_error(self, job: Any, msg: str = "", **more: Any) -> None:
        self.ended[job.external_jobid] = msg

    def poll(self, jobs: list[Any]) -> list[Any]:
        """Return the jobs that are still active after a poll."""

        async def collected() -> list[Any]:
            self.status_rate_limiter = self._limiter()
            return [job async for job in self.check_active_jobs(jobs)]

        return asyncio.run(collected())


def jobs(*numbers: str) -> list[Any]:
    return [SimpleNamespace(external_jobid=number, aux={}) for number in numbers]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Slurm says to the polls that come; None where it does not answer."""
    answers: list[Any] = []

    async def query(command: str, logger: Any) -> Any:
        answer = answers.pop(0)
        return (answer, None if answer is None else 0.1)

    monkeypatch.setattr(module, "query_job_status", query)
    return answers


def test_one_poll_without_an_answer_forgets_no_job(answers: list[Any]) -> None:
    answers += [None, None, {"1": "COMPLETED", "2": "FAILED", "3": "RUNNING"}]
    executor, left = Reporting(), jobs("1", "2", "3")
    for _ in range(2):
        left = executor.poll(left)
        assert [job.external_jobid for job in left] == ["1", "2", "3"]
    assert [job.external_jobid for job in executor.poll(left)] == ["3"]
    assert executor.ended == {"1": "success", "2": "Slurm job 2 ended as FAILED. "}
    assert len(executor.said) == 2 and "does not answer" in executor.said[0] and "answers again" in executor.said[1]


SHOWN = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["1", "2", "3"]), st.sampled_from(["RUNNING", "PENDING", "NODE_FAIL"]), max_size=3),
)


@given(st.lists(SHOWN, max_size=10), st.sampled_from([DONE, *sorted(ENDED)]))
def test_whatever_single_polls_do_every_job_ends_once(shown: list[Any], end: str) -> None:
    """Jobs that seem gone are asked for in the records, which do not answer here: they stay."""
    answers = [*shown, *[dict.fromkeys("123", end)]]

    async def query(command: str, logger: Any) -> Any:
        answer = answers.pop(0)
        return (answer, None if answer is None else 0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "query_job_status", query)
        executor, left = Reporting(records=None), jobs("1", "2", "3")
        while answers:
            left = executor.poll(left)
            assert {job.external_jobid for job in left} | set(executor.ended) == {"1", "2", "3"}
            assert not {job.external_jobid for job in left} & set(executor.ended)
    assert left == [] and set(executor.ended) == {"1", "2", "3"}


def test_a_job_that_slurm_forgot_is_an_error_after_some_answers(answers: list[Any]) -> None:
    answers += [{}] * LOOKS
    executor, left = Reporting(), jobs("1")
    for _ in range(LOOKS - 1):
        left = executor.poll(left)
        assert len(left) == 1
    assert executor.poll(left) == []
    assert executor.ended == {"1": "Slurm no longer knows job 1, nor how it ended. "}


def test_jobs_that_slurm_is_being_asked_about_are_cancelled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, cancelled = Reporting(), []
    monkeypatch.setattr(
        Executor, "cancel_jobs", lambda self, jobs: cancelled.append([job.external_jobid for job in jobs])
    )

    async def query(command: str, logger: Any) -> Any:
        executor.cancel_jobs([])  # Ctrl-C while Slurm lets one wait
        return None, None

    monkeypatch.setattr(module, "query_job_status", query)
    left = executor.poll(jobs("1", "2"))
    executor.cancel_jobs(left)
    assert cancelled == [["1", "2"], ["1", "2"]]


def test_jobs_that_can_not_be_cancelled_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, jobs: list[Any]) -> None:
        raise WorkflowError("Unable to cancel jobs with scancel")

    monkeypatch.setattr(Executor, "cancel_jobs", refuse)
    executor = Reporting()
    executor.cancel_jobs(jobs("1", "2"))
    assert executor.said[0].endswith("These jobs go on; cancel them later, by: scancel 1 2")


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What sbatch says to the submissions that come; they succeed when nothing is left."""
    refusals: list[str] = []

    def run_job(self: Any, job: Any) -> None:
        if refusals:
            self._report_job_error_threadsafe(job, f"SLURM sbatch failed. The error message was '{refusals.pop(0)}'.")
        else:
            self.ended[job.external_jobid] = "submitted"

    monkeypatch.setattr(Executor, "run_job", run_job)
    monkeypatch.setattr(
        Executor, "_report_job_error_threadsafe", lambda self, job, msg: self.report_job_error(job, msg=msg)
    )
    return refusals


def test_a_postponed_submission_comes_again_and_is_reported_once(refusals: list[str]) -> None:
    refusals += ["sbatch: error: QOSMaxSubmitJobPerUserLimit"] * 3 + ["Unable to contact slurm controller"] * 2
    executor = Reporting()
    executor.run_job(jobs("1")[0])
    assert executor.ended == {"1": "submitted"}
    assert [line.split(";")[0] for line in executor.said] == [
        "the queue is full (QOSMaxSubmitJobPerUserLimit)",
        "Slurm's controller does not answer",
    ]


def test_a_submission_that_is_refused_fails(refusals: list[str]) -> None:
    refusals.append("Batch job submission failed: Invalid partition name specified")
    executor = Reporting()
    executor.run_job(jobs("1")[0])
    assert "Invalid partition" in executor.ended["1"]


@pytest.mark.timed
def test_waiting_for_the_queue_ends_with_snakemake(refusals: list[str]) -> None:
    refusals += ["sbatch: error: AssocMaxSubmitJobLimit"] * 1000
    executor = Reporting()
    executor.workflow.executor_settings.init_seconds_before_status_checks = 30
    thread = threading.Thread(target=executor.run_job, args=(jobs("1")[0],))
    thread.start()
    executor.stopping.set()
    thread.join(10)
    assert not thread.is_alive() and executor.ended == {}


def test_snakemake_makes_this_executor_and_no_other_changes() -> None:
    plugin = ExecutorPluginRegistry().get_plugin("slurm")
    before = plugin.executor
    try:
        select()
        assert ExecutorPluginRegistry().get_plugin("slurm").executor is PatientExecutor
        assert plugin.common_settings.non_local_exec and issubclass(PatientExecutor, Executor)
    finally:
        plugin.executor = before
