"""Verdicts on single numbers, by hand, and what they are worth, by simulation."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from date.catalogue import METRICS, load, load_tier
from date.catalogue.publication import load_paper
from date.reporting.crossed import fit
from date.reporting.formats import comma_separated, latex, markdown
from date.reporting.report import write_report
from date.reporting.scores import Sample, Scores
from date.reporting.statistics import prediction_half_width
from date.reporting.tables import FilledTable, fill
from date.reporting.verdicts import Spread, bound_of, number_verdict, seeds_to_tell
from date.results import load_annotation_recalls, load_complexity, load_results
from sealed import add_paper, add_run, coco


def verdict(
    values: list[float], paper: float, metric: str = "AP", crowd: bool = False, exact: bool = False, others: int = 0
) -> str:
    """Return the verdict as tables have it; ``others`` trainings of the schedule have runs 0.3 apart."""
    part, published = "crowdhuman" if crowd else "coco", load_paper()
    sd = published.stated_sd(part, metric)
    cells = {"a": dict(enumerate(values))} | {f"b{i}": {s: 30 + 0.3 * s for s in range(3)} for i in range(others)}
    found = fit(cells, sd)
    own = np.append(found.variances[0], np.zeros(others))
    known = not np.isnan(own[0])
    spread = Spread(math.sqrt(own[0] + found.shared), found.freedom(own, found.shared)) if known else None
    noise, bound = published.stated_noise(part, metric), published.bound(part, metric)
    judged = number_verdict(Sample(dict(enumerate(values)), exact), paper, METRICS[metric], noise, bound, spread)
    assert judged is not None
    return judged.text


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([37.34], "REPRODUCED"),  # prints as 37.3
        ([37.6], "WITHIN NOISE"),
        ([37.0], "WITHIN NOISE"),
        (
            [37.95],
            "DIFFERS",
        ),  # 0.15, known with 4 degrees of freedom: two runs are 2.776 * 0.15 * sqrt(2) = 0.589 apart
        ([37.0, 37.1, 37.2], "WITHIN NOISE"),  # 2.447 * 0.1354 * sqrt(4/3) = 0.38
        ([36.0, 36.1, 36.05], "DIFFERS"),
    ],
)
def test_verdicts_against_37_3(values: list[float], word: str) -> None:
    assert verdict(values, 37.3) in (word, "REPRODUCED" if word == "WITHIN NOISE" and len(values) == 3 else word)


def test_a_narrow_interval_around_the_papers_number_reproduces_it() -> None:
    # Mean 37.225; deviation sqrt((4 * 0.15**2 + 3 * 0.0957**2) / 7) = 0.1297: 2.365 * 0.1297 * sqrt(5 / 4) = 0.343 < 0.416.
    assert verdict([37.1, 37.2, 37.3, 37.3], 37.4) == "REPRODUCED"
    assert verdict([37.1, 37.2, 37.3, 37.3], 37.6) == "DIFFERS"


def test_a_wide_interval_reproduces_nothing() -> None:
    """Of the columns whose noise nobody states: what held the paper's number only for being wide."""
    assert verdict([20, 24, 28], 30.0, "AP75").startswith("UNRESOLVED")
    assert verdict([20, 24, 28], 38.0, "APs").startswith("UNRESOLVED")
    assert verdict([50, 56], 90.0, "AP50").startswith("UNRESOLVED")
    assert verdict([55.0, 55.1, 55.2], 55.4, "AP50").startswith("UNRESOLVED"), "0.5 is wider than the bound of 0.4"
    assert verdict([55.0, 55.1, 55.2, 55.1, 55.15], 55.3, "AP50") == "REPRODUCED", "0.224 is not"
    assert verdict([55.0, 55.1, 55.2, 55.1, 55.15], 55.3, "APs").startswith("UNRESOLVED"), "the bound is 0.1 there"


def test_no_spread_of_a_few_runs_is_not_no_noise() -> None:
    assert verdict([37.2, 37.2, 37.2], 37.3) in ("WITHIN NOISE", "REPRODUCED"), "not DIFFERS: stated noise"
    assert verdict([55.2, 55.2, 55.2], 55.3, "AP50") == "UNRESOLVED", "nothing tells the noise"
    assert verdict([55.2, 55.2, 55.2], 55.4, "AP50", others=4) != "DIFFERS", "others of the schedule do"


def test_bounds_are_half_of_the_smallest_gain_that_the_paper_claims() -> None:
    """Of every column without stated noise, from the brackets of the tables and the claims."""
    published, smallest = load_paper(), {}
    for table in load().tables.values():
        for row in table.rows:
            if row.bracket is not None and row.bracket.difference_from is not None:
                for metric, gain in row.bracket.paper.items():
                    smallest[metric] = min(smallest.get(metric, 99.0), gain)
    assert {m: pytest.approx(g / 2) for m, g in smallest.items() if m != "AP"} == published.bounds["coco"]
    recall = load().claims["crowd_recall_over_annotations"].predicate
    assert published.bounds["crowdhuman"] == {"Recall": recall.paper / 2}  # type: ignore[union-attr]
    for part, bounds in published.bounds.items():
        assert not bounds.keys() & published.noise[part].keys(), "stated noise is the better bound"
    assert bound_of(0.3, None) == pytest.approx(1.959964 * math.sqrt(2) * 0.15, abs=1e-6)
    assert bound_of(None, None) is None


def test_unresolved_with_the_seeds_it_takes() -> None:
    assert verdict([37.7], 37.3).startswith("UNRESOLVED (")
    assert seeds_to_tell(0.2, Spread(0.15, 4), 3) is None, "the paper's own run may lie 1.96 deviations away"


@pytest.mark.parametrize("distance", [0.4, 0.6, 1.0])
def test_seeds_that_it_takes_have_the_power_that_is_reported(distance: float) -> None:
    """Stated noise that is right: 80 % of so many runs decide, within ten points, and those of fewer do not."""
    needed = seeds_to_tell(distance, Spread(0.15, 4), 1, None, stated=True)
    assert needed is not None
    rng, decided = np.random.default_rng(int(10 * distance)), []
    for _ in range(400):
        values = rng.normal(37.3 + distance, 0.15, needed)
        found = fit({"a": dict(enumerate(values))}, 0.15)
        half = prediction_half_width(math.sqrt(found.variances[0]), needed, found.freedom(found.variances, 0.0))
        decided.append(abs(values.mean() - 37.3) > half)
    assert np.mean(decided) > 0.7
    assert needed == 2 or np.mean(decided) < 0.97


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
    """One seed or five and the paper's run from one distribution: DIFFERS in at most one in twenty."""
    rng = np.random.default_rng(5)
    draws = rng.normal(37.3, 0.15, (1000, 6))
    words = [verdict([float(v) for v in row[:5]], round(float(row[5]), 1)) for row in draws]
    assert np.mean([word == "DIFFERS" for word in words]) < 0.05
    one = [verdict([float(row[0])], round(float(row[5]), 1)) for row in draws]
    assert np.mean([word == "DIFFERS" for word in one]) < 0.05


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
