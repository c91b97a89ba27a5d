"""Where a run's training and tier are written, so that a command that is given the run's folder finds them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from date.catalogue.loading import load, load_tier
from date.catalogue.models import Tier, Training
from date.errors import UserError
from date.experiments.entries import EXPERIMENTS, ROOT, shown
from date.experiments.folders import choose_folders, files, folders

REMEDY = "name the folder of its experiments: python -m date --experiments DIR ..."


def origin(training: Training, tier: Tier) -> dict[str, Any]:
    """Return what a run's provenance says of names that the project's own experiments do not have.

    Returns:
        ``experiments``, the folders in use, where training, tier or dataset are of own experiments or of another paper;
        ``tier_file`` where the tier was given by its path. Paths are relative to the project where they lie in it.
    """
    found: dict[str, Any] = {}
    if tier.file is not None and tier.file != files("tiers", ".yaml").get(tier.name):
        found["tier_file"] = shown(tier.file)
    paper, *_ = folders()
    named = [("tiers", tier.name), ("datasets", tier.datasets.get(training.data, ""))]
    own = any(not files(kind, ".yaml").get(name, paper).is_relative_to(paper) for kind, name in named)
    if own or training.folder is not None or paper != EXPERIMENTS.resolve():
        found["experiments"] = [shown(place) for place in folders()]
    return found


def read_experiments_of(provenance: Mapping[str, Any]) -> None:
    """Read experiments from the folders that a run names, from now on, unless all of them are read already.

    Names alone would not do: two folders may give different trainings the same one. Folders that are gone are left out.
    """
    named = [(ROOT / name).resolve() for name in provenance.get("experiments", ())]
    there = [place for place in named if place.is_dir()]
    if there and not set(there) <= set(folders()):
        choose_folders(there)


def training_of(run: Path, provenance: Mapping[str, Any]) -> Training:
    """Return the training of a run, whose folders of experiments are read.

    Raises:
        UserError: no folder has it.
    """
    read_experiments_of(provenance)
    name, known = provenance["training"], load().trainings
    if name not in known:
        absent = [place for place in provenance.get("experiments", ()) if not (ROOT / place).is_dir()]
        why = f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} gone" if absent else "it is of others"
        read = ", ".join(map(shown, folders()))
        raise UserError(f"{run} is of the training {name!r}, which {read} does not have ({why}); {REMEDY}")
    return known[name]


def tier_of(run: Path, provenance: Mapping[str, Any]) -> Tier:
    """Return the tier of a run, from its file where it was given by one; call `training_of` first.

    Raises:
        UserError: there is no such tier any more.
    """
    name, file = provenance["tier"], provenance.get("tier_file")
    if file is not None and (ROOT / file).is_file():
        return load_tier(str(ROOT / file))
    if name not in files("tiers", ".yaml"):
        lost = f", read from {file}, which is gone" if file else ", which is none of experiments/tiers"
        raise UserError(f"{run} is of the tier {name!r}{lost}; name its file by --tier, or {REMEDY}")
    return load_tier(name)
