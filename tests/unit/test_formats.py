"""All eleven tables in every format, from made-up results of the whole paper."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from date.catalogue import METRICS, load, load_tier
from date.reporting.formats import comma_separated, escape, latex, markdown
from date.reporting.report import write_report
from date.reporting.scores import Scores, number
from date.reporting.tables import FilledTable, fill
from date.results import load_annotation_recalls, load_complexity, load_results
from sealed import add_paper

NAMES = list(load().tables)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    add_paper(folder, "paper", seeds=(0, 1))
    add_paper(folder, "mini")
    return folder


def filled(results: Path, tier: str, name: str) -> FilledTable:
    scores = Scores(load_results(results, tier), load_complexity(results), load_annotation_recalls(results, tier))
    return fill(load().tables[name], load_tier(tier), scores, load())


def printed(table: FilledTable) -> list[str]:
    """Return every number that the paper prints, brackets included, row by row, without its sign."""
    found = []
    for row in table.table.rows:
        for column in table.table.metrics:
            digits = METRICS[column].digits
            inner = row.bracket.paper if row.bracket else {}
            found += [number(numbers[column], digits) for numbers in (row.paper, inner) if column in numbers]
    return found


@pytest.mark.parametrize("tier", ["paper", "mini"])
@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_the_papers_numbers_and_ours(results: Path, tier: str, name: str) -> None:
    table = filled(results, tier, name)
    for line in table.lines:
        for column, cell in line.cells.items():
            assert (cell.ours.mean is None) == (column not in line.row.paper), "all results are there"
            assert cell.ours.n == (
                2 if tier == "paper" and METRICS[column].kind == "score" and line.seeds else cell.ours.n
            )
    per_metric = len(table.parts)
    assert per_metric == (4 if tier == "paper" else 2)
    text = markdown(table)
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")][2:]
    first = 2 + len(table.table.settings) + table.has_seeds
    found = [re.findall(r"\d+\.?\d*", cell) for row in rows for cell in row[first::per_metric]]
    assert [n for cell in found for n in cell] == printed(table)
    assert ("tier:" in text) == (tier == "mini")
    assert text.count("—") == text.count("— ") + text.count("—:"), "em dashes stand in cells alone"


@pytest.mark.parametrize("tier", ["paper", "mini"])
@pytest.mark.parametrize("name", NAMES)
def test_csv_has_every_number(results: Path, tier: str, name: str) -> None:
    table = filled(results, tier, name)
    text = comma_separated(table)
    lines = list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))
    assert [line["row"] for line in lines] == [row.id for row in table.table.rows]
    assert {line["source"] for line in lines} <= {"official", "inferred"}
    for line, row in zip(lines, table.table.rows, strict=True):
        for column in table.table.metrics:
            assert line[f"paper_{column}"] == (str(row.paper[column]) if column in row.paper else "")
            assert (line[f"ours_{column}"] == "") == (column not in row.paper)
    assert any("difference" in key for key in lines[0]) == (tier == "paper")


def latex_rows(text: str) -> list[list[str]]:
    """Return the cells of the lines between the outer rules, after checking the document's structure."""
    assert text.isascii()
    environments: list[str] = []
    for kind, environment in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        environments.append(environment) if kind == "begin" else None
        assert environments[-1] == environment
        if kind == "end":
            environments.pop()
    assert not environments
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert re.sub(r"\\\$", "", text).count("$") % 2 == 0
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lcr]+)\}", text)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    rows = [line.removesuffix(r" \\").split(" & ") for line in body.splitlines() if line.endswith(r" \\")]
    assert {len(row) for row in rows} == {len(columns)}
    others = [line for line in body.splitlines() if not line.endswith(r" \\")]
    assert set(others) <= {r"\toprule", r"\midrule", r"\addlinespace"}
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        "usepackage", "begin", "end", "centering", "footnotesize", "setlength", "tabcolsep", "caption", "label", "toprule",
        "midrule", "bottomrule", "addlinespace", "textbf", "underline", "tiny", "pm", "mathrm", "dagger", "lambda",
        "scriptsize",
    }, "nothing but LaTeX's own commands and those of booktabs"  # fmt: skip
    return rows


