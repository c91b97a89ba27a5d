"""Reports from constructed results: every number in them is worked by hand."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from date.catalogue import METRICS, ROOT, load, load_tier
from date.errors import UserError
from date.reporting.figures import curves, drawings, learning_rate_drops, steps_per_epoch
from date.reporting.formats import comma_separated, markdown
from date.reporting.report import write_report
from date.reporting.scores import Sample, Scores, number, signed
from date.reporting.style import spread
from date.reporting.tables import FilledTable, fill, mark_best
from date.results import load_annotation_recalls, load_complexity, load_results, seal
from sealed import add_complexity, add_paper, add_run, change, coco, set_records

DATE_F, ONENET, FCOS, RETINANET = (f"{name}-r50-coco-12e" for name in ("date_f", "onenet", "fcos", "retinanet"))


def filled(results: Path, tier: str, table: str = "table01") -> FilledTable:
    """Return a table of the catalogue with the results of a folder."""
    scores = Scores(load_results(results, tier), load_complexity(results), load_annotation_recalls(results, tier))
    return fill(load().tables[table], load_tier(tier), scores, load())


def markdown_cells(text: str, *start: str) -> list[str]:
    """Return the cells of the one line of a Markdown table that begins with the given cells."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    (found,) = [cells for cells in lines if cells[: len(start)] == list(start)]
    return found


@pytest.fixture
def three_seeds(tmp_path: Path) -> Path:
    """All but RetinaNet and the 36-epoch trainings at the mini tier, DATE-F and OneNet with three seeds."""
    for seed, (date_f, onenet) in enumerate([(38.0, 36.0), (38.5, 37.0), (39.3, 36.5)]):
        o2o = {"o2o": coco(date_f), "o2o_nms50": coco(1.0), "o2m": coco(2.0)}
        add_run(tmp_path / "results", "mini", DATE_F, seed, o2o, [10.0 + seed, 20.0], drops=(1,))
        add_run(tmp_path / "results", "mini", ONENET, seed, {"o2o": coco(onenet)}, [5.0, 15.0])
    add_run(tmp_path / "results", "mini", FCOS, 0, {"head": coco(38.25)})
    return tmp_path / "results"


def test_a_mean_is_over_the_seeds_that_have_the_number(tmp_path: Path) -> None:
    """Three of five seeds have no AP: the mean is over the other two, and the table says so."""
    for seed in range(5):
        add_run(tmp_path, "mini", "fcos-r50-coco-12e", seed, {"head": coco(40.0 + seed if seed < 2 else None)})
    table = filled(tmp_path, "mini")
    (line,) = [line for group in table.groups for line in group if line.row.evaluation == "fcos-r50-coco-12e/head"]
    ours = line.cells["AP"].ours
    assert (ours.n, ours.mean, len(line.seeds), line.cells["AP50"].ours.n) == (2, 40.5, 5, 5)
    (note,) = [note for note in table.notes if "sample standard deviation" in note]
    assert note.endswith("over 5 seeds (0, 1, 2, 3, 4). Over fewer seeds, whose number is in brackets: AP of FCOS (2).")


def test_sample_statistics_by_hand() -> None:
    sample = Sample({0: 10.0, 1: 11.0, 4: 13.0})
    assert sample.mean == pytest.approx(34 / 3)
    assert sample.sd == pytest.approx(math.sqrt(7 / 3))  # deviations -4/3, -1/3, 5/3; divided by n - 1
    assert sample.range == (10.0, 13.0)
    assert (Sample({3: 5.0}).mean, Sample({3: 5.0}).sd, Sample({}).mean) == (5.0, None, None)


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [
        (37.26, "37.3", "+37.3"),
        (-1.25, "\u22121.2", "\u22121.2"),
        (-0.04, "0.0", "0.0"),
        (-10.04, "\u221210.0", "\u221210.0"),
        (0.0, "0.0", "0.0"),
        (None, "\u2014", "\u2014"),
    ],
)
def test_numbers_are_printed_with_one_decimal(value: float | None, plain: str, with_sign: str) -> None:
    assert (number(value), signed(value)) == (plain, with_sign)


