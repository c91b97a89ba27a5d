"""Verdicts on single numbers, by hand, and what they are worth, by simulation."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from date.catalogue import METRICS, load, load_tier
from date.catalogue.publication import load_paper
from date.reporting.formats import comma_separated, latex, markdown
from date.reporting.report import write_report
from date.reporting.scores import Sample, Scores
from date.reporting.tables import FilledTable, fill
from date.reporting.verdicts import number_verdict, seeds_to_tell
from date.results import load_annotation_recalls, load_complexity, load_results
from sealed import add_paper, add_run, coco


def verdict(values: list[float], paper: float, metric: str = "AP", crowd: bool = False, exact: bool = False) -> str:
    noise = load_paper().stated_noise("crowdhuman" if crowd else "coco", metric)
    found = number_verdict(Sample(dict(enumerate(values)), exact), paper, METRICS[metric], noise)
    assert found is not None
    return found.text


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([37.34], "REPRODUCED"),  # prints as 37.3
        ([37.6], "WITHIN NOISE"),
        ([37.0], "WITHIN NOISE"),
        ([37.72], "DIFFERS"),  # two runs are 1.96 * 0.15 * sqrt(2) = 0.416 apart at most
        # Deviation 0.1: 4.30 * 0.1 * sqrt(4 / 3) = 0.497 is wider than 0.416, so that it says less than the stated noise.
        ([37.0, 37.1, 37.2], "WITHIN NOISE"),
        ([37.0, 37.05, 37.0, 37.02], "WITHIN NOISE"),  # a narrow interval that excludes 37.3
        ([36.0, 36.1, 36.05], "DIFFERS"),
    ],
)
def test_verdicts_against_37_3(values: list[float], word: str) -> None:
    assert verdict(values, 37.3) == word


def test_a_narrow_interval_around_the_papers_number_reproduces_it() -> None:
    # Mean 37.225, deviation 0.0957: 3.182 * 0.0957 * sqrt(5 / 4) = 0.341.
    assert verdict([37.1, 37.2, 37.3, 37.3], 37.4) == "REPRODUCED"
    assert verdict([37.1, 37.2, 37.3, 37.3], 37.6) == "DIFFERS"


def test_unresolved_with_the_seeds_it_takes() -> None:
    assert verdict([37.7], 37.3) == "UNRESOLVED (7 seeds)"
    # 0.15 * t * sqrt(1 + 1 / n): 2.571 and 0.417 with six seeds, 2.447 and 0.392 with seven.
    assert seeds_to_tell(0.4, 0.15, 1) == 7
    assert seeds_to_tell(0.2, 0.15, 3) is None, "the paper's own run may lie 1.96 deviations away"


def test_columns_without_stated_noise_and_exact_ones() -> None:
    assert verdict([55.5], 55.3, "AP50") == "UNRESOLVED (2 seeds)"
    assert verdict([55.34], 55.3, "AP50") == "REPRODUCED"
    assert verdict([90.7], 90.5, "AP50", crowd=True) == "WITHIN NOISE"
    assert verdict([49.9], 49.0, "mMR", crowd=True) == "WITHIN NOISE"
    assert verdict([51.0], 49.0, "mMR", crowd=True) == "DIFFERS"
    assert verdict([338.44439016], 388, "gflops", exact=True) == "DIFFERS"
    assert verdict([200.49653988], 201, "gflops", exact=True) == "REPRODUCED"
    assert number_verdict(Sample({}), 1.0, METRICS["AP"]) is None


def test_a_true_reproduction_is_seldom_said_to_differ() -> None:
    """Five seeds and the paper's run from one distribution: DIFFERS in at most one in twenty."""
    rng = np.random.default_rng(5)
    draws = rng.normal(37.3, 0.15, (2000, 6))
    words = [verdict([float(v) for v in row[:5]], round(float(row[5]), 1)) for row in draws]
    assert np.mean([word == "DIFFERS" for word in words]) < 0.05
    one = [verdict([float(row[0])], round(float(row[5]), 1)) for row in draws]
    assert np.mean([word == "DIFFERS" for word in one]) < 0.06, "rounding of the paper's number adds a little"


def filled(results: Path, tier: str, table: str) -> FilledTable:
    scores = Scores(load_results(results, tier), load_complexity(results), load_annotation_recalls(results, tier))
    return fill(load().tables[table], load_tier(tier), scores, load())


def test_verdicts_in_every_format(tmp_path: Path) -> None:
    for seed, with_nms in enumerate([37.4, 37.45]):
        add_run(tmp_path, "paper", "date_f-r50-coco-12e", seed, {"o2o": coco(36.0), "o2o_nms50": coco(with_nms)})
    table = filled(tmp_path, "paper", "table06")
    cell = table.lines[0].cells["AP"]
    assert cell.verdict_parts == ["DIFFERS", "[REPRODUCED]"]
    assert "| DIFFERS [REPRODUCED] |" in re.sub(" +", " ", markdown(table))
    frame = pd.read_csv(io.StringIO(comma_separated(table)))
    assert (frame.loc[0, "verdict_AP"], frame.loc[0, "verdict_AP_bracket"]) == ("DIFFERS", "REPRODUCED")
    assert "differs [reproduced]" in latex(table)
    assert "DeFCN's README" in " ".join(table.notes)
    page = write_report("paper", tmp_path, tmp_path / "reports").read_text()
    assert '<span class="word differs">differs</span>' in page


def test_only_the_papers_tier_has_verdicts(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", "date_f-r50-coco-12e", 0, {"o2o": coco(36.0)})
    table = filled(tmp_path, "mini", "table06")
    assert table.verdicts == {}
    assert "verdict" not in markdown(table) + comma_separated(table) + latex(table)


def test_every_number_of_the_paper_gets_a_verdict(tmp_path: Path) -> None:
    add_paper(tmp_path, "paper", seeds=(0, 1, 2), noise=0.1)
    for name, entry in load().tables.items():
        printed = sum(
            len(r.paper) + (len(r.bracket.paper) if r.bracket and r.bracket.evaluation else 0) for r in entry.rows
        )
        assert sum(filled(tmp_path, "paper", name).verdicts.values()) == printed, name
