"""``python -m date evaluate``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from date.cli.options import add_batch_timeout, add_run_options, kept, print_metrics, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("evaluate", help="evaluate a sealed run, every variant in one forward pass")
    add_run_options(parser, "training name, or the folder of a sealed run")
    add_batch_timeout(parser)
    parser.add_argument("--variant", action="append", metavar="V", help="only this variant (repeatable)")
    parser.add_argument(
        "--job", action="store_true", help="evaluate as a job of the DAG: Slurm starts it again after a preemption"
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="write evaluation.json, detections.npz and pictures.json there"
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.inference.evaluate import evaluate, write_evaluation
    from date.inference.kept import take
    from date.progress import step
    from date.training.job import preemptible
    from date.training.run import find_run
    from date.training.waiting import PATIENCE

    if (run := Path(args.training)).is_dir():
        run = run.resolve()
    else:
        runs = kept(args, "runs").resolve()
        run = find_run(load().training(args.training), load_tier(tier_name(args)), args.seed, runs)
    record = None
    if args.results is not None and not args.variant:
        record = take(run, args.tier, args.threads, args.results)
    if record is None:
        with preemptible() if args.job else contextlib.nullcontext(), step(f"evaluating {run.name}"):
            record, detections, pictures = evaluate(
                run, args.variant, args.threads, args.tier, args.batch_timeout or PATIENCE
            )
        if args.results is not None:
            write_evaluation(record, detections, pictures, args.results)
    else:
        print(f"{run.name} was evaluated by the process that trained it", file=sys.stderr)
    for name, variant in record["variants"].items():
        print_metrics(record["training"], name, variant["metrics"])
