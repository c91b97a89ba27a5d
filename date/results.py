"""The results folder: the small sealed files from which tables, figures and claims are made without data or GPU.

``<results>/<tier>/<training>/seed<N>/`` holds ``provenance.json`` and ``metrics.jsonl`` of a run, and
``evaluation.json``, ``detections.npz`` and ``pictures.json`` of its evaluation.
``<results>/<tier>/annotations/<name>.json`` is an evaluation of annotations alone; ``<results>/complexity.json`` counts
the paper's networks, the same at every tier; ``<results>/<tier>/latency.json`` is how long the trained ones take.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.errors import UserError
from date.files import file_digest, replace_text

CHANGED = "has changed since it was sealed; delete it and run the DAG again."
COMPLEXITY = "complexity.json"
LATENCY = "latency.json"
ANNOTATIONS = "annotations"
MANIFESTS = "data"
"""Folders of a tier's results: evaluations of annotations, and what the datasets held."""
PROVENANCE, METRICS, EVALUATION, DETECTIONS = "provenance.json", "metrics.jsonl", "evaluation.json", "detections.npz"
PICTURES = "pictures.json"
WEIGHTS, CONFIG = "final.safetensors", "config.py"
"""With the provenance and the metrics they make up a sealed run."""
CHECKPOINTS = "checkpoints"
"""Folder in that of a run which is being trained."""
TAIL = 1 << 16
"""Bytes at the end of ``metrics.jsonl`` in which the last evaluation is looked for first."""

SEAL = "content_sha256"
"""Key of ``provenance.json``, ``evaluation.json`` and ``pictures.json``: digest of everything else in the file."""

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


def last_evaluation(path: Path) -> dict[str, Any] | None:
    """Return the last evaluation in a ``metrics.jsonl``, also of a training under way; None where there is none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            for start in dict.fromkeys((max(0, size - TAIL), 0)):
                stream.seek(start)
                for line in reversed(stream.read().splitlines()):
                    if b'"eval"' in line and (record := _whole(line)).get("kind") == "eval":
                        return record
    except FileNotFoundError:
        return None
    return None


def _whole(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # torn
        return {}


def _place(record: dict[str, Any]) -> tuple[int, bool]:
    """Return a record's place in a training: after its step, an evaluation last."""
    return (-1, False) if record["kind"] == "start" else (record["step"], record["kind"] == "eval")


def seal(record: dict[str, Any], indent: int | None = 1) -> str:
    """Return a record as JSON with a digest of its content, so that a later change of the file is noticed."""
    record = {key: value for key, value in record.items() if key != SEAL}
    return json.dumps(record | {SEAL: _content_digest(record)}, indent=indent) + "\n"


