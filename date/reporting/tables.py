"""The paper's tables with our numbers beside the paper's: what stands in each cell, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from date.catalogue import COCO_AREA_THRESHOLDS, METRICS, Catalogue, Metric, Row, Table, Tier
from date.catalogue.paper import own_mark
from date.catalogue.publication import load_paper
from date.reporting.comparisons import Comparer, papers_comparer
from date.reporting.scores import MISSING, Sample, Scores, number, signed
from date.reporting.verdicts import DIFFERS, REPRODUCED, UNRESOLVED, WITHIN_NOISE, NumberVerdict, number_verdict

WORDS = (REPRODUCED, WITHIN_NOISE, DIFFERS, UNRESOLVED)


@dataclass(frozen=True)
class Brackets:
    """What a cell has in brackets: the row's difference from another one, or a second evaluation."""

    is_difference: bool
    paper: float | None
    ours: Sample
    verdict: NumberVerdict | None = None
    """On a second evaluation's number, at the paper's tier."""


@dataclass(frozen=True)
class Cell:
    """A metric of a row."""

    metric: Metric
    paper: float | None
    ours: Sample
    """Over the seeds; a single value where the number is exact."""
    paper_best: bool = False
    """Whether the paper's number is the best of its group, at the paper's digits."""
    ours_best: bool = False
    paper_near: bool = False
    """Whether the paper's number is near enough to the best to be underlined."""
    ours_near: bool = False
    brackets: Brackets | None = None
    verdict: NumberVerdict | None = None
    """At the paper's tier."""

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number; of an exact figure, which has no spread, ours at the paper's digits."""
        if self.paper is None or self.ours.mean is None:
            return None
        ours = self.ours.mean if self.metric.kind == "score" else self.metric.printed(self.ours.mean)
        return ours - self.paper

    @property
    def paper_parts(self) -> list[str]:
        """The paper's number, and what follows in brackets, e.g. ``37.3`` and ``(+1.9)``."""
        return self._parts(self.paper, self.brackets.paper if self.brackets else None)

    @property
    def ours_parts(self) -> list[str]:
        """Our number or an em dash, the spread over the seeds, the brackets, e.g. ``37.5``, ``± 0.2``, ``(+2.1)``."""
        mean = self.ours.mean
        shown = self.metric.printed(mean) if mean is not None else None
        return self._parts(shown, self.brackets.ours.mean if self.brackets else None, self.ours.sd)

    @property
    def difference_parts(self) -> list[str]:
        """Ours minus the paper's, and that of a second evaluation in brackets, e.g. ``+0.2`` and ``(−0.1)``."""
        text = signed(self.difference, self.metric.digits)
        inner = self.brackets
        if inner is None or inner.is_difference or inner.paper is None or inner.ours.mean is None:
            return [text]
        return [text, f"({signed(inner.ours.mean - inner.paper, self.metric.digits)})"]

    @property
    def verdicts(self) -> list[NumberVerdict]:
        """The verdict, and that on a second evaluation's number; none where the paper or we have no number."""
        return [v for v in (self.verdict, self.brackets.verdict if self.brackets else None) if v is not None]

    @property
    def verdict_parts(self) -> list[str]:
        """The same as text, a second one in brackets."""
        return [v.text if v is self.verdict else f"[{v.text}]" for v in self.verdicts]

    def _parts(self, value: float | None, inner: float | None, sd: float | None = None) -> list[str]:
        parts = [number(value, self.metric.digits)]
        if sd is not None:
            parts.append(f"± {number(sd, self.metric.digits)}")
        if inner is not None and self.brackets is not None:
            parts.append(f"({(signed if self.brackets.is_difference else number)(inner, self.metric.digits)})")
        return parts


