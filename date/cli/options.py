"""What several commands share: types of arguments, common options, notes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from date.catalogue import Tier

LARGEST_SEED = 2**32 - 1
"""That numpy and PyTorch take."""
_DURATION = re.compile(r"(?:(?P<days>\d+)-(?=\d+:\d+:))?(?P<clock>(?:\d+:){0,2}\d+(?:\.\d*)?)", re.ASCII)
TIER_HELP = "size of the experiments: smoke, mini, paper, another file in experiments/tiers/, or the path of one"


def add_run_options(parser: argparse.ArgumentParser, name_help: str = "training name") -> None:
    """Add what commands on one run have in common."""
    parser.add_argument("training", help=name_help)
    add_tier(parser)
    add_seed(parser)
    add_kept(parser, "runs")
    add_threads(parser)


def add_tier(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Add the option for the tier, which `tier_name` returns, and that for settings.

    Args:
        parser: of the command.
        default: names another default tier than the settings'.
    """
    parser.add_argument("--tier", help=" ".join(filter(None, (TIER_HELP, default))))
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the option for settings, which `date.catalogue.settings.load_settings` knows from then on."""
    parser.add_argument(
        "--settings",
        type=settings_json,
        metavar="JSON",
        help='settings that replace those of experiments/config.yaml, e.g. {"seeds": [0, 1]}',
    )


def add_seed(parser: argparse.ArgumentParser, about: str = "seed of the run") -> None:
    """Add the option for one seed."""
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{about} [0]")


def add_seeds(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the option for several seeds to show or to plan for."""
    parser.add_argument(
        "--seeds", type=seed, nargs="+", metavar="N", help=f"seeds to {verb} [those of experiments/config.yaml]"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of CPU threads."""
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads [PyTorch's choice]")


def add_images_per_pass(parser: argparse.ArgumentParser) -> None:
    """Add the option for the images that pass through a network at a time."""
    parser.add_argument(
        "--images-per-pass",
        type=images_per_pass,
        metavar="N",
        help="pass N images through the network at a time, which takes less memory (0: all images of the process)",
    )


def add_json(parser: argparse._ActionsContainer, what: str = "one JSON object") -> None:
    """Add the option that prints JSON in place of text."""
    parser.add_argument("--json", action="store_true", help=f"print {what}")


def add_branch(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the options that choose the branch which detects or is kept, and its NMS."""
    parser.add_argument("--branch", choices=["o2o", "o2m"], help=f"branch that {verb} [the one that is evaluated]")
    parser.add_argument("--nms", type=share, metavar="T", help="IoU above which NMS removes a box [as evaluated]")


def add_bare_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which network a file of weights without a run belongs to."""
    parser.add_argument("--training", metavar="NAME", help="which training a bare file of weights belongs to")
    parser.add_argument("--tier", help=f"tier of a bare file of weights: {TIER_HELP}")


def add_imported(parser: argparse.ArgumentParser, things: str) -> None:
    """Add the options that say whose result imported files are."""
    parser.add_argument("--training", required=True, metavar="NAME", help=f"which training {things} a result of")
    add_tier(parser, "[the paper's own]")
    add_seed(parser, "seed number to store the results under")


def add_ground_truth(parser: argparse.ArgumentParser) -> None:
    """Add the option for the annotations that boxes are compared with."""
    parser.add_argument("--gt", type=Path, required=True, metavar="FILE", help="COCO annotations or CrowdHuman odgt")
    parser.add_argument(
        "--boxes-as-written",
        action="store_true",
        help="take annotated boxes for x, y, width, height in pixels, although they look like corners or fractions",
    )


KEPT = {"runs": "where runs are kept", "results": "folder of results", "reports": "folder of reports"}


def add_kept(parser: argparse.ArgumentParser, kind: str, about: str | None = None) -> None:
    """Add the option for the folder of all runs, results or reports, which `kept` returns."""
    parser.add_argument(f"--{kind}", type=Path, metavar="DIR", help=f"{about or KEPT[kind]} [{kind}]")


def kept(args: argparse.Namespace, kind: str) -> Path:
    """Return the folder of all runs, results or reports that was given, or where the paper in use keeps its own."""
    from date.experiments.folders import of_paper

    return getattr(args, kind) or of_paper(Path(kind))


def seed(text: str) -> int:
    """Return a seed."""
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed; give an integer from 0 to {LARGEST_SEED}")
    return int(text)


def settings_json(text: str) -> dict[str, Any]:
    """Return settings from a JSON object."""
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object; give settings as {{"seeds": [0, 1]}}')
    return settings


def minutes(text: str) -> int:
    """Return a time limit in whole minutes, 0 for none."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a time limit; give whole minutes, 0 for none")
    return int(text)


def count(text: str) -> int:
    """Return a number from 1 on."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def images_per_pass(text: str) -> int | None:
    """Return the images of a pass, None for all."""
    return None if text == "0" else count(text)


def duration(text: str) -> float:
    """Return seconds from a number of them or from Slurm's ``[D-]HH:MM:SS``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; give seconds, MM:SS, HH:MM:SS or D-HH:MM:SS")
    seconds = 0.0
    for part in match["clock"].split(":"):
        seconds = 60 * seconds + float(part)
    return 86400 * int(match["days"] or 0) + seconds


def positive_duration(text: str) -> float:
    """Return seconds over 0."""
    seconds = duration(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("0 is too short; give seconds, MM:SS, HH:MM:SS or D-HH:MM:SS")
    return seconds


def share(text: str) -> float:
    """Return an IoU over 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IoU; give a number over 0 and at most 1")
    return value


def pixels(text: str) -> float:
    """Return a length in pixels."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length in pixels; give a number from 0 to 100000")
    return value


def interval(text: str) -> float:
    """Return the seconds between two updates."""
    seconds = duration(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("0 is not an interval; give the seconds between two updates")
    return seconds


def add_categories(parser: argparse.ArgumentParser) -> None:
    """Add what the category ids of detections are."""
    parser.add_argument(
        "--categories",
        choices=["ids", "labels"],
        help="meaning of the detections' category ids: the annotations' ids, or labels counted from 0 "
        "[ids; numbers that look like labels are refused]",
    )


def add_batch_timeout(parser: argparse.ArgumentParser) -> None:
    """Add how long to wait for data."""
    parser.add_argument(
        "--batch-timeout",
        type=positive_duration,
        metavar="TIME",
        help="stop when the loading processes load nothing for this time [40]; raise it if your file server pauses",
    )


def tier_name(args: argparse.Namespace) -> str:
    """Return the tier that a command names, or that of the settings."""
    from date.catalogue.settings import load_settings

    return args.tier or load_settings().tier


def print_metrics(training: str, variant: str, metrics: Mapping[str, float | None], mark: str = "") -> None:
    """Print an evaluation's metrics on a line; ``-`` where one is undefined."""
    numbers = "  ".join(f"{name} {'-' if value is None else f'{value:.1f}'}" for name, value in metrics.items())
    print(f"{training}/{variant}: {numbers}{mark}")


def print_left_out(tier: Tier, asked: list[str] | None) -> None:
    """Print on standard error which of the chosen trainings a tier has no data for, if any."""
    from date.catalogue import load

    print_notes(list(filter(None, [load().left_out(tier, asked)])))


def print_notes(notes: list[str]) -> None:
    """Print notes on standard error."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
