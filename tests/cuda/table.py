"""Write ``date/planning/memory.json``, the memory that a step takes: ``python -m tests.cuda.table`` (gcc, some minutes).

Each kind of network takes steps at the paper's size on the stand-in, in float32 and in the documented fast setting. What
lies in memory between steps, weights and momentum, does not depend on the number of images, and the rest grows with it.
Run it anew after a change of what a step keeps. It prints what else is counted, as tables for benchmarks/README.md;
`--print` prints the memory alone, by the numbers of images, from the table that is there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from date.catalogue import Compute, load, load_tier
from date.planning.durations import kind
from date.planning.memory import FAST, TABLE, memory, smallest_gpu
from tests.cuda.standin import run

IMAGES = 16
PASSES = (16, 8, 4, 2, 1)
"""Images at a time."""
SIZES = {"coco": (800, 1333), "crowdhuman": (896, 1400)}
"""Largest images of the paper's pipelines, height and width."""


def cases() -> list[dict[str, Any]]:
    """Return what is to be measured."""
    kinds = {}
    for training in load().trainings.values():
        kinds.setdefault(kind(training), training)
    return [
        dict(training=each.name, batch=IMAGES, size=SIZES[each.data], compute=compute, evaluate=True)
        for each in kinds.values()
        for compute in ({}, FAST)
    ]


def by_images() -> list[str]:
    """Return the memory of each network and precision, and the smallest common GPU for it, by the images at a time."""
    paper = load_tier("paper")
    lines = [f"| GiB needed (GPU of GiB) | precision | {' | '.join(f'{n} images' for n in PASSES)} |"]
    lines.append("|---|---|" + "--:|" * len(PASSES))
    for name in json.loads(TABLE.read_text())["mib"]:
        for compute in (Compute(), Compute(**FAST)):
            tier = paper.model_copy(update={"compute": compute})
            needs = [memory(load().training(name), tier, images) for images in PASSES]
            cells = [f"{need / 1024:.1f} ({smallest_gpu(need)})" for need in needs if need is not None]
            lines.append(f"| {name} | {compute.precision} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and write the table."""
    if sys.argv[1:] == ["--print"]:
        print("\n".join(by_images()))
        return
    entries: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        lines = run(Path(folder), ["tests.cuda.measure", json.dumps(cases())], 3600, gigabytes=512).splitlines()
    for line in filter(lambda line: line.startswith("{"), lines):
        found = json.loads(line)
        row = {"resting": found["resting_mib"], "peak": found["memory_mib"]}
        entries.setdefault(found["training"], {})["fast" if found["compute"] else "fp32"] = row
        step, setting = found["step"], "fast" if found["compute"] else "float32"
        gib = found["memory_mib"] / 1024
        judged = found["evaluation_mib"] / 1024
        line = (
            f"| {found['training']} | {setting} | {step['waits']} | {step['launches']:,} | {gib:.1f} | {judged:.1f} |"
        )
        print(line, flush=True)
    TABLE.write_text(json.dumps({"images": IMAGES, "mib": entries}, indent=1) + "\n")
    print("\n".join(by_images()))


if __name__ == "__main__":
    main()