@dataclass(frozen=True)
class Line:
    """A row of the paper's table with our results."""

    row: Row
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    """By metric, in the table's order."""
    source: str
    """``official`` where a released configuration states the row's settings, ``inferred`` where the paper does."""
    why: str
    """What the settings rest on."""
    default: bool = False
    """Whether the row is marked as having the loss weights of the main results."""

    def settings(self, names: Sequence[str]) -> list[str]:
        """Return the descriptive columns as text, booleans as yes and no."""
        values = [self.row.setting.get(name, "") for name in names]
        return [{True: "yes", False: "no"}[v] if isinstance(v, bool) else str(v) for v in values]


@dataclass(frozen=True)
class FilledTable:
    """One of the paper's tables with the results of a tier."""

    table: Table
    watermark: str | None
    reference: bool
    """Whether the tier is the paper's own size."""
    groups: list[list[Line]]
    notes: list[str]
    """Footnotes as plain sentences."""

    @property
    def title(self) -> str:
        """E.g. ``Table 1. Main result``."""
        return self.table.heading

    @property
    def compared(self) -> bool:
        """Whether differences from the paper are shown: never where the tier is marked as not comparable."""
        return self.reference and self.table.folder is None

    @property
    def parts(self) -> list[str]:
        """What each metric has: the paper's number, ours and, where they compare, the difference and the verdict."""
        return ["paper", "ours", "difference", "verdict"][: 4 if self.compared else 2]

    @property
    def verdicts(self) -> dict[str, int]:
        """The number of cells with each verdict, those in brackets included."""
        found = [verdict for line in self.lines for cell in line.cells.values() for verdict in cell.verdicts]
        return {word: count for word in WORDS if (count := sum(v.word == word for v in found))}

    @property
    def has_seeds(self) -> bool:
        """Whether any row depends on a training, so that it has seeds."""
        return bool(self.table.evaluations)

    @property
    def lines(self) -> list[Line]:
        """All lines in order."""
        return [line for group in self.groups for line in group]


def fill(
    table: Table, tier: Tier, scores: Scores, catalogue: Catalogue, comparer: Comparer | None = None
) -> FilledTable:
    """Put the results of a tier beside the paper's numbers; the comparer tells the spread of runs, for verdicts."""
    rows = {row.id: row for row in table.rows}
    judging = tier.reference and table.folder is None
    if judging and comparer is None:
        comparer = papers_comparer(scores, scores.results, catalogue, True)
    groups = [
        _fill_group(table, group, rows, scores, catalogue, comparer if judging else None) for group in table.groups
    ]
    filled = FilledTable(table, _marks(table, tier), tier.reference, groups, [])
    filled.notes.extend(_notes(filled, scores, catalogue))
    return filled


def _fill_group(
    table: Table,
    group: Sequence[Row],
    rows: dict[str, Row],
    scores: Scores,
    catalogue: Catalogue,
    comparer: Comparer | None,
) -> list[Line]:
    cells: list[dict[str, Cell]] = [{} for _ in group]
    for name in table.metrics:
        metric = METRICS[name]
        paper = [row.paper.get(name, _printed(row, name, table, catalogue)) for row in group]
        ours = [sample(row, name, scores, catalogue) for row in group]
        near = table.near_best if name == "AP" else None
        paper_marks = mark_best(paper, metric, near)
        ours_marks = mark_best([s.mean for s in ours], metric, near)
        for i, row in enumerate(group):
            brackets = _brackets(row, name, rows, scores, catalogue)
            (p_best, p_near), (o_best, o_near) = paper_marks[i], ours_marks[i]
            part, verdict = catalogue.basis(row).data, None
            if comparer is not None:
                verdict = _verdict(ours[i], paper[i], metric, part, row.evaluation, comparer)
            if brackets and not brackets.is_difference and comparer is not None:
                assert row.bracket is not None
                inner = _verdict(brackets.ours, brackets.paper, metric, part, row.bracket.evaluation, comparer)
                brackets = replace(brackets, verdict=inner)
            cells[i][name] = Cell(metric, paper[i], ours[i], p_best, o_best, p_near, o_near, brackets, verdict)
    lines = []
    for row, cell in zip(group, cells, strict=True):
        basis = catalogue.basis(row)
        default = table.mark_defaults is not None and row.default
        seeds = scores.seeds(row.evaluation) if row.evaluation else ()
        lines.append(Line(row, seeds, cell, basis.source, basis.why, default))
    return lines


