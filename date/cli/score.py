"""``python -m date score``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from date.cli.options import add_categories, pixels, print_notes
from date.errors import UserError

SCORE_HELP = """\
All metrics are in percent; null where undefined (no object in the range).
coco: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl. crowdhuman: AP (at IoU 0.5), mMR (lower is better), Recall.
Detections: a detections.npz of `evaluate`; COCO results, a JSON list of {image_id, category_id, bbox: [x, y, width,
height], score}; or CrowdHuman odgt, a JSON object per line with ID and dtboxes, a list of {box: [x, y, width, height],
score}. What was treated in some standard way is counted on standard error."""


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "score",
        help="score a file of detections, ours or anybody's, against annotations",
        description="Score a file of detections against annotations, without network, GPU or PyTorch.",
        epilog=SCORE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--protocol", choices=["coco", "crowdhuman"], required=True)
    parser.add_argument("--gt", type=Path, required=True, metavar="FILE", help="COCO annotations or CrowdHuman odgt")
    parser.add_argument(
        "--detections",
        type=Path,
        required=True,
        metavar="FILE",
        help="npz, COCO results or odgt, also packed by gzip",
    )
    parser.add_argument("--variant", metavar="V", help="which array of a detections.npz [the first]")
    parser.add_argument("--json", action="store_true", help="print one JSON object, in percent, null where undefined")
    parser.add_argument(
        "--engine",
        choices=["hotcoco", "pycocotools"],
        default="hotcoco",
        help="of COCO's metrics; both give the same numbers [hotcoco]",
    )
    parser.add_argument(
        "--area-thresholds",
        type=pixels,
        nargs=2,
        metavar=("S", "M"),
        default=(32.0, 96.0),
        help="square roots of the areas in pixels that part small, medium and large, of COCO's metrics [32 96]",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="images whose sizes an odgt file lacks, to clip boxes (crowdhuman)"
    )
    add_categories(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.evaluation.score import score

    if args.area_thresholds[0] > args.area_thresholds[1]:
        raise UserError("--area-thresholds: the first is larger than the second; give small before medium.")
    scored = score(
        args.protocol,
        args.gt,
        args.detections,
        args.variant,
        args.area_thresholds,
        args.engine,
        args.images,
        args.categories,
    )
    print_notes(scored.notes)
    if args.json:
        print(json.dumps(scored.metrics))
        return
    for name, value in scored.metrics.items():
        print(f"{name:<6}  {'-' if value is None else f'{value:.2f}':>6}")
