"""Reports once more by the second implementation, `tests.support.second`, which imports nothing of the package.

The committed report of mini, and one of results made up so that everything is in it: values on resamples, some
undefined, some of other images, seeds that lack, runs from the same start, and seeds that go together.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import sealed
from tests.support import second
from tests.support.command import date
from tests.support.records import unpack_record
from tests.support.second import MINUS, Judged, Results

ROOT = Path(__file__).resolve().parents[2]
DIGITS = {"params": 1, "gflops": 0}
STARTED = "date_f_init-r50-coco-30k"


class Report:
    """A report, and what the second implementation makes of the results behind it."""

    def __init__(self, folder: Path, results: Path, tier: str) -> None:
        self.folder = folder
        self.results: Results = second.read(results, tier)
        self.claims: list[Judged] = second.judge(self.results)

    def lines(self, name: str) -> list[dict[str, str]]:
        text = (self.folder / name).read_text().splitlines(keepends=True)
        return list(csv.DictReader("".join(line for line in text if not line.startswith("#")).splitlines()))


@pytest.fixture(scope="module", params=["committed", "made"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "committed":
        return Report(ROOT / "reports" / "mini", unpack_record("mini", folder), "mini")
    made_results(folder / "results")
    date("report", "--tier=mini", "--results", folder / "results", "--reports", folder, data=folder)
    return Report(folder / "mini", folder / "results", "mini")


def made_results(results: Path) -> None:
    """The paper's numbers with everything that a verdict may have to do with."""
    sealed.add_paper(results, "mini", seeds=(0, 1, 2), noise=0.6, resampled=True)
    shift = {0: 1.5, 1: -1.0, 2: 0.4}
    for path in sorted((results / "mini").glob("*/seed*/evaluation.json")):
        name, seed = path.parent.parent.name, int(path.parent.name[4:])
        record = json.loads(path.read_text())
        for variant in record["variants"].values():
            if "crowdhuman" not in name:
                variant["metrics"]["AP"] += shift[seed]
            if name == "fcos-r50-coco-12e":  # a resample of images without any object
                variant["resamples"]["AP"] = re.sub(r"^\S+ \S+", "- -", variant["resamples"]["AP"])
        if name == "date_r_unshared-r50-coco-12e":
            record["resamples"]["images_sha256"] = "0" * 64
        path.write_text(sealed.seal(record))
    for name in ("onenet_poto-r50-coco-12e", "retinanet-r50-crowdhuman-30k"):
        for path in (results / "mini" / name / "seed1").iterdir():
            path.unlink()
        (results / "mini" / name / "seed1").rmdir()
    for seed in (0, 1, 2):
        start = {"weights": "another run", "weights_sha256": f"{max(seed, 1)}" * 64}
        sealed.change(results / "mini" / STARTED / f"seed{seed}", initialised_from=start)


def test_nothing_of_the_package_is_imported() -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(second.__file__).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    assert "scipy" in found and not found & {"date", "tests", "benchmarks"}


def number(text: str) -> float | None:
    return float(text) if text else None


def test_every_comparison(report: Report) -> None:
    csv_lines = report.lines("claims.csv")
    assert [line["claim"] for line in csv_lines] == [c.name for c in report.claims for _ in c.parts or [None]]
    parts = [(claim, part) for claim in report.claims for part in claim.parts or [None]]
    for line, (claim, part) in zip(csv_lines, parts, strict=True):
        about = f"{line['claim']}: {line['comparison']}"
        assert line["verdict"] == claim.verdict, about
        assert number(line["holm_p"]) == (None if claim.holm is None else pytest.approx(claim.holm, rel=1e-3)), about
        if part is None:
            assert not line["comparison"], about
            continue
        places = [line["comparison"].find(name) for name in part.about]
        assert min(places) >= 0 and places == sorted(places), about
        assert (line["unit"], float(line["margin"]), number(line["paper"])) == (part.unit, part.margin, part.paper)
        assert [int(n) for n in line["runs"].split()] == part.runs, about
        assert [int(n) for n in line["seeds"].split()] == list(part.differences), about
        assert [float(v) for v in line["differences"].split()] == pytest.approx([*part.differences.values()]), about
        for column in ("mean", "error", "seed_error", "image_error", "freedom", "low", "high", "p"):
            wanted = getattr(part, column)
            if wanted is None or line[column] == "":
                assert line[column] == "" and wanted in (None, 0.0), (about, column)
            else:
                assert float(line[column]) == pytest.approx(wanted, rel=1e-3, abs=1e-6), (about, column)
        assert line["comparison_verdict"] == part.verdict, about


