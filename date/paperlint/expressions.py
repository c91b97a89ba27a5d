"""Arithmetic over what the paper prints, with the rounding of every printed number carried along.

An expression is Python's arithmetic (``+ - * /``, parentheses, numbers, ``abs``, ``min``, ``max``) over references in
square brackets, and at most one comparison (``<``, ``<=``, ``>``, ``>=``, ``==``):

- ``[table05.3 AP]``: the number of a table's row in a column; ``[table06.1 AP bracket]``: the number in brackets.
- ``[figure3 DATE-F, from FCOS]``: the end of a curve by its label, where the paper gives it.
- ``[date_f-r50-coco-12e/train params]``, ``gflops``: a network as counted by `date.inference.complexity`.
- ``[date_r-r50-coco-12e lambda_o2m]``: a field of a training's entry.
- ``[paper batch_size]``, ``[paper steps_per_epoch.coco]``: a field of a tier.

A number printed with d decimals stands for any number within half a unit of its last decimal. A network's count is
exact, but the paper calculates with what it prints: it too may have been rounded first.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from date.catalogue import METRICS, Catalogue, load_tier
from date.catalogue.publication import load_paper
from date.errors import UserError, unknown_name

REFERENCE = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Value:
    """A number and the interval in which it lies if the numbers behind it were rounded."""

    center: Fraction
    low: Fraction
    high: Fraction

    @classmethod
    def exact(cls, number: Fraction | float | str) -> Value:
        """Return a number that was not rounded."""
        fraction = number if isinstance(number, Fraction) else Fraction(str(number))
        return cls(fraction, fraction, fraction)

    @classmethod
    def printed(cls, number: Fraction | float | str, digits: int) -> Value:
        """Return a number of which ``digits`` decimals are printed."""
        center, half = cls.exact(number).center, Fraction(1, 2 * 10**digits)
        return cls(center, center - half, center + half)

    @property
    def spelled(self) -> str:
        """The number as printed, or with three decimals where it has more than are printed."""
        if self.low == self.high:
            return f"{float(self.center):g}"
        digits = len(str(round(1 / (self.high - self.low)))) - 1
        exact = (self.center * 10**digits).denominator == 1
        return f"{float(self.center):.{digits if exact else 3}f}"

    def overlaps(self, other: Value) -> bool:
        """Return whether both can be the same number: touching at an end is not enough, except for exact numbers."""
        if self.low == self.high or other.low == other.high:
            return self.low <= other.high and other.low <= self.high
        return self.low < other.high and other.low < self.high


@dataclass(frozen=True)
class Outcome:
    """The value of an expression."""

    value: Value
    """Of a comparison: left side minus right side."""
    holds: bool | None
    """Of a comparison: whether it holds for the numbers as printed."""
    spelled: str
    """The expression with the numbers in place of the references, e.g. ``51.3 - 48.7``."""


class Quantities:
    """Evaluates expressions over the catalogue and the counted networks.

    Args:
        catalogue: tables, figures and trainings.
        complexity: ``params`` and ``gflops`` by training and phase; see `date.results.complexity_figures`.
    """

    def __init__(self, catalogue: Catalogue, complexity: dict[tuple[str, str], dict[str, float]]) -> None:
        self._catalogue, self._complexity = catalogue, complexity
        self._rows = {row.id: row for table in catalogue.tables.values() for row in table.rows}

    def evaluate(self, expression: str) -> Outcome:
        """Return what an expression comes to.

        Raises:
            UserError: a reference to nothing, or no valid expression.
        """
        references = REFERENCE.findall(expression)
        names = {f"_{i}": self.reference(text) for i, text in enumerate(references)}
        count = iter(range(len(references)))
        numbers = iter(names.values())
        spelled = REFERENCE.sub(lambda _: next(numbers).spelled, expression)
        try:
            tree = ast.parse(REFERENCE.sub(lambda _: f"_{next(count)}", expression), mode="eval").body
        except SyntaxError:
            raise UserError(
                f"{expression!r} is not an expression; write e.g. [table01.4 AP] - [table01.3 AP]."
            ) from None
        if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and type(tree.ops[0]) in COMPARISONS:
            left, right = _value(tree.left, names, expression), _value(tree.comparators[0], names, expression)
            holds = COMPARISONS[type(tree.ops[0])](left.center, right.center)
            return Outcome(_minus(left, right), holds, spelled)
        return Outcome(_value(tree, names, expression), None, spelled)

    def reference(self, text: str) -> Value:
        """Return the number that a reference names.

        Raises:
            UserError: there is none; the message has the nearest valid name.
        """
        subject, _, rest = text.strip().partition(" ")
        if subject in self._rows:
            return self._cell(subject, rest)
        if subject in self._catalogue.figures:
            ends = {c.label: c.end for c in self._catalogue.figures[subject].curves if c.end is not None}
            if rest not in ends:
                raise unknown_name("curve with a printed end", rest, ends, subject)
            return Value.printed(ends[rest], 1)
        training, _, phase = subject.partition("/")
        if phase and training in self._catalogue.trainings:
            counted = self._complexity.get((training, phase))
            if counted is None or rest not in counted:
                raise UserError(f"no network is counted as {text!r}; see: python -m date complexity")
            metric = METRICS[rest]
            value = Value.printed(counted[rest], metric.digits)
            return Value(Value.exact(counted[rest]).center, value.low, value.high)
        if subject in self._catalogue.trainings:
            return Value.exact(_field(self._catalogue.trainings[subject], rest))
        reference = load_paper().reference_tier
        if subject == reference:
            return Value.exact(_field(load_tier(subject), rest))
        known = [*self._rows, *self._catalogue.figures, *self._catalogue.trainings, reference]
        raise unknown_name("reference", subject, known)

    def _cell(self, row_id: str, rest: str) -> Value:
        row, (column, _, bracket) = self._rows[row_id], rest.partition(" ")
        numbers = row.paper if not bracket else row.bracket.paper if bracket == "bracket" and row.bracket else {}
        if column not in numbers:
            raise unknown_name("column" if not bracket else "column in brackets", column, numbers, row_id)
        return Value.printed(numbers[column], METRICS[column].digits)


COMPARISONS: dict[type[ast.cmpop], Callable[[Fraction, Fraction], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
}  # fmt: skip


def _field(entry: Any, name: str) -> float:
    fields: dict[str, Any] = {}
    content = entry.model_dump()
    for key, value in (content | content.pop("options", {})).items():
        fields |= {f"{key}.{part}": v for part, v in value.items()} if isinstance(value, dict) else {key: value}
    numeric = {key: value for key, value in fields.items() if isinstance(value, int | float)}
    if name not in numeric:
        raise unknown_name("field", name, numeric, entry.name)
    return numeric[name]


def _value(node: ast.expr, names: dict[str, Value], expression: str) -> Value:
    """Evaluate a part of an expression by interval arithmetic."""
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Value.exact(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _minus(Value.exact(0), _value(node.operand, names, expression))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left, names, expression), _value(node.right, names, expression)
        return OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        return FUNCTIONS[node.func.id](*(_value(argument, names, expression) for argument in node.args))
    raise UserError(f"{expression!r}: only + - * /, abs, min, max and references in square brackets can stand there.")


def _plus(a: Value, b: Value) -> Value:
    return Value(a.center + b.center, a.low + b.low, a.high + b.high)


def _minus(a: Value, b: Value) -> Value:
    return Value(a.center - b.center, a.low - b.high, a.high - b.low)


def _times(a: Value, b: Value) -> Value:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Value(a.center * b.center, min(corners), max(corners))


def _over(a: Value, b: Value) -> Value:
    if b.low <= 0 <= b.high:
        raise UserError("an expression divides by what may be zero.")
    return _times(a, Value(1 / b.center, 1 / b.high, 1 / b.low))


def _abs(a: Value) -> Value:
    low = Fraction(0) if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    return Value(abs(a.center), low, max(abs(a.low), abs(a.high)))


def _extreme(choose: Callable[..., Fraction]) -> Callable[..., Value]:
    return lambda *values: Value(*(choose(getattr(v, part) for v in values) for part in ("center", "low", "high")))


OPERATIONS: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: _plus, ast.Sub: _minus, ast.Mult: _times, ast.Div: _over,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Value]] = {"abs": _abs, "min": _extreme(min), "max": _extreme(max)}
