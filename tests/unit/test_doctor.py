"""The doctor's checks: each finding is brought about, Slurm's by commands that answer as Slurm 22.05 does."""

from __future__ import annotations

import importlib.abc
import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from date import doctor
from date.catalogue import ROOT, Compute, load, load_dataset, load_tier
from date.cli import main
from date.doctor import Finding, environment, first, loading, memory, slurm, storage
from date.doctor import data as data_checks
from date.doctor import examine as doctor_examine
from date.doctor.profile import Request, read_profiles, requests, settings_of, trainings_at_a_time
from date.errors import UserError
from date.training.compiler import check_tools

CONFIG = """Configuration data as of 2026-05-17T18:00:31
AccountingStorageEnforce = {enforce}
AccountingStorageType   = {accounting}
ClusterName             = sky
JobRequeue              = {requeue}
MinJobAge               = {age}
SLURM_VERSION           = 22.05.8
"""
PARTITION = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts=ALL Default={default} DefaultTime={usual} DisableRootJobs=NO "
    "MaxNodes=UNLIMITED MaxTime={longest} MinNodes=0 PriorityTier=10 State={state} TotalCPUs=64 TotalNodes=1\n"
)


def status(findings: list[Finding], check: str) -> list[str]:
    return [finding.status for finding in findings if finding.check == check]


def said(findings: list[Finding], check: str) -> str:
    return "\n".join(f.line() for f in findings if f.check == check)


class Cluster:
    """A folder of commands that answer from files beside them, and note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.answer(
            "config", CONFIG.format(enforce="none", accounting="accounting_storage/slurmdbd", requeue=1, age="300 sec")
        )
        self.partition()
        self.answer("names", "cpu\ngpu*\n")
        self.answer("gres", "gpu:h100:4(S:0-1)\ngpu:a100:2,tmpdisk:1\n")
        self.answer("accounts", "vision\nci\n")
        self.answer(
            "test-only",
            "sbatch: Job 15 to start at 2026-05-17T18:00:31 using 1 processors on nodes n1 in partition gpu",
        )
        self.command("scontrol", 'case "$*" in "show config") cat config;; *partition*) cat partition;; esac')
        self.command("sinfo", 'case "$*" in *%G*) cat gres;; *) cat names;; esac')
        self.answer("limits", "")
        self.answer("qos", "")
        self.command("sacctmgr", 'case "$*" in *maxsubmit,*) cat limits;; *" qos "*) cat qos;; *) cat accounts;; esac')
        self.command("squeue", ":")
        self.command("sbatch", "cat test-only >&2; test ! -e refused")

    def answer(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def command(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(
            f'#!/bin/sh\ncd "{self.folder}"\nfor word; do printf "%s\\n" "$word"; done > called-{name}\n{body}\n'
        )
        path.chmod(0o755)

    def configure(self, **options: Any) -> None:
        usual = dict(enforce="none", accounting="accounting_storage/slurmdbd", requeue=1, age="300 sec")
        self.answer("config", CONFIG.format(**usual | options))

    def partition(self, **options: Any) -> None:
        usual = dict(name="gpu", default="YES", usual="01:00:00", longest="2-00:00:00", state="UP")
        self.answer("partition", PARTITION.format(**usual | options))

    def called(self, name: str) -> list[str]:
        return (self.folder / f"called-{name}").read_text().splitlines()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


PROFILE = read_profiles([Path("slurm")])
TRAININGS = load().select(["*-coco-*"])
PAPER = load_tier("paper")


def with_resources(rule: str = "train", **resources: Any) -> dict[str, Any]:
    """Return the project's profile with other resources of a rule."""
    others = PROFILE["set-resources"]
    return PROFILE | {"set-resources": others | {rule: others[rule] | resources}}


def examine(profile: dict[str, Any] = PROFILE) -> list[Finding]:
    return list(slurm.examine(profile, PAPER, TRAININGS))


def test_the_projects_profile_on_a_sane_cluster(cluster: Cluster) -> None:
    findings = examine()
    assert {finding.status for finding in findings} == {"ok"}, findings
    checks = ["slurm", "slurm status", "slurm requeue", "account", "queue"]
    per_rule = ["time limit", "{} partition", "{} sbatch"]
    assert [f.check for f in findings] == checks + [c.format(rule) for rule in ("train", "evaluate") for c in per_rule]
    assert "1 of h100 (up to 4 a node), a100 (up to 2 a node)" in said(findings, "train partition")
    assert "22.05.8, cluster sky" in findings[0].text


