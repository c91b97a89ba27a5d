"""The tables as Markdown, CSV and LaTeX.

A CSV file has one line per row of the paper's table, at full precision: ``row``, ``label``, ``source`` (official or
inferred) and ``evaluation``, the table's descriptive columns, ``seeds`` (separated by spaces), then for each metric
``paper_<metric>``, ``ours_<metric>`` (the mean over the seeds), ``ours_<metric>_sd`` (sample standard deviation,
empty with fewer than two seeds), at the paper's tier only ``difference_<metric>``, ``verdict_<metric>`` and
``verdict_<metric>_seeds`` (of what is unresolved: how many it takes), and, in tables with brackets,
``paper_<metric>_bracket``, ``ours_<metric>_bracket`` and ``verdict_<metric>_bracket``. What is missing is empty.
Lines that begin with ``#`` are comments (``pandas.read_csv(path, comment="#")``).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from date.catalogue import METRICS
from date.catalogue.publication import load_paper
from date.reporting.scores import MINUS, MISSING
from date.reporting.tables import Cell, FilledTable, Line


def markdown(filled: FilledTable) -> str:
    """Return the table as GitHub Markdown, aligned to be read as plain text too."""
    table = filled.table
    names = [METRICS[name].name for name in table.metrics]
    seeds = ["seeds"] if filled.has_seeds else []
    columns = [f"{name} {part}" for name in names for part in filled.parts]
    header = [table.row_header, *map(setting_name, table.settings), "source", *seeds, *columns]
    body = []
    for line in filled.lines:
        texts = [line.row.label, *line.settings(table.settings), line.source]
        texts += [str(len(line.seeds) or MISSING)] if seeds else []
        texts += [text for cell in line.cells.values() for text in _markdown_parts(cell)[: len(filled.parts)]]
        body.append([text.replace("|", r"\|") for text in texts])
    notes = [f"- {note}" for note in filled.notes]
    blocks = [
        "\n".join(marks(filled.watermark)),
        f"# {filled.title}",
        table.caption,
        aligned(header, body),
        "\n".join(notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def marks(watermark: str | None) -> list[str]:
    """Return a tier's watermark as Markdown, a block a line."""
    return [f"> **{text}**" for text in (watermark or "").splitlines()]


def setting_name(name: str) -> str:
    """Return the header of a descriptive column as plain text."""
    return "".join(load_paper().setting_labels.get(name, (name, "")))


def aligned(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up: the first flush left, the others flush right."""
    widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for line in [header, rule, *body]:
        cells = [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown_parts(cell: Cell) -> list[str]:
    paper, ours = " ".join(cell.paper_parts), " ".join(cell.ours_parts)
    marked = [_marked(paper, cell.paper_best, cell.paper_near), _marked(ours, cell.ours_best, cell.ours_near)]
    return [*marked, " ".join(cell.difference_parts), " ".join(cell.verdict_parts).strip() or MISSING]


def _marked(text: str, best: bool, near: bool) -> str:
    return f"**{text}**" if best else f"<ins>{text}</ins>" if near else text


def comma_separated(filled: FilledTable) -> str:
    """Return the table as CSV; the module's docstring tells the columns."""
    table = filled.table
    bracketed = any(row.bracket for row in table.rows)
    stream = io.StringIO()
    for text in (filled.watermark or "").splitlines():
        stream.write(f"# {text}\n")
    writer = csv.writer(stream, lineterminator="\n")
    header = ["row", "label", "source", "evaluation", *table.settings, "seeds"]
    for metric in table.metrics:
        header += [f"paper_{metric}", f"ours_{metric}", f"ours_{metric}_sd"]
        header += [f"difference_{metric}", f"verdict_{metric}", f"verdict_{metric}_seeds"] if filled.compared else []
        header += [f"paper_{metric}_bracket", f"ours_{metric}_bracket"] if bracketed else []
        header += [f"verdict_{metric}_bracket"] if bracketed and filled.compared else []
    writer.writerow(header)
    for line in filled.lines:
        settings = [line.row.setting.get(name, "") for name in table.settings]
        fields: list[object] = [line.row.id, line.row.label, line.source, line.row.evaluation]
        fields += [str(value).lower() if isinstance(value, bool) else value for value in settings]
        fields.append(" ".join(map(str, line.seeds)))
        for cell in line.cells.values():
            # csv writes None as an empty field, and floats so that they are read back exactly.
            fields += [cell.paper, cell.ours.mean, cell.ours.sd]
            verdict, inner = cell.verdict, cell.brackets
            if filled.compared:
                fields += [cell.difference, verdict and verdict.word, verdict and verdict.seeds]
            fields += [inner.paper if inner else None, inner.ours.mean if inner else None] if bracketed else []
            if bracketed and filled.compared:
                fields.append(inner.verdict.word if inner and inner.verdict else None)
        writer.writerow(fields)
    return stream.getvalue()


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", MINUS: "$-$", MISSING: "---",
    "†": r"$^\dagger$", "λ": r"$\lambda$", "²": "$^2$", "<": "$<$", ">": "$>$",
}  # fmt: skip
"""How characters are written that LaTeX reads as commands or has no glyph for."""


