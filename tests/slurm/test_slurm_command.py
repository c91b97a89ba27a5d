"""The user's command on a real Slurm where nothing goes wrong, with ``--gpus`` and with ``--gres``, alone or in a group.

Clones are worked at side by side, and several cases share one: see `clones` and `people`.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cluster as slurm
import pytest
from clones import ON_SLURM, Clone, copy_project, until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TRAININGS = ["fcos-r50-coco-12e", "date_f-r50-coco-12e"]
VARIANTS = {
    "gpus": [],
    "gres": ["--profile", "workflow/profiles/slurm-gres"],
}
SEVERAL = {
    "two gpus": ["train:gpu=2", "train:cpus_per_gpu=threads"],
    "two nodes": ["train:gres='gpu:2'", "train:nodes=2", "train:cpus_per_task=2"],
}
"""Resources of trainings in several processes."""
INSIDE = "two gpus"
"""Where Snakemake itself runs in a Slurm job."""
GROUP, PEOPLE = "date-test", ["date-test-1", "date-test-2"]
NARROW = [f"{rule}:{what}" for rule in ("train", "evaluate") for what in (f"slurm_partition='{slurm.NARROW}'", "gpu=1")]
COMMAND = ["--config", "tier=smoke", f"trainings={json.dumps(TRAININGS)}", "--", "all"]


@pytest.fixture(scope="module")
def clones(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clone]:
    """Copies of the project in which the command was run: at the same time with every variant, and without Slurm."""
    folder = tmp_path_factory.mktemp("command")
    made = {name: Clone(copy_project(folder / f"with {name}"), "smoke") for name in [*VARIANTS, "local"]}
    running = {name: made[name].start(*ON_SLURM, *words, *COMMAND) for name, words in VARIANTS.items()}
    running["local"] = made["local"].start("--profile", "workflow/profiles/local", *COMMAND)
    tier, target = "tests/slurm/frozen.yaml", f"results/frozen/{TRAININGS[0]}/seed0/provenance.json"
    settings = ["--config", f"tier={tier}", f"trainings={json.dumps(TRAININGS[:1])}", "--", target]
    for name, resources in SEVERAL.items():
        made[name] = Clone(copy_project(folder / name), "frozen")
        start = made[name].start_in_job if name == INSIDE else made[name].start
        running[name] = start(*ON_SLURM, "--set-resources", *resources, *settings)
    full = made["full logs"] = Clone(copy_project(folder / "full logs"), "smoke")
    logs = full.folder / "logs/smoke"  # where Slurm can't open a log of its own, it starts no job
    logs.mkdir(parents=True)
    slurm.sh("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(logs))
    try:
        fill(logs)
        running["full logs"] = full.start(*ON_SLURM, *COMMAND)
        for name, process in running.items():
            assert process.wait(900) == 0, made[name].logs()
    finally:
        for process in running.values():
            process.kill()
        slurm.sh("umount", "-l", str(logs))
    return made


def fill(folder: Path) -> None:
    """Fill a small file system to its last byte."""
    with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_tables_are_those_of_a_run_without_slurm(clones: dict[str, Clone], variant: str) -> None:
    tables = clones[variant].tables()
    assert len(tables) >= 2
    assert tables == clones["local"].tables()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_job_had_a_gpu_and_the_profiles_resources(clones: dict[str, Clone], variant: str) -> None:
    columns = "JobIDRaw,State,TimelimitRaw,ReqMem,AllocTRES"
    folder = clones[variant].folder
    logs = {path.stem: path.parent.parent.name for path in folder.glob("logs/slurm/rule_*/*/*.log")}
    assert sorted(logs.values()) == ["rule_evaluate"] * 2 + ["rule_train"] * 2
    shown = slurm.output("sacct", "-X", "-n", "-P", "-j", ",".join(logs), "-o", columns).splitlines()
    for job, state, limit, memory, allocated in (line.split("|") for line in shown):
        assert state == "COMPLETED"
        assert "gres/gpu=1" in allocated.split(",")
        expected = ("1440", "48000M") if logs[job] == "rule_train" else ("120", "24000M")
        assert (limit, memory) == expected
    assert len(shown) == 4


def test_a_training_uses_all_gpus_that_the_profile_gives_it(clones: dict[str, Clone]) -> None:
    assert clones["two gpus"].provenance(TRAININGS[0])["processes"] == 2
    assert clones["two nodes"].provenance(TRAININGS[0])["processes"] == 4
    assert clones["gpus"].provenance(TRAININGS[0])["processes"] == 1


@pytest.mark.parametrize(("name", "nodes", "gpus"), [("two gpus", 1, 2), ("two nodes", 2, 4)])
def test_every_gpu_has_its_cpus_and_all_lie_where_they_should(
    clones: dict[str, Clone], name: str, nodes: int, gpus: int
) -> None:
    (log,) = clones[name].folder.glob(f"logs/slurm/rule_train/{TRAININGS[0]}_0/*.log")
    shown = slurm.output("sacct", "-X", "-n", "-P", "-j", log.stem, "-o", "State,NNodes,AllocTRES").strip()
    state, used, allocated = shown.split("|")
    assert (state, used) == ("COMPLETED", str(nodes))
    assert {f"gres/gpu={gpus}", f"cpu={gpus}"} <= set(allocated.split(","))


def test_a_full_disk_of_logs_stops_nothing(clones: dict[str, Clone]) -> None:
    assert clones["full logs"].tables() == clones["local"].tables()
    assert (
        clones["full logs"].provenance(TRAININGS[0])["weights_sha256"]
        == clones["local"].provenance(TRAININGS[0])["weights_sha256"]
    )


def test_everything_is_submitted_from_the_clone_and_logged_in_it(clones: dict[str, Clone]) -> None:
    clone = clones["gpus"]
    said = clone.said[0].read_text()
    for rule in ("train", "evaluate"):
        for training in TRAININGS:
            folder = clone.folder / f"logs/slurm/rule_{rule}/{training}_0"
            (log,) = folder.glob("*.log")
            assert f"(log: {log})" in said
            assert Path(clone.folder / f"logs/smoke/{training}-seed0.{rule}.log").stat().st_size


def test_the_same_command_finds_everything_done(clones: dict[str, Clone]) -> None:
    clone = clones["gpus"]
    assert clone.start(*ON_SLURM, *COMMAND).wait(300) == 0
    assert "Nothing to be done" in clone.said[-1].read_text()


def test_what_would_stop_every_job_is_said_before_the_first_one(cluster: None, tmp_path: Path) -> None:
    """A clone in a folder that Slurm or a shell reads as something else, and jobs at the paper's size without a GPU."""
    name = """date-%j $HOME "it's" here"""
    clone = Clone(copy_project(tmp_path / name), "paper")
    words = ["--set-resources", "train:runtime=120", "--config", "tier=paper", "--", "fcos-r50-coco-12e"]
    assert clone.start(*ON_SLURM, *words).wait(300) == 1
    said = clone.said[0].read_text()
    assert "no job was started, since this would stop the work:" in said
    assert f"{name} has \" and $ and % and ' in its path" in said and "move the clone" in said
    assert "jobs of evaluate and train ask for no GPU" in said or "jobs of train ask for no GPU" in said
    assert "submitted" not in said