def test_slurm_is_asked_with_the_plugins_own_command_and_nothing_is_submitted(cluster: Cluster) -> None:
    list(slurm.examine(PROFILE | {"set-resources": {"train": PROFILE["set-resources"]["train"]}}, PAPER, TRAININGS))
    called = cluster.called("sbatch")
    assert "--test-only" in called
    list(slurm.examine(with_resources("evaluate", gpu_model="h100", slurm_account="vision"), PAPER, TRAININGS))
    called = cluster.called("sbatch")
    for words in (
        ["--test-only"],
        ["--gpus=h100:1"],
        ["-A", "vision"],
        ["-t", "120"],
        ["--mem", "24000"],
        ["--requeue"],
    ):
        place = called.index(words[0])
        assert called[place : place + len(words)] == words
    assert f"--cpus-per-task={PAPER.workers}" in called
    assert "--open-mode=append" in called


def test_resources_may_be_expressions_that_differ_between_trainings(cluster: Cluster) -> None:
    profile = with_resources(slurm_partition="'long' if '36e' in wildcards.training else 'gpu'", mem_mb="48GB")
    train, long, evaluate = requests(profile, PAPER, TRAININGS)
    assert (train.get("slurm_partition"), long.get("slurm_partition"), evaluate.get("slurm_partition")) == (
        "gpu",
        "long",
        None,
    )
    assert {"36e" in name for name in long.trainings} == {True}
    assert len(train.trainings) + len(long.trainings) == len(TRAININGS) == len(evaluate.trainings)
    findings = examine(with_resources(runtime="60 * wildcards.hours"))
    assert "slurm/config.yaml: train.runtime can't be evaluated" in said(findings, "resources")


@pytest.mark.parametrize(
    ("age", "accounting", "expected", "text"),
    [
        (300, True, "ok", "long enough"),
        (60, False, "ok", "long enough"),
        (59, True, "ok", "records"),
        (59, False, "error", "forgets jobs"),
        (0, False, "error", "forgets jobs"),
    ],
)
def test_how_the_end_of_jobs_is_seen(cluster: Cluster, age: int, accounting: bool, expected: str, text: str) -> None:
    cluster.configure(
        age=f"{age} sec", accounting="accounting_storage/slurmdbd" if accounting else "accounting_storage/none"
    )
    findings = examine()
    assert status(findings, "slurm status") == [expected]
    assert text in said(findings, "slurm status")


@pytest.mark.parametrize(
    ("limits", "qos", "asked", "sentence"),
    [
        ("vision|||normal|normal", "normal|||", None, None),
        ("vision|50|100|normal|normal", "normal|||", None, None),
        ("vision|7||normal|normal", "normal|||", None, "account vision allows you 7"),
        ("vision|||normal|normal,few", "normal|||\nfew|2||", None, None),
        ("vision||||few,normal", "normal|||\nfew|2||", None, None),
        ("vision|||normal|normal,few", "normal|||\nfew|2||", "few", "QOS few allows you 2"),
        ("vision||||few", "normal|||\nfew||3|", None, "QOS few allows you 3"),
        ("vision|9||few|few", "few|||5", None, "QOS few allows you 5"),
    ],
)
def test_jobs_are_compared_with_the_limits_of_the_queue(
    cluster: Cluster, limits: str, qos: str, asked: str | None, sentence: str | None
) -> None:
    cluster.answer("limits", limits + "\n")
    cluster.answer("qos", qos + "\n")
    profile = with_resources(qos=asked) if asked else PROFILE
    assert status(examine(profile), "queue") == ["ok"], "limits are not enforced"
    cluster.configure(enforce="limits,qos")
    assert status(examine(profile), "queue") == ["warning" if sentence else "ok"]
    assert (sentence or "the queue takes the 40 jobs") in said(examine(profile), "queue")


def test_the_path_of_the_clone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "ROOT", Path("/home/me/date%j"))
    assert status(examine(), "clone") == ["error"]
    assert "-> move the clone" in said(examine(), "clone")


