"""The paper's tables with our numbers beside the paper's, as Markdown and CSV.

A CSV file has one line per row of the paper's table, at full precision: ``row``, ``label`` and ``evaluation``, the
table's descriptive columns, ``seeds`` (separated by spaces), then for each metric ``paper_<metric>``,
``ours_<metric>`` (the mean over the seeds), ``ours_<metric>_sd`` (sample standard deviation, empty with fewer than two
seeds) and, at the paper's tier only, ``difference_<metric>``. What is missing is empty. Lines that begin with ``#`` are
comments (``pandas.read_csv(path, comment="#")``).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from date.catalogue import COCO_AREA_THRESHOLDS, Row, Table, Tier
from date.reporting.scores import MISSING, Sample, Scores, number, signed


@dataclass(frozen=True)
class Cell:
    """A metric of a row."""

    paper: float | None
    ours: Sample
    paper_best: bool
    """Whether the paper's number is the best of its group, at one decimal."""
    ours_best: bool

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number."""
        return None if self.paper is None or self.ours.mean is None else self.ours.mean - self.paper


@dataclass(frozen=True)
class Line:
    """A row of the paper's table with our results."""

    row: Row
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    """By metric, in the table's order."""

    def settings(self, names: Sequence[str]) -> list[str]:
        """Return the descriptive columns as text, booleans as yes and no."""
        values = [self.row.setting.get(name, "") for name in names]
        return [{True: "yes", False: "no"}[v] if isinstance(v, bool) else str(v) for v in values]


@dataclass(frozen=True)
class FilledTable:
    """One of the paper's tables with the results of a tier."""

    table: Table
    watermark: str | None
    groups: list[list[Line]]
    notes: list[str]
    """Footnotes as plain sentences."""

    @property
    def title(self) -> str:
        """E.g. ``Table 1. Main result``."""
        return f"Table {self.table.number}. {self.table.title}"

    @property
    def compared(self) -> bool:
        """Whether differences from the paper are shown: never where the tier is marked as not comparable."""
        return self.watermark is None

    @property
    def lines(self) -> list[Line]:
        """All rows in order."""
        return [line for group in self.groups for line in group]


def fill(table: Table, tier: Tier, scores: Scores) -> FilledTable:
    """Put the results of a tier beside the paper's numbers."""
    groups = [_fill_group(group, table.metrics, scores) for group in table.groups]
    filled = FilledTable(table, tier.watermark, groups, [])
    filled.notes.extend(_notes(filled, scores))
    return filled


def _fill_group(rows: Sequence[Row], metrics: Sequence[str], scores: Scores) -> list[Line]:
    cells: list[dict[str, Cell]] = [{} for _ in rows]
    for metric in metrics:
        paper = [row.paper.get(metric) for row in rows]
        ours = [scores.sample(row.evaluation, metric) for row in rows]
        paper_best, ours_best = _best(paper), _best([sample.mean for sample in ours])
        for i, cell in enumerate(cells):
            cell[metric] = Cell(paper[i], ours[i], paper_best[i], ours_best[i])
    return [Line(row, scores.seeds(row.evaluation), cell) for row, cell in zip(rows, cells, strict=True)]


def _best(values: Sequence[float | None]) -> list[bool]:
    """Mark the largest of a column as printed, one decimal; equal ones share the mark."""
    printed = [None if value is None else float(f"{value:.1f}") for value in values]
    best = max((value for value in printed if value is not None), default=None)
    return [value is not None and value == best for value in printed]


def _notes(filled: FilledTable, scores: Scores) -> list[str]:
    notes = [_seed_note(filled.lines)]
    if any(not line.seeds for line in filled.lines):
        notes.append(f"{MISSING}: no result.")
    notes.append("Bold is decided at one decimal, among the paper's numbers and among ours.")
    marks = sorted({mark for line in filled.lines for mark in scores.marks(line.row.evaluation)})
    for mark in marks:
        marked = [line.row for line in filled.lines if mark in scores.marks(line.row.evaluation)]
        notes.append(f"{mark}: {', '.join(f'{row.label} ({row.evaluation})' for row in marked)}.")
    if {"APs", "APm", "APl"} & set(filled.table.metrics):
        notes += _area_notes(scores.area_thresholds(line.row.evaluation for line in filled.lines))
    if filled.compared:
        notes.append("The difference is ours minus the paper's, from unrounded numbers.")
    else:
        notes.append("The paper's numbers are for reference only: no difference from them would mean anything here.")
    return notes


