"""Read what a Snakemake profile asks of Slurm for the chosen trainings."""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from date.catalogue import ROOT, read_yaml
from date.errors import UserError

if TYPE_CHECKING:
    from date.catalogue import Tier, Training

RULES = ("train", "evaluate")
EDIT = "slurm/config.yaml"
"""Where a user mends what is wrong with a request."""


@dataclass
class Request:
    """The resources requested from Slurm for the jobs of a rule; several trainings can share one request.

    Attributes:
        rule: ``train`` or ``evaluate``.
        resources: as Snakemake would give them to its plugin.
        trainings: names of those that it is for.
    """

    rule: str
    resources: dict[str, Any]
    trainings: list[str] = field(default_factory=list)

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return a resource."""
        return self.resources.get(name, otherwise)

    def gpus(self) -> tuple[str | None, int]:
        """Return the kind of GPU that the job asks for, None for any, and how many on all its machines; 0 for none.

        ``gres`` counts for each machine: ``gpu``, ``gpu:2``, ``gpu:h100`` or ``gpu:h100:2``. A kind may begin with a
        digit (``2080ti``; ``1g.10gb``, a part of a GPU). ``gpu`` counts for the whole job.
        """
        name, *words = str(self.get("gres") or "").split(":")
        if name != "gpu":
            kind = self.get("gpu_model")
            return None if kind is None else str(kind), int(self.get("gpu") or 0)
        each = int(words.pop()) if words and words[-1].isdecimal() else 1
        return words[0] if words else None, each * int(self.get("nodes") or 1)


def read_profiles(folders: list[Path]) -> dict[str, Any]:
    """Return the keys of Snakemake profiles; of several, a later one's key takes the place of an earlier one's.

    Raises:
        UserError: a folder is not a profile.
    """
    merged: dict[str, Any] = {}
    for folder in folders:
        path = ROOT / folder / "config.yaml"
        if not path.is_file():
            raise UserError(f"{folder} is not a profile: it has no config.yaml; give slurm, or the folder of another.")
        merged |= read_yaml(path)
        if "configfile" in merged and not Path(merged["configfile"]).is_absolute():
            merged["configfile"] = str(ROOT / folder / merged["configfile"])
    return merged


def settings_of(profile: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of ``experiments/config.yaml`` that a profile changes."""
    return read_yaml(Path(profile["configfile"])) if "configfile" in profile else {}


def most_jobs(profile: dict[str, Any], key: str = "jobs") -> float | None:
    """Return a profile's ``jobs`` or ``cores``, infinity for as many as there are; None where it does not say.

    Raises:
        UserError: it is no number.
    """
    value = profile.get(key)
    if value in ("unlimited", "all"):
        return math.inf
    if value is None or (str(value).isdecimal() and int(value) > 0):
        return None if value is None else int(value)
    raise UserError(f"{key} of the profile is {value!r}; give a positive integer, or 'all' cores or 'unlimited' jobs.")


def trainings_at_a_time(profile: dict[str, Any], tier: Tier, runs: int) -> int:
    """Return how many of so many runs Snakemake trains at a time: as many as may wait in Slurm, or as cores allow.

    Raises:
        UserError: the profile's ``jobs`` or ``cores`` is no number.
    """
    jobs = most_jobs(profile)
    if profile.get("executor") != "slurm":  # here ``jobs`` is another name of ``cores``
        cores = most_jobs(profile, "cores") or jobs or math.inf
        jobs = max(1, min(cores, len(os.sched_getaffinity(0))) // (tier.workers or 1))
    return int(min(jobs or math.inf, runs))


def requests(profile: dict[str, Any], tier: Tier, trainings: list[Training]) -> list[Request]:
    """Return the different requests of a profile for the jobs of some trainings.

    Raises:
        UserError: an expression among the resources can't be evaluated.
    """
    found: dict[str, Request] = {}
    for rule in RULES:
        settings = (profile.get("default-resources") or {}) | ((profile.get("set-resources") or {}).get(rule) or {})
        for training in trainings:
            wildcards = SimpleNamespace(training=training.name, seed="0")
            threads = tier.workers or 1
            resources = {name: _evaluated(rule, name, value, wildcards, threads) for name, value in settings.items()}
            resources["threads"] = threads
            key = f"{rule} {sorted(resources.items(), key=str)}"
            found.setdefault(key, Request(rule, resources)).trainings.append(training.name)
    return list(found.values())


def _evaluated(rule: str, name: str, value: Any, wildcards: SimpleNamespace, threads: int) -> Any:
    """Return a resource as Snakemake understands it: an expression, or else a string, in its human-friendly form."""
    from snakemake.exceptions import WorkflowError
    from snakemake.resources import Resource

    try:
        if isinstance(value, str):
            value = Resource.cli_evaluator(
                name, value, wildcards=wildcards, input=[], attempt=1, threads=threads, async_run=None
            )
        return Resource.parse_human_friendly(name, value)
    except (WorkflowError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{EDIT}: {rule}.{name} can't be evaluated for {wildcards.training}: {' '.join(str(error).split())[:300]}; "
            "correct it."
        ) from None


def submit_command(request: Request, profile: dict[str, Any]) -> str:
    """Return the command by which the executor plugin would submit a job."""
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    class Resources(dict):  # what Snakemake hands to plugins can be read both ways
        __getattr__ = dict.get

    job = SimpleNamespace(resources=Resources(request.resources), threads=request.get("threads", 1))
    options = SimpleNamespace(
        requeue=profile.get("slurm-requeue"),
        no_requeue=profile.get("slurm-no-requeue"),
        qos=profile.get("slurm-qos"),
        reservation=profile.get("slurm-reservation"),
    )
    chosen, name = request.get("slurm_account"), request.get("slurm_partition")
    params = {
        "run_uuid": "date-doctor",
        "slurm_logfile": "/dev/null",
        "comment_str": "date doctor",
        "account": f"-A {shlex.quote(str(chosen))}" if chosen else "",
        "partition": f"-p {shlex.quote(str(name))}" if name else "",
        "workdir": str(ROOT),
    }
    return get_submit_command(job, params, settings=options) + set_gres_string(job)
