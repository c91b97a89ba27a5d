"""Recompute the paper's own arithmetic, and find the numbers of its tables and text that disagree.

What is checked, all from the catalogue's data: differences in brackets; the same quantity printed in two tables;
parameters and operations against the networks counted; and the statements of ``experiments/paper/text.yaml``.

How a verdict is made. A number printed with d decimals stands for any number within half a unit of the last one, and
intervals are carried through the arithmetic (`date.paperlint.expressions`).

- **ok**: the printed result is the one recomputed from the printed numbers, at its digits.
- **rounding**: it is not, but unrounded numbers that print as the paper's can give it.
- **does not agree**: no rounding explains it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Literal

from date.catalogue import METRICS, Catalogue, Row, Statement, Table
from date.paperlint.expressions import REFERENCE, Outcome, Quantities, Value

Verdict = Literal["ok", "rounding", "does not agree"]


@dataclass(frozen=True)
class Check:
    """A number or a comparison of the paper, recomputed."""

    kind: Literal["bracket", "printed twice", "network", "text"]
    name: str
    """A row and column, or the statement's name with the number of the comparison."""
    place: str
    quote: str
    printed: str
    recomputed: str
    verdict: Verdict
    judgement: str
    """One sentence, or a few."""


def lint(catalogue: Catalogue, complexity: dict[tuple[str, str], dict[str, float]]) -> list[Check]:
    """Recompute what can be recomputed of the paper's own numbers.

    Args:
        catalogue: the tables and the statements.
        complexity: ``params`` and ``gflops`` by training and phase; see `date.results.complexity_figures`.
    """
    quantities = Quantities(catalogue, complexity)
    return [
        *bracket_checks(catalogue, quantities),
        *repetition_checks(catalogue),
        *network_checks(catalogue, complexity),
        *text_checks(catalogue, quantities),
    ]


def compare(printed: Value, recomputed: Value) -> Verdict:
    """Say whether a printed number is what the numbers behind it give.

    Args:
        printed: the number with the interval of its digits.
        recomputed: from the printed numbers, with the interval of theirs.
    """
    if printed.low <= recomputed.center <= printed.high:
        return "ok"
    return "rounding" if printed.overlaps(recomputed) else "does not agree"


def bracket_checks(catalogue: Catalogue, quantities: Quantities) -> Iterator[Check]:
    """Recompute the differences that tables have in brackets."""
    for table in catalogue.tables.values():
        for row in table.rows:
            if row.bracket is None or row.bracket.difference_from is None:
                continue
            for column, number in row.bracket.paper.items():
                digits = METRICS[column].digits
                expression = f"[{row.id} {column}] - [{row.bracket.difference_from} {column}]"
                outcome = quantities.evaluate(expression)
                verdict, printed = compare(Value.printed(number, digits), outcome.value), f"{number:+.{digits}f}"
                yield Check(
                    "bracket", f"{row.id} {column}", f"Table {table.number}, {_described(table, row)}, {column}",
                    "", printed, _shown(outcome.value.center, digits, "+"), verdict,
                    _judged(verdict, outcome, printed, digits),
                )  # fmt: skip


def repetition_checks(catalogue: Catalogue) -> Iterator[Check]:
    """Compare what several tables print of the same evaluation or network."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for table in catalogue.tables.values():
        for row in table.rows:
            for column, number in row.paper.items():
                found.setdefault(_quantity(row, column), []).append((f"Table {table.number}", number))
            if row.bracket is not None and row.bracket.evaluation is not None:
                for column, number in row.bracket.paper.items():
                    found.setdefault((row.bracket.evaluation, column), []).append((f"Table {table.number}", number))
    for (subject, column), prints in found.items():
        places = list(dict.fromkeys(place for place, _ in prints))
        if len(places) < 2:
            continue
        numbers = list(dict.fromkeys(number for _, number in prints))
        by_number = {number: [place for place, n in prints if n == number] for number in numbers}
        listed = "; ".join(f"{number:g} in {', '.join(where)}" for number, where in by_number.items())
        agree = len(numbers) == 1
        yield Check(
            "printed twice", f"{subject} {column}", ", ".join(places), "", f"{numbers[0]:g}",
            " and ".join(f"{number:g}" for number in numbers[1:] or numbers), "ok" if agree else "does not agree",
            "All tables that print it have the same number." if agree else f"The same quantity is {listed}.",
        )  # fmt: skip


def _quantity(row: Row, column: str) -> tuple[str, str]:
    """Return what a cell is a number of, the same for cells that must be equal."""
    metric = METRICS[column]
    if metric.kind == "complexity":
        return f"{row.network}/{metric.phase or row.phase}", column.split("_")[0]
    return row.evaluation or row.annotations or "", column


def network_checks(catalogue: Catalogue, complexity: dict[tuple[str, str], dict[str, float]]) -> Iterator[Check]:
    """Compare parameters and operations with the networks counted."""
    for table in catalogue.tables.values():
        for row in table.rows:
            for column, number in row.paper.items():
                metric = METRICS[column]
                if metric.kind != "complexity" or row.network is None:
                    continue
                counted = complexity[row.network, metric.phase or row.phase][column.split("_")[0]]
                agrees = metric.printed(counted) == number
                unit = "M parameters" if column.startswith("params") else "G"
                judgement = f"The network has {counted:.3f} {unit}" + (
                    "." if agrees else f", which would be printed as {metric.printed(counted):.{metric.digits}f}."
                )
                place = f"Table {table.number}, {_described(table, row)}, {metric.name}"
                yield Check(
                    "network", f"{row.id} {column}", place, "", f"{number:.{metric.digits}f}", f"{counted:.3f}",
                    "ok" if agrees else "does not agree", judgement,
                )  # fmt: skip


def text_checks(catalogue: Catalogue, quantities: Quantities) -> Iterator[Check]:
    """Check the statements of the paper's text."""
    said: dict[str, list[tuple[str, Statement]]] = {}
    for statement in catalogue.statements.values():
        if statement.quantity is not None:
            yield _quantity_check(statement, quantities)
        for i, expression in enumerate(statement.holds, 1):
            name = statement.name if len(statement.holds) == 1 else f"{statement.name}.{i}"
            yield _comparison_check(name, statement, expression, quantities.evaluate(expression))
        if statement.cites is not None:
            yield _citation_check(catalogue, statement)
        for thing, words in statement.says.items():
            said.setdefault(thing, []).append((words, statement))
    for thing, sayings in said.items():
        (first, where), *others = sayings
        for words, statement in others:
            agree = words == first
            yield Check(
                "text", f"{statement.name}, {thing}", statement.place, statement.quote, words, first,
                "ok" if agree else "does not agree",
                f"{where.place} has {first} for {thing}{' too' if agree else f', {statement.place} has {words}'}.",
            )  # fmt: skip