def _area_notes(thresholds: Sequence[tuple[float, float]]) -> list[str]:
    whose = "Ours" if len(thresholds) < 2 else "Some of ours"
    notes = []
    for small, medium in thresholds:
        same = ", as in COCO" if (small, medium) == COCO_AREA_THRESHOLDS else " (the paper: 32² and 96²)"
        bounds = f"below {small:g}² pixels, from {small:g}² to {medium:g}², and above {medium:g}²{same}"
        notes.append(f"{whose}: APs, APm and APl are of objects with an area {bounds}.")
    return notes


def _seed_note(lines: Sequence[Line]) -> str:
    sets = {line.seeds for line in lines if line.seeds}
    if not sets:
        return "No row has a result of ours yet."
    if all(len(seeds) == 1 for seeds in sets):
        which = f" (seed {min(sets)[0]})" if len(sets) == 1 else ""
        return f"Ours: one training per row{which}, so no spread is known."
    if len(sets) == 1:
        (seeds,) = sets
        listed = ", ".join(map(str, seeds))
        return f"Ours: mean ± sample standard deviation over {len(seeds)} seeds ({listed})."
    return "Ours: mean ± sample standard deviation over the seeds; their number stands in the row."


def ours_text(sample: Sample) -> str:
    """Return ``37.3``, or ``37.3 ± 0.2`` where there are several seeds, or an em dash."""
    return number(sample.mean) if sample.sd is None else f"{number(sample.mean)} ± {number(sample.sd)}"


def markdown(filled: FilledTable) -> str:
    """Return the table as GitHub Markdown, aligned to be read as plain text too."""
    table = filled.table
    parts = ["paper", "ours", "difference"][: 3 if filled.compared else 2]
    header = ["", *table.settings, "seeds", *(f"{metric} {part}" for metric in table.metrics for part in parts)]
    body = []
    for line in filled.lines:
        texts = [line.row.label, *line.settings(table.settings), str(len(line.seeds) or MISSING)]
        for cell in line.cells.values():
            paper = _bold(number(cell.paper), cell.paper_best)
            ours = _bold(ours_text(cell.ours), cell.ours_best)
            texts += [paper, ours, signed(cell.difference)][: len(parts)]
        body.append([text.replace("|", r"\|") for text in texts])
    widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        "| "
        + " | ".join([line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))])
        + " |"
        for line in [header, rule, *body]
    ]
    top = [f"> **{text}**" for text in (filled.watermark or "").splitlines()]
    notes = [f"- {note}" for note in filled.notes]
    blocks = ["\n".join(top), f"# {filled.title}", table.caption, "\n".join(lines), "\n".join(notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def comma_separated(filled: FilledTable) -> str:
    """Return the table as CSV; the module's docstring tells the columns."""
    table = filled.table
    stream = io.StringIO()
    for text in (filled.watermark or "").splitlines():
        stream.write(f"# {text}\n")
    writer = csv.writer(stream, lineterminator="\n")
    header = ["row", "label", "evaluation", *table.settings, "seeds"]
    for metric in table.metrics:
        header += [f"paper_{metric}", f"ours_{metric}", f"ours_{metric}_sd"]
        header += [f"difference_{metric}"] if filled.compared else []
    writer.writerow(header)
    for line in filled.lines:
        settings = [line.row.setting.get(name, "") for name in table.settings]
        fields: list[object] = [line.row.id, line.row.label, line.row.evaluation]
        fields += [str(value).lower() if isinstance(value, bool) else value for value in settings]
        fields.append(" ".join(map(str, line.seeds)))
        for cell in line.cells.values():
            # csv writes None as an empty field, and floats so that they are read back exactly.
            fields += [cell.paper, cell.ours.mean, cell.ours.sd]
            fields += [cell.difference] if filled.compared else []
        writer.writerow(fields)
    return stream.getvalue()
