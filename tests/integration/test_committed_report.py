"""The committed results are complete and of today's settings, and the committed report of mini is what they give."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from date.catalogue import ROOT, load, load_tier
from date.catalogue.settings import load_settings
from date.identity.config import resolve
from date.identity.digests import config_digest
from tests.support.command import date
from tests.support.records import unpack_record

REPORT = ROOT / "reports" / "mini"


@pytest.mark.parametrize("name", ["mini", "bccd", "deeppcb"])
def test_the_committed_results_are_complete_and_of_the_present_settings(name: str) -> None:
    catalogue, tier, report = load(), load_tier(name), ROOT / "reports" / name
    settings = load_settings(json.loads((report / "settings.json").read_text()))
    with tarfile.open(report / "results.tar.xz") as archive:
        members = archive.getnames()
        files = [archive.extractfile(member) for member in members if member.endswith("/provenance.json")]
        runs = [json.load(file) for file in files if file is not None]
    assert (name == "mini") == any(member.endswith("/pictures.json") for member in members), (
        "only generated images are ours"
    )
    found = {(run["training"], run["seed"]) for run in runs}
    assert found == {
        (each.name, seed) for each in catalogue.select(tier.trainings) for seed in settings.seeds_for(each.name)
    }
    for run in runs:
        config = resolve(catalogue.training(run["training"]), tier, run["seed"], None)
        assert run["config_sha256"] == config_digest(config), run["training"]


@pytest.mark.slow
def test_the_committed_report_is_made_from_the_committed_results(tmp_path: Path) -> None:
    unpack_record("mini", tmp_path)
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
