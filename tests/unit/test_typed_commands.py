"""Every command that a document or a message tells a reader to type can be typed: programs, options, names, targets."""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from snakemake.cli import get_argument_parser

from date.catalogue import ROOT, load, load_tier
from date.catalogue.targets import GROUPS, named_targets
from date.cli import _parser
from tests.unit.test_links import tracked

SHELL = {"", "sh", "bash", "console"}
PROGRAMS = {"python", "snakemake", "make", "torchrun", "sbatch", "date"}
OF_OTHERS = {
    *("--cpus-per-gpu", "--dependency", "--gpus", "--gres", "--mem", "--nodes", "--open-mode", "--qos", "--exclude"),  # Slurm
    *("--signals-to-handle",),  # torchrun
    *("--dist", "--hypothesis-profile"),  # pytest
}  # fmt: skip
"""Options of programs whose parsers are not asked."""
NAME = re.compile(r"[a-z0-9_]+-r\d+-[a-z]+-\w+|table\d+|figure\d+")
IN_A_MESSAGE = re.compile(r"python -m date((?:[ =][^\s`;,()\"]+)*)")


class Wrong(Exception):
    """What can't be typed, in words."""


def in_documents() -> Iterator[tuple[str, str, bool]]:
    """Yield the commands of the documents: the file, the command, and whether it stands in a block."""
    for name in tracked("*.md"):
        if name.startswith("reports/") or name == "CHANGELOG.md":
            continue
        for token in MarkdownIt("commonmark").enable("table").parse((ROOT / name).read_text()):
            if token.type == "fence" and token.info.strip() in SHELL:
                yield from ((name, line, True) for line in token.content.splitlines())
            for part in token.children or []:
                if part.type == "code_inline":
                    yield name, part.content, False


def single(command: str) -> Iterator[list[str]]:
    """Yield the words of each program that a line starts, those of ``--wrap`` and with files filled in, too."""
    command = re.sub(r"\$\(cat ([\w./-]+)\)", lambda match: (ROOT / match[1]).read_text().replace('"', '\\"'), command)
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return
    yield from filter(None, _split(words))
    for before, after in pairwise(words):
        if before == "--wrap":
            yield from single(after)


def _split(words: list[str]) -> Iterator[list[str]]:
    found: list[str] = []
    for word in words:
        if word in ("&&", "|", ">", ";"):
            yield found
            found = []
        else:
            found.append(word)
    yield found


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command of the project, by its words, and Snakemake's."""
    found = {"snakemake": get_argument_parser()}

    def walk(parser: argparse.ArgumentParser, words: str) -> None:
        found[words] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    walk(child, f"{words} {name}")

    walk(_parser(), "date")
    return found


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def check_date(words: list[str], whole: bool) -> None:
    """Check a command of the project from the word after ``date`` on; a part of one need not have all arguments."""
    command, known = "date", options(parsers()["date"])
    whole = whole and "..." not in words
    for number, word in enumerate(words):
        if f"{command} {word}" in parsers():
            command = f"{command} {word}"
            known = known | options(parsers()[command])
        elif word.startswith("--") and word.split("=")[0] not in known:
            raise Wrong(f"{command} has no option {word}")
        elif number == 0 and not word.startswith("-") and word != "...":
            raise Wrong(f"date has no command {word}")
    if whole:
        parse(parsers()["date"], [re.sub(r"^[A-Z]$", "1", word.split("|")[0]) for word in words])


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace | None:
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            return parser.parse_args(words)
        except SystemExit as left:
            if left.code:
                raise Wrong(output.getvalue().strip().splitlines()[-1]) from None
            return None


def check_snakemake(words: list[str], own: set[str]) -> None:
    for word in words:
        if word.startswith("--") and word != "--" and word.split("=")[0] not in options(parsers()["snakemake"]):
            raise Wrong(f"snakemake has no option {word}")
    if "..." in words:
        return
    args = parse(parsers()["snakemake"], words)
    assert args is not None
    if wrong := [setting for setting in args.config or () if "=" not in setting]:
        raise Wrong(f"{wrong} are no settings")
    known = {*named_targets(load()), *GROUPS, *own}
    if unknown := [target for target in args.targets if target not in known]:
        raise Wrong(f"{unknown} are no targets")


