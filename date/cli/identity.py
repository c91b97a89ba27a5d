"""``python -m date identity``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from date.cli.options import add_json


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "identity",
        help="print the parts of the training code that belong to every run's identity, with their digests",
    )
    add_json(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.identity.code import TRAINING_CODE, canonical_parts, code_fingerprint, part_digests

    digests, counted = part_digests(), canonical_parts()
    if args.json:
        print(json.dumps({"code": code_fingerprint(), "parts": digests, "counted_as": counted}, indent=1))
        return
    for name, digest in digests.items():
        other = counted.get(name)
        as_ = "" if other == digest else "  counts as before it was added" if other is None else f"  counts as {other}"
        print(f"{digest}  {TRAINING_CODE[name]:24} {name}{as_}")
    print(f"{code_fingerprint()}  all together")
