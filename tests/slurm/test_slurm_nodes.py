"""The user's command on a cluster of several nodes whose controller, nodes and queue all fail it in one run.

Five trainings, of which the queue takes three at a time, suffer a fault each, and the controller is away twice: once it
comes back as it was, once it has forgotten everything. The tables have to be those of an undisturbed run without Slurm.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cluster as slurm
import pytest
from clones import GOOD, ON_SLURM, Clone, Undisturbed, arguments, halt, slow_clone, until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RESOURCES = [f"train:qos='{slurm.FEW}'", "train:gpu=1", "train:mem_mb=48000", "evaluate:gpu=1"]
AWAY = 20.0
"""Seconds for which the controller is away: a question in vain, with the plugin's own repetitions, takes that long.

One is as bad as many: the plugin forgot its jobs after one. Many are tested with the executor alone, by a clock of its
own (`tests/unit/test_executor.py`).
"""


@dataclass
class Story:
    """What happened, and to which training."""

    clone: Clone
    lost: str = ""
    cut_off: str = ""
    moved: str = ""
    late: str = ""
    """The training whose job the controller forgot."""
    waited: bytes = b""
    """What Snakemake said while the queue was full and the controller away."""
    status: int | None = None


@pytest.fixture(scope="module")
def story(cluster: None, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    suffered = Story(slow_clone(tmp_path_factory.mktemp("nodes") / "a clone"))
    undisturbed.start()
    process = suffered.clone.start(*ON_SLURM, "--set-resources", *RESOURCES, *arguments(GOOD))
    try:
        suffered.lost, suffered.cut_off, suffered.moved = halt(suffered.clone, GOOD, slurm.MOST)
        keep_the_controller_away(suffered)
        fail_the_nodes(suffered)
        slurm.end("slurmctld")
        slurm.start_controller("-c")
        suffered.status = process.wait(900)
        yield suffered
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        for node in slurm.NODES:
            slurm.start_node(node)
        slurm.wait("the nodes", lambda: all(map(slurm.takes_jobs, slurm.NODES)))
        suffered.clone.clean_up()


def keep_the_controller_away(story: Story) -> None:
    """Stop the controller for some seconds in which jobs run and others are to be submitted."""
    clone = story.clone
    until("a full queue", lambda: b"the queue is full" in clone.log())
    slurm.end("slurmctld")
    gone = time.monotonic()
    until("polls that fail", lambda: b"Slurm does not answer" in clone.log())
    until("submissions that fail", lambda: b"controller does not answer; jobs are submitted" in clone.log())
    time.sleep(max(0.0, gone + AWAY - time.monotonic()))
    slurm.start_controller()
    until("polls that succeed", lambda: b"Slurm answers again" in clone.log())
    story.waited = clone.log()


def fail_the_nodes(story: Story) -> None:
    """Take three nodes of four away: by a loss of power, by the loss of its daemon alone, and by draining it."""
    clone = story.clone
    job = {name: clone.job(name) or "" for name in (story.lost, story.cut_off, story.moved)}
    node = {name: clone.node(job[name]) for name in job}
    assert len(set(node.values())) == len(node), "each on a node of its own"
    survivor = clone.trainer(story.cut_off)
    slurm.lose(node[story.lost])
    slurm.end(f"slurmd-{node[story.cut_off]}", signal.SIGKILL)
    slurm.sh("scontrol", "update", f"NodeName={node[story.moved]}", "State=DRAIN", "Reason=test")
    slurm.sh("scontrol", "requeue", job[story.moved])
    until("the job of the drained node elsewhere", lambda: clone.resumed(story.moved))
    until("the job of the lost node elsewhere", lambda: clone.resumed(story.lost))
    until("a second job of what lives on", lambda: waits(clone, story.cut_off))
    os.kill(survivor, signal.SIGCONT)
    slurm.start_node(node[story.lost])
    slurm.sh("scontrol", "update", f"NodeName={node[story.moved]}", "State=RESUME")
    # The next one that the queue has room for.
    (story.late,) = halt(clone, [name for name in GOOD if name not in job], 1)
    # Its daemon, once back, ends what it finds of the job that runs elsewhere by now.
    until("the end of what lives on", lambda: clone.result(story.cut_off).exists())
    slurm.start_node(node[story.cut_off])


def waits(clone: Clone, training: str) -> bool:
    """Say whether a job of a training waits for another process."""
    logs = (clone.folder / f"logs/slurm/rule_train/{training}_0").glob("*.log")
    return any("This job waits for it." in path.read_text() for path in logs)


def test_the_command_ends_by_itself_with_the_tables_of_an_undisturbed_run(
    story: Story, undisturbed: Undisturbed
) -> None:
    assert story.status == 0, story.clone.log().decode()
    tables = story.clone.tables()
    assert len(tables) >= 2
    assert tables == undisturbed.finished().tables()


@pytest.mark.parametrize("training", GOOD)
def test_the_weights_are_those_of_the_undisturbed_run(story: Story, undisturbed: Undisturbed, training: str) -> None:
    quiet = undisturbed.finished().provenance(training)
    assert story.clone.provenance(training)["weights_sha256"] == quiet["weights_sha256"]


def test_a_full_queue_and_an_absent_controller_are_waited_for_and_said(story: Story) -> None:
    said = story.waited.decode()
    assert re.search(r"the queue is full \(QOSMaxSubmit\w+\); jobs are submitted as soon as", said)
    (away,) = re.findall(r"Slurm answers again, after (\d+) s and (\d+) questions? in vain", said)
    assert int(away[0]) >= AWAY / 2
    assert "sbatch failed" not in said and "Trying to restart" not in said


def test_a_lost_node_costs_no_wait_for_the_dead_predecessor(story: Story) -> None:
    segments = story.clone.segments(story.lost)
    assert [s["reason"] for s in segments][:2] == ["killed", segments[1]["reason"]]
    assert segments[0]["job"] == segments[1]["job"] and segments[0]["host"] != segments[1]["host"]
    log = next((story.clone.folder / f"logs/slurm/rule_train/{story.lost}_0").glob(f"{segments[1]['job']}.log"))
    assert "listening" not in log.read_text()


def test_a_node_that_is_cut_off_has_one_writer(story: Story) -> None:
    (segment,) = story.clone.segments(story.cut_off)
    assert segment["reason"] == "finished"


def test_a_job_of_a_drained_node_goes_on_elsewhere(story: Story) -> None:
    first, second, *_ = story.clone.segments(story.moved)
    assert first["reason"] == "SIGTERM" and first["host"] != second["host"] and first["step"] == second["from_step"]


def test_a_job_that_the_controller_forgot_is_submitted_again(story: Story) -> None:
    said = story.clone.log().decode()
    assert re.search(r"Slurm no longer knows job \d+, nor how it ended|ended as", said)
    segments = story.clone.segments(story.late)
    assert len(segments) > 1 and segments[-1]["reason"] == "finished"
