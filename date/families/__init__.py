"""Families of networks: one class for each kind of detector, with what the rest of the engine has to know about it.

A model of the experiments (``models/NAME.py``) says by its variable ``family`` which one it belongs to; without, it is
a single-stage detector of MMDetection with one dense head.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from date.errors import UserError, unknown_name
from date.experiments.entries import Entry
from date.experiments.folders import folders
from date.experiments.fragments import fragment, fragment_names, model_fragment
from date.experiments.variables import check_complete, check_names, check_types
from date.families.base import Branch, Facts, Family
from date.families.dense import DenseHead
from date.families.dual import DualAssignment, OneBranch
from date.families.queries import Queries

__all__ = ["FAMILIES", "Branch", "Facts", "Family", "family_named", "family_of", "models", "network"]

FAMILIES: dict[str, type[Family]] = {kind.name: kind for kind in (DenseHead, DualAssignment, OneBranch, Queries)}
"""All families by name; the first serves models that name none."""


def models() -> dict[str, type[Family]]:
    """Return the family of each model of the experiments, by the model's name."""
    return dict(_models(folders()))


@functools.cache
def _models(places: tuple[Path, ...]) -> dict[str, type[Family]]:
    found, kinds = {}, [family.Variables for family in FAMILIES.values()]
    for name, path in fragment_names("models").items():
        content = model_fragment(name)
        kind = None
        if "bbox_head" in content.get("model", {}):  # else what others build upon
            kind = found[name] = family_named(content.get("family", DenseHead.name), name)
            check_types(kind.Variables, content, path)
            check_complete(kind.Variables, content, path)
        check_names(kinds if kind is None else [kind.Variables], fragment(f"models/{name}.py"), path)
    return found


def family_named(name: str, model: str) -> type[Family]:
    """Return a family by name.

    Args:
        name: of the family.
        model: that names it, for the message.

    Raises:
        UserError: there is no such family.
    """
    if name not in FAMILIES:
        raise unknown_name("family", name, FAMILIES, f"model {model}")
    return FAMILIES[name]


def network(model: str, options: Entry) -> Family:
    """Return a model of the experiments with its options as one of its family."""
    return _network(model, options, folders())


@functools.cache
def _network(model: str, options: Entry, places: tuple[Path, ...]) -> Family:
    return models()[model](model_fragment(model), options)


def family_of(head: Any) -> type[Family]:
    """Return the family that a built head belongs to.

    Raises:
        UserError: none can judge such a head.
    """
    for family in FAMILIES.values():
        if family.serves(head):
            return family
    raise UserError(
        f"no family of networks can judge a {type(head).__name__}; it needs MMDetection's dense heads' "
        "'predict_by_feat', or a family of its own in date/families."
    )
