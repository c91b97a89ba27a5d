"""What is generated from the catalogue is up to date, and the schemas describe the files that are there."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from date.catalogue import EXPERIMENTS, ROOT, load
from date.catalogue.listing import experiments_markdown
from date.catalogue.schema import schemas

FILES = [
    *(("table", path) for path in sorted((EXPERIMENTS / "paper").glob("table*.yaml"))),
    *(("figure", path) for path in sorted((EXPERIMENTS / "paper").glob("figure*.yaml"))),
    *(("tier", path) for path in sorted((EXPERIMENTS / "tiers").glob("*.yaml"))),
    *(("dataset", path) for path in sorted((EXPERIMENTS / "datasets").glob("*.yaml"))),
    ("text", EXPERIMENTS / "paper" / "text.yaml"),
    *((name, EXPERIMENTS / f"{name}.yaml") for name in ("config", "paper", "trainings", "evaluations", "claims")),
]


def test_the_schemas_are_generated_from_the_models() -> None:
    stored = {path.stem: json.loads(path.read_text()) for path in (EXPERIMENTS / "schema").glob("*.json")}
    assert stored == schemas(), "run: python -m date schema"


def test_the_table_of_experiments_is_generated_from_the_catalogue() -> None:
    stored = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert stored == experiments_markdown(load()), (
        "run: python -m date list experiments --markdown > docs/experiments.md"
    )


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_files_fit_their_schema(kind: str, path: Path) -> None:
    schema = schemas()[kind]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_a_schema_rejects_what_the_catalogue_rejects() -> None:
    data = yaml.safe_load((EXPERIMENTS / "paper" / "table01.yaml").read_text())
    data["groups"][0][0]["papr"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="'papr' was unexpected"):
        jsonschema.validate(data, schemas()["table"])


def test_editors_find_the_schema() -> None:
    for kind, path in FILES:
        first = path.read_text().splitlines()[0]
        if first.startswith("# yaml-language-server"):
            target = (path.parent / first.split("$schema=")[1]).resolve()
            assert target == EXPERIMENTS / "schema" / f"{kind}.json"