def test_a_cluster_that_does_not_start_jobs_again(cluster: Cluster) -> None:
    cluster.configure(requeue=0)
    assert status(examine(), "slurm requeue") == ["ok"], "sbatch --requeue overrides the cluster's default"
    assert status(examine(PROFILE | {"slurm-requeue": False}), "slurm requeue") == ["error"]


def test_accounts(cluster: Cluster) -> None:
    findings = examine(with_resources(slurm_account="visoin"))
    assert "unknown account 'visoin'; did you mean 'vision'?" in said(findings, "account")
    assert status(examine(with_resources(slurm_account="Vision")), "account") == ["ok"]
    cluster.answer("accounts", "")
    cluster.configure(enforce="associations,limits")
    assert status(examine(), "account") == ["error"]
    cluster.configure(accounting="accounting_storage/none")
    assert status(examine(), "account") == ["ok"]


@pytest.mark.parametrize(
    ("longest", "usual", "runtime", "expected", "remedy"),
    [
        ("2-00:00:00", "NONE", 1440, "ok", ""),
        ("1-00:00:00", "NONE", 1440, "ok", ""),
        ("12:00:00", "NONE", 1440, "error", "set train.runtime: 720 in slurm/config.yaml"),
        ("UNLIMITED", "NONE", 0, "ok", ""),
        ("UNLIMITED", "01:00:00", 0, "error", "to the partition's limit"),
        ("12:00:00", "NONE", 0, "error", "set train.runtime: 720"),
        ("12:00:00", "NONE", 10, "warning", "30 or more"),
        ("30:00", "NONE", 31, "error", "set train.runtime: 30"),
    ],
)
def test_time_limits(cluster: Cluster, longest: str, usual: str, runtime: int, expected: str, remedy: str) -> None:
    cluster.partition(longest=longest, usual=usual)
    request = next(r for r in requests(with_resources(runtime=runtime), PAPER, TRAININGS) if r.rule == "train")
    findings = list(slurm.partition(request))
    assert status(findings, "time limit") == [expected]
    assert remedy in said(findings, "time limit")


@pytest.mark.parametrize(
    ("text", "expected"), [("1-06:00:00", 1800), ("00:30:00", 30), ("45:30", 45.5), ("UNLIMITED", float("inf"))]
)
def test_minutes(text: str, expected: float) -> None:
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize(
    ("offered", "resources", "expected", "sentence"),
    [
        ("gpu:4", {}, "ok", "1 of GPU (up to 4 a node)"),
        ("(null)", {}, "error", "gpu has no GPUs"),
        ("gpu:h100:4(S:0-1)", {"gpu_model": "a100"}, "error", "gpu has no a100; it has h100 (up to 4 a node)"),
        ("gpu:h100:4", {"gpu": 0, "gres": "'gpu:h100:2'"}, "ok", "2 of h100"),
        ("gpu:h100:4", {"gpu": 0, "gres": "'gpu:v100:2'"}, "error", "gpu has no v100"),
        ("gpu:h100:4", {"gpu": 0}, "warning", "train asks for no GPU"),
        ("gpu:2080ti:8", {"gpu": 0, "gres": "'gpu:2080ti:2'"}, "ok", "2 of 2080ti (up to 8 a node)"),
        ("gpu:1g.10gb:7", {"gpu": 0, "gres": "'gpu:1g.10gb'"}, "ok", "1 of 1g.10gb (up to 7 a node)"),
    ],
)
def test_gpus_of_the_partition(
    cluster: Cluster, offered: str, resources: dict[str, Any], expected: str, sentence: str
) -> None:
    cluster.answer("gres", f"{offered}\n")
    findings = examine(with_resources(**resources))
    assert status(findings, "train partition") == [expected]
    assert sentence in said(findings, "train partition")


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, (None, 0)),
        ({"gpu": 2, "nodes": 2}, (None, 2)),
        ({"gpu": 2, "gpu_model": "h100"}, ("h100", 2)),
        ({"gres": "gpu"}, (None, 1)),
        ({"gres": "gpu:2", "nodes": 3}, (None, 6)),
        ({"gres": "gpu:h100"}, ("h100", 1)),
        ({"gres": "gpu:h100:4"}, ("h100", 4)),
        ({"gres": "gpu:2080ti:4"}, ("2080ti", 4)),
        ({"gres": "gpu:3g.40gb:1"}, ("3g.40gb", 1)),
        ({"gres": "tmpdisk:100"}, (None, 0)),
    ],
)
def test_the_gpus_that_a_job_asks_for(resources: dict[str, Any], expected: tuple[str | None, int]) -> None:
    assert Request("train", resources).gpus() == expected