def test_paper_tier_shows_means_spread_differences_and_ties(tmp_path: Path) -> None:
    for seed, ap in enumerate([37.0, 38.0]):
        add_run(tmp_path, "paper", DATE_F, seed, {"o2o": coco(ap)}, areas=(32, 96))
    add_run(tmp_path, "paper", FCOS, 0, {"head": coco(37.46)}, areas=(32, 96))
    add_run(tmp_path, "paper", ONENET, 0, None)
    text = markdown(filled(tmp_path, "paper"))
    assert text.startswith("# Table 1")
    # Mean 37.5, deviation 1/sqrt(2), difference 37.5 - 37.3; FCOS's 37.46 is printed 37.5 and ties.
    assert markdown_cells(text, "DATE-F (Ours)", "12")[:9] == [
        "DATE-F (Ours)", "12", "no", "official", "2", "**37.3 (+1.9)**", "**37.5 \u00b1 0.7**", "+0.2", "WITHIN NOISE",
    ]  # fmt: skip
    assert markdown_cells(text, "FCOS", "12")[:8] == ["FCOS", "12", "yes", "inferred", "1", "37.2", "**37.5**", "+0.3"]
    for missing in (markdown_cells(text, "OneNet", "12"), markdown_cells(text, "FCOS", "36")):
        assert missing[4] == "\u2014"
        assert set(missing[6::4]) == set(missing[7::4]) == set(missing[8::4]) == {"\u2014"}
    assert "as in COCO" in text
    assert "the paper: 32" not in text


def test_watermarked_tier_shows_no_difference(three_seeds: Path) -> None:
    tier = load_tier("mini")
    text = markdown(filled(three_seeds, "mini"))
    assert text.splitlines()[0] == f"> **{tier.watermark}**"
    assert not any("difference" in cell for cell in markdown_cells(text, "Model", "epoch"))
    # (38.0 + 38.5 + 39.3) / 3 = 38.6; deviations -0.6, -0.1, 0.7.
    cells = markdown_cells(text, "DATE-F (Ours)", "12")
    # Gains over OneNet, paired: 2.0, 1.5, 2.8.
    spread = math.sqrt(0.86 / 2)
    assert cells[4:9] == ["3", "**37.3 (+1.9)**", f"**38.6 \u00b1 {spread:.1f} (+2.1)**", "55.3", "**30.0 \u00b1 0.0**"]
    assert markdown_cells(text, "FCOS", "12")[6] == "38.2"
    assert (
        "below 8\u00b2 pixels, from 8\u00b2 to 20\u00b2, and above 20\u00b2 (the paper: 32\u00b2 and 96\u00b2)" in text
    )
    assert "their number stands in the row" in text


def test_best_is_decided_at_the_papers_digits_within_the_group() -> None:
    def bold(name: str, *values: float | None) -> list[bool]:
        return [best for best, _ in mark_best(values, METRICS[name])]

    assert bold("AP", 30.0, 30.04, 29.9, None) == [True, True, False, False]
    assert bold("mMR", 55.1, 48.44, 48.36) == [False, True, True], "lower is better"
    assert bold("params", 32.0, 33.0) == [False, False], "nobody's parameters are bold"
    assert bold("AP", 10.0) == [False], "nothing to compare with"
    assert bold("AP", None, None) == [False, False]


def test_nearly_as_good_is_underlined() -> None:
    marks = mark_best([37.0, 37.2, 36.99, 36.94, 37.1], METRICS["AP"], 0.2)
    assert [near for _, near in marks] == [True, False, True, False, True]
    assert [best for best, _ in marks] == [False, True, False, False, False]


def test_undefined_metric_is_missing_and_not_zero(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0) | {"APs": None, "APm": 0.0}})
    add_run(tmp_path, "mini", ONENET, 0, {"o2o": coco(10.0) | {"APs": None, "APm": 0.0}})
    cells = markdown_cells(markdown(filled(tmp_path, "mini")), "FCOS", "12")
    assert (cells[12], cells[14]) == ("\u2014", "**0.0**")


