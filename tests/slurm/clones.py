"""A copy of the project and the Snakemakes that run in it."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster as slurm
import yaml

from date.catalogue import ROOT

PARTS = ("Snakefile", "pyproject.toml", "date", "experiments", "slurm", "workflow", "tests/slurm")
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
ON_SLURM = ["--profile", "slurm", "--profile", "tests/slurm/profile"]
"""The user's profile, with the waiting times of tests."""

GOOD = [
    "retinanet-r50-coco-12e",
    "fcos-r50-coco-12e",
    "onenet-r50-coco-12e",
    "onenet_poto-r50-coco-12e",
    "date_f-r50-coco-12e",
]
"""Trainings that are hit by faults."""
FAILING = "date_r-r50-coco-12e"
"""A training that is made to fail for good."""
TIER = "tests/slurm/slow.yaml"


def copy_project(folder: Path) -> Path:
    """Copy what a clone has that the DAG needs."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


@dataclass
class Clone:
    """A copy of the project and the Snakemakes that ran in it."""

    folder: Path
    tier: str
    said: list[Path] = field(default_factory=list)

    def start(self, *words: str, user: str | None = None) -> subprocess.Popen[bytes]:
        """Start Snakemake, as somebody else of the folder's group where one is named."""
        return self._start([str(SNAKEMAKE), *words], user)

    def start_in_job(self, *words: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in a Slurm job; the process ends as the job does."""
        command = ["sbatch", "--wait", "--mem=1000", "--output", str(self.folder / "job.log")]
        started = self._start([*command, "--wrap", f"exec {shlex.join([str(SNAKEMAKE), *words])}"])
        self.said[-1] = self.folder / "job.log"
        return started

    def _start(self, command: list[str], user: str | None = None) -> subprocess.Popen[bytes]:
        self.said.append(self.folder / f"snakemake-{len(self.said)}.log")
        environment = {k: v for k, v in os.environ.items() if k != "DATE_DATA_ROOT"} | {"OMP_NUM_THREADS": "1"}
        other: dict[str, Any] = {}
        if user is not None:
            person = pwd.getpwnam(user)
            environment |= {"HOME": person.pw_dir, "USER": user, "LOGNAME": user}
            other = dict(user=person.pw_uid, group=person.pw_gid, extra_groups=[], umask=0o002)
        with self.said[-1].open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **other,
            )

    def segments(self, training: str) -> list[dict[str, Any]]:
        """Return the processes that worked on a finished training."""
        return self.provenance(training)["segments"]

    def provenance(self, training: str) -> dict[str, Any]:
        return json.loads(self.result(training).read_text())

    def result(self, training: str) -> Path:
        """Return the file that a training has once it is finished."""
        return self.folder / f"results/{self.tier}/{training}/seed0/provenance.json"

    def step(self, training: str) -> int:
        """Return the step of a running training's newest checkpoint, 0 where it has none."""
        found = self.folder.glob(f"runs/.work/{self.tier}-{training}-s0-*/checkpoints/step-*.ckpt")
        return max((int(path.name.split("-")[1]) for path in found), default=0)

    def job(self, training: str) -> str | None:
        """Return the Slurm job that trains a training now."""
        lines = slurm.output("squeue", "-h", "-t", "RUNNING", "-o", "%A|%k|%Z").splitlines()
        wanted = ["rule_train_wildcards_" + training + "_0", str(self.folder)]
        return next((line.split("|")[0] for line in lines if line.split("|")[1:] == wanted), None)

    def node(self, job: str) -> str:
        """Return the node that a job runs on."""
        return slurm.output("squeue", "-h", "-o", "%N", "-j", job).strip()

    def log(self) -> bytes:
        """Return what the newest Snakemake has said."""
        return self.said[-1].read_bytes()

    def logs(self) -> str:
        """Return what Snakemake and all jobs have said, for a failed test."""
        paths = [*self.said, *sorted((self.folder / "logs").rglob("*.log"))]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def trainer(self, training: str) -> int:
        """Return the process that trains a training now."""
        lease = next(self.folder.glob(f"runs/.work/{self.tier}-{training}-s0-*/lease.json"))
        return json.loads(lease.read_text())["pid"]

    def resumed(self, training: str) -> bool:
        """Say whether a second process has begun to work on a training."""
        if any(self.folder.glob(f"runs/{self.tier}-{training}-s0-*/provenance.json")):
            return True
        journals = self.folder.glob(f"runs/.work/{self.tier}-{training}-s0-*/segments.jsonl")
        return any(path.read_text().count('"begin"') > 1 for path in journals)

    def sealed(self, training: str) -> bool:
        """Say whether a training is finished."""
        return any(self.folder.glob(f"runs/{self.tier}-{training}-s0-*/provenance.json"))

    def gave_way(self, training: str, job: str) -> bool:
        """Say whether another job of a training gave its GPU back until a job has ended."""
        logs = (self.folder / f"logs/slurm/rule_train/{training}_0").glob("*.log")
        return any(f"waits for Slurm job {job}" in path.read_text() for path in logs if path.stem != job)

    def tables(self) -> dict[str, bytes]:
        folder = self.folder / f"reports/{self.tier}/tables"
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".md", ".csv")}

    def clean_up(self) -> None:
        """Cancel what the clone still has in the queue."""
        lines = slurm.output("squeue", "-h", "-o", "%A|%Z").splitlines()
        for job, folder in (line.split("|", 1) for line in lines):
            if folder == str(self.folder):
                slurm.succeeds("scancel", job)


def slow_clone(folder: Path) -> Clone:
    """Return a copy of the project for `GOOD`, in which `FAILING` fails: in all of them, as tables name loss weights."""
    clone = Clone(copy_project(folder), "slow")
    catalogue = clone.folder / "experiments/trainings.yaml"
    trainings = yaml.safe_load(catalogue.read_text())
    trainings[FAILING]["options"]["lambda_o2m"] = 1e38
    catalogue.write_text(yaml.safe_dump(trainings, sort_keys=False))
    return clone


def arguments(trainings: list[str]) -> list[str]:
    """Return the end of a command that trains at the tier for faults."""
    return ["--config", f"tier={TIER}", f"trainings={json.dumps(trainings)}", "--", "all"]


@dataclass
class Undisturbed:
    """The same trainings as the disturbed ones, without Slurm: started when first asked for, once for all modules."""

    clone: Clone
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is None:
            self.process = self.clone.start("--profile", "workflow/profiles/local", *arguments(GOOD))

    def finished(self) -> Clone:
        """Wait for its end and return the clone."""
        self.start()
        assert self.process is not None and self.process.wait(900) == 0, self.clone.said[-1].read_text()
        return self.clone


def halt(clone: Clone, trainings: list[str], count: int | None = None) -> list[str]:
    """Stop trainers after their first checkpoints, so that none ends early; what Slurm sends wakes them again.

    Args:
        clone: that they train in.
        trainings: those to stop.
        count: how many of them, the first ones that get there; all by default.
    """
    running, halted = set(trainings), list[str]()
    while len(halted) < (len(trainings) if count is None else count):
        name = until(f"a checkpoint of {running}", lambda: next((t for t in running if clone.step(t)), None))
        os.kill(clone.trainer(name), signal.SIGSTOP)
        running.remove(name)
        halted.append(name)
    return halted


def until(what: str, true: Callable[[], Any], seconds: float = 900) -> Any:
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)
    return value
