"""Measured latencies as a table for a reader, and one network's time against another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = (
    "evaluation",
    "size",
    "runtime",
    "threads",
    "ms",
    "quartiles",
    "preprocessing",
    "network",
    "decoding",
    "NMS",
    "detections",
)


@dataclass(frozen=True)
class Ratio:
    """How much longer one network takes than another, in percent."""

    median: float
    low: float
    high: float
    """95 % interval of the median over the rounds, by its order statistics (sign test)."""
    rounds: int


def totals(record: dict[str, Any]) -> NDArray[np.float64]:
    """Return the milliseconds of each round, all stages together."""
    return np.sum([record["ms"][stage] for stage in record["ms"]], axis=0)


def median_share(record: dict[str, Any], stage: str) -> float:
    """Return the median over the rounds of a stage's share of the time."""
    return float(np.median(np.array(record["ms"][stage]) / totals(record)))


def latency_rows(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of `HEADER` for every record."""
    rows = []
    for record in measured["records"]:
        times = totals(record)
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
        shares = [median_share(record, stage) for stage in measured["stages"]]
        rows.append(
            (
                record["name"], record["size"], record["runtime"], str(record["threads"]), f"{middle:.2f}",
                f"{low:.2f} to {high:.2f}", *(f"{100 * share:.1f} %" for share in shares), f"{record['detections']:g}",
            )
        )  # fmt: skip
    return rows


def latency_text(measured: dict[str, Any]) -> str:
    """Return all records as aligned text."""
    rows = [HEADER, *latency_rows(measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)


def ratio(measured: dict[str, Any], name: str, than: str, **where: Any) -> Ratio | None:
    """Return how much longer a network takes than another, by the times of the same rounds.

    Args:
        measured: the record of a measurement.
        name: of the network.
        than: the other one.
        where: ``size``, ``runtime`` and ``threads``.

    Returns:
        None where one of them was not measured so.
    """
    found = {
        record["name"]: totals(record)
        for record in measured["records"]
        if all(record[key] == value for key, value in where.items())
    }
    if name not in found or than not in found:
        return None
    percent = np.sort(100 * (found[name] / found[than] - 1))
    low, high = median_interval(percent)
    return Ratio(float(np.median(percent)), low, high, len(percent))


def median_interval(ordered: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval of the median that assumes no distribution: order statistics of a sample.

    Args:
        ordered: the sample, ascending.
        level: that the interval has at least; infinite where the sample is too small for it.
    """
    from scipy.stats import binom

    n = len(ordered)
    k = int(binom.ppf((1 - level) / 2, n, 0.5))  # P(X < k) is at most half of what may be missed
    if k < 1:
        return -np.inf, np.inf
    return float(ordered[k - 1]), float(ordered[n - k])
