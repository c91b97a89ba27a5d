"""The engine contains no name of the paper that it reproduces; those stand in the folder of experiments."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from date.catalogue import ROOT, load, load_tier
from date.catalogue.publication import load_paper
from date.experiments.folders import folders

ENGINE = [
    *sorted((ROOT / "date").rglob("*.py")),
    *sorted((ROOT / "workflow" / "rules").glob("*.smk")),
    ROOT / "Snakefile",
]

ALLOWED = {
    ("coco", "date/catalogue/models.py"): "protocol and format of annotations, the engine's own words",
    ("crowdhuman", "date/catalogue/models.py"): "protocol and format of annotations, the engine's own words",
    ("coco", "date/cli/score.py"): "protocol",
    ("crowdhuman", "date/cli/score.py"): "protocol",
    ("coco", "date/evaluation/"): "protocol",
    ("crowdhuman", "date/evaluation/"): "protocol",
    ("coco", "date/identity/config.py"): "protocol",
    ("coco", "date/inference/evaluate.py"): "protocol",
    ("coco", "date/imports/"): "protocol",
    ("crowdhuman", "date/imports/"): "protocol",
    ("crowdhuman", "date/datasets/files.py"): "format",
    ("crowdhuman", "date/datasets/prepare.py"): "format",
    ("paper", "date/catalogue/loading.py"): "the folder of the paper's tables, beside paper.yaml",
    ("paper", "date/catalogue/listing.py"): "the word for what is the paper's",
    ("paper", "date/reporting/formats.py"): "the paper's part of a cell",
    ("paper", "date/reporting/tables.py"): "the paper's part of a cell",
    ("paper", "date/reporting/tradeoff.py"): "the paper's part of a cell",
    ("paper", "date/reporting/matrix.py"): "a field of claims",
    ("paper", "date/reporting/claim_formats.py"): "a column",
    ("paper", "date/catalogue/schema.py"): "the schema of paper.yaml",
    ("dual", "date/families/dual.py"): "name of the family",
}
"""Names that mean something else to the engine, by file or folder, and what."""


def names() -> dict[str, set[str]]:
    """Every name that the paper's folder gives to something, by kind."""
    catalogue, folder = load(), folders()[0]
    return {
        "table": set(catalogue.tables),
        "figure": set(catalogue.figures) | set(catalogue.pictures.sheets),
        "training": set(catalogue.trainings),
        "claim": set(catalogue.claims),
        "label": {row.label for table in catalogue.tables.values() for row in table.rows} | set(load_paper().tuned_on),
        "tier": {path.stem for path in (folder / "tiers").glob("*.yaml")},
        "dataset": {path.stem for path in (folder / "datasets").glob("*.yaml")},
        "schedule": {path.stem for path in (folder / "schedules").glob("*.py")} - {"base"},
        "part": set(load_paper().parts),
        "model": {path.stem for path in (folder / "models").glob("*.py")} - {"detector"},
        "backbone": {name for path in (folder / "tiers").glob("*.yaml") for name in load_tier(path.stem).backbones},
    }


def strings(path: Path) -> list[tuple[int, str]]:
    """Every string of a file that is code and no documentation, with its line."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [(n, s) for n, line in enumerate(source.splitlines(), 1) for s in re.findall(r'"([^"]*)"', line)]
    tree = ast.parse(source)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in texts)
    return [(node.lineno, node.value) for node in constants if isinstance(node.value, str)]


def allowed(text: str, file: str) -> bool:
    return any(text == name and file.startswith(place) for name, place in ALLOWED)


def relapses(paths: list[Path]) -> list[str]:
    found = []
    known = {name: kind for kind, named in names().items() for name in named}
    for path in paths:
        file = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        for line, text in strings(path):
            if text in known and not allowed(text, file):
                found.append(f"{file}:{line}: {known[text]} {text!r}")
    return found


def test_the_engine_names_nothing_of_the_paper() -> None:
    assert relapses(ENGINE) == [], "move it to experiments/, e.g. to paper.yaml"


def test_every_exception_is_needed() -> None:
    used = {(text, str(path.relative_to(ROOT))) for path in ENGINE for _, text in strings(path)}
    assert [
        (name, place) for name, place in ALLOWED if not any(name == t and f.startswith(place) for t, f in used)
    ] == []


@pytest.mark.parametrize(
    "name",
    ["table01", "12e", "mini", "crowdhuman", "date_f-r50-coco-12e", "figure3", "bccd", "retinanet", "r50", "OneNet"],
)
def test_a_relapse_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / "relapse.py"
    path.write_text(f'"""{name} in a docstring is none."""\n\nX = {{"key": "{name}"}}\n')
    assert len(relapses([path])) == 1


def test_no_constant_of_the_recipe_is_in_the_config() -> None:
    """The numbers of paper.yaml that would be suspicious anywhere in the engine."""
    paper = load_paper()
    numbers = {paper.recipe.lr, *(part.steps_per_epoch for part in paper.parts.values()), *paper.parameters.values()}
    found = []
    for path in (path for path in ENGINE if path.suffix == ".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in numbers:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}")
    assert found == []
