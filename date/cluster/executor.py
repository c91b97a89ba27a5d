"""Snakemake's executor for Slurm, which survives a Slurm that does not answer.

The plugin's own (snakemake-executor-plugin-slurm 2.8.0) forgets all jobs when one status query fails, and Snakemake
then waits for ever; it waits for ever as well for jobs that Slurm no longer knows, and gives a submission up that comes
while the controller is away or the queue is full. This subclass answers for the jobs by itself (`check_active_jobs`,
the one method that Snakemake's interface asks every executor for) and submits again what was only postponed. Everything
else is the plugin's. `select` puts it in the plugin's place, for the main process of a run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

from snakemake_executor_plugin_slurm import Executor
from snakemake_executor_plugin_slurm.job_status_query import (
    get_min_job_age,
    query_job_status,
    query_job_status_squeue,
)
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from date.cluster.states import DONE, UNKNOWN, Silence, Watch, postponed, recorded

LONGEST_WAIT, LONGER = 180, 10
"""Seconds between two questions at most, and how much longer, at most, each wait is in which no job ended.

It is half of Slurm's ``MinJobAge`` at most, for which finished jobs are shown.
"""
LONGEST_POSTPONEMENT = 60.0
"""Seconds between two tries to submit a job at most."""


def select() -> None:
    """Let Snakemake make this executor where it would make the plugin's."""
    registry = ExecutorPluginRegistry()
    if registry.is_installed("slurm"):
        registry.get_plugin("slurm").executor = PatientExecutor


class PatientExecutor(Executor):
    """See the module's docstring."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        self.watch, self.silence = Watch(recorded), Silence(logger.warning)
        self.stopping = threading.Event()
        self.submission = threading.local()  # of the two threads that submit
        self.postponements: dict[str, int] = {}
        self.longest: float | None = None
        self.asked_about: list[Any] = []  # while Slurm is asked about jobs, they stand in no other list
        super().__init__(workflow, logger)

    # --------------------------------------------------------------------------------------------- jobs under way

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncGenerator[Any, None]:
        """Report the jobs that have ended, and yield the others; all of them while Slurm does not answer."""
        self.asked_about = list(active_jobs)
        async for job in self._still_active(active_jobs):
            yield job
        self.asked_about = []

    async def _still_active(self, active_jobs: list[Any]) -> AsyncGenerator[Any, None]:
        longest = await asyncio.to_thread(self._longest_wait)
        shortest = min(self.workflow.executor_settings.init_seconds_before_status_checks, longest)
        if not active_jobs:
            self.next_seconds_between_status_checks = shortest
            return
        asked = self.silence.now()
        async with self.status_rate_limiter:
            states, _ = await query_job_status(query_job_status_squeue(self.run_uuid), self.logger)
        if states is None:
            self.silence.unanswered(asked)
            self.next_seconds_between_status_checks = shortest
            for job in active_jobs:
                yield job
            return
        self.silence.answered()
        any_ended = False
        for job in active_jobs:
            shown = states.get(job.external_jobid)
            ended = await asyncio.to_thread(self.watch.look, job.external_jobid, shown)
            if ended is None:
                yield job
            else:
                any_ended = True
                self._report(job, ended)
        longer = min(self.next_seconds_between_status_checks + min(LONGER, shortest), longest)
        # What is in doubt is looked at soon again.
        self.next_seconds_between_status_checks = shortest if any_ended or self.watch.doubtful else longer

    def _longest_wait(self) -> float:
        """Return the longest time between two queries in s; ask for ``MinJobAge`` until Slurm has answered."""
        if self.longest is None and (age := get_min_job_age()) is not None:
            self.longest = max(2.0, min(LONGEST_WAIT, age / 2))
        return LONGEST_WAIT if self.longest is None else self.longest

    def _report(self, job: Any, ended: str) -> None:
        log = job.aux.get("slurm_logfile")
        self.watch.doubtful.pop(job.external_jobid, None)
        if ended == DONE:
            self.report_job_success(job)
            if log is not None and not self.workflow.executor_settings.keep_successful_logs:
                log.unlink(missing_ok=True)
            return
        if ended == UNKNOWN:
            text = f"Slurm no longer knows job {job.external_jobid}, nor how it ended. "
        else:
            text = f"Slurm job {job.external_jobid} ended as {ended}. "
        self.report_job_error(job, msg=text, aux_logs=[] if log is None else [str(log)])

    # --------------------------------------------------------------------------------------------- submission

    def run_job(self, job: Any) -> None:
        """Submit a job, again and again while the controller is away or the queue is full."""
        wait = min(float(self.workflow.executor_settings.init_seconds_before_status_checks), LONGEST_POSTPONEMENT)
        while True:
            self.submission.why = None
            self.submission.patient = True
            try:
                super().run_job(job)
            finally:
                self.submission.patient = False
            if self.submission.why is None:
                self.postponements.clear()
                return
            self._say_postponed(self.submission.why)
            if self.stopping.wait(wait):
                return

    def _report_job_error_threadsafe(self, job_info: Any, msg: str) -> None:
        """Keep the reason of a submission that is only postponed, instead of counting it as a failure of the job."""
        if getattr(self.submission, "patient", False) and (why := postponed(msg)) is not None:
            self.submission.why = why
            return
        super()._report_job_error_threadsafe(job_info, msg)

    def _say_postponed(self, why: str) -> None:
        if why not in self.postponements:
            self.logger.warning(f"{why}; jobs are submitted as soon as it takes them.")
        self.postponements[why] = self.postponements.get(why, 0) + 1

    # --------------------------------------------------------------------------------------------- the end

    def cancel(self) -> None:
        """Cancel all jobs; see the plugin."""
        self.stopping.set()
        super().cancel()

    def cancel_jobs(self, active_jobs: list[Any]) -> None:
        """Cancel jobs, also those whose state is being queried; report those that Slurm could not be told to cancel."""
        known = {job.external_jobid for job in active_jobs}
        jobs = [*active_jobs, *(job for job in self.asked_about if job.external_jobid not in known)]
        try:
            super().cancel_jobs(jobs)
        except WorkflowError as error:
            numbers = " ".join(job.external_jobid for job in jobs if job.external_jobid)
            self.logger.error(f"{error}\nThese jobs go on; cancel them later, by: scancel {numbers}")

    def shutdown(self) -> None:
        """End; see the plugin."""
        self.stopping.set()
        super().shutdown()
