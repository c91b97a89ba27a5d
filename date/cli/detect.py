"""``python -m date detect``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from date.cli.options import add_bare_weights, add_branch, add_threads, print_notes
from date.errors import UserError
from date.formatting import counted

PICTURES = Path("detections")


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("detect", help="detect objects on images and draw them")
    parser.add_argument("network", type=Path, help="a sealed run's folder, a checkpoint, or an exported network")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="image files, folders, or one COCO annotation file"
    )
    add_branch(parser, "detects")
    parser.add_argument(
        "--score",
        type=probability,
        metavar="T",
        help="leave out detections with a lower score [drawn: 0.3; JSON: none]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all detections in COCO's results format")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"write the images with their boxes there [{PICTURES}, without --json]"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", dest="folder", help="where an annotation file's images are"
    )
    add_bare_weights(parser)
    add_threads(parser)
    parser.set_defaults(command=run)


def probability(text: str) -> float:
    """Return a score."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score; give a number from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    from date.inference.sources import find_images

    sources = find_images(args.images, args.folder)
    out = args.out if args.out is not None or args.json is not None else PICTURES
    for path in (out, args.json and args.json.parent):
        if path is not None and path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file and not a folder; name another place.")

    from date.progress import step

    with step(f"opening {args.network}"):
        from date.inference.detect import DRAWN_FROM, Painter, detect, write_results
        from date.inference.network import Choice
        from date.inference.opening import open_detector

        choice = Choice(args.branch, args.nms)
        opened = open_detector(args.network, sources, choice, args.training, args.tier, args.threads)
    print_notes(opened.notes)
    shown = DRAWN_FROM if args.score is None else args.score
    painter = None if out is None else Painter(out, opened.named, shown)
    outcome = detect(opened.detector, opened.job, sources.images, painter or (lambda found: None))
    if args.json is not None:
        annotated = sources.category_ids is not None
        written = write_results(args.json, outcome.found, opened.named, annotated, args.score or 0.0)
        print(f"{written:,} detections of {counted(len(outcome.found), 'images')} in {args.json}")
    if painter is not None and outcome.found:
        drawn = ", ".join(f"{n:,} {name}" for name, n in painter.drawn.most_common()) or "none"
        print(f"{counted(len(outcome.found), 'images')} in {out}, boxes with a score of {shown:g} or more: {drawn}")
    for source, reason in outcome.unreadable:
        print(f"error: {source.path} can't be read and was skipped ({reason})", file=sys.stderr)
    return 2 if outcome.unreadable else 0
