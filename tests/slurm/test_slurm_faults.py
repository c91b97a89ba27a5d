"""The user's command on a real Slurm, under every fault that a cluster has in store.

One run of the DAG suffers them all at once, each in a training of its own; the tests then look at what each one left.
It is compared with an undisturbed run of the same trainings without Slurm.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster as slurm
import psutil
import pytest
from clones import FAILING, GOOD, ON_SLURM, Clone, Undisturbed, arguments, halt, slow_clone, until

from date.training.job import time_budget

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

CANCELLED, KILLED, REQUEUED, PREEMPTED, SLICED = GOOD
"""The requeued one is also the orphan: its job is at work when Snakemake is killed, and the next Snakemake submits another."""

MINUTES = 3
"""The time limit of the training that runs in slices."""
RESOURCES = [
    f"train:runtime={MINUTES} if wildcards.training == '{SLICED}' else 1440",
    f"train:slurm_partition='spare' if wildcards.training == '{PREEMPTED}' else 'gpu'",
    # Its node's daemon is killed. Where that is the preempted job's node, which is to start it again, Slurm may find
    # what is left of the job ("Duplicate jobid"), hold it and drain the node.
    f"train:slurm_extra='--open-mode=append' + (' --exclude=node1' if wildcards.training == '{KILLED}' else '')",
    "train:gpu=1",
    "train:mem_mb=48000",
    "evaluate:gpu=1",
]


def on_slurm(clone: Clone, trainings: list[str]) -> subprocess.Popen[bytes]:
    """Start the user's command."""
    return clone.start(*ON_SLURM, "--set-resources", *RESOURCES, *arguments(trainings))


@dataclass
class Story:
    """What happened to the clone on Slurm."""

    clone: Clone
    undisturbed: Clone
    exits: list[int] = field(default_factory=list)
    orphan: str = ""
    restarted: tuple[str, int] = ("", 0)


