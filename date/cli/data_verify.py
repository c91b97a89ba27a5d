"""``python -m date data verify``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from date.cli.options import add_json, add_tier, print_left_out, tier_name
from date.errors import UserError


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "verify", help="check datasets and list every problem; generates or converts them first where needed"
    )
    parser.add_argument(
        "datasets",
        nargs="*",
        metavar="DATASET",
        help="names of files in experiments/datasets/, or paths of such files [the tier's datasets, and its weights]",
    )
    add_tier(parser)
    parser.add_argument("--deep", action="store_true", help="also decode every image")
    add_json(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the manifest of one dataset to this file")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load_dataset, load_tier
    from date.catalogue.settings import data_root, load_settings
    from date.datasets.verify import datasets_of, report, scaled_sizes, verify, weights_problems
    from date.files import replace_text

    if args.output is not None and len(args.datasets) != 1:
        raise UserError("--output writes the manifest of one dataset; name one dataset.")
    tier, root = load_tier(tier_name(args)), data_root()
    if not args.datasets:
        print_left_out(tier, load_settings().trainings)
    datasets = [load_dataset(name) for name in args.datasets] or datasets_of(tier)
    weights = [] if args.datasets else weights_problems(tier, root)
    records = verify(datasets, root, args.deep)
    report(records, weights, datasets, args.json, args.deep)
    if not (args.json or args.datasets or tier.reference):
        for dataset in datasets:
            if dataset.scenes is None:
                print(scaled_sizes(dataset, tier, root))
    if args.output is not None:
        replace_text(args.output, json.dumps(records[0]["manifest"], indent=1) + "\n")