def latex(filled: FilledTable) -> str:
    r"""Return the table as a LaTeX float for ``\input``, which needs the package ``booktabs`` alone.

    A row of the paper's table takes two or four lines: the paper's numbers, ours, the difference, and the verdicts.
    """
    table = filled.table
    indexed = [load_paper().setting_labels.get(name, (name, "")) for name in table.settings]
    metrics = [(METRICS[name].label, METRICS[name].index) for name in table.metrics]
    header = [escape(table.row_header), *map(_indexed, indexed), "", *map(_indexed, metrics)]
    lines = [
        "% Needs \\usepackage{booktabs}.",
        r"\begin{table*}[t]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(table.title)}. {escape(table.caption)}{_latex_watermark(filled)}}}",
        rf"\label{{tab:{load_paper().short.lower()}-{table.number or table.name}}}",
        rf"\begin{{tabular}}{{l{'c' * len(table.settings)}l{'c' * len(metrics)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
    ]
    for group in filled.groups:
        lines.append(r"\midrule")
        for i, line in enumerate(group):
            lines += [r"\addlinespace"] if i else []
            lines += [" & ".join(cells) + r" \\" for cells in _latex_lines(filled, line)]
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    lines += [rf"\scriptsize {escape(' '.join(filled.notes))}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _latex_watermark(filled: FilledTable) -> str:
    return "" if filled.watermark is None else rf" \textbf{{{escape(' '.join(filled.watermark.split()))}}}"


def _latex_lines(filled: FilledTable, line: Line) -> list[list[str]]:
    settings = [escape(text) for text in line.settings(filled.table.settings)]
    cells = list(line.cells.values())
    numbers = {
        "paper": [_latex_parts(cell.paper_parts, cell.paper_best, cell.paper_near) for cell in cells],
        "ours": [_latex_parts(cell.ours_parts, cell.ours_best, cell.ours_near) for cell in cells],
        "difference": [_latex_parts(cell.difference_parts) for cell in cells],
        "verdict": [rf"{{\tiny {escape(' '.join(cell.verdict_parts).lower())}}}" for cell in cells],
    }
    first = [escape(line.row.label), *settings]
    return [[*(first if part == "paper" else [""] * len(first)), part, *numbers[part]] for part in filled.parts]


def _latex_parts(parts: Sequence[str], best: bool = False, near: bool = False) -> str:
    """Return a number with its marks, and spread and brackets small behind it."""
    value, *rest = map(escape, parts)
    value = rf"\textbf{{{value}}}" if best else rf"\underline{{{value}}}" if near else value
    return value + (rf" {{\tiny {' '.join(rest).replace('$ ', '$')}}}" if rest else "")


def _indexed(label: tuple[str, str]) -> str:
    return escape(label[0]) + (rf"$_{{\mathrm{{{escape(label[1])}}}}}$" if label[1] else "")


def escape(text: str) -> str:
    """Return plain text as LaTeX source in ASCII."""
    return "".join(LATEX.get(character, character) for character in text)
