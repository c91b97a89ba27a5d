"""``python -m date data samples``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from date.cli.options import count
from date.errors import UserError


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("samples", help="draw images of generated datasets with their annotations")
    parser.add_argument(
        "datasets", nargs="+", metavar="DATASET", help="generated datasets (those with the key 'scenes')"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JPEG file to write")
    parser.add_argument("--count", type=count, default=8, metavar="N", help="images of each dataset [8]")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load_dataset
    from date.catalogue.settings import data_root
    from date.data.samples import write_samples
    from date.datasets.files import data_files
    from date.datasets.prepare import prepare
    from date.progress import progress_lines

    datasets = [load_dataset(name) for name in args.datasets]
    for dataset in datasets:
        if dataset.scenes is None:
            raise UserError(f"dataset {dataset.name!r} is not generated; name one whose file has the key 'scenes'.")
        prepare(dataset, data_root(), progress_lines(f"preparing {dataset.name}"))
    write_samples([data_files(d, data_root()).root for d in datasets], args.count, 4, args.output)
