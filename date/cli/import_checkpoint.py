"""``python -m date import-checkpoint``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from date.cli.options import add_imported, add_kept, kept


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "import-checkpoint", help="make a sealed run of a checkpoint that was trained elsewhere"
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth, .pt or .safetensors file with the official names")
    add_imported(parser, "the checkpoint is")
    add_kept(parser, "runs")
    parser.add_argument("--results", type=Path, metavar="DIR", help="also copy the run's small files there")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.publication import load_paper
    from date.imports.checkpoint import import_checkpoint
    from date.progress import step
    from date.results import export_run

    training, tier = load().training(args.training), load_tier(args.tier or load_paper().reference_tier)
    with step(f"importing {args.checkpoint}"):
        run = import_checkpoint(args.checkpoint, training, tier, kept(args, "runs").resolve(), args.seed)
    if args.results is not None:
        export_run(run, args.results)
    print(run)
