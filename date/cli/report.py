"""``python -m date report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from date.cli.options import add_kept, add_tier, kept, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("report", help="make tables, figures and page from sealed results")
    add_tier(parser)
    add_kept(parser, "results")
    add_kept(parser, "reports")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a table or figure, e.g. table05, or all: tables, figures",
    )
    parser.add_argument(
        "--status",
        type=Path,
        metavar="FILE",
        help="output of `date status --json`, used to explain missing seeds",
    )
    parser.add_argument("--where", action="store_true", help="only print the path of the page that was made before")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue.settings import load_settings
    from date.progress import step
    from date.reporting.report import report_page, write_report

    tier = tier_name(args)
    if args.where:
        print(report_page(kept(args, "reports"), tier))
        return
    settings = load_settings()
    with step(f"making the report of {tier}"):
        path = write_report(tier, kept(args, "results"), kept(args, "reports"), args.only, settings, args.status)
    print(path)
