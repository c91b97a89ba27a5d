"""Check that Slurm takes the jobs that a profile describes, and treats them as trainings need."""

from __future__ import annotations

import getpass
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from date.catalogue import ROOT
from date.cluster.beforehand import unfit_path
from date.doctor import Finding
from date.doctor.profile import EDIT, Request, most_jobs, requests, submit_command
from date.errors import UserError, unknown_name

if TYPE_CHECKING:
    from date.catalogue import Tier, Training

COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo")
LEAST_MEMORY = 500
"""MB of main memory that a job's two Snakemakes take."""
LEAST_SLICE = 30
"""Minutes of a training's job below which starting and saving take a noticeable part of it."""
LEAST_MEMORY_OF_JOBS = 60
"""Seconds for which Slurm has to remember finished jobs where it keeps no records."""
ENFORCED = {"limits", "safe", "all"}
"""Values of Slurm's ``AccountingStorageEnforce`` with which limits hold."""


def examine(profile: dict[str, Any], tier: Tier, trainings: list[Training]) -> Iterator[Finding]:
    """Yield the findings of Slurm's commands about the jobs of a profile; nothing is submitted."""
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        text = f"no {', '.join(missing)} on this machine"
        yield Finding("slurm", "error", text, "go to a login node, or use --profile workflow/profiles/local")
        return
    config = ask("scontrol", "show", "config")
    if config.returncode:
        text = f"the controller does not answer: {last_line(config.stderr)}"
        yield Finding("slurm", "error", text, "ask the cluster's administrators, or try again later")
        return
    options = dict(re.findall(r"^(\S+)\s+= (.*?)\s*$", config.stdout, re.MULTILINE))
    yield Finding("slurm", "ok", f"{options.get('SLURM_VERSION', 'Slurm')}, cluster {options.get('ClusterName', '?')}")
    if sentence := unfit_path(ROOT):
        yield Finding("clone", "error", *sentence.split("; ", 1))
    yield polling(options)
    yield requeueing(profile, options)
    try:
        wanted, jobs = requests(profile, tier, trainings), most_jobs(profile) or 1
    except UserError as error:
        yield Finding("resources", "error", str(error))
        return
    yield from account(wanted, options)
    yield queue_limits(jobs, wanted, options)
    for request in wanted:
        yield from partition(request)
        yield submission(request, profile)


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm's; one that does not answer in a minute has failed."""
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", "no answer within a minute")
    except OSError as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))


def last_line(said: str) -> str:
    """Return the last line of a command's output: the reason, where it failed."""
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


def polling(options: dict[str, str]) -> Finding:
    """Find out whether Slurm remembers finished jobs until Snakemake has seen that they ended."""
    age = int(re.findall(r"\d+", options.get("MinJobAge", "0"))[0])
    text = f"MinJobAge is {age} s"
    if age >= LEAST_MEMORY_OF_JOBS:
        return Finding("slurm status", "ok", f"{text}: the queue shows finished jobs for long enough")
    if has_accounting(options):
        return Finding("slurm status", "ok", f"{text}: the accounting records say how jobs ended")
    text = f"{text}, and there is no accounting: Slurm forgets jobs before Snakemake sees how they ended"
    return Finding("slurm status", "error", text, "ask the cluster's administrators for a MinJobAge of 300 s")


def queue_limits(jobs: float, wanted: list[Request], options: dict[str, str]) -> Finding:
    """Compare how many jobs are submitted at a time with how many the user may have in the queue; the others wait.

    Args:
        jobs: the profile's, infinite for any number.
        wanted: requests of the jobs.
        options: of Slurm's configuration.
    """
    limits = list[tuple[float, str]]()
    if has_accounting(options) and ENFORCED & set(re.split(r"[,\s]+", options.get("AccountingStorageEnforce", ""))):
        limits += submit_limits({str(request.get("qos")) for request in wanted if request.get("qos")})
    if (most := int(options.get("MaxJobCount", "10000").split()[0])) < jobs:
        limits.append((most, "MaxJobCount"))
    least, name = min(limits, default=(jobs, ""))
    number = "unlimited" if jobs == math.inf else jobs
    if least >= jobs:
        return Finding("queue", "ok", f"the queue takes the {number} jobs that are submitted at a time")
    text = f"jobs is {number}, {name} allows you {least} in the queue: the others wait outside it"
    return Finding("queue", "warning", text, f"set jobs: {least} in {EDIT}, so that the most urgent ones come first")


