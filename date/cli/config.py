"""``python -m date config``."""

from __future__ import annotations

import argparse
from typing import Any

from date.cli.options import add_seed, add_tier, tier_name


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("config", help="print the resolved MMEngine config of a run")
    parser.add_argument("training")
    add_tier(parser)
    add_seed(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import data_root
    from date.identity.config import resolve

    config = resolve(load().training(args.training), load_tier(tier_name(args)), args.seed, data_root())
    from mmengine.config import Config

    print(Config(config).pretty_text)