@pytest.fixture(scope="module")
def story(cluster: None, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    suffered = Story(slow_clone(tmp_path_factory.mktemp("slurm") / "a clone"), undisturbed.clone)
    try:
        suffer(suffered, undisturbed)
        yield suffered
    finally:
        suffered.clone.clean_up()


def suffer(story: Story, undisturbed: Undisturbed) -> None:
    """Run the DAG through every fault."""
    clone = story.clone
    first = on_slurm(clone, [*GOOD, FAILING])
    dragged = Dragged(clone, REQUEUED)
    try:
        threading.Thread(target=stand_still, args=(clone,), daemon=True).start()
        halt(clone, [name for name in GOOD if name != SLICED])
        undisturbed.start()  # while the others stand still
        preempt()
        until("the end of the preempted job", lambda: clone.job(PREEMPTED) is None)
        node = clone.node(clone.job(KILLED) or "")
        slurm.end(f"slurmd-{node}", signal.SIGKILL)
        os.kill(clone.trainer(KILLED), signal.SIGKILL)
        slurm.start_node(node)
        # Right after a start its file was once found without a number.
        story.restarted = node, until("the number of the new daemon", lambda: slurm.process(f"slurmd-{node}"))
        slurm.sh("scancel", clone.job(CANCELLED) or "")
        story.orphan = clone.job(REQUEUED) or ""
        slurm.sh("scontrol", "requeue", story.orphan)
        resubmitted = re.compile(rb"Trying to restart job")
        until("new jobs of what was lost", lambda: len(resubmitted.findall(clone.said[0].read_bytes())) >= 3)
        # Before the next Snakemake submits jobs of the same trainings, of which either could come first.
        until("requeued jobs at work again", lambda: clone.resumed(REQUEUED) and clone.resumed(PREEMPTED))
        until("the end of the training in slices", lambda: clone.sealed(SLICED))
    finally:
        os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = on_slurm(clone, [*GOOD, FAILING])
    try:
        until("a job that gives way", lambda: clone.gave_way(REQUEUED, story.orphan))
        dragged.let_go()
        undisturbed.finished()
        story.exits.append(second.wait(900))
    finally:
        dragged.let_go()
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
    third = on_slurm(clone, GOOD)
    story.exits.append(third.wait(600))


def stand_still(clone: Clone) -> None:
    """Stop the first process of the training in slices after its first checkpoint until its time is up.

    One that stands still uses its time up as well as one that trains, and leaves the CPU to the others. It is woken
    between the end of its budget and that of Slurm's limit; where it was too slow to be stopped, it has left by itself.
    """
    trainer = until("the training in slices", lambda: trainer_of(clone, SLICED))
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(trainer)
        end = process.create_time() + (time_budget(MINUTES) or 0)
        until("its first checkpoint", lambda: clone.step(SLICED) or not process.is_running())
        process.suspend()
        time.sleep(max(0.0, end + 1 - time.time()))
        process.resume()


class Dragged:
    """Keeps a training that has begun again from ending: it stands still for most of the time, until `let_go`.

    Whoever waits for it has to see its heartbeats, so it is awake now and then.
    """

    AWAKE, ASLEEP = 0.3, 29.7

    def __init__(self, clone: Clone, training: str) -> None:
        self.clone, self.training, self.over = clone, training, threading.Event()
        self.thread = threading.Thread(target=self._drag, daemon=True)
        self.thread.start()

    def _drag(self) -> None:
        until(f"{self.training} to begin again", lambda: self.over.is_set() or self.clone.resumed(self.training))
        while not self.over.is_set():
            if (trainer := trainer_of(self.clone, self.training)) is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(trainer)
                    process.suspend()
                    self.over.wait(self.ASLEEP)
                    process.resume()
            self.over.wait(self.AWAKE)

    def let_go(self) -> None:
        """Let it train on at its own speed."""
        self.over.set()
        self.thread.join()


def trainer_of(clone: Clone, training: str) -> int | None:
    """Return the process that trains a training now, if any has begun."""
    try:
        return clone.trainer(training)
    except (StopIteration, OSError, ValueError):
        return None


def preempt() -> None:
    """Submit a job of higher priority that needs one GPU more than are free."""
    shown = slurm.output("scontrol", "show", "node", "node1")  # which the partition 'spare' is made of
    used = re.search(r"AllocTRES=\S*gres/gpu=(\d+)", shown)
    free = slurm.NUMBER_OF_GPUS - int(used[1] if used else 0)
    slurm.sh(
        "sbatch",
        "-p",
        "gpu",
        "-w",
        "node1",
        "--nodes=1",
        f"--gpus={free + 1}",
        "--mem=50",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 1",
    )


def chained(segments: list[dict[str, Any]]) -> bool:
    """Say whether every process began where the one before it had saved; of a killed one, only that it had."""
    pairs = itertools.pairwise(segments)
    return all(b["from_step"] > 0 and (a["reason"] == "killed" or a["step"] == b["from_step"]) for a, b in pairs)


def test_the_tables_are_those_of_an_undisturbed_run_without_slurm(story: Story) -> None:
    assert story.exits[-1] == 0, story.clone.said[-1].read_text()
    tables = story.clone.tables()
    assert len(tables) >= 2
    assert tables == story.undisturbed.tables()


@pytest.mark.parametrize("training", GOOD)
def test_the_weights_are_those_of_the_undisturbed_run(story: Story, training: str) -> None:
    disturbed, quiet = story.clone.provenance(training), story.undisturbed.provenance(training)
    assert disturbed["weights_sha256"] == quiet["weights_sha256"]
    assert len(quiet["segments"]) == 1 < len(disturbed["segments"])
    assert chained(disturbed["segments"])


def test_a_cancelled_training_is_submitted_again_and_resumes(story: Story) -> None:
    segments = story.clone.segments(CANCELLED)
    assert [s["reason"] for s in segments] == ["SIGTERM", "finished"]
    assert segments[0]["job"] != segments[1]["job"]


def test_a_killed_trainer_is_submitted_again_and_resumes(story: Story) -> None:
    segments = story.clone.segments(KILLED)
    assert [s["reason"] for s in segments] == ["killed", "finished"]
    assert segments[0]["job"] != segments[1]["job"]


@pytest.mark.parametrize("training", [REQUEUED, PREEMPTED])
def test_a_requeued_or_preempted_job_starts_again_and_resumes(story: Story, training: str) -> None:
    segments = story.clone.segments(training)
    assert [s["reason"] for s in segments] == ["SIGTERM", "finished"]
    assert segments[0]["job"] == segments[1]["job"]


def test_a_training_longer_than_its_time_limit_runs_in_slices_of_one_job(story: Story) -> None:
    segments = story.clone.segments(SLICED)
    assert [s["reason"] for s in segments] == ["time budget"] * (len(segments) - 1) + ["finished"]
    assert len(segments) > 1 and len({s["job"] for s in segments}) == 1


def test_after_sigkill_of_snakemake_its_jobs_go_on_and_later_ones_wait_without_a_gpu(story: Story) -> None:
    assert story.clone.gave_way(REQUEUED, story.orphan)
    assert {s["job"] for s in story.clone.segments(REQUEUED)} == {story.orphan}


def test_a_training_that_fails_for_good_fails_alone_and_names_its_logs(story: Story) -> None:
    assert story.exits[0] == 1
    said = story.clone.said[1].read_text()
    log = story.clone.folder / f"logs/slow/{FAILING}-seed0.train.log"
    assert re.search(rf"log: logs/slow/{FAILING}-seed0.train.log, /\S.*\.log \(check log file", said)
    assert " not finite" in log.read_text()  # the loss, or before it the predictions
    slurm_logs = re.findall(rf"log: \S+, (/.*/logs/slurm/rule_train/{FAILING}_0/\d+\.log) \(check", said)
    assert slurm_logs and all(Path(path).is_file() for path in slurm_logs)
    assert not (story.clone.folder / f"results/slow/{FAILING}/seed0/provenance.json").exists()


def test_the_cluster_is_whole_and_nothing_is_left_in_the_queue(story: Story) -> None:
    node, process = story.restarted
    assert slurm.process(f"slurmd-{node}") == process
    assert not [
        line for line in slurm.output("squeue", "-h", "-o", "%Z").splitlines() if str(story.clone.folder) in line
    ]
