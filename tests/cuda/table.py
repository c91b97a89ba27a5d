"""Write ``date/planning/memory.json``, the memory that a step takes: ``python -m tests.cuda.table`` (gcc, some minutes).

Each kind of network takes steps at the paper's size on the stand-in, in float32 and in the documented fast setting. What
lies in memory between steps, weights and momentum, does not depend on the number of images, and the rest grows with it.
Run it anew after a change of what a step keeps. It prints what else is counted, as a table for benchmarks/README.md.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from date.catalogue import load
from date.planning.durations import kind
from date.planning.memory import FAST, TABLE
from tests.cuda.standin import run

IMAGES = 16
SIZES = {"coco": (800, 1333), "crowdhuman": (896, 1400)}
"""Largest images of the paper's pipelines, height and width."""


def cases() -> list[dict[str, Any]]:
    """Return what is to be measured."""
    kinds = {}
    for training in load().trainings.values():
        kinds.setdefault(kind(training), training)
    return [
        dict(training=each.name, batch=IMAGES, size=SIZES[each.data], compute=compute)
        for each in kinds.values()
        for compute in ({}, FAST)
    ]


def main() -> None:
    """Measure and write the table."""
    entries: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        lines = run(Path(folder), ["tests.cuda.measure", json.dumps(cases())], 3600, gigabytes=512).splitlines()
    for line in filter(lambda line: line.startswith("{"), lines):
        found = json.loads(line)
        row = {"resting": found["resting_mib"], "peak": found["memory_mib"]}
        entries.setdefault(found["training"], {})["fast" if found["compute"] else "fp32"] = row
        step, setting = found["step"], "fast" if found["compute"] else "float32"
        gib = found["memory_mib"] / 1024
        print(f"| {found['training']} | {setting} | {step['waits']} | {step['launches']:,} | {gib:.1f} |")
    TABLE.write_text(json.dumps({"images": IMAGES, "mib": entries}, indent=1) + "\n")


if __name__ == "__main__":
    main()
