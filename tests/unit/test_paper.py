"""The paper's tables and figures as data, against the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from date.catalogue import METRICS, Table, Training, load
from date.reporting.tables import mark_best

# How many numbers each column of the paper's tables prints, brackets included, and their sum: from the paper itself.
SUMS = {
    "table01": {"AP": (9, 269.7), "AP50": (7, 397.3), "AP75": (7, 286.3), "APs": (7, 156.5), "APm": (7, 288.7), "APl": (7, 344.6), "params": (7, 225.6), "gflops": (7, 1439.0)},
    "table02": {"AP": (8, 239.7), "AP50": (8, 348.9), "AP75": (8, 263.3), "APs": (8, 145.4), "APm": (8, 259.6), "APl": (8, 308.1)},
    "table03": {"AP": (5, 205.3), "AP50": (5, 302.5), "AP75": (5, 220.6), "APs": (5, 126.7), "APm": (5, 223.3), "APl": (5, 262.5)},
    "table04": {"AP50": (5, 434.1), "mMR": (5, 264.1), "Recall": (6, 562.7)},
    "table05": {"AP": (6, 219.4), "AP50": (6, 326.9), "AP75": (6, 238.5), "APs": (6, 122.3), "APm": (6, 237.6), "APl": (6, 286.1)},
    "table06": {"AP": (4, 155.8), "AP50": (4, 231.9), "AP75": (4, 168.4), "APs": (4, 94.0), "APm": (4, 168.6), "APl": (4, 199.0)},
    "table07": {"AP": (4, 147.4), "AP50": (4, 222.5), "APs": (4, 84.4), "APm": (4, 159.3), "APl": (4, 195.0)},
    "table08": {"params": (3, 96.2), "gflops": (3, 607.0)},
    "table09": {"AP": (3, 111.5), "params_train": (3, 105.9), "params_infer": (3, 97.6), "gflops_train": (3, 859.0), "gflops_infer": (3, 635.0)},
    "table10": {"AP": (15, 553.1), "AP50": (15, 822.4), "AP75": (15, 601.5), "APs": (15, 310.3), "APm": (15, 599.5), "APl": (15, 726.8)},
    "table11": {"AP": (3, 119.4), "AP50": (3, 174.0), "AP75": (3, 130.6), "APs": (3, 73.8), "APm": (3, 129.6), "APl": (3, 150.2)},
}  # fmt: skip
# The rows, from 1, whose number the paper prints bold or underlined. Tables 6 and 8 have no bold number.
BOLD = {
    "table01": {"AP": [4, 7], "AP50": [2, 5], "AP75": [4, 7], "APs": [4, 7], "APm": [2, 7], "APl": [1, 2, 5]},
    "table02": {"AP": [3, 6], "AP50": [3, 6], "AP75": [3, 6], "APs": [3, 6], "APm": [3, 6], "APl": [3, 6]},
    "table03": {"AP": [5], "AP50": [2], "AP75": [5], "APs": [5], "APm": [5], "APl": [5]},
    "table04": {"AP50": [6], "mMR": [6], "Recall": [4, 5, 6]},
    "table05": {"AP": [6], "AP50": [6], "AP75": [6], "APs": [6], "APm": [6], "APl": [4]},
    "table07": {"AP": [2, 3], "AP50": [2, 3], "APs": [1, 3], "APm": [2, 3], "APl": [2, 3]},
    "table09": {"AP": [3]},
    "table10": {"AP": [7, 10], "AP50": [7, 13], "AP75": [7, 10, 11], "APs": [7, 13], "APm": [7, 13], "APl": [7, 11]},
    "table11": {"AP": [3], "AP50": [3], "AP75": [3], "APs": [3], "APm": [3], "APl": [3]},
}
UNDERLINED = {"table10": {"AP": [3, 11, 13]}}


def numbers(table: Table, column: str) -> list[float]:
    """Return what a column prints, row by row, each number before the one in its brackets."""
    found = []
    for row in table.rows:
        found += [row.paper[column]] if column in row.paper else []
        found += [row.bracket.paper[column]] if row.bracket and column in row.bracket.paper else []
    return found


def marked(table: Table, which: int) -> dict[str, list[int]]:
    """Return by column the rows that are computed to be bold (0) or underlined (1)."""
    found: dict[str, list[int]] = {}
    for column in table.metrics:
        position = 0
        for group in table.groups:
            near = table.near_best if column == "AP" else None
            marks = mark_best([row.paper.get(column) for row in group], METRICS[column], near)
            for i, mark in enumerate(marks, position + 1):
                if mark[which]:
                    found.setdefault(column, []).append(i)
            position += len(group)
    return found


def test_every_number_of_the_tables_is_there() -> None:
    tables = load().tables
    assert list(tables) == [f"table{i:02d}" for i in range(1, 12)] == list(SUMS)
    for name, columns in SUMS.items():
        assert tables[name].metrics == list(columns)
        for column, (count, total) in columns.items():
            found = numbers(tables[name], column)
            assert (len(found), round(sum(found), 1)) == (count, total), (name, column)
    assert sum(count for columns in SUMS.values() for count, _ in columns.values()) == 361


@pytest.mark.parametrize("name", list(SUMS))
def test_computed_marks_are_the_papers(name: str) -> None:
    table = load().tables[name]
    assert marked(table, 0) == BOLD.get(name, {})
    assert marked(table, 1) == UNDERLINED.get(name, {})


def test_table_10_marks_the_weights_of_the_main_results() -> None:
    catalogue = load()
    rows = catalogue.tables["table10"].rows
    assert [row.id for row in rows if row.default] == ["table10.3", "table10.11"]
    main = [catalogue.tables["table05"].rows[i].evaluation for i in (5, 3)]  # DATE-F and DATE-R with POTO
    assert (
        {row.evaluation for row in rows if row.default}
        == {"date_f-r50-coco-12e/o2o", "date_r-r50-coco-12e/o2o"}
        <= set(main)
    )
    assert [rows[2].setting, rows[10].setting] == [
        {"lambda_o2o": 1, "lambda_o2m": 1},
        {"lambda_o2o": 1, "lambda_o2m": 2},
    ]


def test_settings_of_the_rows_are_those_of_their_trainings() -> None:
    catalogue = load()
    no_options = {"max_filter": False, "quality": None, "o2m": None}
    styles = {"-": None, "FCOS": "fcos", "RetinaNet": "retinanet"}
    for table in catalogue.tables.values():
        for row in table.rows:
            if row.annotations is not None:
                continue
            training = catalogue.basis(row)
            assert isinstance(training, Training)
            setting, options = row.setting, no_options | training.options.model_dump()
            if "epoch" in setting:
                assert training.schedule == f"{setting['epoch']}e"
            if "NMS" in setting and row.evaluation:
                variant = catalogue.variants[catalogue.evaluation(row.evaluation).variant]
                assert setting["NMS"] == (variant.nms is not None)
            if "3DMF" in setting:
                assert setting["3DMF"] == (training.model == "defcn" or options["max_filter"])
            if "POTO" in setting:
                assert setting["POTO"] == (options["quality"] == "poto")
                assert options["o2m"] == styles[str(setting["o2m"])]
            if setting.get("lambda_o2m", "-") != "-":
                assert options["lambda_o2m"] == setting["lambda_o2m"]
                assert options["lambda_o2o"] == setting.get("lambda_o2o", 1)
            if isinstance(setting.get("share subnet"), bool):
                assert options["share_towers"] == setting["share subnet"]
            if "phase" in setting:
                assert row.phase == setting["phase"]
                assert (row.phase == "train") == (setting["o2m"] != "-"), "DATE is OneNet's network at inference"
            if table.number == 3:
                assert (training.backbone, training.schedule) == ("r101", "36e")
            if table.number == 4:
                assert training.data == "crowdhuman"
            assert (row.label.endswith("†") and table.number == 11) == (training.init is not None)


def test_forty_trainings_and_forty_six_evaluations_and_all_are_used() -> None:
    catalogue = load()
    assert len(catalogue.trainings) == 40
    papers = {name for name, e in catalogue.evaluations.items() if not e.extra}
    assert (len(papers), len(catalogue.annotations)) == (45, 1)
    shown = {name for table in catalogue.tables.values() for name in table.evaluations}
    drawn = {training for figure in catalogue.figures.values() for training in figure.trainings}
    assert {catalogue.evaluation(name).training for name in shown} | drawn == set(catalogue.trainings)
    assert papers - shown == {f"{name}/o2o" for name in drawn if "30k" in name}, "ends of curves"
    assert {row.annotations for row in catalogue.tables["table04"].rows} - {None} == set(catalogue.annotations)


def test_every_row_says_what_it_rests_on() -> None:
    catalogue = load()
    for table in catalogue.tables.values():
        for row in table.rows:
            basis = catalogue.basis(row)
            assert basis.source in ("official", "inferred") and basis.why


def test_the_figures_ends_are_those_of_the_text_and_of_table_1() -> None:
    ends = {curve.label: curve.end for curve in load().figures["figure3"].curves}
    assert list(ends.values()) == [35.4, 36.5, 36.3]
    assert {panel.metric for panel in load().figures["figure4"].panels} == {
        f"o2o.loss_{k}" for k in ("cls", "reg", "iou")
    }


@pytest.mark.shared
def test_tables_and_text_against_the_paper_itself(shared_data: Path) -> None:
    path = shared_data.parent / "paper" / "date-paper.md"
    if not path.is_file():
        pytest.skip(f"the paper's text is absent ({path})")
    text = path.read_text(encoding="utf-8")
    blocks: dict[int, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        if "\t" in line:
            lines.append(line.split("\t"))
        elif match := re.match(r"Table (\d+)\.", line):
            blocks[int(match[1])], lines = lines, []
    for table in load().tables.values():
        body = blocks[table.number][2 if table.number == 9 else 1 :]
        assert len(body) == len(table.rows)
        label = ""
        for row, cells in zip(table.rows, body, strict=True):
            label = cells[0] or label
            assert row.label == label
            printed = [
                re.findall(r"\d+\.?\d*", re.sub(r"</?\w+>", "", cell)) for cell in cells[1 + len(table.settings) :]
            ]
            inner = row.bracket.paper if row.bracket else {}
            ours = [[d[m] for d in (row.paper, inner) if m in d] for m in table.metrics]
            assert [[float(number) for number in cell] for cell in printed] == ours, row.id
            for value, cell in zip(row.setting.values(), cells[1:], strict=False):
                assert (
                    {True: "✓", False: "✗"}.get(value, str(value)) == cell
                    if isinstance(value, bool)
                    else str(value) == cell
                )
        for which, tag in enumerate(("<b>", "<u>")):
            tagged = {
                column: rows
                for i, column in enumerate(table.metrics, 1 + len(table.settings))
                if (rows := [n for n, cells in enumerate(body, 1) if tag in cells[i]])
            }
            assert marked(table, which) == tagged
    words = _plain(text)
    for statement in load().statements.values():
        for part in statement.quote.split(" ... "):
            assert _plain(part) in words, f"{statement.name}: {part}"
    ends = {curve.end for figure in load().figures.values() for curve in figure.curves if curve.end is not None}
    assert all(f"{end} AP" in text for end in ends)


def _plain(text: str) -> str:
    """Return text without marks, spaces and line breaks."""
    text = re.sub(r"</?\w+>|\*|\$|\\lambda_\{?(\w+)\}?", lambda m: f"λ{m[1]}" if m[1] else "", text)
    return re.sub(r"\s+|-", "", text.replace("\u2019", "'"))
