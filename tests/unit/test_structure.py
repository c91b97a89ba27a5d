"""The package's rooms stand on floors: imports run down or stay."""

from __future__ import annotations

import re

from benchmarks.structure import FLOORS, arrows_up, modules
from date.catalogue import ROOT


def test_every_room_stands_on_one_floor() -> None:
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == set(modules().values()) - {"__init__"}


def test_no_import_runs_up() -> None:
    assert arrows_up() == {}


def test_the_page_on_the_architecture_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)/?(?:\.py)?`", page, re.MULTILINE))
    assert rows == {room for floor in FLOORS for room in floor} - {"__main__"}
