"""``python -m date latency``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from date.cli.options import add_kept, add_seed, add_tier, count, kept, tier_name
from date.errors import UserError


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("latency", help="measure how long trained networks take for an image")
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help="evaluations (`date list evaluations`), or folders of sealed "
        "runs [those that `latency` of experiments/paper.yaml names]"
    )  # fmt: skip
    add_tier(parser)
    add_seed(parser)
    add_kept(parser, "runs")
    parser.add_argument("--size", action="append", choices=["tier", "800x1333"], help="only this size (repeatable)")
    parser.add_argument("--runtime", action="append", choices=["pytorch", "onnxruntime"], help="only this (repeatable)")
    parser.add_argument("--threads", type=count, action="append", metavar="N", help="CPU threads (repeatable) [1, all]")
    parser.add_argument("--rounds", type=count, default=30, metavar="N", help="turns of each network [30]")
    parser.add_argument(
        "--only", action="append", metavar="TRAINING", help="of the default networks, only these trainings"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time that was measured")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue.publication import load_paper

    names = args.networks or [n for n in load_paper().latency if not args.only or n.split("/")[0] in args.only]
    if not names:
        raise UserError("there is nothing to measure; name evaluations or folders of sealed runs.")
    from date.files import replace_text
    from date.inference.latency import Plan, cores, measure
    from date.inference.latency_subjects import subject
    from date.inference.latency_table import latency_text
    from date.progress import step
    from date.results import seal
    from date.training.hardware import hardware

    tier, runs = tier_name(args), kept(args, "runs").resolve()
    subjects = []
    for name in names:
        with step(f"opening {name}"):
            subjects.append(subject(name, tier, args.seed, runs))
    defaults = Plan()
    plan = Plan(
        tuple(args.size or defaults.sizes),
        tuple(args.runtime or defaults.runtimes),
        tuple(dict.fromkeys(args.threads or [1, cores()])),
        args.rounds,
    )
    record = measure(subjects, plan, lambda line: print(line, file=sys.stderr, flush=True))
    record |= {"tier": tier, "seed": args.seed, "hardware": hardware()}
    if args.json is not None:
        replace_text(args.json, seal(record))
    print(latency_text(record), end="")