def _marks(table: Table, tier: Tier) -> str | None:
    """Return the tier's watermark and, of an own table, that it is not of the paper, a line each."""
    return "\n".join(filter(None, [tier.watermark, own_mark(table.folder)])) or None


def _printed(row: Row, name: str, table: Table, catalogue: Catalogue) -> float | None:
    """Return the paper's number for a row of an own table that states none."""
    if table.folder is None or row.evaluation is None:
        return None
    return catalogue.printed(row.evaluation, name)


def _verdict(
    ours: Sample, paper: float | None, metric: Metric, part: str, evaluation: str | None, comparer: Comparer
) -> NumberVerdict | None:
    publication = load_paper()
    spread = comparer.spread(evaluation, metric.name) if evaluation and metric.kind == "score" and ours.n else None
    return number_verdict(
        ours, paper, metric, publication.stated_noise(part, metric.name), publication.bound(part, metric.name), spread
    )


def sample(row: Row, name: str, scores: Scores, catalogue: Catalogue) -> Sample:
    """Return our number of a row in a column, from whichever of the row's sources has it."""
    metric = METRICS[name]
    if metric.kind == "complexity":
        figure: Literal["params", "gflops"] = "params" if name.startswith("params") else "gflops"
        return scores.complexity(row.network, metric.phase or row.phase, figure) if row.network else Sample({})
    if row.annotations is not None:
        iou = catalogue.annotations[row.annotations].iou
        return scores.recall(row.annotations, iou) if name == "Recall" else Sample({})
    return scores.sample(row.evaluation, name) if row.evaluation else Sample({})


def _brackets(row: Row, name: str, rows: dict[str, Row], scores: Scores, catalogue: Catalogue) -> Brackets | None:
    if row.bracket is None or name not in row.bracket.paper:
        return None
    paper = row.bracket.paper[name]
    if row.bracket.evaluation is not None:
        return Brackets(False, paper, scores.sample(row.bracket.evaluation, name))
    assert row.bracket.difference_from is not None
    base = rows[row.bracket.difference_from]
    return Brackets(
        True, paper, _difference(sample(row, name, scores, catalogue), sample(base, name, scores, catalogue))
    )


def _difference(one: Sample, other: Sample) -> Sample:
    """Return the difference of the printed means, whichever seeds they are of."""
    if one.mean is None or other.mean is None:
        return Sample({})
    return Sample({0: one.mean - other.mean}, exact=True)


def mark_best(values: Sequence[float | None], metric: Metric, near: float | None = None) -> list[tuple[bool, bool]]:
    """Mark the best of a group's column as printed, and what is nearly as good; equal ones share the mark.

    Args:
        values: of the group's rows; a group of one row has no best.
        metric: says which numbers are better.
        near: what is worse by this much or less is nearly as good.
    """
    printed = [None if value is None else metric.printed(value) for value in values]
    known = [value for value in printed if value is not None]
    if metric.better is None or len(values) < 2 or not known:
        return [(False, False)] * len(values)
    best = max(known) if metric.better == "higher" else min(known)
    behind = [None if value is None else round(abs(best - value), metric.digits) for value in printed]
    return [(b == 0, near is not None and b is not None and 0 < b <= near) for b in behind]


