"""``experiments/config.yaml``: tier, seeds, the place of the data, and which dataset plays which part at a tier."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from date.catalogue.loading import load
from date.catalogue.models import Tier, Training
from date.errors import UserError
from date.experiments.entries import ROOT, Entry, parse, read_yaml, shown
from date.experiments.folders import SETTINGS, choose_folders, folders

NOTHING = ("null", "Null", "NULL", "~", "None")
"""What ``--config key=null`` arrives as: Snakemake reads values on the command line as text."""
Seeds = Annotated[list[Annotated[int, Field(ge=0, le=2**32 - 1)]], Field(min_length=1)]


class Settings(Entry):
    """``experiments/config.yaml``; see there."""

    tier: str
    """How large the work is: a file of ``experiments/tiers/``."""
    seeds: Seeds
    """Of every training."""
    seeds_of: dict[str, Seeds]
    """Of some trainings in place of those, by name or pattern; where several match, the last counts."""
    trainings: list[str] | None
    """What ``all`` trains: names or patterns; null for the tier's own choice."""
    data_root: str
    """Where datasets and pretrained weights lie."""
    experiments: list[str] | None = None
    """The folders of experiments: a paper's, and own ones beside it; null for this one alone."""

    def seeds_for(self, training: str) -> list[int]:
        """Return the seeds of a training: those of the last pattern of ``seeds_of`` that matches it, or ``seeds``."""
        chosen = self.seeds
        for pattern, seeds in self.seeds_of.items():
            if fnmatch.fnmatchcase(training, pattern):
                chosen = seeds
        return chosen


_given: dict[str, Any] = {}
"""Those that the command line gives in place of the file's."""


@contextlib.contextmanager
def given(settings: dict[str, Any]) -> Iterator[None]:
    """Let settings replace those of ``config.yaml`` while the block runs.

    Raises:
        UserError: see `load_settings`.
    """
    _given.update(settings)
    try:
        load_settings()
        yield
    finally:
        _given.clear()


def load_settings(overrides: dict[str, Any] | None = None) -> Settings:
    """Read ``config.yaml`` of the paper's folder, with overrides such as Snakemake's ``--config``, and those given.

    Those of ``experiments`` hold from then on for the whole process.

    Raises:
        UserError: an unknown key or a value that does not fit.
    """
    overrides = {key: None if value in NOTHING else value for key, value in (_given | (overrides or {})).items()}
    if (chosen := overrides.get("experiments")) is not None:
        if not (isinstance(chosen, list) and chosen and all(isinstance(name, str) for name in chosen)):
            raise UserError(f"experiments: give a list of folders, e.g. [experiments, my/ideas], not {chosen!r}.")
        choose_folders(chosen)
    path = folders()[0] / SETTINGS
    data = read_yaml(path) | overrides | {"experiments": list(map(shown, folders()))}
    where = shown(path) + (f" or what was given in its place ({', '.join(overrides)})" if overrides else "")
    settings = parse(Settings, data, where)
    for key, seeds in {"seeds": settings.seeds, **{f"seeds_of, {k}": v for k, v in settings.seeds_of.items()}}.items():
        if len(set(seeds)) != len(seeds):
            raise UserError(f"{key}: {seeds} names a seed twice; name each once, since equal seeds are one run.")
    load().select(list(settings.seeds_of))  # a pattern that matches nothing is a mistake
    return settings


def data_root(settings: Settings | None = None) -> Path:
    """Return the folder of datasets and weights: ``DATE_DATA_ROOT`` or the setting, relative to the project."""
    chosen = os.environ.get("DATE_DATA_ROOT") or (settings or load_settings()).data_root
    return ROOT / Path(chosen).expanduser()


def dataset_name(training: Training, tier: Tier) -> str:
    """Return the dataset that plays the part of the training's at a tier, or raise a `UserError`."""
    return dataset_for(training.data, tier, training.name)


def dataset_for(part: str, tier: Tier, user: str) -> str:
    """Return the dataset that plays a part at a tier, or raise a `UserError` that says who needs it."""
    if part not in tier.datasets:
        raise UserError(
            f"tier {tier.name!r} has no dataset in the part of {part!r}, which {user} needs; "
            f"add it to 'datasets' of the tier."
        )
    return tier.datasets[part]
