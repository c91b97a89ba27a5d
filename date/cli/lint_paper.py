"""``python -m date lint-paper``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from date.cli.options import add_json


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "lint-paper", help="recompute the paper's own arithmetic and list the numbers that disagree"
    )
    add_json(parser, "one JSON array")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load
    from date.paperlint.lint import lint, to_json, to_text
    from date.progress import step
    from date.results import complexity_figures

    with step("counting the parameters and operations of all networks"):
        from date.inference.complexity import complexity_table
        from date.inference.complexity import to_json as counted_json

        counted = complexity_figures(json.loads(counted_json(complexity_table())))
    checks = lint(load().of_the_paper(), counted)
    print(to_json(checks) if args.json else to_text(checks))
