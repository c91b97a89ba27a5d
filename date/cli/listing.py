"""``python -m date list``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from date.cli.options import add_json
from date.errors import UserError


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("list", help="show the catalogue")
    parser.add_argument("what", choices=["experiments", "trainings", "evaluations", "rows", "claims"])
    form = parser.add_mutually_exclusive_group()
    add_json(form, "one JSON array")
    form.add_argument("--markdown", action="store_true", help="print docs/experiments.md (only with 'experiments')")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load
    from date.catalogue.listing import experiments_markdown, listing

    if args.markdown:
        if args.what != "experiments":
            raise UserError(
                f"only experiments are listed as Markdown; leave --markdown out, or list {args.what} --json."
            )
        print(experiments_markdown(load()), end="")
        return
    listed = listing(load(), args.what)
    if args.json:
        print(json.dumps([entry.model_dump(mode="json") for entry, _ in listed], indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in listed), strict=True)]
    for _, cells in listed:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