def _content_digest(record: dict[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def export_run(run: Path, folder: Path) -> None:
    """Copy a sealed run's small files into the results folder, the provenance last and with a digest of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / METRICS, (run / METRICS).read_text(encoding="utf-8"))
    replace_text(folder / PROVENANCE, seal(json.loads((run / PROVENANCE).read_text(encoding="utf-8"))))


@dataclass(frozen=True)
class RunResult:
    """The results of one training with one seed."""

    training: str
    seed: int
    provenance: dict[str, Any]
    metrics: Path
    """``metrics.jsonl``."""
    evaluation: dict[str, Any] | None
    """``evaluation.json``, or None where the run has not been evaluated."""
    pictures: dict[str, Any] | None = None
    """``pictures.json``, or None where the run has not been evaluated, or before there were pictures."""

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl``, read when they are asked for: tables need none of the hundreds of megabytes."""
        return read_metrics(self.metrics)

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return the (step, value) pairs of a metric over the training's evaluations."""
        evaluations = [r for r in self.records if r["kind"] == "eval" and r.get(metric) is not None]
        return [(r["step"], r[metric]) for r in evaluations]


def load_results(results: Path, tier: str) -> list[RunResult]:
    """Read the sealed results of a tier, ordered by training and seed.

    Raises:
        UserError: a file is not valid JSON or was changed after it was sealed, lies in another run's folder, or is an
            evaluation, or has pictures, of another run than the provenance beside it.
    """
    found = []
    for path in sorted((results / tier).glob(f"*/seed*/{PROVENANCE}")):
        provenance = _read_sealed(path)
        training, seed = provenance["training"], provenance["seed"]
        if (training, f"seed{seed}") != (path.parent.parent.name, path.parent.name):
            raise UserError(f"{path} is of {training} with seed {seed}; move it there or delete {path.parent}.")
        evaluation_path, pictures_path = path.parent / EVALUATION, path.parent / PICTURES
        evaluation = _read_sealed(evaluation_path) if evaluation_path.exists() else None
        if evaluation is not None and _of_another_run(evaluation, provenance):
            raise UserError(f"{evaluation_path} judges another run than {path}; delete it and run the DAG again.")
        pictures = _read_pictures(pictures_path) if pictures_path.exists() else None
        if pictures is not None and _of_another_run(pictures, provenance):
            raise UserError(f"{pictures_path} is of another run than {path}; delete it and run the DAG again.")
        metrics, digest = path.parent / METRICS, provenance.get("metrics_sha256")
        if digest is not None and file_digest(metrics) != digest:
            raise UserError(f"{metrics} {CHANGED}")
        found.append(RunResult(training, seed, provenance, metrics, evaluation, pictures))
        if digest is None:
            _ = found[-1].records  # nothing else would notice that the file is damaged
    return found


def _of_another_run(record: dict[str, Any], provenance: dict[str, Any]) -> bool:
    return any(key in record and record[key] != provenance[key] for key in ("run_digest", "weights_sha256"))


def _read_pictures(path: Path) -> dict[str, Any]:
    """Return a ``pictures.json``, which always has a digest."""
    record = _read_sealed(path)
    if SEAL not in record:
        raise UserError(f"{path} {CHANGED}")
    return record


def _read_sealed(path: Path) -> dict[str, Any]:
    """Return a record, after comparing its content with its digest; records of before there were digests have none."""
    record = _read(path)
    if SEAL in record and record[SEAL] != _content_digest(record):
        raise UserError(f"{path} {CHANGED}")
    return record


def started_runs(results: Path, tier: str) -> list[tuple[str, int]]:
    """Return training and seed of the folders that a started or failed run has left without a sealed result."""
    folders = sorted((results / tier).glob("*/seed*"))
    open_folders = [f for f in folders if f.name[4:].isdecimal() and not (f / PROVENANCE).exists()]
    return [(folder.parent.name, int(folder.name[4:])) for folder in open_folders]


def load_complexity(results: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Return ``params`` in millions and ``gflops`` of the paper's networks by training and phase; empty where absent.

    Raises:
        UserError: the file is not valid JSON, or lists something else.
    """
    path = results / COMPLEXITY
    if not path.exists():
        return {}
    try:
        return complexity_figures(_read(path))
    except (KeyError, TypeError):
        raise UserError(f"{path} does not list the counted networks; delete it and run the DAG again.") from None


def complexity_figures(counted: dict[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the same from what ``python -m date complexity --json`` prints."""
    return {
        (training, phase): {"params": network["params_m"], "gflops": network["gflops"]}
        for network in counted["networks"]
        for training in network["trainings"]
        for phase in (("train", "infer") if network["phase"] == "both" else (network["phase"],))
    }


def load_latency(results: Path, tier: str) -> dict[str, Any] | None:
    """Return what ``python -m date latency --json`` wrote of a tier's networks; None where it was not measured.

    Raises:
        UserError: the file is not valid JSON, was changed after it was sealed, or has something else.
    """
    path = results / tier / LATENCY
    if not path.exists():
        return None
    measured = _read_sealed(path)
    if not isinstance(measured, dict) or not {"records", "stages", "exports", "hardware"} <= measured.keys():
        raise UserError(f"{path} has no measured latencies; delete it and run `snakemake latency` again.")
    return measured


def load_annotation_recalls(results: Path, tier: str) -> dict[str, dict[float, float]]:
    """Return the recall in percent that NMS of the annotations leaves, by evaluation and threshold.

    Raises:
        UserError: a file is not valid JSON, or has something else.
    """
    found = {}
    for path in sorted((results / tier / ANNOTATIONS).glob("*.json")):
        try:
            recalls = {float(iou): recall for iou, recall in _read(path)["recall"].items()}
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UserError(f"{path} has no recall by threshold; delete it and run the DAG again.") from None
        found[path.stem] = {iou: recall for iou, recall in recalls.items() if recall is not None}
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the DAG again.") from None
