"""Numbers in the documents that a committed record gives, see ``docs/numbers.yaml``.

A template is a piece of a document with expressions in braces where the numbers stand. The expressions are worked out by
`tests.support.second` from ``reports/<record>/results.tar.xz``. Line breaks and bold type are no part of a template.

    python -m tests.support.numbers            # says which numbers are not those of the record
    python -m tests.support.numbers --write    # puts those of the record in their place
"""

from __future__ import annotations

import argparse
import functools
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import second
from tests.support.records import unpack_record
from tests.support.second import Compared, Judged, Results

ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"\{([^{}]+?)(?::([^{}:]*))?\}")
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:, [-+]?\d+(?:\.\d+)?)*"
WORD = "[A-Za-z]+"
CELLS = f"{NUMBER} \\| {NUMBER} to {NUMBER} \\| {NUMBER} \\| {WORD}"
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


class Record:
    """What templates may ask of a record."""

    def __init__(self, name: str, results: Results) -> None:
        self.name, self.results = name, results
        self.claims: dict[str, Judged] = {claim.name: claim for claim in second.judge(results)}

    @classmethod
    @functools.cache
    def of(cls, name: str) -> Record:
        """The committed record of a tier."""
        with tempfile.TemporaryDirectory() as folder:
            return cls(name, second.read(unpack_record(name, Path(folder)), name))

    def values(self, evaluation: str, metric: str = "AP") -> dict[int, float]:
        """A metric by seed."""
        found = self.results.of(evaluation, metric)
        if not found:
            raise LookupError(f"the record of {self.name} has no {metric} of {evaluation}")
        return found

    def mean(self, evaluation: str, metric: str = "AP") -> float:
        return statistics.fmean(self.values(evaluation, metric).values())

    def first_three(self, evaluation: str, metric: str = "AP") -> float:
        """The mean over seeds 0, 1 and 2."""
        found = self.values(evaluation, metric)
        return statistics.fmean(found[seed] for seed in (0, 1, 2))

    def sd(self, evaluation: str, metric: str = "AP") -> float:
        return statistics.stdev(self.values(evaluation, metric).values())

    def at(self, evaluation: str, seed: int, metric: str = "AP") -> float:
        return self.values(evaluation, metric)[seed]

    def span(self, evaluation: str, metric: str = "AP") -> float:
        """The largest minus the smallest."""
        found = self.values(evaluation, metric).values()
        return max(found) - min(found)

    def each(self, evaluation: str, metric: str = "AP") -> str:
        """All seeds' numbers, in their order."""
        return ", ".join(f"{value:.1f}" for value in self.values(evaluation, metric).values())

    def paper(self, evaluation: str, metric: str = "AP") -> float:
        """What the paper prints."""
        for number in range(1, 12):
            for group in second.entries(f"paper/table{number:02d}")["groups"]:
                for row in group:
                    if row.get("evaluation") == evaluation and metric in row["paper"]:
                        return float(row["paper"][metric])
        raise LookupError(f"the paper prints no {metric} of {evaluation}")

    def recall(self, annotations: str, iou: float) -> float:
        return self.results.recall[annotations][iou]

    def part(self, claim: str, place: int = 0) -> Compared:
        return self.claims[claim].parts[place]

    def difference(self, claim: str, place: int = 0) -> float:
        return self._known(self.part(claim, place).mean, claim)

    def low(self, claim: str, place: int = 0) -> float:
        return self._known(self.part(claim, place).low, claim)

    def high(self, claim: str, place: int = 0) -> float:
        return self._known(self.part(claim, place).high, claim)

    def differences(self, claim: str, metric: str) -> list[float]:
        """Of all comparisons of a claim in a metric."""
        return [self._known(part.mean, claim) for part in self.claims[claim].parts if part.unit == metric]

    def runs(self, claim: str) -> str:
        """Seeds of each side, once where they are equal."""
        return ", ".join(map(str, sorted(set(self.part(claim).runs))))

    def count(self, verdict: str) -> int:
        """Claims with a verdict."""
        return sum(claim.verdict == verdict for claim in self.claims.values())

    def cells(self, claim: str) -> str:
        """Difference, interval, seeds and verdict, as cells of a table's row."""
        interval = f"{self.low(claim):+.1f} to {self.high(claim):+.1f}"
        return f"{self.difference(claim):+.1f} | {interval} | {self.runs(claim)} | {self.claims[claim].verdict}"

    def _known(self, value: float | None, claim: str) -> float:
        if value is None:
            raise LookupError(f"the record of {self.name} has no interval of {claim}")
        return value

    @property
    def names(self) -> dict[str, Any]:
        """What an expression may use."""
        own = {name: getattr(self, name) for name in dir(self) if not name.startswith("_") and name != "names"}
        return own | {
            "word": lambda n: WORDS[n],
            "Word": lambda n: WORDS[n].capitalize(),
            "min": min,
            "max": max,
            "len": len,
        }


