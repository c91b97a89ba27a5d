"""``python -m date calibrate``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from date.cli.options import add_json, add_kept, add_threads, add_tier, count, kept, print_left_out


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "calibrate",
        help="time a few training steps on this machine, for `plan` and the order of jobs",
        description="Time training steps and inference of each kind of network that the tier trains, on random images "
        "of the tier's size, and write results/<tier>/calibration.json. No data or weights are needed.",
    )
    add_tier(parser)
    parser.add_argument("--steps", type=count, default=10, metavar="N", help="steps to time for each network [10]")
    add_threads(parser)
    add_kept(parser, "results")
    add_json(parser, "what was written to the file")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import load_settings

    settings = load_settings({"tier": args.tier} if args.tier else {})
    tier = load_tier(settings.tier)
    print_left_out(tier, settings.trainings)
    from date.progress import step

    with step("timing steps of every kind of network"):
        from date.planning.calibration import calibrate, representatives, to_text

        chosen = representatives(load().chosen(tier, settings.trainings))
        found = calibrate(chosen, tier, args.steps, args.threads, kept(args, "results"))
    print(json.dumps(found, indent=1) if args.json else to_text(found))
