"""The doctor on a real Slurm: what it says of the project's profile, and of profiles that Slurm would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cluster as slurm
import pytest

from date.catalogue import load, load_tier
from date.doctor import Finding
from date.doctor.profile import read_profiles
from date.doctor.slurm import examine

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

PROFILE = read_profiles([Path("slurm")])
TRAININGS = load().select(["date_f-r50-coco-12e"])


def found(**resources: Any) -> list[Finding]:
    """Return what the doctor finds with other resources of trainings."""
    others = PROFILE["set-resources"]
    profile = PROFILE | {"set-resources": others | {"train": others["train"] | resources}}
    return list(examine(profile, load_tier("paper"), TRAININGS))


def errors(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.text for finding in findings if finding.status == "error"}


def test_the_projects_profile_is_taken_and_nothing_is_submitted(cluster: None) -> None:
    before = slurm.output("squeue", "-h", "-o", "%A")
    findings = found()
    assert {f.check: f.status for f in findings if f.status != "ok"} == {}
    texts = {finding.check: finding.text for finding in findings}
    assert "MinJobAge is 600 s" in texts["slurm status"]
    assert f"1 of fake (up to {slurm.NUMBER_OF_GPUS} a node)" in texts["train partition"]
    assert slurm.ACCOUNT in texts["account"]
    assert "to start at" in texts["train sbatch"]
    assert slurm.output("squeue", "-h", "-o", "%A") == before


@pytest.mark.parametrize(
    ("resources", "check", "sentence"),
    [
        ({"slurm_partition": "gpus"}, "partition", "unknown partition 'gpus'; did you mean 'gpu'?"),
        ({"slurm_account": "c1"}, "account", "unknown account 'c1'; did you mean 'ci'?"),
        ({"gpu_model": "h100"}, "train partition", "gpu has no h100; it has fake"),
        ({"gpu": slurm.NUMBER_OF_GPUS + 1, "nodes": 1}, "train sbatch", "not available"),
        ({"mem_mb": 2 * slurm.MEMORY}, "train sbatch", "not available"),
        ({"cpus_per_task": slurm.CPUS + 1}, "train sbatch", ""),
        ({"constraint": "tall"}, "train sbatch", "feature"),
    ],
)
def test_what_slurm_would_refuse_or_let_wait_for_ever_is_an_error(
    cluster: None, resources: dict[str, Any], check: str, sentence: str
) -> None:
    assert sentence in errors(found(**resources))[check]


def test_the_limit_of_a_partition(cluster: None) -> None:
    slurm.sh("scontrol", "update", "PartitionName=gpu", "MaxTime=120")
    try:
        assert errors(found())["time limit"].startswith("train.runtime is 1440, gpu allows 120 minutes")
    finally:
        slurm.sh("scontrol", "update", "PartitionName=gpu", "MaxTime=UNLIMITED")