@pytest.mark.parametrize("tier", ["mini", "paper"])
def test_csv_reads_back_at_full_precision(tmp_path: Path, tier: str) -> None:
    third, values = 100 / 3, {}
    for seed in (0, 2):
        values[seed] = third + 0.1 * seed
        add_run(tmp_path, tier, DATE_F, seed, {"o2o": coco(values[seed])})
    text = comma_separated(filled(tmp_path, tier))
    frame = pd.read_csv(io.StringIO(text), comment="#", index_col="row")
    assert list(frame.index) == [f"table01.{i}" for i in range(1, 8)]
    ours = frame.loc["table01.4"]
    assert (ours["label"], ours["epoch"], ours["NMS"], ours["seeds"]) == ("DATE-F (Ours)", 12, False, "0 2")
    assert ours["ours_AP"] == np.mean(list(values.values()))
    assert ours["ours_AP_sd"] == pytest.approx(np.std(list(values.values()), ddof=1), rel=1e-12)
    assert ours["paper_AP"] == 37.3
    watermark = load_tier(tier).watermark
    if watermark is None:
        assert ours["difference_AP"] == ours["ours_AP"] - 37.3
        assert text.startswith("row,")
    else:
        assert text.splitlines()[0] == f"# {watermark}"
        assert not any("difference" in column for column in frame.columns)
    missing = next(
        line for line in csv.DictReader(io.StringIO(text[text.index("row,") :])) if line["label"] == "RetinaNet"
    )
    assert missing["ours_AP"] == missing["ours_AP_sd"] == missing["seeds"] == ""


def test_convergence_curves_and_learning_rate_drops(three_seeds: Path) -> None:
    add_run(three_seeds, "mini", "onenet_poto-r50-coco-12e", 0, None, [3.0, 4.0])
    add_run(three_seeds, "mini", "date_f-r50-coco-36e", 0, None, [9.0], steps_per_epoch=70)
    results = load_results(three_seeds, "mini")
    convergence = drawings(load())[0]
    drawn = {curve.label: curve for curve in curves(convergence, convergence.panels[0], results)}
    assert list(drawn) == ["FCOS (NMS)", "OneNet", "DATE-F"], "the 12-epoch trainings of Table 1"
    date_f = drawn["DATE-F"]
    assert (date_f.steps, date_f.mean) == ([100, 200], [11.0, 20.0])
    assert (date_f.low, date_f.high, date_f.seeds) == ([10.0, 20.0], [12.0, 20.0], (0, 1, 2))
    # Records stand at steps 25, 50, 75 of an epoch; the rate falls between 75 and 125, at the epoch's end.
    assert learning_rate_drops(results) == [100]
    assert steps_per_epoch([run for run in results if run.training == DATE_F]) == 100
    assert steps_per_epoch(results) is None


def test_the_title_of_convergence_says_how_many_epochs_the_axis_has() -> None:
    titles = {tier: drawings(load(), load_tier(tier))[0].title for tier in ("paper", "mini", "bccd", "smoke")}
    title = "Convergence over the paper's 12 epochs"
    assert titles == {"paper": title, "mini": f"{title}, here 4", "bccd": title, "smoke": f"{title}, here 2"}


def test_losses_are_averaged_over_parts_of_the_training(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", ONENET, 0, None)
    records = [{"kind": "train", "step": step, "lr": 1.0, "o2o.loss_cls": float(step)} for step in range(1, 241)]
    set_records(folder, records)
    add_run(tmp_path, "mini", DATE_F, 0, None, losses={"o2o.loss_cls": 6.0})
    figure = next(drawing for drawing in drawings(load()) if drawing.name == "figure4")
    results = load_results(tmp_path, "mini")
    onenet, date_f = curves(figure, figure.panels[0], results)
    # 240 records in 60 parts of 4: steps 1 to 4 have mean 2.5, the last 238.5.
    assert (len(onenet.mean), onenet.mean[0], onenet.mean[-1], onenet.steps[-1]) == (60, 2.5, 238.5, 238.5)
    assert (date_f.label, date_f.mean) == ("DATE-F", [6.0, 6.0, 6.0, 3.0, 3.0, 3.0]), "fewer records than parts"
    assert curves(figure, figure.panels[1], results) == [], "no L1 loss was recorded"


def test_epochs_of_a_schedule_in_iterations_are_known_by_their_rounded_records(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, None)
    records = [{"kind": "eval", "step": 5000 * i, "epoch": round(5000 * i / 7330, 4), "AP": 1.0} for i in range(1, 7)]
    set_records(folder, records)
    assert steps_per_epoch(load_results(tmp_path, "mini")) == pytest.approx(7330, rel=1e-4)


def test_warm_up_is_no_drop(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, None)
    rates = [0.001, 1.0, 0.9, 0.09]
    records = [{"kind": "train", "step": 10 * i, "lr": rate} for i, rate in enumerate(rates, 1)]
    set_records(folder, records)
    assert learning_rate_drops(load_results(tmp_path, "mini")) == [30]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.floats(0, 20))
