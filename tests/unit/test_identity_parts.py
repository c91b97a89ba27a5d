"""A run's identity in parts: each names what it is, and they change where, and only where, the identity does."""

from __future__ import annotations

import pytest

from date.catalogue import load, load_tier
from date.identity.code import TRAINING_CODE, equivalences
from date.identity.config import resolve
from date.identity.digests import run_digest
from date.identity.parts import code_parts, config_parts, initial_part, section_names

SMOKE = load_tier("smoke")
DATE_F = load().training("date_f-r50-coco-12e")


def test_every_part_of_the_training_code_is_named() -> None:
    parts = code_parts()
    new = {change.part for change in equivalences() if change.was is None}  # without effect on earlier runs
    named = [name for name in TRAINING_CODE if name not in new]
    assert len(named) < len(TRAINING_CODE) == len(named) + len(new)
    for name, part in zip(named, parts, strict=True):
        assert part.startswith(f"code of {name} ")


def test_every_section_of_every_config_is_a_part() -> None:
    names = set(section_names())
    for training in load().trainings.values():
        parts = config_parts(training, SMOKE, 0)
        assert set(parts) <= names
        config = resolve(training, SMOKE, 0, None)
        assert set(config) - {"model"} | {f"model.{key}" for key in config["model"]} == set(parts)


@pytest.mark.parametrize(
    ("change", "sections"),
    [
        ({"options": DATE_F.options.model_copy(update={"lambda_o2m": 2.0})}, {"model.bbox_head"}),
        ({"schedule": "36e"}, {"train_dataloader", "train_cfg", "param_scheduler"}),
        ({"backbone": "r101"}, {"model.backbone", "model.neck"}),  # the stand-ins' channels differ
    ],
)
def test_a_change_shows_in_its_sections_alone(change: dict[str, object], sections: set[str]) -> None:
    other = DATE_F.model_copy(update=change)
    before, now = config_parts(DATE_F, SMOKE, 0), config_parts(other, SMOKE, 0)
    assert {name for name in before | now if before.get(name) != now.get(name)} == sections
    assert run_digest(DATE_F, SMOKE, 0, "") != run_digest(other, SMOKE, 0, "")


def test_what_cannot_change_a_result_is_no_part() -> None:
    assert config_parts(DATE_F, SMOKE, 0) == config_parts(DATE_F, SMOKE.model_copy(update={"workers": 3}), 0)


def test_short_sections_are_shown_as_they_are() -> None:
    assert config_parts(DATE_F, SMOKE, 3)["randomness"] == 'randomness {"seed": 3}'


def test_what_a_training_starts_from() -> None:
    assert initial_part(DATE_F, SMOKE, 0) == "starts from the backbone alone"
    dagger = next(t for t in load().trainings.values() if t.init is not None and t.init_file is None)
    first = initial_part(dagger, SMOKE, 0)
    assert first.startswith(f"starts from {dagger.init} ")
    assert first != initial_part(dagger, SMOKE.model_copy(update={"lr": 1e-4}), 0)