def _notes(filled: FilledTable, scores: Scores, catalogue: Catalogue) -> list[str]:
    table, notes = filled.table, []
    metrics = [METRICS[name] for name in table.metrics]
    if filled.has_seeds:
        notes.append(_seed_note([line for line in filled.lines if line.row.evaluation]))
    if any(
        cell.ours.mean is None
        for line in filled.lines
        for name, cell in line.cells.items()
        if name in line.row.paper or table.folder is not None
    ):
        notes.append(f"{MISSING}: no result.")
    if any(metric.better for metric in metrics) and any(len(group) > 1 for group in table.groups):
        notes.append("Bold is decided at the paper's digits, among the paper's numbers and among ours.")
    if table.near_best is not None:
        notes.append(f"Underlined: APs within {table.near_best:g} of the best of their group.")
    if table.mark_defaults is not None:
        defaults = (
            f"{line.row.label} {'/'.join(line.settings(table.settings))}" for line in filled.lines if line.default
        )
        notes.append(f"{table.mark_defaults}: {', '.join(defaults)}.")
    notes += _import_notes(table, scores)
    notes += scores.dead_sides({catalogue.evaluation(name).training for name in table.evaluations})
    if {"APs", "APm", "APl"} & set(table.metrics):
        notes += _area_notes(scores.area_thresholds(table.evaluations))
    notes += _source_notes(filled, catalogue)
    if filled.compared:
        notes.append("The difference is ours minus the paper's, from unrounded numbers.")
        notes += _verdict_notes(filled)
    else:
        notes.append("The paper's numbers are for reference only: no difference from them would mean anything here.")
    return notes


def _verdict_notes(filled: FilledTable) -> list[str]:
    """Say what the verdicts mean and how often each was given."""
    counts = filled.verdicts
    if not counts:
        return []
    texts = [f"Verdicts: {', '.join(f'{count} {word}' for word, count in counts.items())}."]
    if filled.has_seeds:
        texts.append(
            "REPRODUCED: equal at the paper's digits, or the paper's number lies where one more run of ours would (95 "
            "% prediction interval over seeds), and that interval is narrower than the column's bound. WITHIN NOISE: "
            "no further away than the stated noise. DIFFERS: outside of both. UNRESOLVED: the spread is unknown or too "
            "wide; in brackets how many seeds would tell with 80 % power."
        )
        texts += [text for text in (load_paper().noise_sources, load_paper().bound_sources) if text]
    return texts


def _import_notes(table: Table, scores: Scores) -> list[str]:
    """Say which rows are not of our own trainings."""
    marked: dict[str, list[str]] = {}
    for row in table.rows:
        for name in row.evaluations:
            for mark in scores.marks(name):
                marked.setdefault(mark, []).append(f"{row.label} ({name})")
    return [f"{mark}: {', '.join(rows)}." for mark, rows in sorted(marked.items())]


def _source_notes(filled: FilledTable, catalogue: Catalogue) -> list[str]:
    """Say what numbers that are of no checkpoint rest on."""
    notes = []
    if filled.table.networks:
        notes.append(
            "Params are trainable parameters and GFLOPs multiply-accumulates by MMDetection 2's convention on one "
            "1280x800 image, counted on the paper's networks, whatever the tier; ours are rounded as its tool rounds."
        )
    for row in filled.table.rows:
        if row.annotations is not None:
            entry = catalogue.annotations[row.annotations]
            notes.append(f"{row.label}: NMS at IoU {entry.iou:g}. {entry.why}")
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
        return f"Ours: mean ± sample standard deviation over {len(seeds)} seeds ({listed}).{_fewer_values(lines)}"
    number = "Ours: mean ± sample standard deviation over the seeds; their number stands in the row."
    return number + _fewer_values(lines)


def _fewer_values(lines: Sequence[Line]) -> str:
    """Return the sentence on numbers that not every seed of their row has, with a space before it; "" if none."""
    fewer = [
        f"{name} of {line.row.label} ({cell.ours.n})"
        for line in lines
        for name, cell in line.cells.items()
        if not cell.ours.exact and 0 < cell.ours.n < len(line.seeds)
    ]
    return f" Over fewer seeds, whose number is in brackets: {'; '.join(fewer)}." if fewer else ""
