"""``python -m date config``."""

from __future__ import annotations

import argparse
import traceback
from typing import Any

from date.cli.options import add_seed, add_tier, tier_name
from date.errors import UserError, one_line
from date.memory import ran_out


def add(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("config", help="build every component of runs, then print their MMEngine configs")
    parser.add_argument("trainings", nargs="+", metavar="TRAINING")
    add_tier(parser)
    add_seed(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from date.catalogue import load, load_tier
    from date.catalogue.settings import data_root
    from date.identity.config import resolve
    from date.progress import step
    from date.training.trial import build_components

    tier, configs, problems = load_tier(tier_name(args)), [], []
    for training in map(load().training, args.trainings):
        try:
            with step(f"building the components of {training.name}"):
                config = resolve(training, tier, args.seed, data_root())
                build_components(training, config)
        except UserError as error:
            problems.append(str(error))
        except Exception as error:  # whatever own code raises must not hide what is wrong with the others
            if ran_out(error):
                raise
            traceback.print_exc()
            problems.append(f"{training.name} can't be built ({one_line(error)}); the traceback names the line.")
        else:
            configs.append(config)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    from mmengine.config import Config

    for config in configs:
        print(Config(config).pretty_text)