def submit_limits(chosen: set[str]) -> list[tuple[int, str]]:
    """Return the limits on the user's jobs in the queue, each with a name: of associations and of their QOS.

    Args:
        chosen: names of the QOS that jobs ask for; without any, a user's default ones count.
    """
    found = []
    user = f"user={getpass.getuser()}"
    asked = ask("sacctmgr", "-n", "-P", "show", "assoc", user, "format=account,maxsubmit,grpsubmit,defaultqos,qos")
    for line in filter(None, asked.stdout.splitlines()):
        account, most, group, default, allowed = line.split("|")
        found += [(int(limit), f"account {account}") for limit in (most, group) if limit.isdigit()]
        names = allowed.split(",")
        chosen = chosen or {default or ("normal" if "normal" in names else names[0])}
    asked = ask(
        "sacctmgr", "-n", "-P", "show", "qos", "format=name,maxsubmitjobsperuser,maxsubmitjobsperaccount,grpsubmit"
    )
    for line in filter(None, asked.stdout.splitlines()):
        name, *limits = line.split("|")
        found += [(int(limit), f"QOS {name}") for limit in limits if limit.isdigit() and name in chosen]
    return found


def has_accounting(options: dict[str, str]) -> bool:
    """Return whether Slurm keeps records in a database."""
    return "slurmdbd" in options.get("AccountingStorageType", "")


def requeueing(profile: dict[str, Any], options: dict[str, str]) -> Finding:
    """Find out whether Slurm starts a job again: what slices and preemption rest on."""
    if profile.get("slurm-requeue") or options.get("JobRequeue") == "1":
        return Finding("slurm requeue", "ok", "jobs may be started again")
    remedy = f"set slurm-requeue: true in {EDIT}"
    return Finding("slurm requeue", "error", "JobRequeue is 0: trainings can't go on after a time limit", remedy)


def account(wanted: list[Request], options: dict[str, str]) -> Iterator[Finding]:
    """Compare the accounts of the profile with those that the user may charge."""
    if not has_accounting(options):
        yield Finding("account", "ok", "no accounting on this cluster; none is needed")
        return
    user = getpass.getuser()
    asked = ask("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=account")
    own = sorted({line.strip() for line in asked.stdout.splitlines() if line.strip()})
    if asked.returncode:
        yield Finding("account", "warning", f"sacctmgr does not name yours: {last_line(asked.stderr)}")
        return
    enforced = "associations" in options.get("AccountingStorageEnforce", "")
    chosen = {str(request.get("slurm_account")) for request in wanted if request.get("slurm_account")}
    for name in sorted(chosen):
        if name.lower() in map(str.lower, own):
            yield Finding("account", "ok", name)
        else:
            yield Finding("account", "error", str(unknown_name("account", name, own)), f"set slurm_account in {EDIT}")
    if not chosen and own:
        yield Finding("account", "ok", f"your default, of: {', '.join(own)}")
    elif not chosen and enforced:
        yield Finding("account", "error", f"{user} has none, and the cluster wants one", "ask its administrators")


def partition(request: Request) -> Iterator[Finding]:
    """Compare a request with its partition: state, time limit, GPUs."""
    name = request.get("slurm_partition")
    shown = ask("scontrol", "--oneliner", "show", "partition", *([str(name)] if name else []))
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.stdout.splitlines() if "PartitionName=" in line]
    if name is None:
        found = [part for part in found if part.get("Default") == "YES"]
    title = f"{request.rule} partition"
    if shown.returncode or not found:
        names = re.findall(r"^(\S+?)\*?$", ask("sinfo", "-h", "-o", "%P").stdout, re.MULTILINE)
        text = str(unknown_name("partition", str(name), names)) if name else "the cluster has no default partition"
        yield Finding("partition", "error", text, f"set slurm_partition in {EDIT}; there are {', '.join(names)}")
        return
    part = found[0]
    name = part["PartitionName"]
    if part.get("State", "UP") != "UP":
        yield Finding(
            "partition", "warning", f"{name} is {part['State']}", "its jobs wait; choose another, or wait too"
        )
    yield time_limit(request, name, part)
    offered = ask("sinfo", "-h", "-p", name, "-o", "%G").stdout.split()
    yield offered_gpus(request, name, offered, title)


