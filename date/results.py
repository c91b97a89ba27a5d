"""The results folder: the small sealed files from which tables, figures and claims are made without data or GPU.

``<results>/<tier>/<training>/seed<N>/`` holds ``provenance.json`` and ``metrics.jsonl`` of a run, and
``evaluation.json`` and ``detections.npz`` of its evaluation.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.errors import UserError
from date.files import replace_text

PROVENANCE, METRICS, EVALUATION, DETECTIONS = "provenance.json", "metrics.jsonl", "evaluation.json", "detections.npz"

METRICS_SCHEMA = 2
"""Of the lines of ``metrics.jsonl``; see `date.training.recorder.Recorder`."""


def utc(seconds: float | None = None) -> str:
    """Return a time, now by default, e.g. ``2026-05-17T08:30:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl``, also of a training that is under way or was killed.

    A last line that was torn is left out. Where a resumed training repeats steps, the later lines count.

    Raises:
        UserError: a line before the last is not JSON.
    """
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(
                f"line {number} of {path} is not JSON ({error}); restore the file or train again."
            ) from None
        while records and record["kind"] != "start" and _place(records[-1]) >= _place(record):
            records.pop()
        records.append(record)
    return records


def _place(record: dict[str, Any]) -> tuple[int, bool]:
    """Return a record's place in a training: after its step, an evaluation last."""
    return (-1, False) if record["kind"] == "start" else (record["step"], record["kind"] == "eval")


def export_run(run: Path, folder: Path) -> None:
    """Copy a sealed run's small files into the results folder, the provenance last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (METRICS, PROVENANCE):
        replace_text(folder / name, (run / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class RunResult:
    """What is known of one training with one seed."""

    training: str
    seed: int
    provenance: dict[str, Any]
    records: list[dict[str, Any]]
    """Lines of ``metrics.jsonl``."""
    evaluation: dict[str, Any] | None
    """``evaluation.json``, or None where the run has not been evaluated."""

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return the (step, value) pairs of a metric over the training's evaluations."""
        evaluations = [r for r in self.records if r["kind"] == "eval" and r.get(metric) is not None]
        return [(r["step"], r[metric]) for r in evaluations]


def load_results(results: Path, tier: str) -> list[RunResult]:
    """Read the sealed results of a tier, ordered by training and seed.

    Raises:
        UserError: a file is not valid JSON, or an evaluation is of another run than the provenance beside it.
    """
    found = []
    for path in sorted((results / tier).glob(f"*/seed*/{PROVENANCE}")):
        provenance = _read(path)
        evaluation_path = path.parent / EVALUATION
        evaluation = _read(evaluation_path) if evaluation_path.exists() else None
        if evaluation is not None and evaluation["run_digest"] != provenance["run_digest"]:
            raise UserError(f"{evaluation_path} judges another run than {path}; delete it and run the DAG again.")
        records = read_metrics(path.parent / METRICS)
        found.append(RunResult(provenance["training"], provenance["seed"], provenance, records, evaluation))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the DAG again.") from None
