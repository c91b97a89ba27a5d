"""``python -m date data nms-recall``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from date.cli.options import add_ground_truth, add_json, print_notes, share


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "nms-recall",
        help="compute the share of annotated objects that NMS would keep",
        description="Run greedy class-wise NMS on the annotated boxes, in the file's order and with equal scores, "
        "without ignored regions, and print the percentage of boxes that it keeps.",
    )
    add_ground_truth(parser)
    parser.add_argument(
        "--iou",
        type=share,
        action="extend",
        nargs="+",
        metavar="T",
        help="IoU above which NMS removes a box [0.5 0.55 0.6 0.65 0.7]",
    )
    parser.add_argument("--clip", action="store_true", help="clip boxes to their images first [as annotated]")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images whose sizes an odgt file lacks, for --clip")
    add_json(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.datasets.boxes import OPTION
    from date.evaluation.ground_truth import read_ground_truth
    from date.evaluation.nms_recall import THRESHOLDS, nms_recall
    from date.progress import step

    with step(f"reading {args.gt}"):
        ground_truth = read_ground_truth(args.gt, args.images, None if args.boxes_as_written else OPTION)
    with step("removing annotations by NMS"):
        found = nms_recall(ground_truth, args.iou or THRESHOLDS, args.clip)
    print_notes(ground_truth.notes)
    if args.json:
        print(json.dumps(found))
        return
    lines = [("all", found), *(found["classes"].items() if len(found["classes"]) > 1 else ())]
    width = max(len(name) for name, _ in lines)
    print("boxes clipped to the image" if found["clipped"] else "boxes as annotated, not clipped")
    print(f"{'':{width}}  objects" + "".join(f"  {f'IoU {iou}':>8}" for iou in found["recall"]))
    for name, part in lines:
        cells = ["-" if value is None else f"{value:.2f}" for value in part["recall"].values()]
        print(f"{name:{width}}  {part['objects']:>7}" + "".join(f"  {cell:>8}" for cell in cells))