def test_all_of_a_comparison_was_met(report: Report, request: pytest.FixtureRequest) -> None:
    """The checks above met what they are for, as far as the results have it."""
    csv_lines = report.lines("claims.csv")
    kinds = {second.CLAIMS[claim.name]["predicate"]["kind"] for claim in report.claims}
    assert kinds == {"higher", "within", "ordered", "gap", "curve", "loss", "complexity"}
    with_interval = [line for line in csv_lines if line["low"]]
    has_resamples = bool(report.results.moved)
    assert any(line["image_error"] for line in with_interval) == has_resamples
    judged = [p for c in report.claims for p in c.parts if p.runs and min(p.runs) > 1]
    assert len(with_interval) == len([p for p in judged if p.error is not None]) > 0
    if "made" in request.node.callspec.params.values():
        assert has_resamples and len(judged) == len([p for c in report.claims for p in c.parts])
        assert any(not line["image_error"] and line["unit"] != "loss" for line in csv_lines if line["low"]), (
            "other images"
        )
        assert any(line["runs"] == "2 3" for line in csv_lines), "a start counts once, and so does a seed that lacks"


def test_the_summary_of_all_verdicts(report: Report) -> None:
    text = (report.folder / "claims.md").read_text()
    counts = {w: sum(c.verdict == w for c in report.claims) for w in ("SUPPORTED", "CONTRADICTED", "UNRESOLVED")}
    for word, count in counts.items():
        assert not count or re.search(rf"\b{count} {word}\b", text), word
    judged = [claim for claim in report.claims if claim.holm is not None]
    decided = [claim for claim in judged if claim.verdict in ("SUPPORTED", "CONTRADICTED")]
    lost = [claim.name for claim in decided if (claim.holm or 0.0) > 0.05]
    summary = re.search(
        r"^(\d+) claims? w.*? of the (\d+) verdicts .*? at most ([\d.]+) are expected", text, re.MULTILINE
    )
    assert summary is not None
    assert [float(n) for n in summary.groups()] == [len(judged), len(decided), float(f"{0.05 * len(judged):.1f}")]
    holm = re.search(r"correction for their number (\d+) of the (\d+) stand(?:; (.*?) do(?:es)? not)?\.", text)
    assert holm is not None
    assert [int(n) for n in holm.groups()[:2]] == [len(decided) - len(lost), len(decided)]
    assert (holm[3] or "").split(", ") == (lost or [""])


def shown(value: float | None, digits: int, signed: bool = False) -> str:
    """A number as tables print it."""
    if value is None:
        return "\N{EM DASH}"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return f"{0:.{digits}f}"
    return ("+" if signed and value > 0 else "") + text.replace("-", MINUS)


def cell(results: Results, row: dict[str, Any], metric: str) -> list[float] | None:
    """Our numbers of a row of a table in a column."""
    figure, _, phase = metric.partition("_")
    if figure in DIGITS:
        found = results.counted.get((row.get("network", ""), phase or row.get("phase", "infer")))
        return None if found is None else [found[figure]]
    if "annotations" in row:
        iou = second.EVALUATIONS["annotations"][row["annotations"]]["iou"]
        found_recall = results.recall.get(row["annotations"], {}).get(iou)
        return [found_recall] if metric == "Recall" and found_recall is not None else None
    return list(results.of(row.get("evaluation", ""), metric).values()) or None


def test_every_cell_of_the_tables(report: Report) -> None:
    met = {"brackets": 0, "recall": 0, "spread": 0}
    for number_of in range(1, 12):
        table = second.entries(f"paper/table{number_of:02d}")
        rows = {row["id"]: row for group in table["groups"] for row in group}
        csv_lines = report.lines(f"tables/table{number_of:02d}.csv")
        assert [line["row"] for line in csv_lines] == list(rows)
        markdown = (report.folder / "tables" / f"table{number_of:02d}.md").read_text()
        body = [line for line in markdown.splitlines() if line.startswith("|")][2:]
        for line, row, printed in zip(csv_lines, rows.values(), body, strict=True):
            fields = [re.sub(r"\*\*|</?ins>", "", text).strip() for text in printed.split(" | ")]
            fields = [text.removesuffix("|").strip() for text in fields][-2 * len(table["metrics"]) :]
            for metric, paper_text, ours_text in zip(table["metrics"], fields[::2], fields[1::2], strict=True):
                about, digits = (row["id"], metric), DIGITS.get(metric.split("_")[0], 1)
                paper, ours = row["paper"].get(metric), cell(report.results, row, metric)
                mean = None if ours is None else statistics.fmean(ours)
                spread = statistics.stdev(ours) if ours is not None and len(ours) > 1 else None
                bracket = row.get("bracket", {})
                inner_paper, inner = bracket.get("paper", {}).get(metric), None
                if inner_paper is not None and "evaluation" in bracket:
                    other = cell(report.results, bracket, metric)
                    inner = None if other is None else statistics.fmean(other)
                elif inner_paper is not None:
                    other = cell(report.results, rows[bracket["difference_from"]], metric)
                    inner = None if other is None or mean is None else mean - statistics.fmean(other)
                wanted = {"paper": paper, "ours": mean, "ours_sd": spread, "paper_b": inner_paper, "ours_b": inner}
                columns = [f"paper_{metric}", f"ours_{metric}", f"ours_{metric}_sd"]
                columns += [f"paper_{metric}_bracket", f"ours_{metric}_bracket"]
                for column, value in zip(columns, wanted.values(), strict=True):
                    assert number(line.get(column, "")) == (None if value is None else pytest.approx(value)), about
                is_difference = "difference_from" in bracket
                is_figure = metric.split("_")[0] in DIGITS
                seen = second.half_up(mean, digits) if is_figure and mean is not None else mean
                text = shown(seen, digits) + ("" if spread is None else f" ± {shown(spread, digits)}")
                text += "" if inner is None else f" ({shown(inner, digits, is_difference)})"
                assert ours_text == text, about
                theirs = shown(paper, digits)
                theirs += "" if inner_paper is None else f" ({shown(inner_paper, digits, is_difference)})"
                assert paper_text == theirs, about
                met["brackets"] += inner is not None
                met["recall"] += metric == "Recall" and mean is not None
                met["spread"] += spread is not None
    assert all(met.values()), met


