"""Figure 5 from constructed results: the front worked by hand, what is missing, the paper's pairs."""

from __future__ import annotations

import html
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reporting import markdown_cells

from date.catalogue import Figure, load, load_tier, parse
from date.errors import UserError
from date.inference.evaluate import Selection, selection_of
from date.reporting import tradeoff
from date.reporting.report import write_report
from date.reporting.scores import Scores
from date.reporting.tradeoff import TradeOffDrawing, dominates, trade_offs, values
from date.results import load_results
from sealed import add_run, coco

DATE_F, DATE_R = "date_f-r50-coco-12e", "date_r_o2m1-r50-coco-12e"


def trade_off(results: Path, tier: str = "paper") -> TradeOffDrawing:
    (found,) = trade_offs(load(), Scores(load_results(results, tier)))
    return found


def add(results: Path, tier: str, training: str, o2o: float, o2m: float | None, seed: int = 0) -> None:
    judged = {"o2o": coco(o2o)} | ({} if o2m is None else {"o2m": coco(o2m)})
    add_run(results, tier, training, seed, judged)


def test_the_grid_is_table_10s_and_its_weights_are_the_trainings_own() -> None:
    catalogue = load()
    drawing = trade_off(Path("nowhere"))
    rows = catalogue.tables["table10"].rows[1:]
    assert [(s.grid, s.weights) for s in drawing.settings] == [
        (row.label, f"{row.setting['lambda_o2o']}/{row.setting['lambda_o2m']}") for row in rows
    ]
    assert [s.training for s in drawing.settings] == [
        catalogue.evaluation(row.evaluation or "").training for row in rows
    ]
    assert [s.paper[1] for s in drawing.settings] == [row.paper["AP"] for row in rows]
    printed = {(s.grid, s.weights): s.paper for s in drawing.settings if s.paper[0] is not None}
    assert printed == {("DATE-F", "1/1"): (36.3, 37.3), ("DATE-F", "1/4"): (37.0, 36.8)}, "Table 7"


def test_the_front_by_hand(tmp_path: Path) -> None:
    points = {
        DATE_F: (37.5, 36.0),
        "date_f_o2m4-r50-coco-12e": (36.8, 37.0),
        "date_f_o2m2-r50-coco-12e": (36.8, 36.5),  # beaten by the one above
        DATE_R: (37.5, 35.0),  # as good in one, worse in the other
        "date_r-r50-coco-12e": (37.0, 36.6),
    }
    for training, (o2o, o2m) in points.items():
        add(tmp_path, "paper", training, o2o, o2m)
    add(tmp_path, "paper", "date_f_o2o2-r50-coco-12e", 39.0, None)
    drawing = trade_off(tmp_path)
    assert [s.training for s in drawing.front] == [DATE_F, "date_r-r50-coco-12e", "date_f_o2m4-r50-coco-12e"]
    assert (len(drawing.shown), len(drawing.missing)) == (5, 9), "a checkpoint judged by one branch is no point"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_a_front_beats_all_others_and_none_of_itself(points: list[tuple[int, int]]) -> None:
    front = [p for p in points if not any(dominates(other, p) for other in points)]
    assert front
    assert not any(dominates(a, b) for a in front for b in front)
    assert all(p in front or any(dominates(f, p) for f in front) for p in points)


def test_seeds_count_where_both_branches_are_judged(tmp_path: Path) -> None:
    for seed, (o2o, o2m) in enumerate([(37.0, 36.0), (38.0, 36.4)]):
        add(tmp_path, "paper", DATE_F, o2o, o2m, seed)
    add(tmp_path, "paper", DATE_F, 99.0, None, 2)
    drawing = trade_off(tmp_path)
    header, lines = values(drawing)
    assert header[1:4] == ["\u03bb o2o/o2m", "seeds", "o2o, paper"]
    assert lines[1] == ["DATE-F", "1/1", "2", "37.3", "37.5 \u00b1 0.7", "36.3", "36.2 \u00b1 0.3", "yes"]
    assert lines[0] == ["DATE-F", "1/0.5", "\u2014", "37.2", "\u2014", "\u2014", "\u2014", "\u2014"]
    assert "bars reach one sample standard deviation" in drawing.notes[1]


def test_the_figure_by_name_in_every_format_and_on_the_page(tmp_path: Path) -> None:
    for tier in ("paper", "mini"):
        add(tmp_path, tier, DATE_F, 37.2, 36.1)
        made = write_report(tier, tmp_path, tmp_path / "alone", ["figure5"])
        assert {path.name for path in made.parent.iterdir()} == {f"figure5.{kind}" for kind in ("svg", "png", "pdf")}
        svg = html.unescape(made.read_text(encoding="utf-8"))
        assert svg.count("Illustration, no data") == 2 and "13 of 14 settings have no result" in svg
        watermark = load_tier(tier).watermark
        assert ("paper 1/4" in svg) == (watermark is None), "the paper's points stand at its own tier alone"
        assert watermark is None or watermark in svg
        page = write_report(tier, tmp_path, tmp_path / "reports").read_text(encoding="utf-8")
        assert re.search(r'<svg [^>]*aria-label="Figure 5[^"]*On the front: DATE-F 1/1 with 37.2 and 36.1', page)
        assert page.count("<td>37.2</td><td>36.3</td><td>36.1</td><td>yes</td>") == 1
        figures = (tmp_path / "reports" / tier / "figures.md").read_text(encoding="utf-8")
        assert markdown_cells(figures, "DATE-F", "1/1")[4:] == ["37.2", "36.3", "36.1", "yes"]
        assert made.read_bytes() == (tmp_path / "reports" / tier / "figures" / "figure5.svg").read_bytes()


