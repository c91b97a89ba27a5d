"""``python -m date matrix``."""

from __future__ import annotations

import argparse
from typing import Any

from date.cli.options import TIER_HELP, add_kept, kept


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "matrix", help="judge the claims on several data sets, side by side, and print a table in Markdown"
    )
    parser.add_argument("tiers", nargs="+", metavar="TIER", help=TIER_HELP)
    add_kept(parser, "results")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load_tier
    from date.progress import step
    from date.reporting.matrix import matrix

    with step("judging the claims of every tier"):
        text = matrix([load_tier(name) for name in args.tiers], kept(args, "results"))
    print(text, end="")
