"""``python -m date plan``."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import Any

from date.cli.options import TIER_HELP, count, print_left_out, seed


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "plan",
        help="list what is cached, what would run and why, and what it costs",
        description="List what targets of the DAG need: what is cached, what would run and why, GPU hours, makespan "
        "with its lower bound and critical path, disk. Nothing is written, and neither GPU nor data are needed.",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, table05, figure3, a training ... [all]")
    parser.add_argument("--tier", help=TIER_HELP)
    parser.add_argument(
        "--gpus", type=count, nargs="+", default=[1, 2, 4, 8], metavar="N", help="numbers of GPUs [1 2 4 8]"
    )
    parser.add_argument(
        "--seeds", type=seed, nargs="+", metavar="SEED", help="in place of those in experiments/config.yaml"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--cached", action="store_true", help="list what is cached job by job, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load_tier
    from date.catalogue.settings import load_settings
    from date.planning.plan import make_plan, to_dict
    from date.planning.plan_text import to_text

    seeds = {} if args.seeds is None else {"seeds": args.seeds, "seeds_of": {}}
    settings = load_settings(({"tier": args.tier} if args.tier else {}) | seeds)
    tier = load_tier(settings.tier)
    print_left_out(tier, settings.trainings)
    plan = make_plan(args.targets or ["all"], tier, settings, args.results, args.runs, sorted(set(args.gpus)))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in `_list`
    print(json.dumps(to_dict(plan), indent=1) if args.json else to_text(plan, args.cached))