@dataclass(frozen=True)
class Held:
    """A piece of a document whose numbers a record gives."""

    document: Path
    template: str
    record: str
    short: dict[str, str]

    def rendered(self) -> list[str]:
        """The texts of its numbers."""
        names = Record.of(self.record).names | self.short
        texts = []
        for expression, form in PLACE.findall(self.template):
            text = format(eval(expression, {"__builtins__": {}}, names), form)
            texts.append(text.lstrip("-+") if float_is_zero(text) else text)
        return texts

    @property
    def text(self) -> str:
        """As it has to be."""
        numbers = iter(self.rendered())
        return PLACE.sub(lambda _: next(numbers), self.template)

    @property
    def pattern(self) -> re.Pattern[str]:
        """What it looks like with any numbers."""
        pieces = PLACE.split(self.template)
        literals = [r"\s+".join(re.escape(word) for word in re.split(r"\s+", literal)) for literal in pieces[::3]]
        numbers = [rf"\**({_looks(each)})\**" for each in pieces[1::3]]
        return re.compile("".join(part for pair in zip(literals, [*numbers, ""], strict=True) for part in pair))

    def found(self) -> re.Match[str] | None:
        """Where it stands; the first place."""
        return self.pattern.search(self.document.read_text())

    def wrong(self) -> list[tuple[str, str]]:
        """Pairs of what stands there and what the record gives."""
        match = self.found()
        if match is None:
            return [("", self.text)]
        return [pair for pair in zip(match.groups(), self.rendered(), strict=True) if pair[0] != pair[1]]

    def write(self) -> None:
        """Put the record's numbers in place."""
        match = self.found()
        assert match is not None, self.template
        text = self.document.read_text()
        for number in range(len(match.groups()), 0, -1):
            text = text[: match.start(number)] + self.rendered()[number - 1] + text[match.end(number) :]
        self.document.write_text(text)


def _looks(expression: str) -> str:
    """Return the pattern of what an expression gives."""
    return CELLS if expression.startswith("cells(") else WORD if "word(" in expression.lower() else NUMBER


def float_is_zero(text: str) -> bool:
    return re.fullmatch(r"[-+]0(\.0*)?", text) is not None


def held() -> Iterator[Held]:
    """All pieces of ``docs/numbers.yaml``."""
    listed = yaml.safe_load((ROOT / "docs" / "numbers.yaml").read_text())
    for document, by_record in listed["documents"].items():
        for record, templates in by_record.items():
            for template in templates:
                yield Held(ROOT / document, " ".join(template.split()), record, listed["short"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the numbers of the record in place")
    write = parser.parse_args().write
    left = 0
    for each in held():
        try:
            wrong = each.wrong()
        except (LookupError, KeyError, IndexError) as error:
            wrong = [("", f"cannot be said: {error}")]
        if not wrong:
            continue
        name = each.document.relative_to(ROOT)
        if write and wrong[0][0]:
            each.write()
            print(f"{name}: {', '.join(f'{old} is now {new}' for old, new in wrong)}")
            continue
        left += 1
        for old, new in wrong:
            print(
                f"{name}: {f'{old} should be {new}, in: ' if old else 'no such text: '}{new if not old else each.template}"
            )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
