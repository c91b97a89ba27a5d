"""The report's sentences on imported results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from date.results import RunResult

CHECKPOINT, DETECTIONS, LOG = (
    "Imported checkpoint, trained elsewhere, evaluated here",
    "Imported detections, made elsewhere, scored here",
    "As reported by an imported training log, not scored by us",
)


def variant_mark(result: RunResult, record: dict[str, Any]) -> str | None:
    """Return what has to be said of the metrics of a variant, a part of ``evaluation.json``; None of our own runs."""
    if "imported" not in result.provenance:
        return None
    if record.get("reported_by_log"):
        return LOG
    return DETECTIONS if result.provenance["imported"].get("kind") == "detections" else CHECKPOINT


def import_mark(result: RunResult) -> str:
    """Return what stands in the list of runs where a trained run has its time."""
    imported = result.provenance["imported"]
    if imported.get("kind") != "detections":
        return "imported"
    parts = [
        name for name, there in (("detections", imported["detections"]), ("training log", imported["log"])) if there
    ]
    return f"imported {' and '.join(parts)}"


def import_warnings(results: Sequence[RunResult]) -> list[str]:
    """Return the sentences that stand above the page, one for each kind of import."""
    named: dict[str, list[str]] = {}
    for result in results:
        if "imported" not in result.provenance:
            continue
        if result.provenance["imported"].get("kind") != "detections":
            named.setdefault(CHECKPOINT, []).append(f"{result.training} (seed {result.seed})")
            continue
        for name, record in (result.evaluation or {"variants": {}})["variants"].items():
            mark = LOG if record.get("reported_by_log") else DETECTIONS
            named.setdefault(mark, []).append(f"{result.training}/{name} (seed {result.seed})")
    sentences = {
        CHECKPOINT: "Imported checkpoints, trained elsewhere with unknown code and seeds",
        DETECTIONS: "Imported detections, made elsewhere and scored here",
        LOG: LOG,
    }
    return [f"{sentence}: {', '.join(named[mark])}." for mark, sentence in sentences.items() if mark in named]
