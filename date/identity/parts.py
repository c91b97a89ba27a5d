"""A run's identity in parts that a reader knows, so that a dry run can say which of them changed.

Snakemake keeps the parameters of every job and, where they differ, prints those that are gone and those that are new.
Each part here is one parameter: a file of the training code, a section of the config, the run that a training starts
from. Together they are what `date.identity.digests.run_digest` hashes, data apart, which are the job's input.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from date.catalogue import Tier, Training, load
from date.files import file_digest
from date.identity.code import canonical_parts, module_digests
from date.identity.config import resolve
from date.identity.digests import config_digest, run_digest

DIGITS = 8
SHORT = 60
"""Characters up to which a section of the config stands for itself; of a longer one the digest is shown."""
DIVIDED = ("model",)
"""Sections whose own sections are named."""


def code_parts() -> list[str]:
    """Return every part of the training code with its digest; see `date.identity.code`."""
    return [f"code of {name} {digest[:DIGITS]}" for name, digest in canonical_parts().items()]


def module_parts(training: Training) -> list[str]:
    """Return the Python modules of the experiments that a training uses, each with its digest."""
    digests = module_digests(training.modules)
    return [f"module {name} {digest[:DIGITS]}" for name, digest in digests.items()]


def config_parts(training: Training, tier: Tier, seed: int) -> dict[str, str]:
    """Return the sections of a run's config by name, each with its content if that is short, else with its digest."""
    parts: dict[str, str] = {}
    for key, value in resolve(training, tier, seed, None).items():
        for name, section in [(f"{key}.{k}", v) for k, v in value.items()] if key in DIVIDED else [(key, value)]:
            parts[name] = f"{name} {_shown(section)}"
    return parts


def _shown(section: Any) -> str:
    text = json.dumps(section, sort_keys=True)
    return text if len(text) <= SHORT else config_digest({"": section})[:DIGITS]


@functools.cache
def section_names() -> list[str]:
    """Return the names of all sections that the config of any kind of network has."""
    from date.catalogue import load_tier
    from date.catalogue.publication import load_paper

    tier = load_tier(load_paper().reference_tier)
    kinds = {training.model: training for training in load().trainings.values()}
    return list(dict.fromkeys(name for training in kinds.values() for name in config_parts(training, tier, 0)))


def initial_part(training: Training, tier: Tier, seed: int) -> str:
    """Return what a training starts from, with its digest; without, that it starts from the tier's backbone."""
    if training.init is None:
        return "starts from the backbone alone"
    if training.init_file is not None:
        digest = file_digest(training.init_file) if training.init_file.is_file() else "a missing file"
    else:
        digest = run_digest(load().training(training.init), tier, seed, "")
    return f"starts from {training.init} {digest[:DIGITS]}"