def test_snakemake_runs_in_a_job_of_its_own(clones: dict[str, Clone]) -> None:
    said = clones[INSIDE].said[0].read_text()
    shown = slurm.output("sacct", "-X", "-n", "-P", "-o", "JobName,State,WorkDir").splitlines()
    assert f"wrap|COMPLETED|{clones[INSIDE].folder}" in shown
    assert "steps (100%) done" in said


@pytest.fixture(scope="module")
def people(cluster: None) -> Iterator[Clone]:
    """A clone of a group, whose members have no home: one trains in a partition that takes one job of hers at a time.

    The other one types the command meanwhile, and again when she is done.
    """
    folder, stack = Path(tempfile.mkdtemp(prefix="date-people-", dir="/var/tmp")), contextlib.ExitStack()
    slurm.add_people(GROUP, PEOPLE)
    try:
        stack.enter_context(way_to(Path(sys.executable).resolve()))
        group = grp.getgrnam(GROUP).gr_gid
        clone = Clone(copy_project(folder / "a clone"), "smoke")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, -1, group)
            path.chmod(0o2775 if path.is_dir() else 0o664)
        trained = [f"results/smoke/{training}/seed0/provenance.json" for training in TRAININGS]
        work = [*ON_SLURM, "--set-resources", *NARROW, *COMMAND[:-1]]
        first = clone.start(*work, *trained, user=PEOPLE[0])
        submitted = b"submitted with SLURM jobid"
        until("a job", lambda: first.poll() is not None or submitted in clone.said[0].read_bytes(), 300)
        assert first.poll() is None, clone.said[0].read_text()
        refused = clone.start(*work, "all", user=PEOPLE[1])
        assert refused.wait(300) == 1, clone.log().decode()
        assert first.wait(900) == 0, clone.logs()
        second = clone.start(*work, "all", user=PEOPLE[1])
        assert second.wait(900) == 0, clone.logs()
        yield clone
    finally:
        stack.close()
        slurm.remove_people(GROUP, PEOPLE)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def way_to(path: Path) -> Iterator[None]:
    """Let everybody pass through the folders above a file while the block runs: Python may lie in root's home."""
    closed = {folder: folder.stat().st_mode for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH}
    try:
        for folder, mode in closed.items():
            folder.chmod(mode | stat.S_IXOTH)
        yield
    finally:
        for folder, mode in closed.items():
            folder.chmod(mode)


