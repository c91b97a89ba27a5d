"""``python -m date export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from date.cli.options import add_bare_weights, add_branch, add_kept, kept

CARD = "card.md"


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("export", help="write a trained network for use elsewhere, with a model card")
    parser.add_argument("network", type=Path, metavar="RUN", help="a sealed run's folder, or a checkpoint")
    parser.add_argument("--format", required=True, choices=["onnx", "torchscript", "mmdet", "safetensors"])
    parser.add_argument("--out", type=Path, metavar="PATH", help="file, or folder for mmdet [exports/RUN and a suffix]")
    add_branch(parser, "is kept")
    add_kept(parser, "results", "folder of results, for the card")
    add_bare_weights(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.files import replace_text
    from date.progress import step

    with step(f"opening {args.network}"):
        from date.inference.card import card, find_evaluation
        from date.inference.exporting import SUFFIXES, export
        from date.inference.network import Choice, open_network

        network = open_network(args.network, args.training, args.tier)
    branch = f"-{args.branch}" if args.branch else ""
    stem = network.name.replace(" ", "-")
    path = args.out or Path("exports") / f"{stem}{branch}{'-mmdet' if args.format == 'mmdet' else ''}"
    if args.out is None:
        path = path.with_name(path.name + SUFFIXES[args.format])
    with step(f"writing {path}"):
        metadata = export(network, args.format, path, Choice(args.branch, args.nms))
    text = card(network, metadata, args.format, find_evaluation(kept(args, "results"), network.provenance))
    about = path / CARD if path.is_dir() else path.with_name(f"{path.name}.{CARD}")
    replace_text(about, text)
    print(path)
    print(about)
