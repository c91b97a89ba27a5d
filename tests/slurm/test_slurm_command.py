"""The user's command on a real Slurm where nothing goes wrong, with ``--gpus`` and with ``--gres``."""

from __future__ import annotations

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
COMMAND = ["--config", "tier=smoke", f"trainings={json.dumps(TRAININGS)}", "--", "all"]


@pytest.fixture(scope="module")
def clones(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clone]:
    """Copies of the project in which the command was run: at the same time with every variant, and without Slurm."""
    folder = tmp_path_factory.mktemp("command")
    made = {name: Clone(copy_project(folder / f"with {name}"), "smoke") for name in [*VARIANTS, "local"]}
    running = {name: made[name].start(*ON_SLURM, *words, *COMMAND) for name, words in VARIANTS.items()}
    running["local"] = made["local"].start("--profile", "workflow/profiles/local", *COMMAND)
    made["two gpus"] = Clone(copy_project(folder / "with two gpus"), "frozen")
    tier, target = "tests/slurm/frozen.yaml", f"results/frozen/{TRAININGS[0]}/seed0/provenance.json"
    settings = ["--config", f"tier={tier}", f"trainings={json.dumps(TRAININGS[:1])}", "--", target]
    running["two gpus"] = made["two gpus"].start(*ON_SLURM, "--set-resources", "train:gpu=2", *settings)
    for name, process in running.items():
        assert process.wait(900) == 0, made[name].said[0].read_text()
    return made


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
    assert clones["gpus"].provenance(TRAININGS[0])["processes"] == 1


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