@pytest.mark.parametrize("tier", ["paper", "mini"])
@pytest.mark.parametrize("name", NAMES)
def test_latex_is_well_formed_and_has_every_number(results: Path, tier: str, name: str) -> None:
    table = filled(results, tier, name)
    text = latex(table)
    rows = latex_rows(text)
    parts = 4 if tier == "paper" else 2
    assert len(rows) == 1 + parts * len(table.lines)
    settings = len(table.table.settings)
    assert [row[1 + settings] for row in rows[1:]] == ["paper", "ours", "difference", "verdict"][:parts] * len(
        table.lines
    )
    found = [re.findall(r"\d+\.?\d*", cell) for row in rows[1::parts] for cell in row[2 + settings :]]
    assert [n for cell in found for n in cell] == printed(table)
    assert text.count(r"\midrule") == len(table.groups)
    assert ("not comparable with the paper" in text) == (tier == "mini")


def test_characters_that_latex_reads_as_commands() -> None:
    assert escape("50% of $x_1 & {y} #2 ~ ^ \\") == (
        r"50\% of \$x\_1 \& \{y\} \#2 \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert escape("\u2212 \u2014 \u00b1 \u2020 \u03bb 32\u00b2") == r"$-$ --- $\pm$ $^\dagger$ $\lambda$ 32$^2$"


def _has_booktabs() -> bool:
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    return bool(subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not _has_booktabs(), reason="pdflatex with booktabs is not installed")
def test_latex_compiles(results: Path, tmp_path: Path) -> None:
    for tier in ("paper", "mini"):
        inputs = []
        for name in NAMES:
            (tmp_path / f"{tier}-{name}.tex").write_text(latex(filled(results, tier, name)))
            inputs.append(rf"\input{{{tier}-{name}}}")
        document = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + "\n".join(inputs)
        (tmp_path / f"{tier}.tex").write_text(document + r"\clearpage\end{document}")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{tier}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]


PROBE = """<!DOCTYPE html><body style="margin:0"><iframe id="page" src="index.html" style="width:{width}px;height:3000px;border:0">
</iframe><p id="out"></p><script>
const frame = document.getElementById("page"), out = [];
frame.contentWindow.addEventListener("error", e => out.push("error " + e.message));
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  out.push("overflow " + (root.scrollWidth - root.clientWidth), "tables " + page.querySelectorAll("table").length);
  out.push("requests " + frame.contentWindow.performance.getEntriesByType("resource").length);
  const plot = page.querySelector("[data-curves]"), values = page.getElementById("values");
  plot.scrollIntoView();
  const box = plot.querySelector("svg").getBoundingClientRect();
  const Pointer = frame.contentWindow.PointerEvent, Key = frame.contentWindow.KeyboardEvent;
  plot.dispatchEvent(new Pointer("pointermove", {{clientX: box.left + box.width * 0.3, clientY: box.top + box.height * 0.5}}));
  const first = values.textContent;
  out.push("hover " + (!values.hidden && first.startsWith("AP of the validation images (%), step ")));
  plot.dispatchEvent(new Key("keydown", {{key: "ArrowRight"}}));
  out.push("key " + (!values.hidden && values.textContent !== first) + " " + (root.scrollWidth - root.clientWidth));
  plot.dispatchEvent(new Key("keydown", {{key: "Escape"}}));
  out.push("hidden " + values.hidden);
  const link = page.querySelector("td a[href^='#run-']"), run = page.getElementById(link.hash.slice(1));
  const entry = run.closest("details"), closed = !entry.open;
  link.click();
  setTimeout(() => {{
    out.push("link " + (closed && entry.open && page.activeElement === entry.querySelector("summary")));
    const near = run.getBoundingClientRect().top;
    out.push("seen " + (near >= 0 && near < 3000));
    document.getElementById("out").textContent = out.join(", ") + ".";
  }}, 300);
}};
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium (Debian's package chromium) is not installed")
@pytest.mark.parametrize("tier", ["paper", "mini"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_in_a_browser(results: Path, tmp_path: Path, tier: str, width: int) -> None:
    page = write_report(tier, results, tmp_path / "reports")
    (page.parent / "probe.html").write_text(PROBE.format(width=width))
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom",
        f"file://{page.parent / 'probe.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    outputs = re.findall(r'<p id="out">(.*?)</p>', done.stdout)
    assert outputs == [
        "overflow 0, tables 13, requests 0, hover true, key true 0, hidden true, link true, seen true."
    ], done.stderr[-300:]
    assert "CONSOLE" not in done.stderr, done.stderr
    assert page.stat().st_size < 10_000_000
