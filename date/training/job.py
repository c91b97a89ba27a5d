"""A command as a job of the DAG: ``--job MINUTES``. Slurm is known here; the rules know of no batch system.

A training may take longer than a job is allowed to. Then it leaves in time with its state saved, and Slurm starts the
same job again: Snakemake, which waits for that job, sees nothing of it, and the training goes on even where Snakemake
is no more. Two jobs never train the same run: the later one gives its GPU back until the earlier one has ended.

Outside Slurm a training that left early ends with status 75, and whoever started it starts it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from date.errors import UserError
from date.progress import say
from date.training.interruption import RESUME_ME, Interrupted
from date.training.lease import GONE, LeaseHeldError, known_dead, read_holder, slurm_job_state

if TYPE_CHECKING:
    from date.catalogue import Tier

MARGIN, LONGEST_MARGIN = 0.25, 300.0
"""Of a job's time limit, as a fraction and at most in seconds: for its start, before Python runs, and its end."""
POLL = 10.0
"""Seconds between two looks at whoever holds a run."""
PATIENCE = 300.0
"""Seconds after which a run that is still held is tried again all the same."""
KILL_WAIT = 120.0
"""Seconds after which Slurm has surely ended a job that it starts again (``KillWait``, 30 by default)."""


def time_budget(minutes: int) -> float | None:
    """Return the seconds that a job with this time limit may work; None for no limit, 0."""
    limit = 60.0 * minutes
    return limit - min(MARGIN * limit, LONGEST_MARGIN) if minutes else None


def spread_over_gpus() -> None:
    """Where this Slurm job has several GPUs, replace this process by one for each of them, which train together."""
    gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if "RANK" in os.environ or (job := own_job()) is None:
        return
    if (nodes := int(job.get("NumNodes", "1").split("-")[0])) > 1:
        words = over_nodes(nodes)
    elif len(gpus) > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(len(gpus))]
        words = [sys.executable, *launcher, "-m", "date", *sys.argv[1:]]
    else:
        return
    # Of a step's own variables, which tell of this step alone, the next one would take its size.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in KEPT}
    os.execvpe(words[0], words, environment)


KEPT = {"SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST"}
"""Variables of Slurm's that tell of the job."""


ON_EACH_NODE = (
    'exec "$0" -m torch.distributed.run --nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint {endpoint} --rdzv-id {job}'
    ' --nproc-per-node "$(echo "$CUDA_VISIBLE_DEVICES" | tr , "\\n" | grep -c .)" -m date "$@"'
)
"""A launcher for the GPUs that Slurm gives the job on the node; the launchers meet on a port of the first node."""


