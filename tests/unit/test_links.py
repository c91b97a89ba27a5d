"""Every link in a document, a page of a report or a message leads to a file that exists and to a heading in it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from date.catalogue import ROOT

MENTION = re.compile(r"(?<![\w./-])((?:docs|reports|benchmarks|tests|examples)/[\w./-]+\.md(?:#[\w-]+)?)")
TEXT = {".py", ".yaml", ".yml", ".smk", ".sh", ".toml", ".cff", ""}


def tracked(*patterns: str) -> list[str]:
    """Files of the repository and those that a change adds to it; an unpacked archive has no others."""
    if not (ROOT / ".git").exists():
        found = [p.relative_to(ROOT) for pattern in patterns for p in ROOT.rglob(pattern) if p.is_file()]
        return [str(path) for path in found if not any(part.startswith(".") for part in path.parts)]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def slug(title: str) -> str:
    """A heading's anchor by GitHub's rule: lower case, no punctuation but ``-`` and ``_``, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def text_of(token: Token) -> str:
    """What a reader sees of a heading or a link, without its marks."""
    return "".join(t.content for t in token.children or [] if t.type in ("text", "code_inline"))


class Page(HTMLParser):
    """Links and anchors of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is not None and name in ("href", "src"):
                self.links.append(value)
            elif value is not None and (name == "id" or (tag, name) == ("a", "name")):
                self.anchors.add(value)


@cache
def page(file: Path) -> Page:
    """Links and anchors of a Markdown or HTML file."""
    found, text = Page(), file.read_text()
    if file.suffix == ".html":
        found.feed(text)
        return found
    tokens, times = MarkdownIt("commonmark").enable("table").parse(text), Counter[str]()
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            name = slug(text_of(inline))
            found.anchors.add(f"{name}-{times[name]}" if times[name] else name)
            times[name] += 1
    for token in [t for block in tokens for t in (block, *(block.children or []))]:
        if token.type in ("html_block", "html_inline"):
            found.feed(token.content)
        elif token.type in ("link_open", "image"):
            found.links.append(str(token.attrGet("href") or token.attrGet("src")))
    return found


def faults(source: Path, links: list[str]) -> Iterator[str]:
    """What is wrong with a file's links, each in a sentence."""
    for link in links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (source.parent / unquote(parts.path)).resolve() if parts.path else source
        where = f"{source.name}: {link}"
        if not target.exists():
            yield f"{where}: no such file"
        elif not target.is_relative_to(ROOT):
            yield f"{where}: outside of the repository"
        elif parts.fragment and target.suffix not in (".md", ".html"):
            yield f"{where}: an anchor in a file without headings"
        elif parts.fragment and unquote(parts.fragment) not in page(target).anchors:
            yield f"{where}: no such heading"


@pytest.mark.parametrize("name", tracked("*.md", "*.html"))
def test_every_link_leads_somewhere(name: str) -> None:
    assert list(faults(ROOT / name, page(ROOT / name).links)) == []


def test_every_document_that_code_and_messages_name_is_there() -> None:
    wrong = []
    for name in tracked("*"):
        file = ROOT / name
        if file.suffix in TEXT and file != Path(__file__) and not file.is_symlink():
            mentions = MENTION.findall(file.read_text(errors="replace"))
            wrong += [f"{name} names {fault}" for fault in faults(ROOT / "named", mentions)]
    assert wrong == []


def test_anchors_follow_githubs_rule(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# Datasets (`experiments/datasets/*.yaml`)\n\n## A_b - c: d's\n\n## Twice\n\n## *Twice*\n\n"
        "Setext, [linked](b.md)\n---\n\n```\n# no heading\n```\n\n<a id='own'></a>\n"
    )
    assert page(tmp_path / "a.md").anchors == {
        "datasets-experimentsdatasetsyaml", "a_b---c-ds", "twice", "twice-1", "setext-linked", "own"
    }  # fmt: skip
    assert page(tmp_path / "a.md").links == ["b.md"]


def test_a_link_that_leads_nowhere_is_found() -> None:
    links = [
        "docs/index.md",
        "docs/gone.md",
        "README.md#on-a-cluster",
        "README.md#gone",
        "LICENSE#gone",
        "../",
        "https://a.b/c",
    ]
    assert [fault.split(": ")[-1] for fault in faults(ROOT / "named", links)] == [
        "no such file", "no such heading", "an anchor in a file without headings", "outside of the repository"
    ]  # fmt: skip
