"""``python -m date config``."""

from __future__ import annotations

import argparse
from typing import Any

from date.cli.options import add_seed, add_tier, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("config", help="build every component of a run, then print its MMEngine config")
    parser.add_argument("training")
    add_tier(parser)
    add_seed(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import data_root
    from date.identity.config import resolve
    from date.training.trial import build_components

    training = load().training(args.training)
    config = resolve(training, load_tier(tier_name(args)), args.seed, data_root())
    build_components(training, config)
    from mmengine.config import Config

    print(Config(config).pretty_text)
