"""The package's rooms stand on floors: imports run down or stay."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from benchmarks.structure import FLOORS, LONG, arrows, arrows_up, long_functions, modules, twins
from date import results
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


TWINS = [["models/branches.py bboxes", "models/one_to_many.py bboxes"]]
"""Code of trainings: to merge them makes every run stale."""


def test_no_function_is_written_twice() -> None:
    assert twins() == TWINS


def test_a_twin_is_found_whatever_its_name_and_docstring(tmp_path: Path) -> None:
    body = "    total = first * second\n    for item in items:\n        total += item.value\n    return total / len(items)\n"
    (tmp_path / "one.py").write_text("def one(first, second, items):\n" + body)
    (tmp_path / "two.py").write_text('def two(first, second, items):\n    """Return it."""\n' + body)
    (tmp_path / "three.py").write_text("def three(first, second, items):\n" + body.replace("+=", "-="))
    assert twins(tmp_path) == [["one.py one", "two.py two"]]


PRIVATE = {"told", "survey", "presented", "health", "lack"}
"""Words that stood for things that have names: reported, state, drawn, dead side, missing seed."""


def test_names_are_the_fields_words() -> None:
    found = set()
    for path in (ROOT / "date").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            stored = isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
            named = stored or isinstance(node, ast.FunctionDef | ast.ClassDef | ast.arg)
            name = next((getattr(node, key) for key in ("name", "id", "attr", "arg") if hasattr(node, key)), path.stem)
            if PRIVATE & set(re.findall(r"[a-z]+", (name if named else path.stem).lower())):
                found.add(f"{path.name} {name}")
    assert found == set()


RUN_FILES = (
    results.PROVENANCE, results.METRICS, results.EVALUATION, results.DETECTIONS, results.PICTURES, results.WEIGHTS,
    results.COMPLEXITY, results.LATENCY,
)  # fmt: skip


def test_only_one_module_states_the_names_of_a_runs_files() -> None:
    name = re.compile(rf"""["'/]({"|".join(map(re.escape, RUN_FILES))})["']""")
    paths = [*(ROOT / "date").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk"), ROOT / "Snakefile"]
    assert {path.name for path in paths if name.search(path.read_text())} == {"results.py"}


def test_no_two_rooms_import_each_other() -> None:
    found = arrows()
    assert [(a, b) for a, b in found if (b, a) in found] == []


def test_the_page_on_the_architecture_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)/?(?:\.py)?`", page, re.MULTILINE))
    assert rows == {room for floor in FLOORS for room in floor} - {"__main__"}


def test_the_readme_can_be_read_in_a_minute() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    order = ["make demo", "## The words", "A **training**", "## On a cluster", "## Results", "## What was run"]
    places = [text.index(part) for part in order]
    assert places == sorted(places), "what it is and the two commands, then the words, then use, then results"
    assert "**tier**" in text and text.index("--tier") > text.index("**tier**")
    assert not {"sealed", "tier"} & set(re.findall(r"\w+", text[: text.index("## The words")])), (
        "words before their use"
    )


DIFFERENT = {
    "--images": "folders of images, for different ends",
    "--job": "with a time limit for trainings, without one for evaluations",
    "--json": "a file where text is printed as well, else JSON in place of text",
    "--only": "trainings, or tables and figures",
    "--out": "pictures, or a network",
    "--output": "a picture, a manifest, a configfile, schemas",
    "--results": "where one run's go; the folder of all is `add_kept`'s",
    "--threads": "one number, or several to compare",
    "--tier": "of a run, or of a file of weights",
    "--training": "of a file of weights, or of what is imported",
    "--variant": "to evaluate, to score, to import",
}
"""Options that mean different things in different commands, and are defined several times for that."""


def test_an_option_of_several_commands_is_defined_once() -> None:
    places = Counter[str]()
    for path in sorted((ROOT / "date" / "cli").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
                name = call.args[0]
                if isinstance(name, ast.Constant) and str(name.value).startswith("--"):
                    places[str(name.value)] += 1
    assert {name for name, times in places.items() if times > 1} == set(DIFFERENT)
