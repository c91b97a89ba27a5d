"""``python -m date status``."""

from __future__ import annotations

import argparse
from typing import Any

from date.cli.options import add_json, add_kept, add_seeds, add_tier, interval, kept, print_left_out, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "status",
        help="show the state of a tier's runs",
        description="Show the state of every run of a tier: those that `all` makes, and others in the runs folder.",
    )
    add_tier(parser)
    add_kept(parser, "runs")
    add_kept(parser, "results", "folder of results, used to look up the current data")
    add_seeds(parser, "show")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--watch",
        type=interval,
        nargs="?",
        const=10.0,
        metavar="SECONDS",
        help="print again and again until all runs are done",
    )
    add_json(form)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load_tier
    from date.catalogue.settings import load_settings
    from date.runs import status
    from date.runs.overview import Overview

    settings, tier = load_settings(), load_tier(tier_name(args))
    print_left_out(tier, settings.trainings)
    trainings = settings.trainings or tier.trainings
    runs, results = kept(args, "runs"), kept(args, "results")
    overview = Overview(tier, trainings, lambda name: args.seeds or settings.seeds_for(name), runs, results)
    if args.json:
        print(status.as_json(tier.name, overview.statuses()))
    elif args.watch is None:
        status.show(overview)
    else:
        try:
            status.watch(overview, args.watch)
        except KeyboardInterrupt:  # the usual way to end it
            return