def test_the_memory_of_a_gpu_goes_with_the_images_on_it(tmp_path: Path) -> None:
    """A kind of GPU that begins with a digit was read as thousands of GPUs with one image each."""
    fcos = load().select(["fcos-r50-coco-12e"])
    words = []
    for gres in ("gpu:1", "gpu:2080ti:1", "gpu:2080ti:4"):
        profile = with_resources(gpu=0, gres=f"'{gres}'")
        (finding,) = memory.gpu_memory(PAPER, fcos, profile, [])
        words.append(finding.text.partition(" needed ")[2].partition(",")[0])
    assert words == ["with 16 images at a time", "with 16 images at a time", "with 4 images at a time"]


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"executor": "slurm", "jobs": 40}, 40),
        ({"executor": "slurm", "jobs": "unlimited"}, 100),
        ({"executor": "slurm"}, 100),
        ({"cores": "all"}, 2),
        ({"cores": 8}, 1),
        ({"jobs": 64}, 2),
        ({}, 2),
    ],
)
def test_how_many_trainings_there_are_at_a_time(
    profile: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a core for every loading process, of which the paper's tier has 8."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(20)))
    assert trainings_at_a_time(profile, PAPER, 100) == expected
    assert trainings_at_a_time(profile, PAPER, 1) == 1


def test_jobs_may_be_unlimited_and_are_a_number(cluster: Cluster) -> None:
    cluster.configure(enforce="limits")
    cluster.answer("limits", "vision|20||normal|normal\n")
    assert "jobs is unlimited, account vision allows you 20" in said(examine(PROFILE | {"jobs": "unlimited"}), "queue")
    wrong = said(examine(PROFILE | {"jobs": "many"}), "resources")
    assert "jobs of the profile is 'many'; give a positive integer" in wrong
    findings = list(doctor._loading(PAPER, TRAININGS, 3, {"cores": 100}))
    assert findings and all(finding.check == "loading" for finding in findings)


def test_partitions(cluster: Cluster) -> None:
    cluster.partition(state="DRAIN")
    assert set(status(examine(), "partition")) == {"warning"}
    cluster.command(
        "scontrol", 'case "$*" in "show config") cat config;; *) echo Partition gpus not found >&2; exit 1;; esac'
    )
    findings = examine(with_resources(slurm_partition="gpus"))
    assert "unknown partition 'gpus'; did you mean 'gpu'?" in said(findings, "partition")


def test_a_job_that_slurm_does_not_take(cluster: Cluster) -> None:
    cluster.answer(
        "test-only", "sbatch: error: noise\nallocation failure: Requested node configuration is not available\n"
    )
    cluster.answer("refused", "")
    findings = examine()
    assert status(findings, "train sbatch") == ["error"]
    assert "Requested node configuration is not available" in said(findings, "train sbatch")
    assert "--gpus=1" in said(findings, "train sbatch")
    assert "already need more" in said(examine(with_resources(mem_mb=400)), "train sbatch")


def test_no_slurm_and_a_controller_that_does_not_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.command("scontrol", "echo noise >&2; echo Unable to contact slurm controller >&2; exit 1")
    (finding,) = examine()
    assert (finding.status, finding.text) == (
        "error",
        "the controller does not answer: Unable to contact slurm controller",
    )
    monkeypatch.setenv("PATH", "/nonexistent")
    (finding,) = examine()
    assert finding.text == "no sbatch, squeue, scontrol, sinfo on this machine"
    assert "workflow/profiles/local" in finding.remedy


def test_profiles_are_merged_as_snakemake_merges_them() -> None:
    merged = read_profiles([Path("slurm"), Path("workflow/profiles/slurm-gres")])
    assert merged["set-resources"]["train"]["gres"] == "'gpu:1'"
    assert "gpu" not in merged["set-resources"]["train"]
    assert merged["executor"] == "slurm"
    assert settings_of(merged) == {"tier": "paper"}
    with pytest.raises(UserError, match="workflow is not a profile"):
        read_profiles([Path("workflow")])


# ---------------------------------------------------------------------------------------------------------- environment


def test_the_stack_is_named_and_a_detector_runs() -> None:
    (finding,) = environment.stack()
    assert finding.status == "ok"
    for word in ("mmcv 2.1.0", "mmengine 0.10.7", "mmdet 3.3.0", "operators: torchvision", "boxes"):
        assert word in finding.text


def test_a_broken_stack_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "detect", lambda: 1 // 0)
    (finding,) = environment.stack()
    assert finding.status == "error"
    assert "ZeroDivisionError" in finding.text


def test_a_pytorch_that_cannot_be_loaded_ends_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries fail to load by an `OSError`: the doctor is there to tell that, and goes on."""

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "torch":
                raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert list(environment.gpus(PAPER, on_slurm=False)) == environment.gpu_sizes() == []
    fast = PAPER.model_copy(update={"compute": Compute(compile=True)})
    assert list(environment.compiler(fast, on_slurm=False)) == []


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment.pinned()
    assert found["torch"] and len(found) > 100
    monkeypatch.setattr(
        environment, "installed", lambda name: {"torch": found["torch"] + "+cu130"}.get(name, found[name])
    )
    assert [f.status for f in environment.packages()] == ["ok"]
    monkeypatch.setattr(environment, "installed", lambda name: {"numpy": "1.0"}.get(name, found[name]))
    (finding,) = environment.packages()
    assert finding.status == "warning" and f"numpy 1.0 (pinned: {found['numpy']})" in finding.text
    monkeypatch.setattr(environment, "installed", lambda name: None if name in ("scipy", "ruff") else found[name])
    (finding,) = environment.packages()
    assert finding.status == "error" and finding.text == "not installed: scipy", "ruff is no more than a tool"


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
    ],
)
def test_which_gpus_pytorch_has_code_for(capability: tuple[int, int], built: list[str], runs: bool) -> None:
    assert environment.runs_on(*capability, built) is runs


def test_what_compiling_for_a_gpu_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = PAPER.model_copy(update={"compute": Compute(compile=True)})
    (tmp_path / "gcc").touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("sysconfig.get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.setattr(environment, "gpu_sizes", lambda: [1])

    def found(on_slurm: bool = False) -> list[tuple[str, str]]:
        return [(f.status, f.text) for f in environment.compiler(fast, on_slurm)]

    assert found() == [("ok", "a C compiler and Python's headers are there for 'compile: true'")]
    assert list(environment.compiler(PAPER, True)) == []
    (tmp_path / "Python.h").unlink()
    assert found() == [("error", f"'compile: true' needs Python's headers ({tmp_path}/Python.h is not there)")]
    monkeypatch.setenv("CC", "icc")
    with pytest.raises(UserError, match=r"needs a C compiler \(CC names icc\); install gcc"):
        check_tools()
    monkeypatch.setattr(environment, "gpu_sizes", list)
    assert found(on_slurm=True)[0][0] == "warning" and found() == []


def test_no_gpu() -> None:
    smoke = load_tier("smoke")
    assert environment.no_gpu(smoke, False, None, "13.0", []).status == "ok"
    assert environment.no_gpu(PAPER, True, None, "13.0", []).status == "ok"
    assert environment.no_gpu(PAPER, False, None, "13.0", []).status == "warning"
    finding = environment.no_gpu(PAPER, False, "470.1", "13.0", ["The NVIDIA driver\non your system is too old"])
    assert finding.status == "error"
    assert (
        "driver 470.1 is there, but PyTorch with CUDA 13.0 can't use a GPU (The NVIDIA driver on your" in finding.text
    )


# ---------------------------------------------------------------------------------------------------- data and storage


def test_everything_that_is_missing_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    datasets = [load_dataset(name) for name in ("coco2017", "crowdhuman", "scenes-mini")]
    problems = first(datasets, load().select(["*"]), PAPER)
    assert [word for word in ("coco2017", "crowdhuman", "resnet50_caffe", "resnet101_caffe", "resnet50_msra") for p in problems if word in p.split("Get it")[0].split("get them")[0]] == [
        "coco2017", "crowdhuman", "resnet50_caffe", "resnet101_caffe", "resnet50_msra"
    ]  # fmt: skip
    assert "https://cocodataset.org" in problems[0] and "https://www.crowdhuman.org" in problems[1]
    assert not any(tmp_path.iterdir()), "looking writes nothing"
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "resnet50_caffe-788b5fa3.pth").write_bytes(b"another file")
    problems = first([], load().select(["onenet-r50-coco-12e"]), PAPER)
    assert len(problems) == 1 and "instead of 788b5fa3" in problems[0]


@pytest.mark.parametrize(("folder", "file"), [(None, "experiments"), ("/own", "/own")])
def test_weights_to_start_from_that_are_missing_name_the_file_to_correct(folder: str | None, file: str) -> None:
    start = load().training("date_f-r50-coco-12e").model_copy(update={"init": "gone.pth", "folder": folder})
    (finding,) = (f for f in data_checks.weights([start], load_tier("smoke"), Path()) if f.status == "error")
    assert finding.remedy == f"correct 'init' in {file}/trainings.yaml"


def test_the_size_of_images_that_the_boxes_choose_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 of 640 px are 7.5 px at a short side of 160, and 9 px at 192."""
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    (tmp_path / "train.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "width": 640, "height": 640, "file_name": "1.png"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 30], "area": 900}],
                "categories": [{"id": 1, "name": "a"}],
            }
        )
    )
    part = "{annotations: train.json, images: images}"
    (tmp_path / "entry.yaml").write_text(f"protocol: coco\nclasses: [a]\nroot: .\ntrain: {part}\nval: {part}\n")
    (tmp_path / "own.yaml").write_text(f"extends: mini\ndatasets: {{coco: {tmp_path / 'entry.yaml'}}}\n")
    fcos = load().select(["fcos-r50-coco-12e"])
    assert list(data_checks.steps(fcos, load_tier(str(tmp_path / "own.yaml")), tmp_path)) == [
        Finding("epoch", "ok", "1 step in the part of 'coco'"),
        Finding("images", "ok", "short side 192 px in the part of 'coco', chosen by the boxes"),
    ]
    assert [f.check for f in data_checks.steps(fcos, load_tier("mini"), tmp_path)] == ["epoch"]


