"""JSON schemas of the YAML files below ``experiments/``, generated from the models that read them; for editors."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from date.catalogue.claims import Claim
from date.catalogue.loading import GIVEN
from date.catalogue.models import Dataset, Tier, Training, Variant
from date.catalogue.paper import AnnotationEvaluation, Figure, Statement, Table
from date.catalogue.pictures import Pictures, Sheet
from date.catalogue.publication import Paper, load_paper
from date.experiments.entries import Entry
from date.experiments.folders import folders
from date.experiments.fragments import fragment_names
from date.families import models
from date.files import replace_text

FOLDER = "schema"


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each kind of file, by the name that its file has without ``.json``.

    With own experiments beside the paper's they are those of own files, and offer the names of all folders.
    """
    from date.catalogue.settings import Settings

    own = len(folders()) > 1
    judged = {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    }
    first = "The variants that each training is judged by; the first is that of its convergence curve."
    evaluations = {
        "variants": _by_name(Variant),
        "evaluations": {"description": first, **judged},
        "extra": {"description": "Evaluations of ours beside the paper's.", **judged},
        "annotations": _by_name(AnnotationEvaluation),
    }
    found = {
        "config": _of(Settings),
        "paper": _of(Paper),
        "trainings": _trainings(own),
        "evaluations": {"type": "object", "properties": evaluations, "required": [] if own else list(evaluations)},
        "claims": _by_name(Claim),
        "text": _by_name(Statement),
        "table": _table(own),
        "figure": _of(Figure),
        "pictures": _pictures(),
        "dataset": _of(Dataset),
        "tier": _extending(_of(Tier)),
    }
    if own:
        found = {kind: schema for kind, schema in found.items() if kind not in ("config", "paper", "text")}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: head | _hoisted(schema) for name, schema in found.items()}


def write_schemas(folder: Path) -> list[Path]:
    """Write the schemas into a folder and return the files."""
    paths = []
    for name, schema in schemas().items():
        paths.append(folder / f"{name}.json")
        replace_text(paths[-1], json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
    return paths


class _Described(GenerateJsonSchema):
    """Describes fields by their docstrings, which pydantic would read from the sources whenever it makes a model."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        properties = found.get("properties", {})
        for name, text in _descriptions(schema["cls"]).items():
            if name in properties:
                described = properties[name] | {"description": text}
                properties[name] = described | {"title": described.pop("title")} if "title" in described else described
        return found


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below a model's fields, inherited ones included, by the field's name."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, Entry):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, after in itertools.pairwise([*definition.body, ast.Pass()]):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(field)), ast.Expr(ast.Constant(str(text))):
                    found[field] = inspect.cleandoc(text)
                case ast.AnnAssign(target=ast.Name(field)), _:
                    found.pop(field, None)
    return found


def _of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema without name and folder, which follow from where an entry stands."""
    schema = model.model_json_schema(schema_generator=_Described)
    for part in [schema, *schema.get("$defs", {}).values()]:
        for key in GIVEN:
            if part.get("properties", {}).pop(key, None) is not None and key in part.get("required", ()):
                part["required"].remove(key)
    return schema


def _by_name(model: type[Entry]) -> dict[str, Any]:
    """Return the schema of a mapping from names to entries."""
    return {"type": "object", "additionalProperties": _of(model)}


def _trainings(own: bool) -> dict[str, Any]:
    """Return the schema of ``trainings.yaml``: what the experiments have is offered, and each model's own options."""
    schema, paper, families = _of(Training), load_paper(), models()
    keys = schema["properties"]
    for key, valid in (("model", families), ("data", paper.parts), ("schedule", fragment_names("schedules"))):
        keys[key]["enum"] = sorted(valid)
    keys["options"] = {"type": "object", "description": "What the model leaves to its trainings."}
    optional = ("options", *type(paper.defaults).model_fields, *(("source", "gpu_hours") if own else ()))
    schema["required"] = [key for key in schema["required"] if key not in optional]
    for key in ("id", "source") if own else ():
        del keys[key]
    schema["allOf"] = []
    for family in dict.fromkeys(families.values()):
        named = {"properties": {"model": {"enum": [name for name, kind in families.items() if kind is family]}}}
        options = {"properties": {"options": family.Options.model_json_schema(schema_generator=_Described)}}
        needed = {"required": ["options"]} if options["properties"]["options"].get("required") else {}
        schema["allOf"].append({"if": named | {"required": ["model"]}, "then": options | needed})
    return {"type": "object", "additionalProperties": schema}


def _table(own: bool) -> dict[str, Any]:
    """Return the schema of a table; the rows of own tables get their ids."""
    schema = _of(Table)
    if own:
        schema["$defs"]["Row"]["required"].remove("id")
    return schema


def _pictures() -> dict[str, Any]:
    """Return the schema of ``pictures.yaml``, whose keys name the sheets."""
    schema = _of(Pictures)
    schema["properties"]["sheets"] = _by_name(Sheet)
    schema["$defs"].pop("Sheet")
    return schema


def _extending(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tier: all keys, or ``extends`` and those that change."""
    required = schema.pop("required")
    schema["properties"]["extends"] = {"type": "string", "description": "The tier whose other keys this one takes."}
    schema["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    return schema


def _hoisted(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with all definitions at its top, where references look for them."""
    definitions: dict[str, Any] = {}

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            definitions.update(node.pop("$defs", {}))
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(schema)
    visit(definitions)
    return schema | ({"$defs": definitions} if definitions else {})
