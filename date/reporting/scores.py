"""Metrics of evaluations over seeds, read from sealed results."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from date.catalogue import Catalogue
from date.evaluation.stored import read_resamples
from date.reporting.dead_sides import dead_sides_note
from date.reporting.imports import variant_mark
from date.results import RunResult, load_annotation_recalls, load_complexity

MISSING = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Sample:
    """One number per seed."""

    values: dict[int, float]
    """By seed; empty where there is no result."""
    exact: bool = False
    """Whether it is one number that depends on no seed."""

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

    def at(self, seed: int) -> float:
        """Return the number of a seed that the sample has, or the one number that depends on none."""
        return next(iter(self.values.values())) if self.exact else self.values[seed]


class Scores:
    """Looks numbers up by the name of what they are of.

    Args:
        results: of trainings, whose evaluations are named ``<training>/<variant>``.
        complexity: see `date.results.load_complexity`.
        recalls: see `date.results.load_annotation_recalls`.
        annotation_ious: the threshold that the paper's evaluation of annotations is of, by name.
        latency: see `date.results.load_latency`.
    """

    def __init__(
        self,
        results: Sequence[RunResult],
        complexity: dict[tuple[str, str], dict[str, float]] | None = None,
        recalls: dict[str, dict[float, float]] | None = None,
        annotation_ious: dict[str, float] | None = None,
        latency: dict[str, Any] | None = None,
    ) -> None:
        self.results = results
        self.latency = latency
        self._annotation_ious = annotation_ious or {}
        self._metrics: dict[str, dict[int, dict[str, float | None]]] = {}
        self._resamples: dict[tuple[str, int], tuple[str, dict[str, str]]] = {}
        self._areas: dict[str, set[tuple[float, float]]] = {}
        self._marks: dict[str, set[str]] = {}
        self._complexity, self._recalls = complexity or {}, recalls or {}
        for result in results:
            if result.evaluation is None:
                continue
            areas = result.evaluation["area_thresholds"]  # None where the protocol parts no areas
            for variant, record in result.evaluation["variants"].items():
                name = f"{result.training}/{variant}"
                self._metrics.setdefault(name, {})[result.seed] = _as_printed(record["metrics"])
                if (stored := record.get("resamples")) and (of := result.evaluation.get("resamples")):
                    renamed = _as_printed(stored)
                    self._resamples[name, result.seed] = of["images_sha256"], renamed
                if mark := variant_mark(result, record):
                    self._marks.setdefault(name, set()).add(mark)
                if areas is not None:
                    self._areas.setdefault(name, set()).add((areas[0], areas[1]))

    def complexity(self, training: str, phase: str, figure: Literal["params", "gflops"]) -> Sample:
        """Return a figure of a network: exact, hence one value, or none where nothing has been counted."""
        counted = self._complexity.get((training, phase))
        return Sample({} if counted is None else {0: counted[figure]}, exact=True)

    def recall(self, annotations: str, iou: float) -> Sample:
        """Return the recall that NMS of annotations leaves: exact, hence one value, or none."""
        recalls = self._recalls.get(annotations, {})
        return Sample({0: recalls[iou]} if iou in recalls else {}, exact=True)

    def seeds(self, evaluation: str) -> tuple[int, ...]:
        """Return the seeds that the evaluation has results of."""
        return tuple(sorted(self._metrics.get(evaluation, {})))

    def sample(self, evaluation: str, metric: str) -> Sample:
        """Return the metric of an evaluation by seed; a metric that is not defined (no such object) has no value."""
        by_seed = {seed: metrics.get(metric) for seed, metrics in sorted(self._metrics.get(evaluation, {}).items())}
        return Sample({seed: value for seed, value in by_seed.items() if value is not None})

    def named(self, name: str, metric: str) -> Sample:
        """Return the metric of an evaluation of checkpoints, or the recall of one of annotations, by its name."""
        if name in self._annotation_ious:
            return self.recall(name, self._annotation_ious[name]) if metric == "Recall" else Sample({}, exact=True)
        return self.sample(name, metric)

    def resampled(self, evaluation: str, seed: int, metric: str) -> tuple[str, NDArray[np.float64]] | None:
        """Return the digest of the images and the metric on their resamples, (R,); None where they are not stored."""
        digest, stored = self._resamples.get((evaluation, seed), ("", {}))
        return (digest, read_resamples({metric: stored[metric]})[metric]) if metric in stored else None

    def marks(self, evaluation: str) -> list[str]:
        """Return the remarks on results that are not of our own trainings, see `variant_mark`."""
        return sorted(self._marks.get(evaluation, ()))

    def dead_sides(self, trainings: Collection[str]) -> list[str]:
        """Return the remark on dead sides of these trainings' boxes, see `dead_sides_note`."""
        return dead_sides_note(self.results, trainings)

    def area_thresholds(self, evaluations: Iterable[str]) -> list[tuple[float, float]]:
        """Return the distinct pairs of square roots of areas by which evaluations part small, medium and large."""
        return sorted(set().union(*(self._areas.get(name, set()) for name in evaluations)))


def load_scores(
    results: Sequence[RunResult],
    results_dir: Path,
    tier: str,
    catalogue: Catalogue,
    latency: dict[str, Any] | None = None,
) -> Scores:
    """Return the scores of a tier's results, with what is stored beside them of networks and annotations.

    Args:
        results: of the tier that count.
        results_dir: the folder that holds ``<tier>/`` and ``complexity.json``.
        tier: its name.
        catalogue: the paper.
        latency: see `Scores`.
    """
    ious = {name: entry.iou for name, entry in catalogue.annotations.items()}
    recalls = load_annotation_recalls(results_dir, tier)
    return Scores(results, load_complexity(results_dir), recalls, ious, latency)


def column_of(metric: str, metrics: Collection[str]) -> str:
    """Return the paper's column of one of a protocol's metrics: CrowdHuman's AP, at IoU 0.5, is its AP50 (Table 4)."""
    return "AP50" if metric == "AP" and "mMR" in metrics else metric


def _as_printed(metrics: dict[str, Value]) -> dict[str, Value]:
    """Return values by metric under the names of the paper's columns."""
    return {column_of(name, metrics): value for name, value in metrics.items()}


def number(value: float | None, digits: int = 1) -> str:
    """Return a number as the paper prints it, by default with one decimal; an em dash for None."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float | None, digits: int = 1) -> str:
    """Return a difference with its sign, by default with one decimal; an em dash for None."""
    text = number(value, digits)
    return text if text in (MISSING, f"{0:.{digits}f}") or text.startswith(MINUS) else f"+{text}"