def test_a_dataset_that_is_there_is_verified(tmp_path: Path) -> None:
    (finding,) = data_checks.datasets([load_dataset("scenes-smoke")], tmp_path)
    assert finding == Finding("data", "ok", "scenes-smoke: train 24 images, val 8 images")
    (finding,) = data_checks.datasets([load_dataset("bccd")], tmp_path)
    assert finding.status == "error"


def test_the_file_system_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = storage.file_system(tmp_path / "not" / "there")
    assert finding.status == "ok" and not any(tmp_path.iterdir())
    monkeypatch.setattr(storage, "LOCK_FROM_ANOTHER_PROCESS", "")
    (finding,) = storage.file_system(tmp_path)
    assert finding.status == "warning" and "locks do not exclude" in finding.text

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "replace_text", full)
    (finding,) = storage.file_system(tmp_path)
    assert finding.status == "error" and "No space left on device" in finding.text


def test_the_clone_and_the_home_folder_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is none can't be written to either, which holds for root, too."""
    none = tmp_path / "home"
    none.write_text("")
    assert list(storage.writable({"the clone": tmp_path})) == [] and [path.name for path in tmp_path.iterdir()] == [
        "home"
    ]
    (finding,) = storage.writable({"the clone": tmp_path, "the home folder": none})
    assert finding.status == "error" and finding.text.startswith(f"the home folder, {none}, can't be written to (")
    monkeypatch.setenv("HOME", str(none))
    findings = list(doctor_examine(load_tier("smoke"), [], {}, []))
    assert [f.text.split(",")[0] for f in findings if f.check == "file system" and f.status == "error"] == [
        "the home folder"
    ]


