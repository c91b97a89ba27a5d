"""``python -m date schema``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("schema", help="write the JSON schemas of the YAML files below experiments/")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("experiments/schema"),
        metavar="DIR",
        help="folder to write to [experiments/schema]",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue.schema import write_schemas

    for path in write_schemas(args.output):
        print(path)
