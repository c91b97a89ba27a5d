"""Measured latencies in the report: ours beside Tables 1 and 8, and the time part of claims on networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from date.catalogue import Complexity, Tier
from date.formatting import counted
from date.inference.latency_table import HEADER, latency_rows, median_share, ratio
from date.reporting.formats import marks
from date.reporting.scores import number

ABOUT = (
    "Ours, not the paper's: milliseconds for one image, batch 1, from the decoded image to the detections, median over "
    "the rounds with its quartiles, and the median share of each stage. All networks took turns in one run. One thread "
    "is timed in its processor time, several in wall time. The column NMS is the final choice of detections, "
    "also in networks without NMS."
)


def latency_markdown(measured: dict[str, Any], tier: Tier) -> str:
    """Return all measurements as a page of Markdown."""
    lines = [HEADER, tuple("---" for _ in HEADER), *latency_rows(measured)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([*marks(tier.watermark), "# Latency", ABOUT, where(measured), table]) + "\n"


def where(measured: dict[str, Any]) -> str:
    """Return on what was measured, when, and how large the exported files are."""
    hardware = measured["hardware"]
    files = ", ".join(f"{name} {found['bytes'] / 1e6:.1f} MB" for name, found in measured["exports"].items())
    several = [f"{passes} images at the size {size}" for size, passes in measured["passes"].items() if passes > 1]
    said = f"Measured on {hardware['cpu']}, seed {measured['seed']}, {measured['made']}."
    if several:
        said += f" A round's time is the median of {' and '.join(several)}."
    return f"{said} ONNX files: {files}." if files else said


def judge_time(predicate: Complexity, measured: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return a word and a sentence for each way of measuring that has both networks of a claim.

    The word is ``above`` where the interval of the difference lies above what is claimed, ``within`` where it lies
    below, and ``open`` where it holds it.

    Args:
        predicate: with ``time_at_most``.
        measured: the record of a measurement; None where there is none.
    """
    if measured is None or predicate.time_at_most is None:
        return []
    found = []
    more, less = (_name(measured, training) for training, _ in (predicate.network, predicate.than))
    for size, runtime, threads in dict.fromkeys((r["size"], r["runtime"], r["threads"]) for r in measured["records"]):
        if more is None or less is None:
            continue
        r = ratio(measured, more, less, size=size, runtime=runtime, threads=threads)
        if r is None:
            continue
        limit = predicate.time_at_most
        word = "within" if r.high <= limit else "above" if r.low > limit else "open"
        found.append(
            (
                word,
                f"Time, {runtime}, {counted(threads, 'threads')}, {size}: {number(r.median, 1)} % more (95 % interval "
                f"{number(r.low, 1)} to {number(r.high, 1)}, {r.rounds} rounds), at most {limit:g} % counts as none.",
            )
        )
    return found


def _name(measured: dict[str, Any], training: str) -> str | None:
    names = [record["name"] for record in measured["records"]]
    return next((name for name in names if name.split("/")[0] == training), None)


def nms_sentences(measured: dict[str, Any], others: Sequence[str]) -> list[str]:
    """Return what share of the time NMS takes in networks that need it.

    Args:
        measured: the record of a measurement.
        others: evaluations without NMS, which are left out.
    """
    shares: dict[str, list[float]] = {}
    for record in measured["records"]:
        if record["name"] not in others:
            shares.setdefault(record["name"], []).append(100 * median_share(record, "nms"))
    return [
        f"NMS and the final choice take {number(min(found), 1)} to {number(max(found), 1)} % of the time of {name}."
        for name, found in shares.items()
    ]