def over_nodes(nodes: int) -> list[str]:
    """Return the command that trains on all nodes of this job, from its first one, on a port that is free there."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        endpoint = f"{socket.gethostname()}:{probe.getsockname()[1]}"
    script = ON_EACH_NODE.format(nodes=nodes, endpoint=endpoint, job=os.environ["SLURM_JOB_ID"])
    # Beside the step that this process is, with all that the job has on each node.
    step = [
        "--overlap",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        "--mem=0",
        "--kill-on-bad-exit=1",
    ]
    step += [f"--cpus-per-task={os.environ.get('SLURM_CPUS_ON_NODE', '1')}"]
    return ["srun", *step, "sh", "-c", script, sys.executable, *sys.argv[1:]]


def need_gpu(tier: Tier) -> None:
    """Make sure that a job at the paper's own size has a GPU.

    Raises:
        UserError: PyTorch finds none, or Slurm gave none to this job (others' GPUs may be visible all the same).
    """
    if not tier.reference:
        return
    import torch

    job = own_job()
    given = job is None or any("gpu" in value for name, value in job.items() if name.lower().startswith("tres"))
    if given and torch.cuda.is_available():
        return
    raise UserError(
        f"this job has no GPU, and tier {tier.name!r} can't be trained without; set gpu: 1 (or gres) below "
        "set-resources in slurm/config.yaml. A --set-resources on the command line takes the place of all of the "
        "profile's: repeat them there."
    )


def train_as_job(minutes: int, train: Callable[[float | None], Path]) -> Path:
    """Run a training as a job and return the sealed run.

    Args:
        minutes: the job's time limit; 0 for none.
        train: trains within a budget of seconds.

    Raises:
        Interrupted: the training has to leave, and this job can't be started again from here.
        UserError: see ``train``.
    """
    budget = time_budget(minutes)
    deadline = float("inf") if budget is None else time.monotonic() + budget
    while True:
        try:
            return train(None if budget is None else max(0.0, deadline - time.monotonic()))
        except LeaseHeldError as held:
            say(f"{held} This job waits for it.")
            _give_way(held.holder)
            _wait(held, deadline)
        except Interrupted as interrupted:
            _start_again(str(interrupted), resumes=True)
            raise


@contextlib.contextmanager
def preemptible() -> Iterator[None]:
    """Have Slurm start this job again where a job of higher priority drives it out while the block runs."""
    process = os.getpid()

    def driven_out(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # processes that load data inherit the handler
            _start_again("ended from outside", resumes=False)
        os._exit(RESUME_ME)

    before = signal.signal(signal.SIGTERM, driven_out)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(held: LeaseHeldError, deadline: float) -> None:
    """Wait until a run seems no longer held, or for a while: a holder that fell silent is noticed by trying again.

    Raises:
        UserError: this job's time is up, and it can't be started again from here.
    """
    end = time.monotonic() + PATIENCE
    time.sleep(
        POLL
    )  # also where the holder seems dead: then its lock is held by a process that can't be seen from here
    while (holder := read_holder(held.path)) is not None and not known_dead(holder) and time.monotonic() < end:
        if time.monotonic() > deadline:
            _start_again("this job's time is up", resumes=True)
            raise held
        time.sleep(POLL)


def _give_way(holder: dict | None) -> None:
    """Give this job's GPU back until the holder's job has ended, where both are Slurm's; else return."""
    if holder is None or holder["job"] in (None, os.environ.get("SLURM_JOB_ID")):
        return
    if slurm_job_state(holder["job"]) in (None, GONE):  # whose end Slurm would not notice
        return
    _start_again(f"waits for Slurm job {holder['job']}", resumes=True, after=holder["job"])


def _start_again(why: str, resumes: bool, after: str | None = None) -> None:
    """Have Slurm start this job again, from the queue, and wait to be ended; return where that is not to be done.

    Args:
        why: for the log.
        resumes: the job goes on where it left off; one that begins anew is not started again after its time limit.
        after: number of a job that has to end first.
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together, the first one acts
        return
    job = own_job()
    if job is None or not may_start_again(job, resumes):
        return
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # Slurm sends SIGTERM now, and kills later
    done = _scontrol("requeue", job["JobId"])
    if done.returncode:
        say(f"Slurm does not start job {job['JobId']} again: {done.stderr.strip()}")
        return
    if after is not None:
        _scontrol("update", f"JobId={job['JobId']}", f"Dependency=afterany:{after}")
    say(f"{why}; Slurm job {job['JobId']} is queued again")
    time.sleep(KILL_WAIT)


def own_job() -> dict[str, str] | None:
    """Return what ``scontrol show job`` says of the Slurm job that Snakemake submitted and this process is; else None.

    A process in somebody's own allocation, or below a Snakemake that runs inside a job, is not that job.
    """
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return None
    shown = _scontrol("--oneliner", "show", "job", number)
    if shown.returncode:
        say(f"Slurm can't be asked about job {number}: {shown.stderr.strip()}")
        return None
    job = parse(shown.stdout)
    return job if job.get("BatchFlag") == "1" and job.get("Comment", "").startswith("rule_") else None


def parse(shown: str) -> dict[str, str]:
    """Return the fields of ``scontrol --oneliner show job``."""
    return dict(word.split("=", 1) for word in shown.split() if "=" in word)


def may_start_again(job: dict[str, str], resumes: bool) -> bool:
    """Say whether a job that is about to end should start again: not where somebody cancelled it."""
    preempted = job.get("PreemptTime", "None") not in ("None", "N/A", "Unknown")
    if job["JobState"] == "RUNNING":
        return preempted or resumes
    return job["JobState"] == "COMPLETING" and (preempted or (resumes and job["Reason"] == "TimeLimit"))


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))