def _quantity_check(statement: Statement, quantities: Quantities) -> Check:
    assert statement.printed is not None and statement.quantity is not None
    digits = len(statement.printed.partition(".")[2])
    printed = Value.printed(statement.printed, digits)
    outcome = quantities.evaluate(statement.quantity)
    verdict = compare(printed, outcome.value)
    sentences = [_judged(verdict, outcome, statement.printed, digits)]
    if verdict != "ok":
        sentences += [
            f"{statement.printed} is {words}."
            for words, expression in statement.instead.items()
            if compare(printed, quantities.evaluate(expression).value) == "ok"
        ]
    sentences += [statement.reading] if statement.reading else []
    shown = _shown(outcome.value.center, digits)
    return Check(
        "text", statement.name, statement.place, statement.quote, statement.printed, shown, verdict, " ".join(sentences)
    )


def _comparison_check(name: str, statement: Statement, expression: str, outcome: Outcome) -> Check:
    sides = f"{float(outcome.value.center):+.3g}"
    verdict: Verdict = "ok" if outcome.holds else "does not agree"
    judgement = f"{outcome.spelled} {'holds' if outcome.holds else 'does not hold'}."
    if not outcome.holds and outcome.value.low < 0 < outcome.value.high:
        verdict, judgement = "rounding", f"{outcome.spelled} does not hold, but it does for the rounded numbers."
    reading = f" {statement.reading}" if statement.reading else ""
    return Check("text", name, statement.place, statement.quote, outcome.spelled, sides, verdict, judgement + reading)


def _citation_check(catalogue: Catalogue, statement: Statement) -> Check:
    """Check that the numbers of a sentence stand in the table that it names."""
    assert statement.cites is not None and statement.quantity is not None
    rows = {row.id for row in catalogue.tables[statement.cites].rows}
    tables = {reference.split(".")[0] for reference in REFERENCE.findall(statement.quantity)}
    cited = catalogue.tables[statement.cites].number
    inside = all(reference.split()[0] in rows for reference in REFERENCE.findall(statement.quantity))
    where = ", ".join(f"Table {catalogue.tables[name].number}" for name in sorted(tables))
    judgement = f"Table {cited} has the row." if inside else f"Table {cited} has no such row; the number is in {where}."
    return Check(
        "text", f"{statement.name}, citation", statement.place, statement.quote, f"Table {cited}", where,
        "ok" if inside else "does not agree", judgement,
    )  # fmt: skip


def _judged(verdict: Verdict, outcome: Outcome, printed: str, digits: int) -> str:
    value, spelled = outcome.value, outcome.spelled
    shown = _shown(value.center, digits if verdict == "ok" else digits + 1)
    equation = f"Recomputed: {shown}" if spelled.replace(".", "").isdigit() else f"{spelled} = {shown}"
    if verdict == "ok":
        return f"{equation}."
    low, high = _shown(value.low, digits + 1), _shown(value.high, digits + 1)
    if verdict == "rounding":
        return f"{equation}; unrounded numbers can give anything from {low} to {high}, so {printed} too."
    return f"{equation}; unrounded numbers give from {low} to {high}, never {printed}."


def _described(table: Table, row: Row) -> str:
    settings = [f"{name} {value}" for name, value in row.setting.items() if value not in (True, False, "-")]
    settings += [name for name, value in row.setting.items() if value is True]
    return " ".join([row.label, *([f"({', '.join(settings)})"] if settings else [])])


def _shown(value: Fraction, digits: int, sign: str = "") -> str:
    return f"{float(value):{sign}.{digits}f}"


def to_text(checks: Sequence[Check]) -> str:
    """Render all checks, those that do not agree first, each with its judgement."""
    order: list[Verdict] = ["does not agree", "rounding", "ok"]
    blocks = []
    for verdict in order:
        chosen = [check for check in checks if check.verdict == verdict]
        blocks.append(f"{verdict.upper()}: {len(chosen)} of {len(checks)}")
        for check in chosen:
            head = f"{check.place}: " + (f"“{check.quote}”" if check.quote and check.kind == "text" else check.name)
            body = textwrap.fill(check.judgement, 116, initial_indent="    ", subsequent_indent="    ")
            blocks.append(head if verdict == "ok" and check.kind == "printed twice" else f"{head}\n{body}")
        blocks.append("")
    return "\n".join(blocks)


def to_json(checks: Sequence[Check]) -> str:
    """Render all checks as one JSON array."""
    return json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False)