def figure_ends(results: Results, training: str, metric: str) -> float | None:
    """A curve's last value: of the last evaluation, or of the last of sixty equal parts of a loss."""
    ends: dict[float, list[float]] = {}
    for curves in results.curves.get(training, {}).values():
        curve = np.array(curves.get(metric, np.empty((0, 2))), dtype=float)
        if len(curve):
            count = min(60, len(curve))
            part = curve[-1:] if metric == "AP" else curve[(count - 1) * len(curve) // count :]
            ends.setdefault(float(part[:, 0].mean()), []).append(float(part[:, 1].mean()))
    return statistics.fmean(ends[max(ends)]) if ends else None


def sections(report: Report) -> dict[str, str]:
    parts = re.split(r"^# (.*)$", (report.folder / "figures.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("figure", [3, 4])
def test_the_ends_of_curves(report: Report, figure: int) -> None:
    entry = second.entries(f"paper/figure{figure}")
    text = next(body for title, body in sections(report).items() if title.startswith(f"Figure {figure}."))
    for panel in entry["panels"]:
        for curve in entry["curves"]:
            end = figure_ends(report.results, curve["training"], panel["metric"])
            digits = 1 if panel["metric"] == "AP" else 3
            line = f"- {panel['label']}, {curve['label']}: {shown(end, digits)} at the end"
            assert any(each.split(" (the paper")[0] == line for each in text.splitlines()), line


def test_the_ends_of_the_headlines_curves(report: Report) -> None:
    headline = second.entries("paper")["headline"]
    rows = [row for group in second.entries(f"paper/{headline['table']}")["groups"] for row in group]
    text = next(body for title, body in sections(report).items() if title.startswith(headline["title"]))
    ends = re.findall(r"^- .*, (.*?)(?: \(NMS\))?: ([\d.]+) at the end", text, re.MULTILINE)
    wanted = [
        (row["label"], shown(figure_ends(report.results, row["network"], "AP"), 1))
        for row in rows
        if second.TRAININGS[row["network"]]["schedule"] == headline["schedule"]
    ]
    assert len(ends) == len(wanted)
    for (label, value), (row_label, end) in zip(ends, wanted, strict=True):
        assert row_label.startswith(label) and value == end


def test_the_settings_of_figure_5(report: Report) -> None:
    trade_off = second.entries("paper/figure5")["trade_off"]
    text = next(body for title, body in sections(report).items() if title.startswith("Figure 5."))
    body = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")][2:]
    names = [(grid["label"], name) for grid in trade_off["grids"] for name in grid["trainings"]]
    both = {
        name: [list(report.results.of(f"{name}/{trade_off[axis]}", "AP").values()) for axis in ("up", "across")]
        for _, name in names
    }
    means = {name: [statistics.fmean(v) for v in pair] for name, pair in both.items() if all(pair)}
    for cells, (label, name) in zip(body, names, strict=True):
        fields = [text.strip() for text in cells]
        assert fields[0] == label and int(fields[2]) == len(both[name][0]), name
        for place, values in zip((4, 6), both[name], strict=True):
            spread = f" ± {shown(statistics.stdev(values), 1)}" if len(values) > 1 else ""
            assert fields[place] == shown(statistics.fmean(values), 1) + spread, name
        up, across = means[name]
        beaten = any(u >= up and a >= across and (u > up or a > across) for u, a in means.values())
        assert fields[7] == ("no" if beaten else "yes"), name
    assert not math.isnan(sum(sum(pair) for pair in means.values()))
