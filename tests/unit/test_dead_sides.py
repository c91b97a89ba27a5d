"""Sides of boxes that hardly learn any more: counted by the evaluation, told by page, tables, claims and ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from date.catalogue import Complexity, load, load_tier
from date.inference.evaluate import SIDES, ZeroSides
from date.models.branches import BranchOutput
from date.reporting.dead_sides import dead_sides, dead_sides_note
from date.reporting.report import write_report
from date.results import load_results
from sealed import add_run, coco

DATE_F, ONENET = "date_f-r50-coco-12e", "onenet-r50-coco-12e"
SOUND = dict.fromkeys(SIDES, 12.5)


def output(reg: torch.Tensor) -> BranchOutput:
    return BranchOutput(torch.zeros_like(reg), reg, None, [(1, reg.shape[2])], [reg.shape[2]])


def test_points_without_a_side_are_counted_over_batches() -> None:
    sides = ZeroSides()
    assert sides.record() is None, "no network with the branch"
    sides.look("o2o", output(torch.tensor([[[0.0, 3.0], [1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]])))
    sides.look("o2o", output(torch.tensor([[[5.0], [1.0], [0.0], [0.0]]])))
    assert sides.record() == {"left": 33.333, "top": 0.0, "right": 100.0, "bottom": 33.333}


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """A report of OneNet with a dead side and of sound DATE-F."""
    for seed, dead in ((0, {}), (1, {"left": 100.0, "top": 90.0, "right": 89.9})):
        add_run(tmp_path, "mini", ONENET, seed, {"o2o": coco(30.0)}, zero_sides=SOUND | dead)
        add_run(tmp_path, "mini", DATE_F, seed, {"o2o": coco(34.0)}, zero_sides=SOUND)
    return write_report("mini", tmp_path, tmp_path / "reports").parent


def test_dead_sides_are_reported_where_the_runs_numbers_stand(reported: Path) -> None:
    runs = load_results(reported.parent.parent, "mini")
    assert [dead_sides(run) for run in runs] == [[], [], [], ["left", "top"]]
    (note,) = dead_sides_note(runs)
    assert note.endswith(f"stopped learning: {ONENET}, seed 1 (left, top). They are still included in all numbers.")
    assert note in (reported / "tables" / "table01.md").read_text()
    assert note in (reported / "index.html").read_text().replace("&#39;", "'")
    claims = (reported / "claims.md").read_text()
    assert note in claims[claims.index("date_f_over_onenet_12e") :]
    assert (
        "- seed 1 (left side of its boxes dead; top side of its boxes dead): " in (reported / "ledger.md").read_text()
    )


def test_only_tables_and_claims_with_the_runs_tell_it(reported: Path) -> None:
    assert "stopped learning" not in (reported / "tables" / "table07.md").read_text(), "DATE-R's weights"
    runs = load_results(reported.parent.parent, "mini")
    assert dead_sides_note(runs, [DATE_F]) == []
    over_runs = [claim for claim in load().claims.values() if not isinstance(claim.predicate, Complexity)]
    judged = [{*claim.trainings, *(name.split("/")[0] for name in claim.evaluations)} for claim in over_runs]
    resting = sum(ONENET in names for names in judged)
    assert 0 < resting < len(judged)
    assert (reported / "claims.md").read_text().count("stopped learning") == resting


def test_an_evaluation_that_did_not_look_says_nothing(tmp_path: Path) -> None:
    add_run(tmp_path, load_tier("mini").name, ONENET, 0, {"o2o": coco(30.0)})
    add_run(tmp_path, "mini", DATE_F, 0, None)
    assert dead_sides_note(load_results(tmp_path, "mini")) == []
