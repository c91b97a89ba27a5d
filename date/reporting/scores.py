"""Metrics of evaluations over seeds, read from sealed results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from date.reporting.imports import variant_mark
from date.results import RunResult

MISSING = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Sample:
    """One number per seed."""

    values: dict[int, float]
    """By seed; empty where there is no result."""

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without any."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1); None with fewer than two seeds."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest number of a sample that is not empty."""
        return min(self.values.values()), max(self.values.values())

    def minus(self, other: Sample) -> Sample:
        """Return the differences, paired over the seeds that both have."""
        return Sample({seed: v - other.values[seed] for seed, v in self.values.items() if seed in other.values})


class Scores:
    """Looks metrics up by the name of an evaluation, ``<training>/<variant>``."""

    def __init__(self, results: Sequence[RunResult]) -> None:
        self._metrics: dict[str, dict[int, dict[str, float | None]]] = {}
        self._areas: dict[str, set[tuple[float, float]]] = {}
        self._marks: dict[str, set[str]] = {}
        for result in results:
            if result.evaluation is None:
                continue
            areas = result.evaluation["area_thresholds"]  # None where the protocol parts no areas
            for variant, record in result.evaluation["variants"].items():
                name = f"{result.training}/{variant}"
                self._metrics.setdefault(name, {})[result.seed] = record["metrics"]
                if mark := variant_mark(result, record):
                    self._marks.setdefault(name, set()).add(mark)
                if areas is not None:
                    self._areas.setdefault(name, set()).add((areas[0], areas[1]))

    def seeds(self, evaluation: str) -> tuple[int, ...]:
        """Return the seeds that the evaluation has results of."""
        return tuple(sorted(self._metrics.get(evaluation, {})))

    def sample(self, evaluation: str, metric: str) -> Sample:
        """Return the metric of an evaluation by seed; a metric that is not defined (no such object) has no value."""
        by_seed = {seed: metrics.get(metric) for seed, metrics in sorted(self._metrics.get(evaluation, {}).items())}
        return Sample({seed: value for seed, value in by_seed.items() if value is not None})

    def marks(self, evaluation: str) -> list[str]:
        """Return what has to be said of results that are not of our own trainings, see `variant_mark`."""
        return sorted(self._marks.get(evaluation, ()))

    def area_thresholds(self, evaluations: Iterable[str]) -> list[tuple[float, float]]:
        """Return the distinct pairs of square roots of areas by which evaluations part small, medium and large."""
        return sorted(set().union(*(self._areas.get(name, set()) for name in evaluations)))


def number(value: float | None) -> str:
    """Return a number as the paper prints it, with one decimal; an em dash for None."""
    return MISSING if value is None else f"{value:.1f}".replace("-0.0", "0.0").replace("-", MINUS)


def signed(value: float | None) -> str:
    """Return a difference with one decimal and its sign; an em dash for None."""
    text = number(value)
    return text if text in (MISSING, "0.0") or text.startswith(MINUS) else f"+{text}"
