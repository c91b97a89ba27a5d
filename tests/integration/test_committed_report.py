"""The committed report of the mini tier is what its committed results give."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from date.catalogue import ROOT
from tests.support.command import date

REPORT = ROOT / "reports" / "mini"


@pytest.mark.slow
def test_the_committed_report_is_made_from_the_committed_results(tmp_path: Path) -> None:
    with tarfile.open(REPORT / "results.tar.xz") as archive:
        archive.extractall(tmp_path)
    settings = (REPORT / "settings.json").read_text()
    date(
        "report",
        "--tier=mini",
        "--settings",
        settings,
        "--results",
        tmp_path / "results",
        "--reports",
        tmp_path,
        data=tmp_path,
    )
    made = {p.relative_to(tmp_path / "mini"): p for p in (tmp_path / "mini").rglob("*") if p.is_file()}
    committed = {p.relative_to(REPORT): p for p in REPORT.rglob("*") if p.is_file()}
    assert made.keys() == committed.keys() - {Path("results.tar.xz"), Path("settings.json")}
    for name, path in made.items():
        if path.suffix in (".md", ".csv", ".tex"):
            assert path.read_text() == committed[name].read_text(), f"{name} differs: make the report again"
