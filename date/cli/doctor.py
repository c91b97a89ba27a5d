"""``python -m date doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from date.cli.options import add_json, add_tier, print_left_out, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser(
        "doctor",
        help="check everything a run needs (packages, GPUs, data, weights, disk, Slurm), one line per check",
        description="Check everything a run needs. Each problem is printed with its remedy, and nothing is submitted. "
        "The exit status is 2 if something would stop the work.",
    )
    add_tier(parser, "[the profile's]")
    parser.add_argument(
        "--profile",
        action="append",
        type=Path,
        metavar="DIR",
        help="Snakemake profile that you will use (repeatable) [slurm for its tier, else workflow/profiles/local]",
    )
    add_json(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import load_settings
    from date.doctor import examine, to_json
    from date.doctor.profile import read_profiles, settings_of

    on_slurm = settings_of(read_profiles([Path("slurm")]))
    if args.profile is None:
        local = tier_name(args) != on_slurm.get("tier")
        args.profile = [Path("workflow/profiles/local" if local else "slurm")]
    typed = (args.settings or {}) | ({"tier": args.tier} if args.tier else {})
    settings = load_settings(settings_of(read_profiles(args.profile)) | typed)
    tier = load_tier(settings.tier)
    trainings = load().chosen(tier, settings.trainings)
    if not args.json:
        print_left_out(tier, settings.trainings)
    findings = []
    for finding in examine(tier, trainings, {t.name: len(settings.seeds_for(t.name)) for t in trainings}, args.profile):
        findings.append(finding)
        if not args.json:
            print(finding.line(), flush=True)
    if args.json:
        print(to_json(findings))
    return 2 if any(finding.status == "error" for finding in findings) else 0
