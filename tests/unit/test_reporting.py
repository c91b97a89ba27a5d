"""Reports from constructed results: every number in them is worked by hand."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from date.catalogue import ROOT, Claim, Row, Table, load, load_tier
from date.errors import UserError
from date.reporting.claims import judge
from date.reporting.figures import convergence_curves, learning_rate_drops, steps_per_epoch
from date.reporting.report import duration, write_report
from date.reporting.scores import Sample, Scores, number, signed
from date.reporting.style import spread
from date.reporting.tables import comma_separated, fill, markdown
from date.results import load_results

DATE_F, ONENET, FCOS, RETINANET = (f"{name}-r50-coco-12e" for name in ("date_f", "onenet", "fcos", "retinanet"))


def add_run(
    results: Path,
    tier: str,
    training: str,
    seed: int,
    variants: dict[str, dict[str, float | None]] | None,
    curve: list[float] = [1.0, 2.0],  # noqa: B006 - never changed
    steps_per_epoch: int = 100,
    drops: tuple[int, ...] = (),
    code: str = "c0de" * 16,
    areas: tuple[float, float] = (8, 20),
) -> Path:
    """Write a run into a results folder: an evaluation per variant (None: not evaluated), and AP after each epoch."""
    folder = results / tier / training / f"seed{seed}"
    folder.mkdir(parents=True)
    digest = f"{training}-{seed}"
    seconds = {"began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:40Z", "seconds": 100.0, "reason": "finished"}
    provenance = {
        "schema_version": 1,
        "training": training,
        "tier": tier,
        "seed": seed,
        "run_digest": digest,
        "code_sha256": code,
        "weights_sha256": "beef" * 16,
        "data": {"dataset": "scenes", "digest": "da7a" * 16},
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "hardware": {"devices": ["cpu"], "processor": "x86_64", "threads": 1},
        "steps": steps_per_epoch * len(curve),
        "segments": [seconds],
    }
    records: list[dict[str, Any]] = [{"kind": "start", "schema_version": 1}]
    for epoch, value in enumerate(curve, 1):
        lr = 0.1 ** sum(epoch > drop for drop in drops)
        for quarter in (1, 2, 3):
            step = (epoch - 1) * steps_per_epoch + quarter * steps_per_epoch // 4
            records.append({"kind": "train", "step": step, "epoch": step / steps_per_epoch, "lr": lr, "loss": 1.0})
        records.append({"kind": "eval", "step": epoch * steps_per_epoch, "epoch": epoch, "AP": value})
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if variants is not None:
        judged = {name: {"metrics": metrics, "detections": 1} for name, metrics in variants.items()}
        evaluation = {"run_digest": digest, "area_thresholds": areas, "variants": judged}
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def coco(ap: float | None, rest: float = 30.0) -> dict[str, float | None]:
    return {"AP": ap} | dict.fromkeys(("AP50", "AP75", "APs", "APm", "APl"), rest)


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
    text = markdown(fill(load().tables["table01"], load_tier("paper"), Scores(load_results(tmp_path, "paper"))))
    assert text.startswith("# Table 1")
    # Mean 37.5, deviation 1/sqrt(2), difference 37.5 - 37.3; FCOS's 37.46 is printed 37.5 and ties.
    assert markdown_cells(text, "DATE-F", "12")[:7] == [
        "DATE-F",
        "12",
        "no",
        "2",
        "**37.3**",
        "**37.5 \u00b1 0.7**",
        "+0.2",
    ]
    assert markdown_cells(text, "FCOS", "12")[:7] == ["FCOS", "12", "yes", "1", "37.2", "**37.5**", "+0.3"]
    for missing in (markdown_cells(text, "OneNet", "12"), markdown_cells(text, "FCOS", "36")):
        assert missing[3] == "\u2014"
        assert set(missing[5::3]) == set(missing[6::3]) == {"\u2014"}
    assert "as in COCO" in text
    assert "the paper: 32" not in text


def test_watermarked_tier_shows_no_difference(three_seeds: Path) -> None:
    tier = load_tier("mini")
    filled = fill(load().tables["table01"], tier, Scores(load_results(three_seeds, "mini")))
    text = markdown(filled)
    assert text.splitlines()[0] == f"> **{tier.watermark}**"
    assert not any("difference" in cell for cell in markdown_cells(text, "", "epoch"))
    # (38.0 + 38.5 + 39.3) / 3 = 38.6; deviations -0.6, -0.1, 0.7.
    cells = markdown_cells(text, "DATE-F", "12")
    assert cells[3:8] == ["3", "**37.3**", f"**38.6 \u00b1 {math.sqrt(0.86 / 2):.1f}**", "55.3", "**30.0 \u00b1 0.0**"]
    assert markdown_cells(text, "FCOS", "12")[5] == "38.2"
    assert (
        "below 8\u00b2 pixels, from 8\u00b2 to 20\u00b2, and above 20\u00b2 (the paper: 32\u00b2 and 96\u00b2)" in text
    )
    assert "their number stands in the row" in text


def test_best_is_decided_at_one_decimal_within_the_group() -> None:
    def row(i: int, ap: float) -> Row:
        return Row(id=f"r{i}", label=f"m{i}", evaluation=f"t{i}/v", paper={"AP": ap})

    groups = [[row(0, 30.0), row(1, 30.04), row(2, 29.9)], [row(3, 10.0)]]
    table = Table(number=9, title="T", caption="C", settings=[], metrics=["AP"], groups=groups)
    filled = fill(table, load_tier("paper"), Scores([]))
    assert [line.cells["AP"].paper_best for line in filled.lines] == [True, True, False, True]
    assert not any(line.cells["AP"].ours_best for line in filled.lines)


def test_undefined_metric_is_missing_and_not_zero(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0) | {"APs": None, "APm": 0.0}})
    filled = fill(load().tables["table01"], load_tier("mini"), Scores(load_results(tmp_path, "mini")))
    cells = markdown_cells(markdown(filled), "FCOS", "12")
    assert (cells[11], cells[13]) == ("\u2014", "**0.0**")


@pytest.mark.parametrize("tier", ["mini", "paper"])
def test_csv_reads_back_at_full_precision(tmp_path: Path, tier: str) -> None:
    third, values = 100 / 3, {}
    for seed in (0, 2):
        values[seed] = third + 0.1 * seed
        add_run(tmp_path, tier, DATE_F, seed, {"o2o": coco(values[seed])})
    text = comma_separated(fill(load().tables["table01"], load_tier(tier), Scores(load_results(tmp_path, tier))))
    frame = pd.read_csv(io.StringIO(text), comment="#", index_col="row")
    assert list(frame.index) == [f"table01.{i}" for i in range(1, 8)]
    ours = frame.loc["table01.4"]
    assert (ours["label"], ours["epoch"], ours["NMS"], ours["seeds"]) == ("DATE-F", 12, False, "0 2")
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


def test_claims_are_paired_over_equal_seeds(tmp_path: Path) -> None:
    # DATE-F is higher on average, but lower wherever both were trained with the same seed.
    for seed, ap in {0: 50.0, 1: 30.0, 2: 31.0}.items():
        add_run(tmp_path, "mini", DATE_F, seed, {"o2o": coco(ap)})
    for seed, ap in {1: 30.5, 2: 32.0, 3: 1.0}.items():
        add_run(tmp_path, "mini", ONENET, seed, {"o2o": coco(ap)})
    add_run(tmp_path, "mini", FCOS, 3, {"head": coco(29.0)})
    scores = Scores(load_results(tmp_path, "mini"))

    def outcome(higher: str, lower: str) -> Any:
        claim = Claim(name="c", sentence="s", place="p", higher=higher, lower=lower, paper_difference=1.0)
        return judge(claim, scores)

    date_f, onenet, fcos = f"{DATE_F}/o2o", f"{ONENET}/o2o", f"{FCOS}/head"
    against = outcome(date_f, onenet)
    assert against.difference.values == {1: -0.5, 2: -1.0}
    assert (against.difference.mean, against.word) == (-0.75, "not as claimed")
    assert outcome(onenet, date_f).word == "as claimed"
    assert outcome(fcos, onenet).difference.values == {3: 28.0}
    unpaired, absent = outcome(fcos, date_f), outcome(date_f, f"{RETINANET}/head")
    assert (unpaired.word, unpaired.lacking) == ("missing", [])
    assert (absent.word, absent.lacking) == ("missing", [f"{RETINANET}/head"])
    assert outcome(date_f, date_f).word == "no difference"


def test_convergence_curves_and_learning_rate_drops(three_seeds: Path) -> None:
    add_run(three_seeds, "mini", "onenet_poto-r50-coco-12e", 0, None, [3.0, 4.0])
    add_run(three_seeds, "mini", "date_f-r50-coco-36e", 0, None, [9.0], steps_per_epoch=70)
    results = load_results(three_seeds, "mini")
    curves = {curve.label: curve for curve in convergence_curves(load(), results)}
    assert list(curves) == ["FCOS (NMS)", "OneNet", "DATE-F"], "the 12-epoch trainings of Table 1"
    date_f = curves["DATE-F"]
    assert (date_f.steps, date_f.mean) == ([100, 200], [11.0, 20.0])
    assert (date_f.low, date_f.high, date_f.seeds) == ([10.0, 20.0], [12.0, 20.0], (0, 1, 2))
    # Records stand at steps 25, 50, 75 of an epoch; the rate falls between 75 and 125, at the epoch's end.
    assert learning_rate_drops(results) == [100]
    assert steps_per_epoch([run for run in results if run.training == DATE_F]) == 100
    assert steps_per_epoch(results) is None


def test_warm_up_is_no_drop(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 0, None)
    rates = [0.001, 1.0, 0.9, 0.09]
    records = [{"kind": "train", "step": 10 * i, "lr": rate} for i, rate in enumerate(rates, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
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
    assert not {"script", "link", "img", "iframe"} & set(tags)
    fetched = [a[k] or "" for _, a in reader.starts for k in ("src", "href", "xlink:href") if k in a]
    assert all(target.startswith("#") for target in fetched)
    assert "@import" not in source
    assert all(part.startswith("#") for part in source.split("url(")[1:])
    assert tags.count("caption") == tags.count("table") == len(load().tables) + 1
    assert all(attrs.get("scope") for tag, attrs in reader.starts if tag == "th")
    (figure,) = [attrs for tag, attrs in reader.starts if tag == "svg"]
    assert figure["role"] == "img"
    assert "DATE-F 20.0" in (figure["aria-label"] or "")
    text = " ".join(" ".join(reader.text).split())
    watermark = load_tier("mini").watermark or ""
    assert text.count(watermark) >= 4  # banner, table, figure, runs
    assert f'<p class="banner" role="note"><strong>{watermark}</strong></p>' in html.unescape(source)
    # DATE-F - OneNet: 2.0, 1.5, 2.8.
    assert "Ours, AP +2.1 3 seeds, +1.5 to +2.8" in text
    assert "as claimed" in text
    assert "No result of date_f-r50-coco-36e/o2o and onenet-r50-coco-36e/o2o." in text
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
    assert {path.name for path in files} >= {"index.html", "table01.md", "table01.csv", "convergence.pdf"}
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_no_figure_is_left_where_no_curve_has_results(tmp_path: Path) -> None:
    run = add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    figures = write_report("mini", tmp_path, tmp_path / "reports").parent / "figures"
    assert len(list(figures.iterdir())) == 3
    run.parent.rename(tmp_path / "mini" / "fcos-r50-coco-36e")
    provenance = tmp_path / "mini" / "fcos-r50-coco-36e" / "seed0" / "provenance.json"
    provenance.write_text(provenance.read_text().replace(f'"training": "{FCOS}"', '"training": "fcos-r50-coco-36e"'))
    page = write_report("mini", tmp_path, tmp_path / "reports")
    assert list(figures.iterdir()) == []
    assert "No 12-epoch training has results yet." in page.read_text(encoding="utf-8")


def test_results_of_different_code_are_announced(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", FCOS, 0, None)
    page = write_report("mini", tmp_path, tmp_path / "reports")
    assert "different versions of the training code" not in page.read_text(encoding="utf-8")
    add_run(tmp_path, "mini", ONENET, 0, None, code="0dd" + "0" * 61)
    write_report("mini", tmp_path, tmp_path / "reports")
    assert "trained with 2 different versions of the training code" in page.read_text(encoding="utf-8")


def test_tier_without_results_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="snakemake --profile workflow/profiles/local all --config tier=smoke"):
        write_report("smoke", tmp_path, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(("seconds", "text"), [(8.4, "8 s"), (75, "1 min 15 s"), (12000, "3 h 20 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
