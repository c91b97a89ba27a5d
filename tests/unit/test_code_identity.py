"""The fingerprint of the training code follows meaning, not the names and places of modules."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from date.errors import UserError
from date.identity import code
from date.identity.code import PACKAGE, TRAINING_CODE, Equivalence, canonical, equivalences, normalised_code


def test_every_module_of_the_method_is_a_part() -> None:
    modules = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "models").glob("*.py")}
    assert modules - {"models/__init__.py"} <= set(TRAINING_CODE.values())
    assert all((PACKAGE / path).is_file() for path in TRAINING_CODE.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from date.results import utc\nutc()\n", "from date.runs.results import utc\nutc()\n"),
        ("import date.models\n", "import date.networks\n"),
        ("def f(a: int, *b: str) -> None:\n    x: int = a\n", "def f(a, *b):\n    x = a\n"),
        ("if TYPE_CHECKING:\n    from date.x import Y\nf()\n", "f()\n"),
        ('"""Text."""\nclass A:\n    """Text."""\n    x = 1  # why\n', "class A:\n\n    x = (1)\n"),
    ],
)
def test_what_means_the_same_has_the_same_form(before: str, after: str) -> None:
    assert normalised_code(before) == normalised_code(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from date.results import utc\n", "from date.results import now as utc\n"),
        ("from torch import nn\n", "from torch.ao import nn\n"),
        ("def f(a=1):\n    return a\n", "def f(a=2):\n    return a\n"),
        ("@dataclass\nclass A:\n    x: int = 1\n", "@dataclass\nclass A:\n    x: ClassVar[int] = 1\n"),
        ("if checking:\n    f()\n", "if not checking:\n    f()\n"),
    ],
)
def test_what_means_something_else_has_another_form(before: str, after: str) -> None:
    assert normalised_code(before) != normalised_code(after)


def test_a_moved_and_renamed_module_leaves_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = code.code_fingerprint()
    shutil.copytree(PACKAGE, tmp_path / "date")
    matching = tmp_path / "date" / "models" / "matching.py"
    (tmp_path / "date" / "assignment").mkdir()
    matching.rename(tmp_path / "date" / "assignment" / "one_to_one.py")
    for path in (tmp_path / "date").rglob("*.py"):
        path.write_text(path.read_text().replace("date.models.matching", "date.assignment.one_to_one"))
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "date")
    monkeypatch.setitem(code.TRAINING_CODE, "matching", "assignment/one_to_one.py")
    assert _fingerprint() == fingerprint
    moved = tmp_path / "date" / "assignment" / "one_to_one.py"
    moved.write_text(moved.read_text() + "\nMORE = 1\n")
    assert _fingerprint() != fingerprint


def test_kept_digests_are_those_of_the_code_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(PACKAGE, tmp_path / "date")
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "date")
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    digests = code.part_digests()
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert code.part_digests() == digests
    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    with monkeypatch.context() as patch:
        patch.setattr(code, "normalised_code", lambda text: pytest.fail("found anew"))
        assert code.part_digests() == digests
    for damaged in (b"", b"\xff", b"[]", b"{}", kept.read_bytes()[:-9], kept.read_bytes().replace(b'"losses"', b'"l"')):
        kept.write_bytes(damaged)
        assert code.part_digests() == digests
    losses = tmp_path / "date" / "models" / "losses.py"
    losses.write_text(losses.read_text() + "\nMORE = 1\n")
    changed = code.part_digests()
    assert {name for name in digests if digests[name] != changed[name]} == {"losses"}


def _fingerprint() -> str:
    parts = canonical(code.part_digests(), equivalences())
    text = "".join(f"{name}\0{digest}\0" for name, digest in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def test_equivalent_code_counts_as_the_earlier_one() -> None:
    a, b, c, new = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
    changes = [
        Equivalence(part="matching", was=a, now=b, why="w"),
        Equivalence(part="matching", was=b, now=c, why="w"),
        Equivalence(part="more", was=None, now=new, why="w"),
    ]
    assert canonical({"matching": c, "more": new, "losses": c}, changes) == {"matching": a, "losses": c}
    assert canonical({"matching": b}, changes) == {"matching": a}
    assert canonical({"matching": "e" * 64, "more": "e" * 64}, changes) == {"matching": "e" * 64, "more": "e" * 64}


def test_the_list_of_equivalent_code_names_parts_that_exist() -> None:
    for change in equivalences():
        assert change.part in TRAINING_CODE


def test_a_wrong_list_of_equivalent_code_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "equivalent.yaml"
    path.write_text("changes: [{part: matching, was: x, now: y, why: z}]\n")
    with pytest.raises(UserError, match="equivalent"):
        equivalences(path)
