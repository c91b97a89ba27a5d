"""``python -m date complexity``."""

from __future__ import annotations

import argparse
from typing import Any

from date.cli.options import add_json


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("complexity", help="count parameters and operations of the paper's networks")
    add_json(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.progress import step

    with step("counting the parameters and operations of all networks"):
        from date.inference.complexity import complexity_table, to_json, to_text

        rows = complexity_table()
    print(to_json(rows) if args.json else to_text(rows), end="\n" if args.json else "")
