"""Time the whole DAG on this machine: where its time goes that is not training or evaluating.

    python -m benchmarks.whole_dag [--json FILE] [--tier smoke] [--trainings NAMES] [--profile workflow/profiles/local]

The user's command runs in a fresh copy of what git tracks, in a folder that is thrown away. Every Python process of the
DAG notes its own wall and processor time, and the part of both that passed inside the outermost ``import`` statements
(by a ``sitecustomize`` that wraps them, for this measurement alone). Core-seconds that no process of ours used are
Snakemake's own, shells, the ends of processes, and waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SITECUSTOMIZE = """\
import atexit, builtins, importlib, json, os, sys, time

depth, wall, cpu = 0, 0.0, 0.0

def timed(function):
    def call(*args, **kwargs):
        global depth, wall, cpu
        if depth:
            return function(*args, **kwargs)
        depth, begin, used = 1, time.perf_counter(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            depth = 0
            wall, cpu = wall + time.perf_counter() - begin, cpu + time.process_time() - used
    return call

def note():
    if os.getpid() == process and sys.argv[0].endswith("date/__main__.py"):
        ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        own = os.times()
        line = {"words": sys.argv[1:], "wall": age, "cpu": own.user + own.system, "import": wall, "import_cpu": cpu}
        with open(os.environ["DATE_DAG_TIMES"], "a") as file:
            file.write(json.dumps(line) + "\\n")

process = os.getpid()
builtins.__import__, importlib.import_module = timed(builtins.__import__), timed(importlib.import_module)
atexit.register(note)
"""


def copy_tracked(folder: Path) -> None:
    """Copy the files that git tracks, as they are now."""
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())


def run(folder: Path, profile: str, tier: str, trainings: str, cores: int) -> dict[str, Any]:
    """Run the DAG in a copy of the project and return its times and those of its processes."""
    clone, hook, times = folder / "clone", folder / "hook", folder / "times.jsonl"
    clone.mkdir()
    hook.mkdir()
    copy_tracked(clone)
    (hook / "sitecustomize.py").write_text(SITECUSTOMIZE)
    environment = {k: v for k, v in os.environ.items() if k != "DATE_DATA_ROOT"}
    environment |= {"PYTHONPATH": str(hook), "DATE_DAG_TIMES": str(times), "OMP_NUM_THREADS": "1"}
    words = ["snakemake", "--profile", profile, "--cores", str(cores), "--config", f"tier={tier}"]
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:], f"trainings={trainings}", "--", "all"]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=clone, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    processes = [json.loads(line) for line in times.read_text().splitlines()]
    return {"cores": cores, "wall": wall, "cpu": cpu, "processes": processes}


def table(found: dict[str, Any]) -> str:
    """Return the core-seconds and processor seconds of each kind of process, as Markdown."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for process in found["processes"]:
        kinds[process["words"][0]].append(process)
    capacity, used_cpu = found["cores"] * found["wall"], found["cpu"]
    lines = ["| | processes | core-seconds | of all | CPU seconds | of all |", "|---|--:|--:|--:|--:|--:|"]

    def line(name: str, count: str, wall: float, cpu: float) -> None:
        shares = f"{100 * wall / capacity:.0f} %", f"{100 * cpu / used_cpu:.0f} %"
        lines.append(f"| {name} | {count} | {wall:.0f} | {shares[0]} | {cpu:.0f} | {shares[1]} |")

    for kind, processes in sorted(kinds.items(), key=lambda item: -sum(p["wall"] for p in item[1])):
        imports, import_cpu = sum(p["import"] for p in processes), sum(p["import_cpu"] for p in processes)
        wall, cpu = sum(p["wall"] for p in processes), sum(p["cpu"] for p in processes)
        line(f"`{kind}`: imports", str(len(processes)), imports, import_cpu)
        line(f"`{kind}`: work", "", wall - imports, cpu - import_cpu)
    wall, cpu = (sum(p[key] for p in found["processes"]) for key in ("wall", "cpu"))
    line("Snakemake, shells, ends of processes, waiting", "", capacity - wall, used_cpu - cpu)
    line(f"all, in {found['wall']:.0f} s on {found['cores']} cores", "", capacity, used_cpu)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="workflow/profiles/local")
    parser.add_argument("--tier", default="smoke")
    parser.add_argument("--trainings", default='["*"]', help="names or patterns as JSON; null for the tier's own")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every number")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), args.profile, args.tier, args.trainings, args.cores)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
