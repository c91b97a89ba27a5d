"""Time to rebuild the report from sealed results, and what it holds.

    python -m benchmarks.reporting [--results DIR --tier TIER] [--json FILE]

Each target is made by ``python -m date report`` in a process of its own, several times in turns; the shortest times
count, since other work on the machine only adds to them. Without ``--results`` the paper's 40 trainings with 3 seeds
are made up by the tests' helpers: the paper's numbers with noise, records as long as real runs', a line every 50 steps,
pictures as large as COCO's, with so much noise that they are larger as files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from date.catalogue import ROOT, load, load_tier
from date.results import read_metrics, utc

TARGETS = {"everything": [], "table05": ["--only", "table05"], "table10": ["--only", "table10"],
           "figure1": ["--only", "figure1"], "figure3": ["--only", "figure3"], "figure5": ["--only", "figure5"],
           "pictures_date": ["--only", "pictures_date"]}  # fmt: skip


def printed_numbers() -> int:
    """Count the paper's numbers in the catalogue's tables, brackets included."""
    rows = [row for table in load().tables.values() for row in table.rows]
    return sum(len(row.paper) + len(row.bracket.paper if row.bracket else {}) for row in rows)


def make_up(folder: Path, seeds: int) -> None:
    """Write results of all trainings at the paper's tier."""
    sys.path.insert(0, str(ROOT / "tests"))
    from sealed import add_paper, set_records

    add_paper(folder, "paper", range(seeds), size=(640, 480), grain=40)
    interval = load_tier("paper").log_interval
    losses = ("loss", *(f"{branch}.loss_{kind}" for branch in ("o2o", "o2m") for kind in ("cls", "reg", "iou")))
    for path in folder.glob("paper/*/seed*/metrics.jsonl"):
        start, *records = read_metrics(path)
        evaluations = {r["step"]: r for r in records if r["kind"] == "eval"}
        steps = max(evaluations) * (3 if "-36e" in path.parent.parent.name else 1)
        lines = [start]
        for step in range(interval, steps + 1, interval):
            facts = {"grad_norm": 17.61669921875, "seconds_per_step": 0.43265, "memory_mb": 8380, "time": utc(step)}
            values = dict.fromkeys(losses, 2.2452666759490967 / (1 + step / steps))
            lines.append({"kind": "train", "step": step, "epoch": round(step / 7330, 4), "lr": 4e-4, **values, **facts})
            lines += [r for at, r in evaluations.items() if step - interval < at <= step]
        set_records(path.parent, lines)


def timed(arguments: list[str]) -> tuple[float, float]:
    """Return wall and processor time in seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "date", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--tier", default="paper")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = args.results or Path(scratch, "results")
        if args.results is None:
            make_up(results, args.seeds)
        reports = Path(scratch, "reports")
        common = ["report", "--tier", args.tier, "--results", str(results.resolve()), "--reports", str(reports)]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in TARGETS}
        loads = []
        for _ in range(args.repeats):
            for name, chosen in TARGETS.items():
                loads.append(os.getloadavg()[0])
                times[name].append(timed([*common, *chosen]))
        page = reports / args.tier / "index.html"
        size = page.stat().st_size
        everything = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"load of the machine {min(loads):.1f} to {max(loads):.1f}\n")
    print("| made | seconds | CPU seconds |\n|---|--:|--:|")
    for name, pairs in times.items():
        print(f"| {name} | {min(p[0] for p in pairs):.1f} | {min(p[1] for p in pairs):.1f} |")
    print(f"\nThe page: {size / 1e6:.2f} MB; all files: {everything / 1e6:.1f} MB.")
    print(f"Numbers of the paper's tables in the catalogue: {printed_numbers()}.")
    if args.json:
        record = {"times": times, "loads": loads, "page_bytes": size, "bytes": everything, "numbers": printed_numbers()}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