def test_room_for_the_runs_is_what_plan_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from date.catalogue.settings import load_settings
    from date.planning.plan import make_plan

    trainings = load().select(["onenet-r50-coco-12e", "date_f-r101-*"])
    settings = load_settings({"tier": "paper", "seeds": [0, 1, 2], "trainings": [t.name for t in trainings]})
    plan = make_plan(["all"], PAPER, settings, tmp_path, tmp_path, [2])
    sealed, working = plan.sealed_bytes, plan.bills[0].checkpoints
    assert working == 2 * 3 * 12 * 51e6, "three checkpoints of weights and two moments of the larger networks"
    seeds, profile = {t.name: 3 for t in trainings}, {"executor": "slurm", "jobs": 2}
    usage = namedtuple("usage", "total used free")
    for free, expected in ((sealed + working, "ok"), (sealed + working - 1, "warning"), (working - 1, "error")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        (finding,) = storage.space(tmp_path, tmp_path, PAPER, trainings, seeds, profile)
        assert finding.status == expected


# ---------------------------------------------------------------------------------------------------- the command line


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    assert main(["doctor", "--tier", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok     ", "warning")) for line in lines), lines
    assert [line.split("  ")[1].strip() or line.split()[1] for line in lines]
    assert main(["doctor", "--tier", "paper", "--profile", "workflow/profiles/local", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert {"check", "status", "text", "remedy"} == set(report["findings"][0])
    assert {f["check"] for f in report["findings"] if f["status"] == "error"} == {"data", "weights"}


def test_the_papers_tier_is_examined_with_its_profile(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    cluster.partition(longest="12:00:00")
    assert main(["doctor", "--profile", "slurm"]) == 2
    out = capsys.readouterr().out
    assert "set train.runtime: 720 in slurm/config.yaml" in out
    assert "dataset 'coco2017' is not complete" in out
    assert f"{ROOT}" in out


# --------------------------------------------------------------------------------------------------------- loading


@pytest.fixture
def found_loading(monkeypatch: pytest.MonkeyPatch) -> Any:
    def find(free: int, files: int, elsewhere: bool = False, temporary: str = "/tmp", jobs: int = 1) -> list[Finding]:
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(loading.shutil, "disk_usage", lambda path: usage(free))
        monkeypatch.setattr(loading.resource, "getrlimit", lambda which: (256, files))
        monkeypatch.setattr(loading.tempfile, "gettempdir", lambda: temporary)
        tier = load_tier("paper")
        return list(loading.loading(tier, load().select(tier.trainings), jobs, elsewhere))

    return find


def test_the_paper_needs_much_for_its_loading_processes(found_loading: Any) -> None:
    """Two loaders of 8 processes with 2 batches of 16 images each of at most 3 x 1333 x 800 bytes and 5 tensors."""
    need = loading.needed(load_tier("paper"), load().select(["date_f-r50-coco-12e"]))
    assert need.memory == 2 * 8 * 2 * 16 * 3 * 1333 * 800
    assert need.files == 2 * 8 * 2 * 16 * 5 + 256
    assert [f.status for f in found_loading(10**12, 10**6)] == ["ok", "ok"]
    assert [f.status for f in found_loading(64 * 2**20, 1024)] == ["error", "error"]
    assert [f.status for f in found_loading(64 * 2**20, 1024, elsewhere=True)] == ["warning", "warning"]
    memory, files = found_loading(64 * 2**20, 1024)
    assert (
        "1.8 GB of shared memory needed by the 8 loading processes, 67.1 MB free -> enlarge /dev/shm" in memory.line()
    )
    assert "2,816 open files needed by a training of 8 loading processes, 1,024 allowed -> raise" in files.line()
    crowd = found_loading(2 * 10**9, 10**6, jobs=2)[0]
    assert crowd.status == "error" and "of each of 2 trainings at a time" in crowd.text


def test_sockets_need_a_short_temporary_folder(found_loading: Any, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    assert "set TMPDIR to a writable folder" in found_loading(10**12, 10**6, temporary=str(long))[-1].line()


def test_an_image_is_as_many_tensors_as_is_counted() -> None:
    """Packed as training packs them; what is counted has to be what is handed over."""
    from mmdet.datasets.transforms import PackDetInputs

    flags = np.array([False, True])
    results = {
        "img": np.zeros((4, 4, 3), np.uint8),
        "gt_bboxes": np.zeros((2, 4), np.float32),
        "gt_ignore_flags": flags,
    }
    results |= {"gt_bboxes_labels": np.zeros(2, np.int64)}
    packed = PackDetInputs(meta_keys=())(results)
    sample = packed["data_samples"]
    parts = [packed["inputs"], *sample.gt_instances.values(), *sample.ignored_instances.values()]
    assert (
        sum(isinstance(getattr(part, "tensor", part), torch.Tensor) for part in parts) == len(parts) == loading.TENSORS
    )


def test_a_tier_without_loading_processes_needs_nothing() -> None:
    (finding,) = loading.loading(load_tier("smoke"), load().select(["date_f-r50-coco-12e"]), 1, False)
    assert finding.status == "ok" and "without processes of its own" in finding.text
