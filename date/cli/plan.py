"""``python -m date plan``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date.cli.options import add_json, add_kept, add_seeds, add_tier, count, kept, print_left_out, print_notes
from date.errors import UserError

if TYPE_CHECKING:
    from date.catalogue import Tier
    from date.catalogue.settings import Settings


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "plan",
        help="list what is cached, what would run and why, and what it costs",
        description="List what targets of the DAG need: what is cached, what would run and why, GPU hours, makespan "
        "with its lower bound and critical path, disk space. Writes nothing and needs neither GPU nor data.",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, table05, figure3, a training ... [all]")
    add_tier(parser)
    parser.add_argument(
        "--gpus", type=count, nargs="+", metavar="N", help="numbers of GPUs to plan for [1 2 4 8; with --resolve 1]"
    )
    parser.add_argument(
        "--resolve",
        action="store_true",
        help="find the seeds that resolve the most open claims per hour, and write them as a configfile",
    )
    parser.add_argument(
        "--hours", type=hours, metavar="H", help="with --resolve: hours that each GPU (or each run at a time) has [24]"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="with --resolve: file to write [resolve-TIER.yaml]")
    add_seeds(parser, "plan for")
    add_kept(parser, "results")
    add_kept(parser, "runs")
    parser.add_argument("--cached", action="store_true", help="also list every cached job")
    add_json(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import load_settings
    from date.datasets.sizes import fitted_sides
    from date.planning.plan import make_plan, to_dict
    from date.planning.plan_text import to_text

    seeds = {} if args.seeds is None else {"seeds": args.seeds, "seeds_of": {}}
    settings = load_settings(({"tier": args.tier} if args.tier else {}) | seeds)
    tier = load_tier(settings.tier)
    if args.resolve:
        resolve(args, settings, tier)
        return
    if args.hours is not None or args.output is not None:
        raise UserError("--hours and --output belong to --resolve; add it, or leave them out.")
    print_left_out(tier, settings.trainings)
    sides = fitted_sides(tier, [training.data for training in load().chosen(tier, settings.trainings)])
    print_notes([f"short side {side} px in the part of {part!r}, chosen by the boxes" for part, side in sides.items()])
    plan = make_plan(
        args.targets or ["all"],
        tier,
        settings,
        kept(args, "results"),
        kept(args, "runs"),
        sorted(set(args.gpus or (1, 2, 4, 8))),
    )
    print(json.dumps(to_dict(plan), indent=1) if args.json else to_text(plan, args.cached))


def resolve(args: argparse.Namespace, settings: Settings, tier: Tier) -> None:
    """Propose the seeds that resolve the most open claims per hour, and write them as a configfile."""
    from date.progress import step
    from date.resolving.proposal import proposal_text, propose, write_config

    if args.targets or args.seeds is not None or args.cached:
        raise UserError("--resolve chooses trainings and seeds itself; leave targets, --seeds and --cached out.")
    if args.gpus is not None and len(args.gpus) > 1:
        raise UserError("--resolve plans for one number of GPUs; give one by --gpus.")
    with step("finding the seeds that resolve the most claims per hour"):
        proposal = propose(tier, settings, kept(args, "results"), kept(args, "runs"), args.hours, (args.gpus or [1])[0])
    path = args.output or Path(f"resolve-{tier.name}.yaml")
    if proposal.choice.added:
        write_config(proposal, path)
    if args.json:
        output = {"config": proposal.config, "hours": proposal.choice.hours, "chances": proposal.choice.after}
        print(json.dumps(output, indent=1))
    else:
        print(proposal_text(proposal, path), end="")


def hours(text: str) -> float:
    """Return a positive number of hours."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of hours")
    return value
