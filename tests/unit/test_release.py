"""One version: pyproject.toml states it; the command line, CITATION.cff and CHANGELOG.md agree with it."""

from __future__ import annotations

import datetime
import re
import tomllib

import pytest
import yaml

from date.catalogue import ROOT
from date.cli import main

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
HEADINGS = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_command_line_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{VERSION}\n")


def test_the_changelog_has_a_dated_entry_of_the_version_below_what_is_unreleased() -> None:
    assert HEADINGS[0] == "Unreleased"
    releases = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", heading) for heading in HEADINGS[1:]]
    assert releases and all(releases), HEADINGS
    found = [(tuple(map(int, m[1].split("."))), datetime.date.fromisoformat(m[2])) for m in releases if m]
    assert found == sorted(found, reverse=True)
    assert ".".join(map(str, found[0][0])) == VERSION


def test_the_citation_names_the_version_and_the_date_of_its_release() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert HEADINGS[1] == f"{citation['version']} - {citation['date-released']}"
    assert citation["version"] == VERSION


def test_no_module_states_a_version_of_its_own() -> None:
    assert [p for p in (ROOT / "date").rglob("*.py") if "__version__ =" in p.read_text()] == []
