"""Which code decides what a training gives, and its fingerprint.

The fingerprint follows meaning: comments, docstrings, layout, type hints of functions, the names of the package's own
modules and the places of its files do not enter it. A module may thus be moved or renamed without making a run stale.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from date.catalogue.modules import module_files
from date.experiments.entries import Entry, parse, read_yaml, shown
from date.files import replace_text

PACKAGE = Path(__file__).resolve().parents[1]

TRAINING_CODE = {
    "mmdetection stack": "compat.py",
    "scenes: painting": "data/painting.py",
    "scenes: shapes": "data/shapes.py",
    "scenes: layout": "data/synthetic.py",
    "decoding of images": "datasets/decoding.py",
    "assigners": "models/assigners.py",
    "baseline heads": "models/baselines.py",
    "batch preprocessor": "models/preprocessor.py",
    "branches": "models/branches.py",
    "one-to-many branches": "models/one_to_many.py",
    "points and boxes": "models/geometry.py",
    "objects of a batch": "models/objects.py",
    "precision of predictions": "models/precision.py",
    "3D max filtering": "models/filtering.py",
    "dual-assignment head": "models/head.py",
    "efficientnet-lite": "models/efficientnet_lite.py",
    "levels": "models/levels.py",
    "losses": "models/losses.py",
    "matching": "models/matching.py",
    "normalisers": "models/normalisers.py",
    "training loop": "training/loop.py",
    "validation metric": "training/metric.py",
    "network and optimiser": "training/network.py",
    "processes": "training/processes.py",
    "recorder": "training/recorder.py",
    "sampling": "training/sampling.py",
    "initial weights": "training/weights.py",
}
"""What decides what an undisturbed run gives, by a name that stays when a file is moved; part of every run's identity.

What only shows in the resolved config or the data's manifest is left out: both are part of the identity themselves.
"""

EQUIVALENT = PACKAGE / "identity" / "equivalent.yaml"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Equivalence(Entry):
    """A change of training code that gives the same bytes: runs of the earlier code stay valid."""

    part: str
    """Key of `TRAINING_CODE`."""
    was: Digest | None
    """Digest of the part before the change; null where the part is new and no earlier run could use it."""
    now: Digest
    """Digest of the part after it."""
    why: str
    """What changed, and how it was shown that every result is the same."""


class Equivalences(Entry):
    """``date/identity/equivalent.yaml``; see there."""

    changes: list[Equivalence]


def equivalences(path: Path = EQUIVALENT) -> list[Equivalence]:
    """Return the declared changes of training code that change no result, the earliest first."""
    return parse(Equivalences, read_yaml(path), shown(path)).changes


def part_digests() -> dict[str, str]:
    """Return the digest of each part of the training code as it stands, by the part's name.

    Since that takes a fifth of a second, they are kept beside Python's compiled modules, by all that they depend on.
    """
    sources = {name: (PACKAGE / path).read_text(encoding="utf-8") for name, path in TRAINING_CODE.items()}
    content = json.dumps([sys.version, Path(__file__).read_text(encoding="utf-8"), sources])
    key = hashlib.sha256(content.encode()).hexdigest()
    kept = Path(importlib.util.cache_from_source(__file__)).with_suffix(".digests.json")
    with contextlib.suppress(OSError, ValueError):  # absent or damaged
        known = json.loads(kept.read_text(encoding="utf-8"))
        if isinstance(known, dict) and known.pop("key", None) == key and known.keys() == sources.keys():
            return known
    digests = {name: hashlib.sha256(normalised_code(text).encode()).hexdigest() for name, text in sources.items()}
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # it only costs time
            replace_text(kept, json.dumps({"key": key, **digests}), durable=False)
    return digests


def canonical(digests: Mapping[str, str], changes: list[Equivalence]) -> dict[str, str]:
    """Return the digests with every declared equivalence undone, the latest first.

    New parts without effect on earlier runs are left out.
    """
    found = dict(digests)
    for change in reversed(changes):
        if found.get(change.part) == change.now:
            if change.was is None:
                del found[change.part]
            else:
                found[change.part] = change.was
    return found


@functools.cache
def canonical_parts() -> dict[str, str]:
    """Return the digests of the parts that make up the identity of runs, see `canonical`."""
    return canonical(part_digests(), equivalences())


@functools.cache
def code_fingerprint() -> str:
    """Return the SHA-256 of the training code, as `canonical_parts` has it."""
    text = "".join(f"{name}\0{digest}\0" for name, digest in sorted(canonical_parts().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def module_digests(names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of what Python modules of the experiments mean, by name; see `date.catalogue.modules`."""
    known = module_files()
    texts = {name: normalised_code(known[name].read_text(encoding="utf-8")) for name in names}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def normalised_code(source: str) -> str:
    """Return a form of Python code that changes with its meaning alone.

    Left out are comments, docstrings, layout, line numbers, type hints of functions and their variables, imports for
    type checking, and the modules (not the names) of imports from this package.
    """
    return ast.dump(_Meaning().visit(ast.parse(source)))


class _Meaning(ast.NodeTransformer):
    def __init__(self) -> None:
        self.functions = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module is not None and node.module.split(".")[0] == "date":
            node.module = "date"
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            if alias.name.split(".")[0] == "date":
                alias.name = "date"
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if checking else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        self.functions += 1
        self.generic_visit(node)
        self.functions -= 1
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if self.functions and node.value is not None:  # elsewhere hints may mean something, as those of a dataclass do
            return self.visit(ast.Assign(targets=[node.target], value=node.value))
        return self.generic_visit(node)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