def minutes(text: str) -> float:
    """Return minutes of Slurm's ``[D-]HH:MM:SS``; infinity for UNLIMITED and NONE."""
    if text in ("UNLIMITED", "NONE", "INFINITE"):
        return math.inf
    days, _, rest = text.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = 60 * seconds + int(part)
    return 1440 * int(days or 0) + seconds / 60


def time_limit(request: Request, name: str, part: dict[str, str]) -> Finding:
    """Compare the time limit of a request with the partition's."""
    check, asked, most = "time limit", int(request.get("runtime") or 0), minutes(part.get("MaxTime", "UNLIMITED"))
    where = f"{request.rule}.runtime"
    if asked == 0 and minutes(part.get("DefaultTime", "NONE")) < math.inf:
        text = f"{where} is 0, for none, but {name} ends jobs after its default, {part['DefaultTime']}"
        return Finding(check, "error", text, f"set {where} in {EDIT} to the partition's limit")
    if asked > most or (asked == 0 and most < math.inf):
        text = f"{where} is {asked or 'unlimited'}, {name} allows {most:g} minutes: jobs would wait for ever"
        return Finding(check, "error", text, f"set {where}: {most:g} in {EDIT}; longer trainings run in slices")
    if request.rule == "train" and 0 < asked < LEAST_SLICE:
        text = f"{where} is {asked}: starting and saving take much of such a slice"
        return Finding(check, "warning", text, f"set {where} of {LEAST_SLICE} or more in {EDIT}")
    allowed = "without a limit" if most == math.inf else f"up to {most:g} minutes"
    return Finding(check, "ok", f"{where} {asked or 'unlimited'}; {name} takes jobs {allowed}")


def offered_gpus(request: Request, name: str, offered: list[str], title: str) -> Finding:
    """Compare the GPUs of a request with those of the partition's nodes (``gpu:h100:4(S:0-1)``)."""
    kinds = [re.sub(r"\(.*?\)", "", gres) for node in offered for gres in node.split(",") if gres.startswith("gpu")]
    counts = {re.sub(r":?\d+$", "", kind): 0 for kind in kinds}
    for kind in kinds:
        number = re.search(r":(\d+)$", kind)
        counts[re.sub(r":?\d+$", "", kind)] = max(counts[re.sub(r":?\d+$", "", kind)], int(number[1]) if number else 1)
    models = [kind.removeprefix("gpu").lstrip(":") for kind in counts]
    model, asked = request.gpus()
    offer = ", ".join(
        f"{kind.removeprefix('gpu').lstrip(':') or 'GPU'} (up to {n} a node)" for kind, n in counts.items()
    )
    if not asked and model is None:
        return Finding(title, "warning", f"{name}: {request.rule} asks for no GPU", f"set gpu or gres in {EDIT}")
    if not counts:
        remedy = f"set slurm_partition in {EDIT} to one with GPUs (sinfo -o '%P %G')"
        return Finding(title, "error", f"{name} has no GPUs", remedy)
    if model is not None and model not in models:
        return Finding(title, "error", f"{name} has no {model}; it has {offer}", f"correct gpu_model or gres in {EDIT}")
    return Finding(title, "ok", f"{name}: {asked or 1} of {offer}")


def submission(request: Request, profile: dict[str, Any]) -> Finding:
    """Ask Slurm whether it would take the job, by ``sbatch --test-only`` with the plugin's own command."""
    from snakemake.exceptions import WorkflowError

    check = f"{request.rule} sbatch"
    memory = request.get("mem_mb")
    if isinstance(memory, int) and memory < LEAST_MEMORY:
        text = f"mem_mb is {memory}; the two Snakemakes inside a job already need more"
        return Finding(check, "error", text, f"set {request.rule}.mem_mb in {EDIT}")
    try:
        words = shlex.split(submit_command(request, profile))
    except (WorkflowError, TypeError, ValueError) as error:
        return Finding(check, "error", " ".join(str(error).split()), f"correct {request.rule} in {EDIT}")
    done = ask(words[0], "--test-only", *words[1:], "--wrap=true")
    last = last_line(done.stdout + done.stderr)
    if done.returncode == 0:
        return Finding(check, "ok", re.sub(r"^sbatch: Job \d+ ", "Slurm takes it, ", last))
    asked = shlex.join(word for word in words[1:] if not word.startswith(("--comment", "--output", "--job-name")))
    return Finding(check, "error", f"{last} ({asked})", f"correct {request.rule} in {EDIT}")
