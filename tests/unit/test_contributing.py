"""What CONTRIBUTING.md tells a reader to write works as it stands there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from date.catalogue import ROOT, load, load_dataset, load_tier
from date.experiments.folders import VARIABLE
from date.identity.config import resolve

BLOCK = re.compile(r"^```(?:yaml|python)\n# my/ideas/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN = ("date_f_o2m8-r50-coco-12e", "date_centres-r50-coco-12e")


@pytest.fixture
def ideas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a reader has who copies every block of the page into the file that it names."""
    for name, text in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with (tmp_path / name).open("a") as file:
            file.write(text)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(ROOT / "experiments"), str(tmp_path)]))
    return tmp_path


def test_every_block_of_the_page_adds_what_it_says(ideas: Path) -> None:
    catalogue = load()
    assert {name for name, t in catalogue.trainings.items() if t.folder is not None} == set(OWN)
    assert catalogue.tables["weights"].evaluations == ["date_f-r50-coco-12e/o2o", f"{OWN[0]}/o2o"]
    assert [curve.training for curve in catalogue.figures["curves"].curves] == ["date_f-r50-coco-12e", OWN[0]]
    assert catalogue.claims["o2m8_helps"].folder is not None
    assert load_dataset("pets").classes == ["cat", "dog"] and load_tier("pets").datasets == {"coco": "pets"}


def test_the_trainings_of_the_page_have_the_networks_that_it_promises(ideas: Path) -> None:
    tier = load_tier("mini")
    heavier, branch = (resolve(load().training(name), tier, 0, None)["model"]["bbox_head"] for name in OWN)
    assert [b.get("loss_weight") for b in heavier["branches"]] == [1.0, 8.0]
    assert [b["type"] for b in branch["branches"]] == ["OneToOneBranch", "CentresAlone"]


def test_the_map_of_tests_has_every_room_and_names_tests_that_exist() -> None:
    table = (ROOT / "tests" / "README.md").read_text().split("| you change |")[1].split("\n\n")[0]
    rooms = {path.parent.name for path in (ROOT / "date").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"`date/(\w+)/`", table))
    for folder, names in re.findall(r"`tests/(unit|integration)/([\w. ]+)`", table):
        missing = [name for name in names.split() if not (ROOT / "tests" / folder / name).is_file()]
        assert not missing, f"tests/{folder} has no {', '.join(missing)}"