def test_labels_are_spread_as_little_as_possible(places: list[float], gap: float) -> None:
    targets = sorted(places)
    found = spread(targets, gap)
    assert np.all(np.diff(found) >= gap - 1e-9)
    offsets = gap * np.arange(len(targets))
    np.testing.assert_allclose(found, isotonic_regression(np.array(targets) - offsets).x + offsets, atol=1e-8)


class _Reader(HTMLParser):
    """Checks that tags are balanced and collects what a browser would fetch."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_is_well_formed_self_contained_and_marked(three_seeds: Path) -> None:
    page = write_report("mini", three_seeds, three_seeds.parent / "reports")
    assert page == three_seeds.parent / "reports" / "mini" / "index.html"
    source, reader = page.read_text(encoding="utf-8"), _Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    tags = [tag for tag, _ in reader.starts]
    assert not {"link", "img", "iframe"} & set(tags)
    assert [attrs for tag, attrs in reader.starts if tag == "script"] == [{}], "one inline script"
    fetched = [a[k] or "" for _, a in reader.starts for k in ("src", "href", "xlink:href") if k in a]
    assert all(target.startswith("#") for target in fetched)
    assert "@import" not in source
    assert all(part.startswith("#") for part in source.split("url(")[1:])
    assert not any(word in source for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon"))
    assert tags.count("caption") == tags.count("table") == len(load().tables) + 2, (
        "and the runs, and the values of Figure 5"
    )
    assert all(attrs.get("scope") for tag, attrs in reader.starts if tag == "th")
    figures = [attrs for tag, attrs in reader.starts if tag == "svg"]
    assert [figure["role"] for figure in figures] == ["img"] * 3, (
        "convergence, Figure 3 with OneNet alone, Figure 5 with one setting"
    )
    assert "DATE-F 20.0" in (figures[0]["aria-label"] or "")
    assert "None of its trainings has results yet." in source, "Figure 4: no losses of the one-to-one branch"
    ids = [attrs["id"] for _, attrs in reader.starts if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {target.removeprefix("#") for target in fetched}
    assert targets <= set(ids) and {"table01", "table11", "figure3", "runs"} <= targets
    text = " ".join(" ".join(reader.text).split())
    watermark = load_tier("mini").watermark or ""
    assert text.count(watermark) >= 4  # banner, table, figure, runs
    assert f'<p class="banner" role="note"><strong>{watermark}</strong></p>' in html.unescape(source)
    # DATE-F - OneNet: 2.0, 1.5, 2.8.
    assert "Ours, AP +2.1 SUPPORTED" in text, "p is 0.0116 for this look, of which three seeds have 0.012"
    assert "3 seeds, 95 % interval +0.02 to +4.18, p 0.048." in text
    assert "no result of date_f-r50-coco-36e/o2o and onenet-r50-coco-36e/o2o." in text
    assert f"results/mini/{DATE_F}/seed2/provenance.json" in text
    assert f"3 of {len(load().select(load_tier('mini').trainings))} trained and evaluated" in text


def test_paper_tier_carries_no_watermark(tmp_path: Path) -> None:
    add_run(tmp_path, "paper", DATE_F, 0, {"o2o": coco(37.0)})
    page = write_report("paper", tmp_path, tmp_path / "reports")
    source = page.read_text(encoding="utf-8")
    assert 'class="mark"' not in source
    assert "\u22120.3" in source
    assert "tier:" not in (page.parent / "figures" / "convergence.svg").read_text(encoding="utf-8")


def test_figure_is_marked_in_every_tier_but_the_papers(three_seeds: Path) -> None:
    folder = write_report("mini", three_seeds, three_seeds.parent / "reports").parent / "figures"
    svg = (folder / "convergence.svg").read_text(encoding="utf-8")
    assert (load_tier("mini").watermark or "") in html.unescape(svg)
    assert (folder / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "convergence.pdf").read_bytes().startswith(b"%PDF")


def test_rebuild_is_byte_identical_and_needs_no_torch(three_seeds: Path) -> None:
    first, second = (three_seeds.parent / name for name in ("first", "second"))
    write_report("mini", three_seeds, first)
    arguments = ["report", "--tier", "mini", "--results", str(three_seeds), "--reports", str(second)]
    code = (
        f"import sys; from date.cli import main; status = main({arguments}); sys.exit(status or 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{second / 'mini' / 'index.html'}\n"
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert files == {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {
        "index.html",
        "tables.md",
        "table11.tex",
        "table01.csv",
        "figures.md",
        "figure3.pdf",
    }
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_no_figure_is_left_where_no_curve_has_results(tmp_path: Path) -> None:
    run = add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    figures = write_report("mini", tmp_path, tmp_path / "reports").parent / "figures"
    assert {path.name for path in figures.iterdir()} == {f"convergence.{kind}" for kind in ("svg", "png", "pdf")}
    run.parent.rename(tmp_path / "mini" / "fcos-r50-coco-36e")
    change(tmp_path / "mini" / "fcos-r50-coco-36e" / "seed0", training="fcos-r50-coco-36e")
    page = write_report("mini", tmp_path, tmp_path / "reports")
    assert list(figures.iterdir()) == []
    assert page.read_text(encoding="utf-8").count("None of its trainings has results yet.") == 4


def test_results_of_different_code_are_announced(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", FCOS, 0, None)
    page = write_report("mini", tmp_path, tmp_path / "reports")
    assert "different versions of the training code" not in page.read_text(encoding="utf-8")
    add_run(tmp_path, "mini", ONENET, 0, None, code="0dd" + "0" * 61)
    write_report("mini", tmp_path, tmp_path / "reports")
    assert "trained with 2 different versions of the training code" in page.read_text(encoding="utf-8")


def test_one_table_or_figure_alone(three_seeds: Path) -> None:
    reports = three_seeds.parent / "reports"
    made = write_report("mini", three_seeds, reports, ["table05"])
    assert made == reports / "mini" / "tables" / "table05.md"
    assert {path.name for path in reports.rglob("*.*")} == {"table05.md", "table05.csv", "table05.tex"}
    assert write_report("mini", three_seeds, reports, ["figure3"]).name == "figure3.svg"
    assert write_report("mini", three_seeds, reports, ["tables"]).read_text().count("\n# Table ") == 11
    assert "![Figure 3." in write_report("mini", three_seeds, reports, ["figures"]).read_text()
    with pytest.raises(UserError, match="unknown table or figure 'table5'; did you mean 'table05'"):
        write_report("mini", three_seeds, reports, ["table5"])
    with pytest.raises(
        UserError, match="figure4 has nothing to show. None of its trainings has results at tier 'mini'."
    ):
        write_report("mini", three_seeds, reports, ["figure4"])
    before = (reports / "mini" / "tables" / "table05.md").read_bytes()
    write_report("mini", three_seeds, reports)
    assert (reports / "mini" / "tables" / "table05.md").read_bytes() == before


def test_the_table_of_networks_needs_no_training(tmp_path: Path) -> None:
    add_complexity(tmp_path)
    text = write_report("paper", tmp_path, tmp_path / "reports", ["table08"]).read_text()
    assert markdown_cells(text, "DATE-F (Ours)", "FCOS")[2:] == [
        "train", "official", "32.2", "32.2", "0.0", "REPRODUCED", "205", "205", "0", "REPRODUCED",
    ]  # fmt: skip
    assert markdown_cells(text, "OneNet")[3:] == [
        "inferred", "32.0", "32.0", "0.0", "REPRODUCED", "201", "201", "0", "REPRODUCED",
    ]  # fmt: skip


def test_numbers_of_networks_are_printed_as_the_paper_prints_them(tmp_path: Path) -> None:
    add_paper(tmp_path, "paper")
    table = filled(tmp_path, "paper", "table09")
    own_towers = table.lines[2].cells
    assert [own_towers[name].ours_parts for name in table.table.metrics[1:]] == [["38.5"], ["32.0"], ["338"], ["201"]]
    assert own_towers["gflops_train"].difference_parts == ["\u221250"], "the paper's table has 388"
    assert own_towers["gflops_infer"].ours.mean == 200.49653988, "at full precision in the CSV"
    assert not any(cell.ours_best for line in table.lines for name, cell in line.cells.items() if name != "AP")


def test_crowd_numbers_come_from_their_own_protocol(tmp_path: Path) -> None:
    date_r = "date_r-r50-crowdhuman-30k"
    add_run(tmp_path, "paper", date_r, 0, {"o2o": {"AP": 90.0, "mMR": 48.0, "Recall": 98.0}})
    (tmp_path / "paper" / "annotations").mkdir()
    recalls = json.dumps({"clipped": False, "recall": {"0.5": 91.0, "0.6": 95.0}})
    (tmp_path / "paper" / "annotations" / "crowdhuman_nms.json").write_text(recalls)
    text = markdown(filled(tmp_path, "paper", "table04"))
    assert markdown_cells(text, "DATE-R (Ours)")[3:11] == [
        "**90.6**", "**90.0**", "\u22120.6", "DIFFERS", "**48.4**", "**48.0**", "\u22120.4", "WITHIN NOISE",
    ]  # fmt: skip
    assert markdown_cells(text, "Annotations")[2:] == [*["\u2014"] * 9, "95.1", "95.0", "\u22120.1", "DIFFERS"]
    assert "NMS at IoU 0.6." in text
    assert "area" not in text, "no sizes of objects in this protocol"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("complexity.json", '{"networks": [{"label": "x"}]}', "complexity.json does not list the counted networks"),
        ("complexity.json", '{"networks"', "complexity.json is not valid JSON"),
        ("mini/annotations/crowdhuman_nms.json", "{}", "crowdhuman_nms.json has no recall by threshold"),
        (
            "mini/annotations/crowdhuman_nms.json",
            '{"recall": {"x": 1}}',
            "crowdhuman_nms.json has no recall by threshold",
        ),
    ],
)
def test_a_spoiled_result_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=f"{message}.*; delete it and run the DAG again"):
        write_report("mini", tmp_path, tmp_path / "reports", ["tables"])


def test_whatever_is_changed_or_cut_off_is_named(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", ONENET, 0, {"o2o": coco(10.0)})
    for name in ("provenance.json", "evaluation.json", "metrics.jsonl"):
        folder = add_run(tmp_path / name, "mini", FCOS, 0, {"head": coco(20.0)}, [10.0, 20.0])
        whole = (folder / name).read_text()
        for spoiled in (whole.replace("20", "21", 1), whole[: len(whole) // 2]):
            assert spoiled != whole
            (folder / name).write_text(spoiled)
            with pytest.raises(UserError, match=f"{FCOS}/seed0/{name} .*(changed since it was sealed|not valid JSON)"):
                write_report("mini", tmp_path / name, tmp_path / "reports")
        (folder / name).write_text(whole)
        write_report("mini", tmp_path / name, tmp_path / "reports", ["table01"])


def test_records_without_a_digest_are_read_even_where_no_number_is_of_them(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    change(folder, metrics_sha256=None)
    assert load_results(tmp_path, "mini")[0].curve("AP") == [(100, 1.0), (200, 2.0)]
    (folder / "metrics.jsonl").write_text("{\n" + (folder / "metrics.jsonl").read_text())
    with pytest.raises(UserError, match="line 1 of .*metrics.jsonl is not JSON"):
        write_report("mini", tmp_path, tmp_path / "reports", ["table01"])


def test_results_without_a_digest_of_their_content_are_announced(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    evaluation = json.loads((folder / "evaluation.json").read_text())
    del evaluation["content_sha256"]
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    page = write_report("mini", tmp_path, tmp_path / "reports").read_text(encoding="utf-8")
    assert f"a change in them could not be noticed: {FCOS} (seed 0)." in page


def test_a_result_in_anothers_folder_is_named(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    shutil.copytree(folder, folder.with_name("seed1"))
    with pytest.raises(UserError, match=f"seed1/provenance.json is of {FCOS} with seed 0"):
        write_report("mini", tmp_path, tmp_path / "reports")


def test_an_evaluation_of_another_checkpoint_is_named(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    evaluation = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(seal(evaluation | {"weights_sha256": "ab" * 32}))
    with pytest.raises(UserError, match=r"evaluation.json judges another run than .*provenance.json"):
        write_report("mini", tmp_path, tmp_path / "reports")


def test_brackets_with_a_second_evaluation(tmp_path: Path) -> None:
    for seed, with_nms in enumerate([37.0, 38.0]):
        add_run(tmp_path, "paper", DATE_F, seed, {"o2o": coco(37.5), "o2o_nms50": coco(with_nms)})
    cells = markdown_cells(markdown(filled(tmp_path, "paper", "table06")), "DATE-F", "12")
    assert cells[4:7] == ["37.3 (37.4)", "37.5 \u00b1 0.0 (37.5)", "+0.2 (+0.1)"]
    frame = pd.read_csv(io.StringIO(comma_separated(filled(tmp_path, "paper", "table06"))))
    assert (frame.loc[0, "paper_AP_bracket"], frame.loc[0, "ours_AP_bracket"]) == (37.4, 37.5)


def test_tier_without_results_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="snakemake --profile workflow/profiles/local all --config tier=smoke"):
        write_report("smoke", tmp_path, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()
