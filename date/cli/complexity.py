"""``python -m date complexity``."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("complexity", help="count parameters and operations of the paper's networks")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.inference.complexity import print_complexity

    print_complexity(args.json)
