"""``python -m date train``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from date.cli.options import add_batch_timeout, add_images_per_pass, add_run_options, duration, kept, minutes, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "train",
        help="train a network, or resume it; the last line printed is the sealed run's folder",
        description="Train a network, or resume it where it was interrupted. On SIGTERM, SIGUSR1, Ctrl-C or the end of "
        "the time budget it saves its state at the next step and leaves with status 75; run the same command again. "
        "A second signal ends it at once. Several processes: torchrun --nproc-per-node N -m date train ...",
    )
    add_run_options(parser)
    parser.add_argument(
        "--time-budget",
        type=duration,
        metavar="TIME",
        help="save the state and leave before this time is over: seconds, or [D-]HH:MM:SS",
    )
    parser.add_argument(
        "--checkpoint-interval", type=duration, default=600.0, metavar="TIME", help="time between two checkpoints [600]"
    )
    add_batch_timeout(parser)
    add_images_per_pass(parser)
    parser.add_argument(
        "--job",
        type=minutes,
        metavar="MINUTES",
        help="train as a job of the DAG with this time limit (0: none): leave before it, be started again by Slurm, "
        "wait while another process trains the same run",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="also copy the run's small files there, for the DAG, and evaluate the run for `evaluate --results`",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.results import export_run
    from date.training.interruption import RESUME_ME, Interrupted
    from date.training.job import need_gpu, spread_over_gpus, time_budget, train_as_job
    from date.training.options import Options
    from date.training.run import train
    from date.training.waiting import PATIENCE

    began = time.monotonic()
    training, tier = load().training(args.training), load_tier(tier_name(args))
    if args.job is not None:
        need_gpu(tier)
        spread_over_gpus()
    options = Options(args.checkpoint_interval, args.images_per_pass, args.batch_timeout or PATIENCE)

    def run_training(budget: float | None) -> Path:
        return train(training, tier, args.seed, kept(args, "runs").resolve(), args.threads, options, budget)

    try:
        run = run_training(args.time_budget) if args.job is None else train_as_job(args.job, run_training)
    except Interrupted as interrupted:
        print(f"{training.name} seed {args.seed}: {interrupted}", file=sys.stderr)
        return RESUME_ME
    if int(os.environ.get("RANK", "0")) == 0:
        if args.results is not None:
            export_run(run, args.results)
        print(run, flush=True)
        if args.results is not None and "torch" in sys.modules:  # else it had been trained before
            from date.inference.kept import keep

            budget = args.time_budget if args.job is None else time_budget(args.job)
            left = None if budget is None else began + budget - time.monotonic()
            keep(run, tier.option, args.threads, left, options.batch_timeout)
    return 0
