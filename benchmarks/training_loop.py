"""What a training costs besides its steps: start-up by parts, and the share of records, checkpoints and data.

    python -m benchmarks.training_loop                      # mini tier, two epochs
    python -m benchmarks.training_loop --tier paper         # on a machine with a GPU and COCO

Start-up is measured in fresh processes, from the interpreter's start to the end of the first step, in processor time,
which other work on the machine changes little; with ``--no-loop`` nothing else is. The loop's shares, in wall time,
are measured in one training of the real trainer, whose methods are timed from outside; checkpoints are written at
every epoch's end, as always.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from date.catalogue import ROOT

_STARTUP = """
import sys, time
import gc
gc.set_threshold(10_000)  # as `python -m date` does
clock = time.process_time
marks = [("interpreter", clock())]
def mark(name, began):
    marks.append((name, clock() - began))
began = clock()
from pathlib import Path
from date.catalogue import load, load_tier
from date.training.run import plan
mark("catalogue", began); began = clock()
planned = plan(load().training(sys.argv[1]), load_tier(sys.argv[2]), 0, Path(sys.argv[3]))
mark("verified data, identity", began); began = clock()
from date import stack
stack.load()
mark("import of PyTorch and MMDetection", began); began = clock()
from date.training import run as running
from date.training import loop
with running._processes(planned, 1) as processes:
    mark("other imports", began); began = clock()
    original_step, original_init = loop.Trainer._step, loop.Trainer.__init__
    class Done(Exception): pass
    def init(trainer, *arguments):
        begun = clock()
        original_init(trainer, *arguments)
        mark("data sets, network, optimiser", begun)
    def step(trainer, at):
        begun = clock()
        original_step(trainer, at)
        mark("first step", begun)
        raise Done
    loop.Trainer._step, loop.Trainer.__init__ = step, init
    from date.training.interruption import Interruption
    from date.training.options import Options
    import contextlib, io
    try:
        with contextlib.redirect_stdout(io.StringIO()), Interruption() as interruption:
            running._train(planned, interruption, processes, Options())
    except Done:
        pass
import json
print(json.dumps(marks))
"""


def startup(training: str, tier: str, runs: Path, repeats: int) -> dict[str, float]:
    """Return the median processor seconds of each part of a start."""
    parts: dict[str, list[float]] = defaultdict(list)
    for number in range(repeats + 1):
        folder = runs / f"start{number}"
        command = [sys.executable, "-c", _STARTUP, training, tier, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        if number:  # the first one warms the file system's cache
            for name, seconds in json.loads(done.stdout.splitlines()[-1]):
                parts[name].append(seconds)
    return {name: statistics.median(values) for name, values in parts.items()}


def shares(training: str, tier_name: str, runs: Path) -> dict[str, float]:
    """Return the seconds that a training spends in each part of its loop."""
    from date.catalogue import load, load_tier
    from date.training import loop
    from date.training.journal import Journal
    from date.training.recorder import Recorder
    from date.training.run import train

    spent: dict[str, float] = defaultdict(float)

    def timed(owner: type, method: str, name: str) -> None:
        original = getattr(owner, method)

        def wrapper(*arguments: object, **keywords: object) -> object:
            began = time.perf_counter()
            try:
                return original(*arguments, **keywords)
            finally:
                spent[name] += time.perf_counter() - began

        setattr(owner, method, wrapper)

    timed(loop.Trainer, "run", "all")
    timed(loop.Trainer, "_step", "steps")
    timed(loop.Trainer, "_next_batch", "waiting for data")
    timed(loop.Trainer, "_evaluate", "evaluations")
    timed(loop.Trainer, "_save", "checkpoints")
    timed(Recorder, "add", "records")
    timed(Journal, "show", "progress and status")
    path = runs / "two-epochs.yaml"
    path.write_text(f"extends: {tier_name}\nepoch_scale: {2 / 12}\n")
    train(load().training(training), load_tier(str(path)), 0, runs / "shares", 1)
    return dict(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", default="date_f-r50-coco-12e")
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-loop", action="store_true", help="leave the training itself out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = startup(args.training, args.tier, Path(folder), args.repeats)
        spent = {} if args.no_loop else shares(args.training, args.tier, Path(folder))
    print("| start-up | CPU seconds |\n|---|--:|")
    for name, seconds in starts.items():
        print(f"| {name} | {seconds:.2f} |")
    print(f"| to the end of the first step | {sum(starts.values()):.2f} |\n")
    if args.json is not None:
        args.json.write_text(json.dumps({"startup": starts, "loop": spent}, indent=1) + "\n")
    if not spent:
        return
    own = spent["steps"] - spent["records"]
    print("| in the loop | seconds | of the steps |\n|---|--:|--:|")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.2f} | {100 * seconds / own:.2f} % |")
    overhead = spent["records"] + spent["progress and status"] + spent["checkpoints"]
    print(f"\nRecords, status and checkpoints: {100 * overhead / own:.2f} % of the steps' time.")


if __name__ == "__main__":
    main()
