"""``python -m date rehearse``."""

from __future__ import annotations

import argparse
from typing import Any

from date.cli.options import add_images_per_pass, add_kept, add_threads, add_tier, count, kept, print_left_out
from date.errors import UserError


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "rehearse",
        help="try every kind of network on some of the real data: train, kill, resume, evaluate, score",
        description="For every kind of network of the tier, on some images of the real data: load the weights, take 20 "
        "steps, save, be killed, resume, evaluate 50 images, score. Prints one line for each, and writes the times to "
        "results/<tier>/calibration.json, for `plan` and the order of jobs. Exit status 2 where something failed.",
    )
    parser.add_argument("trainings", nargs="*", metavar="TRAINING", help="names or patterns [one of each kind]")
    add_tier(parser)
    parser.add_argument("--minutes", type=count, default=10, metavar="N", help="stop after this many minutes [10]")
    add_images_per_pass(parser)
    add_threads(parser)
    add_kept(parser, "runs")
    add_kept(parser, "results")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import load_settings
    from date.cli import main
    from date.rehearsal.rehearsal import Rehearsal, kinds_first, rehearse

    settings = load_settings({"tier": args.tier} if args.tier else {})
    tier = load_tier(settings.tier)
    asked = args.trainings or settings.trainings
    print_left_out(tier, asked)
    trainings = load().chosen(tier, asked)
    rehearsal = Rehearsal(
        tier,
        trainings if args.trainings else kinds_first(trainings),
        args.minutes,
        kept(args, "runs").resolve(),
        kept(args, "results").resolve(),
        main,
        args.threads,
        args.images_per_pass,
    )
    done = rehearse(rehearsal, lambda line: print(line, flush=True))
    if not done:
        raise UserError(f"{args.minutes} minutes were too few for a single network; give more by --minutes.")
    return 0 if all(result.ok for result in done) else 2