def test_two_people_of_a_group_work_in_one_clone_one_after_the_other(people: Clone, clones: dict[str, Clone]) -> None:
    assert (
        f"of {PEOPLE[0]} on " in people.said[1].read_text() and "is at work in this clone" in people.said[1].read_text()
    )
    assert people.tables() == clones["local"].tables()
    owners = {
        training: (people.folder / f"results/smoke/{training}/seed0/provenance.json").owner() for training in TRAININGS
    }
    assert set(owners.values()) == {PEOPLE[0]}


def test_nobody_needs_a_home_that_can_be_written(people: Clone) -> None:
    assert not any(Path(pwd.getpwnam(name).pw_dir).exists() for name in PEOPLE)


def test_a_partitions_limit_on_jobs_is_waited_for(people: Clone) -> None:
    said = people.said[0].read_text()
    assert re.search(r"the queue is full \(QOSMaxSubmit\w+\); jobs are submitted as soon as", said)
    assert "sbatch failed" not in said


def test_of_two_commands_in_the_same_second_both_end_well_or_one_is_refused(cluster: None, tmp_path: Path) -> None:
    clone = Clone(copy_project(tmp_path / "a clone"), "smoke")
    words = ["--config", "tier=smoke", "--", "results/smoke/data/scenes-smoke.json"]
    both = [clone.start(*ON_SLURM, *words) for _ in range(2)]
    statuses = [process.wait(300) for process in both]
    said = [path.read_text() for path in clone.said]
    assert sorted(statuses) in ([0, 0], [0, 1]), said  # the later one may have found all done
    if 1 in statuses:
        holder = f"Snakemake (process {both[statuses.index(0)].pid} of "
        refused = said[statuses.index(1)]
        assert holder in refused and "is at work in this clone" in refused
    assert clone.start(*ON_SLURM, *words).wait(300) == 0, "nothing is left to do, and nobody at work"
