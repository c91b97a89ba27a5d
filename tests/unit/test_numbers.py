"""Numbers in README and docs are those of the committed records; see ``docs/numbers.yaml``."""

from __future__ import annotations

from pathlib import Path

import pytest

from date.catalogue import load_tier
from date.reporting.matrix import matrix
from tests.support.numbers import ROOT, Held, held
from tests.support.records import unpack_record

ALL = list(held())


@pytest.mark.parametrize("each", ALL, ids=lambda each: f"{each.document.name}: {each.template[:50]}")
def test_a_documents_numbers_are_the_records(each: Held) -> None:
    assert each.found() is not None, f"{each.document.name} has no such text; mend docs/numbers.yaml: {each.template}"
    assert not each.wrong(), "run: python -m tests.support.numbers --write"


def test_records_and_documents_are_there() -> None:
    """Every document that shows a record's numbers is held, and every committed record is shown."""
    assert {each.record for each in ALL} == {path.parent.name for path in ROOT.glob("reports/*/results.tar.xz")}
    assert {each.document.name for each in ALL} >= {"README.md", "mini.md", "real-images.md"}


def test_the_table_of_claims_and_data_sets_is_what_the_command_prints(tmp_path: Path) -> None:
    tiers = [load_tier("mini"), load_tier("bccd"), load_tier("deeppcb")]
    for tier in tiers:
        unpack_record(tier.name, tmp_path)
    printed = matrix(tiers, tmp_path / "results").strip()
    assert printed in (ROOT / "docs" / "real-images.md").read_text(), (
        "put in what this prints: date matrix mini bccd deeppcb"
    )


def test_a_changed_number_is_found_and_put_back(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    text = "FCOS has **{mean(FCOS):.1f}** AP,\nand {word(count('CONTRADICTED'))} claims are wrong.\n"
    short = {"FCOS": "fcos-r50-coco-12e/head"}
    one = Held(document, "FCOS has {mean(FCOS):.1f} AP, and {word(count('CONTRADICTED'))} claims", "mini", short)
    document.write_text("FCOS has **1.0** AP,\nand twelve claims are wrong.\n")
    assert [old for old, _ in one.wrong()] == ["1.0", "twelve"]
    one.write()
    mean, word = one.rendered()
    assert document.read_text() == text.replace("{mean(FCOS):.1f}", mean).replace("{word(count('CONTRADICTED'))}", word)
    assert not one.wrong() and one.text == f"FCOS has {mean} AP, and {word} claims"
    document.write_text("Nothing of the kind.")
    assert one.found() is None and one.wrong() == [("", one.text)]
