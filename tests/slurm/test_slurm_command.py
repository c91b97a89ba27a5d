"""The user's command on a real Slurm where nothing goes wrong, with ``--gpus`` and with ``--gres``."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import cluster as slurm
import pytest
from clones import ON_SLURM, Clone, copy_project

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
        running[name] = made[name].start(*ON_SLURM, "--set-resources", *resources, *settings)
    full = made["full logs"] = Clone(copy_project(folder / "full logs"), "smoke")
    logs = full.folder / "logs/smoke"  # where Slurm can't open a log of its own, it starts no job
    logs.mkdir(parents=True)
    slurm.sh("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(logs))
    try:
        fill(logs)
        running["full logs"] = full.start(*ON_SLURM, *COMMAND)
        for name, process in running.items():
            assert process.wait(900) == 0, made[name].said[0].read_text()
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
    """A clone in a folder that Slurm reads as a job's number, and jobs at the paper's size without a GPU."""
    clone = Clone(copy_project(tmp_path / "date-%j"), "paper")
    words = ["--set-resources", "train:runtime=120", "--config", "tier=paper", "--", "fcos-r50-coco-12e"]
    assert clone.start(*ON_SLURM, *words).wait(300) == 1
    said = clone.said[0].read_text()
    assert "no job was started, since this would stop the work:" in said
    assert "date-%j has % in its path" in said and "move the clone" in said
    assert "jobs of evaluate and train ask for no GPU" in said or "jobs of train ask for no GPU" in said
    assert "submitted" not in said


def test_of_two_commands_in_the_same_second_one_works_and_the_other_is_told(cluster: None, tmp_path: Path) -> None:
    clone = Clone(copy_project(tmp_path / "a clone"), "smoke")
    words = ["--config", "tier=smoke", "--", "results/smoke/data/scenes-smoke.json"]
    both = [clone.start(*ON_SLURM, *words) for _ in range(2)]
    statuses = [process.wait(300) for process in both]
    said = [path.read_text() for path in clone.said]
    assert sorted(statuses) == [0, 1], said
    refused = said[statuses.index(1)]
    assert f"Snakemake (process {both[statuses.index(0)].pid} of " in refused and "is at work in this clone" in refused
    assert clone.start(*ON_SLURM, *words).wait(300) == 0, "nothing is left to do, and nobody at work"