def check_module(words: list[str]) -> None:
    """Check ``python -m`` of the benchmarks, of helpers of the tests, and of pytest."""
    module, *arguments = words
    if module == "pytest":
        paths, folder = [word for word in arguments if "test" in word and " " not in word], ROOT
        for path in paths:
            folder = (ROOT / path).parent if "/" in path else folder
            if not (folder / Path(path).name).exists():
                raise Wrong(f"there is no {path}")
        return
    file = ROOT / f"{module.replace('.', '/')}.py"
    if not file.exists():
        raise Wrong(f"there is no module {module}")
    if unknown := [word for word in arguments if word.startswith("--") and f'"{word}"' not in file.read_text()]:
        raise Wrong(f"{module} has no {unknown}")


def own_names(name: str) -> set[str]:
    """Names that the examples of a document define, in their keys and in the names of their files."""
    text = (ROOT / name).read_text()
    folder = [p.stem for p in (ROOT / name).parent.rglob("*.yaml")] if name.startswith("examples/") else []
    example = [p.stem for p in (ROOT / "examples").rglob("*.yaml")]
    return {*re.findall(r"^([\w-]+):", text, re.M), *re.findall(r"(\w+)\.yaml", text), *folder, *example}


def check(words: list[str], whole: bool, own: set[str]) -> None:
    program, *rest = words
    if program == "torchrun" and "-m" in rest:
        program, rest = "python", rest[rest.index("-m") :]
    if program == "python" and rest[:2] == ["-m", "date"]:
        check_date(rest[2:], whole)
    elif program == "date":
        check_date(rest, False)
    elif program == "snakemake":
        check_snakemake(rest, own)
    elif program == "python" and rest[:1] == ["-m"]:
        check_module(rest[1:])
    elif program == "make":
        for target in rest:
            if not re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.M):
                raise Wrong(f"make has no {target}")
    for word in rest:
        if NAME.fullmatch(word) and word not in {*load().trainings, *load().tables, *load().drawn, *own}:
            raise Wrong(f"nothing is called {word}")
    for before, tier in pairwise(rest):
        if before == "--tier" and tier not in ("TIER", *own) and not tier.endswith(".yaml"):
            load_tier(tier)


def faults_of(name: str) -> list[str]:
    wrong, own = [], own_names(name)
    known = {option for parser in parsers().values() for option in options(parser)} | OF_OTHERS
    for file, command, whole in in_documents():
        if file != name:
            continue
        for words in single(command):
            try:
                if words[0] in PROGRAMS:
                    check(words, whole or (len(words) > 4 and not words[-1].startswith("--")), own)
                elif words[0].startswith("--") and not whole and words[0].split("=")[0] not in known:
                    modules = (ROOT / "benchmarks").glob("*.py"), (ROOT / "tests" / "support").glob("*.py")
                    if not any(f'"{words[0]}"' in path.read_text() for paths in modules for path in paths):
                        raise Wrong(f"nothing has an option {words[0]}")
            except Wrong as reason:
                wrong.append(f"{name}: {command.strip()}: {reason}")
    return wrong


@pytest.mark.parametrize("name", sorted({file for file, _, _ in in_documents()}))
def test_every_command_of_a_document_can_be_typed(name: str) -> None:
    assert faults_of(name) == []


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module, with X for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_command_of_a_message_can_be_typed() -> None:
    wrong, seen = [], 0
    for path in sorted((ROOT / "date").rglob("*.py")):
        for text in texts(path):
            for match in IN_A_MESSAGE.finditer(text):
                words, seen = match[1].replace("=", " ").split(), seen + 1
                if words and words[0].startswith(("X", "COMMAND", "...", "{")):
                    continue
                try:
                    check_date([word.rstrip(".:") for word in words], False)
                except Wrong as reason:
                    wrong.append(f"{path.relative_to(ROOT)}: {match[0]}: {reason}")
    assert wrong == [] and seen > 40


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python -m date trainn x", "date has no command trainn"),
        ("python -m date train x --tiers mini", "date train has no option --tiers"),
        ("python -m date train", "the following arguments are required: training"),
        ("python -m date plan table99", "nothing is called table99"),
        ("snakemake --config tier=mini all", "are no settings"),
        ("snakemake --profil slurm all", "no option --profil"),
        ("snakemake tabel05", "are no targets"),
        ("make gold", "make has no gold"),
        ("python -m benchmarks.gone", "no module benchmarks.gone"),
        ("python -m pytest tests/unit/test_gone.py", "there is no tests/unit/test_gone.py"),
        ('sbatch --wrap "python -m date rehears"', "date has no command rehears"),
    ],
)
def test_what_can_not_be_typed_is_found(command: str, reason: str) -> None:
    *_, words = single(command)
    with pytest.raises(Wrong, match=reason):
        check(words, True, set())