def test_a_grid_without_any_result_leaves_no_figure(tmp_path: Path) -> None:
    add(tmp_path, "mini", DATE_F, 20.0, None)
    with pytest.raises(
        UserError, match="figure5 has nothing to show. None of its trainings has results at tier 'mini'."
    ):
        write_report("mini", tmp_path, tmp_path / "reports", ["figure5"])
    page = write_report("mini", tmp_path, tmp_path / "reports")
    assert not list((page.parent / "figures").glob("figure5.*"))
    assert 'id="figure5"' in page.read_text(encoding="utf-8"), "what is missing is told in its place"


@pytest.mark.parametrize(
    ("training", "across"),
    [
        ("date_f_o2m2-r50-coco-12e", Selection("o2m", 0.05, 1000, 0.5, 100)),
        ("date_r_o2m4-r50-coco-12e", Selection("o2m", 0.05, 1000, 0.5, 100)),
    ],
)
def test_the_one_to_many_branch_is_judged_by_its_own_settings(training: str, across: Selection) -> None:
    """MMDetection's for FCOS and RetinaNet; the one-to-one branch keeps the released DATE-F's and DATE-R's."""
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope

    import date.models  # noqa: F401 - registers the head
    from date.identity.config import resolve

    init_default_scope("mmdet")
    from mmdet.registry import MODELS

    catalogue = load()
    head = MODELS.build(
        ConfigDict(resolve(catalogue.training(training), load_tier("smoke"), 0, None)["model"]["bbox_head"])
    )
    assert selection_of(head, catalogue.variants["o2m"]) == across
    up = selection_of(head, catalogue.variants["o2o"])
    assert up == Selection("o2o", 0.01, 100 if training.startswith("date_f") else 1000, None, 100)


def test_a_figure_is_either_of_curves_or_of_a_trade_off() -> None:
    entry = {"name": "figure6", "number": 6, "title": "t", "caption": "c"}
    for wrong in ({}, {"panels": [{"metric": "AP", "label": "AP"}]}, {"curves": [{"label": "a", "training": "b"}]}):
        with pytest.raises(UserError, match="either 'panels' and 'curves', or a 'trade_off'"):
            parse(Figure, entry | wrong, "figure6.yaml")


def boxes_of_labels(figure: Any, axes: Any) -> list[tuple[float, float, float, float]]:
    """Return what each label's text covers, in points: x0, y0, x1, y1."""
    drawn = [text.get_window_extent(figure.canvas.get_renderer()) for text in axes.texts if "/" in text.get_text()]
    return [tuple(value * 72 / figure.dpi for value in box.extents) for box in drawn]


def crossing(a: Any, b: Any) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.5 and min(a[3], b[3]) - max(a[1], b[1]) > 0.5


@pytest.mark.parametrize(("tier", "seed"), [("mini", 0), ("mini", 1), ("smoke", 2), ("paper", 3), ("paper", 4)])
def test_labels_cover_neither_each_other_nor_points_nor_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    for setting in trade_off(Path("nowhere"), tier).settings:
        add(tmp_path, tier, setting.training, *(float(v) for v in random.normal((38.0, 36.5), 2.0).round(1)))
    drawing, seen = trade_off(tmp_path, tier), []
    place = tradeoff._place_labels

    def placed(figure: Any, axes: Any, labels: Any, drawing: TradeOffDrawing) -> None:
        place(figure, axes, labels, drawing)
        scale = 72 / figure.dpi
        points = axes.transData.transform([(x, y) for x, y, _, _ in labels]) * scale
        corners = axes.transData.transform(tradeoff._front_corners(axes, drawing)) * scale
        front = [(*np.minimum(a, b) - 0.6, *np.maximum(a, b) + 0.6) for a, b in itertools.pairwise(corners)]
        leaders = [a for a in axes.texts if "/" in a.get_text() and a.arrow_patch is not None]
        for label in leaders:  # from the point to the label's middle
            x, y = axes.transData.transform(label.xy) * scale
            far = np.array(label.xyann)
            line = [
                (*(np.array([x, y]) + far * part / 20 - 0.4), *(np.array([x, y]) + far * part / 20 + 0.4))
                for part in range(4, 17)
            ]
            others = [
                b
                for b, other in zip(
                    boxes_of_labels(figure, axes), [a for a in axes.texts if "/" in a.get_text()], strict=True
                )
                if other is not label
            ]
            assert [(part, box) for part in line for box in others if crossing(part, box)] == []
        seen.append((boxes_of_labels(figure, axes), [(*p - 2.5, *p + 2.5) for p in points], front))

    monkeypatch.setattr(tradeoff, "_place_labels", placed)
    assert tradeoff.write_trade_off(drawing, load_tier(tier), tmp_path / "figure5")
    ((labels, points, front),) = seen
    assert len(labels) == len(points) >= len(drawing.shown) == len(drawing.settings)
    assert [pair for pair in itertools.combinations(labels, 2) if crossing(*pair)] == []
    assert [(label, other) for label in labels for other in [*points, *front] if crossing(label, other)] == []
