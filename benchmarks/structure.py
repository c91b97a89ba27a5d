"""Count what makes the package easy or hard to find one's way in: ``python -m benchmarks.structure``.

Rooms are the folders of ``date/`` and the modules that lie beside them. A room stands on a floor; imports run from a
higher floor to a lower one or stay on theirs, which `tests/unit/test_structure.py` holds.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "date"

FLOORS = (
    ("errors", "formatting", "progress"),
    ("files", "memory", "compat", "stack", "data"),
    ("results", "models"),
    ("experiments",),
    ("families",),
    ("catalogue",),
    ("datasets", "evaluation", "paperlint"),
    ("identity",),
    ("training",),
    ("runs", "inference"),
    ("planning", "imports", "reporting", "cluster"),
    ("doctor", "resolving", "rehearsal"),
    ("cli",),
    ("__main__",),
)
"""Rooms from the ground floor up; docs/architecture.md says what is in each."""
LONG = 60
"""Lines of a function that fits a screen."""
TELLING = 200
"""Length of a syntax tree from which on two functions with the same one are no coincidence."""


def room_of(path: Path) -> str:
    """Return the room of a module: its folder below the package, or the module itself."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def modules() -> dict[str, str]:
    """Return the room of every module by its dotted name."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): room_of(path) for path in paths}


def arrows() -> dict[tuple[str, str], list[str]]:
    """Return the imports between rooms, inside functions and for type checking, too: (from, to) and the modules."""
    rooms, found = modules(), defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in _targets(node, rooms):
                if target != room_of(path):
                    found[room_of(path), target].append(path.relative_to(PACKAGE).as_posix())
    return dict(found)


def _targets(node: ast.AST, rooms: dict[str, str]) -> list[str]:
    """Return the rooms that an import statement reaches."""
    names: list[str] = []
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "date":
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in rooms else node.module for name in names]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names if alias.name.split(".")[0] == "date"]
    return [rooms.get(name) or name.split(".")[1] for name in names if name != "date"]


def floor_of(room: str) -> int:
    """Return the number of a room's floor, 0 being the ground floor."""
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def arrows_up() -> dict[tuple[str, str], list[str]]:
    """Return the imports that run from a lower floor to a higher one."""
    return {arrow: users for arrow, users in arrows().items() if floor_of(arrow[0]) < floor_of(arrow[1])}


def functions(package: Path = PACKAGE) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function and method of a package with the module that it is in."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def long_functions(package: Path = PACKAGE) -> list[str]:
    """Return every function of more than `LONG` lines, with its place and length."""
    lengths = [(path, node, (node.end_lineno or node.lineno) - node.lineno + 1) for path, node in functions(package)]
    return [f"{path.relative_to(package).as_posix()} {node.name} {n}" for path, node, n in lengths if n > LONG]


def twins(package: Path = PACKAGE) -> list[list[str]]:
    """Return the functions whose statements are the same as another one's, with their places; docstrings aside."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, node in functions(package):
        statements = node.body[ast.get_docstring(node) is not None :]
        content = ast.dump(ast.Module(statements, []))
        if len(content) >= TELLING:
            found[content].append(f"{path.relative_to(package).as_posix()} {node.name}")
    return [names for names in found.values() if len(names) > 1]


def main() -> None:
    """Print the counts."""
    rooms = set(modules().values()) - {"__init__", "__main__"}
    loose = [path.name for path in sorted(PACKAGE.glob("*.py")) if not path.name.startswith("__")]
    print(f"rooms {len(rooms)}, floors {len(FLOORS)}, arrows between rooms {len(arrows())}")
    print(f"arrows back up {len(arrows_up())}{''.join(f'; {a} -> {b}' for a, b in arrows_up())}")
    print(f"loose modules {len(loose)}: {', '.join(loose)}")
    long = long_functions()
    print(f"functions with the statements of another {len(twins())}{''.join(f'; {a}' for a in twins())}")
    print(f"functions {len(list(functions()))}, over {LONG} lines {len(long)}{''.join(f'; {name}' for name in long)}")


if __name__ == "__main__":
    main()
