"""A network looks the same in every figure, and curves of losses can be told apart where it matters."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import load, load_tier
from date.catalogue.publication import load_paper
from date.reporting import figures, style
from date.reporting.figures import curves, drawings
from date.reporting.style import SERIES, TEXT, Look, looks
from date.results import RunResult

NAMES = list(load().trainings)


def test_networks_of_the_same_figure_differ() -> None:
    shown = looks(NAMES)
    for drawing in drawings(load()):
        seen = [shown[entry.training] for entry in drawing.curves]
        assert len({(look.color, look.marker, look.hollow) for look in seen}) == len(seen), drawing.name
        assert len({look.color for look in seen}) == len(seen), f"{drawing.name} is told apart by colour, too"


def test_schedules_and_backbones_do_not_change_the_look() -> None:
    shown = looks(NAMES)
    for one, other in itertools.combinations(NAMES, 2):
        if one.split("-")[0] == other.split("-")[0]:
            assert shown[one] == shown[other]


def test_those_that_the_paper_gives_no_look_get_one_of_their_own() -> None:
    given = {(SERIES[entry.colour], entry.marker) for entry in load_paper().looks}
    found = looks([*NAMES, "mine", "yours"])
    assert found["mine"] != found["yours"]
    assert not {(look.color, look.marker) for look in (found["mine"], found["yours"])} & given


@pytest.mark.parametrize("color", [*SERIES.values(), *TEXT.values()])
def test_labels_can_be_read_on_white(color: str) -> None:
    """Contrast of WCAG 2.1, sec. 1.4.3, for large text."""

    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4

    text = Look(color, "o").text
    red, green, blue = (linear(int(text[i : i + 2], 16)) for i in (1, 3, 5))
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 3


def test_the_scale_of_losses_leaves_out_the_steep_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = next(d for d in drawings(load()) if d.panels[0].metric != "AP")
    limits: list[Any] = []
    monkeypatch.setattr(style, "write_figure", lambda figure, stem: limits.extend(a.get_ylim() for a in figure.axes))
    metrics = [panel.metric for panel in drawing.panels]

    def run(training: str, end: float) -> RunResult:
        records = [
            {"kind": "train", "step": step, "epoch": step / 100, "lr": 0.1}
            | dict.fromkeys(metrics, 100.0 if step < 100 else end + 1 / step)
            for step in range(10, 1010, 10)
        ]
        path = tmp_path / f"{training}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return RunResult(training, 0, {"segments": []}, path, None)

    results = [run(entry.training, 0.4 + 0.01 * i) for i, entry in enumerate(drawing.curves)]
    figures.write_drawing(drawing, load_tier("mini"), results, tmp_path / "figure")
    assert all(high < 1 for low, high in limits[: len(metrics)])
    assert all(curve.high[0] == 100 for curve in curves(drawing, drawing.panels[0], results)), "nothing is left out"
