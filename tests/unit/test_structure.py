"""The package's rooms stand on floors: imports run down or stay."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.structure import FLOORS, LONG, arrows, arrows_up, long_functions, modules
from date.catalogue import ROOT


def test_every_room_stands_on_one_floor() -> None:
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == set(modules().values()) - {"__init__"}


def test_no_import_runs_up() -> None:
    assert arrows_up() == {}


def test_every_function_fits_a_screen() -> None:
    assert long_functions() == []


def test_a_longer_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    fits = "def fits():\n" + "    pass\n" * (LONG - 1)
    (tmp_path / "room" / "module.py").write_text(fits + "async def longer():\n" + "    pass\n" * LONG)
    assert long_functions(tmp_path) == [f"room/module.py longer {LONG + 1}"]


def test_no_two_rooms_import_each_other() -> None:
    found = arrows()
    assert [(a, b) for a, b in found if (b, a) in found] == []


def test_the_page_on_the_architecture_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)/?(?:\.py)?`", page, re.MULTILINE))
    assert rows == {room for floor in FLOORS for room in floor} - {"__main__"}
