"""``python -m date import-detections``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from date.cli.options import add_categories, add_imported, add_kept, kept, print_metrics, print_notes


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "import-detections",
        help="score detections made elsewhere, or take a training log, as the results of a training",
        description="Score detections made elsewhere against the tier's validation annotations, take a training log's "
        "curve, or both, as results of a training, marked as imported. Importing the same again changes nothing.",
    )
    parser.add_argument("file", type=Path, nargs="?", help="COCO results, odgt or detections.npz, see `score`")
    add_imported(parser, "the files are")
    parser.add_argument(
        "--variant", metavar="V", help="variant of evaluations.yaml by which they were selected [the training's first]"
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="training log of MMDetection, detectron2, DETR, D-FINE, Lightning or Hugging Face, see docs/formats.md",
    )
    parser.add_argument("--source", metavar="TEXT", help="where the files come from, for the provenance")
    add_kept(parser, "results")
    add_categories(parser)
    parser.add_argument("--replace", action="store_true", help="replace results that already exist")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.publication import load_paper
    from date.imports.detections import import_detections
    from date.progress import step
    from date.results import EVALUATION, PROVENANCE

    with step(f"importing {args.file or args.log}"):
        folder = import_detections(
            load().training(args.training),
            load_tier(args.tier or load_paper().reference_tier),
            kept(args, "results"),
            file=args.file,
            log=args.log,
            variant=args.variant,
            seed=args.seed,
            source=args.source,
            replace=args.replace,
            categories=args.categories,
        )
    imported = json.loads((folder / PROVENANCE).read_text())["imported"]
    for entry in [*imported["detections"].values(), *filter(None, [imported["log"]])]:
        print_notes([f"{entry['file']}: {note}" for note in entry["notes"]])
    for name, variant in json.loads((folder / EVALUATION).read_text())["variants"].items():
        mark = "  (as reported by the log, not scored by us)" if variant.get("reported_by_log") else ""
        print_metrics(args.training, name, variant["metrics"], mark)
    print(folder)
