"""``python -m date score``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date.cli.options import add_categories, add_ground_truth, add_json, pixels, print_notes
from date.errors import UserError

if TYPE_CHECKING:
    from date.evaluation.resamples import Interval
    from date.evaluation.score import Score

SCORE_HELP = """\
All metrics are in percent; null where undefined (no object in the range).
coco: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl. crowdhuman: AP (at IoU 0.5), mMR (lower is better), Recall.
Detections: a detections.npz of `evaluate`; COCO results, a JSON list of {image_id, category_id, bbox: [x, y, width,
height], score}; or CrowdHuman odgt, a JSON object per line with ID and dtboxes, a list of {box: [x, y, width, height],
score}. Odd but legal records are handled as the protocol prescribes; their number is printed on standard error."""


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "score",
        help="score a file of detections from any tool against annotations",
        description="Score a file of detections against annotations, without network, GPU or PyTorch.",
        epilog=SCORE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--protocol", choices=["coco", "crowdhuman"], required=True)
    add_ground_truth(parser)
    parser.add_argument(
        "--detections",
        type=Path,
        required=True,
        metavar="FILE",
        help="detections.npz, COCO results or odgt, gzipped or not",
    )
    parser.add_argument("--variant", metavar="V", help="which variant of a detections.npz to score [the first]")
    add_json(parser, "one JSON object (percent; null where undefined)")
    parser.add_argument(
        "--engine",
        choices=["hotcoco", "pycocotools"],
        help="library that computes COCO's metrics; the numbers are the same [hotcoco; with intervals, the sums that "
        "give these]",
    )
    parser.add_argument(
        "--area-thresholds",
        type=pixels,
        nargs=2,
        metavar=("S", "M"),
        default=(32.0, 96.0),
        help="for COCO's metrics: sides in pixels of the squares that separate small, medium and large objects [32 96]",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="images whose sizes an odgt file lacks, to clip boxes (crowdhuman)"
    )
    parser.add_argument(
        "--interval",
        action="store_true",
        help="print 95 %% intervals for images like these, from 200 resamples of the images",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="other detections to compare with: prints the differences, with paired intervals",
    )
    add_categories(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.evaluation.score import score

    if args.area_thresholds[0] > args.area_thresholds[1]:
        raise UserError("--area-thresholds: the first is larger than the second; give small before medium.")

    intervals = args.interval or args.against is not None

    def scored_file(path: Path) -> Score:
        found = score(
            args.protocol,
            args.gt,
            path,
            args.variant,
            args.area_thresholds,
            args.engine,
            args.images,
            args.categories,
            intervals,
            args.boxes_as_written,
        )
        print_notes(found.notes)
        return found

    scored = scored_file(args.detections)
    if intervals:
        _print_intervals(args, scored, None if args.against is None else scored_file(args.against))
    elif args.json:
        print(json.dumps(scored.metrics))
    else:
        for name, value in scored.metrics.items():
            print(f"{name:<6}  {_number(value)}")


def _print_intervals(args: argparse.Namespace, scored: Score, other: Score | None) -> None:
    """Print metrics with their intervals and, with another file, its metrics and the differences with theirs."""
    from date.evaluation.intervals import score_intervals

    own, differences = score_intervals(scored, other)
    if args.json:
        output: dict[str, Any] = {key: None if each is None else asdict(each) for key, each in own.items()}
        if other is not None and differences is not None:
            apart = {key: None if each is None else asdict(each) for key, each in differences.items()}
            output = {"metrics": output, "against": other.metrics, "differences": apart}
        print(json.dumps(output))
        return
    print(
        "in percent, with 95 % intervals for images like these"
        + ("" if other is None else f"; {args.detections} against {args.against}")
    )
    for name, score in scored.metrics.items():
        line = f"{name:<6}  {_number(score)}  {_limits(own[name]):<16}"
        if other is not None and differences is not None:
            found = differences[name]
            value = "-" if found is None else f"{found.value:+.2f}"
            line += f"  against {_number(other.metrics[name])}  difference {value:>6}  {_limits(found, '+')}"
        print(line.rstrip())


def _number(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.2f}':>6}"


def _limits(found: Interval | None, sign: str = "") -> str:
    return "" if found is None else f"{found.low:{sign}.2f} to {found.high:{sign}.2f}"
