"""What the runs of a tier take on disk: measured where runs are there, else estimated from parameters and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.catalogue import Training, load
from date.catalogue.publication import load_paper
from date.identity.config import resolve
from date.planning.durations import Durations, kind
from date.results import DETECTIONS
from date.runs.state import Runs, flat

BYTES = 4
"""Of a number in single precision, as weights and moments are kept."""
COPIES = {"AdamW": 3, "SGD": 2}
"""Of all weights in a checkpoint: themselves and the optimiser's moments."""
CHECKPOINTS = 3
"""Of a training at work: the last two, and the next one while it is written."""
DETECTION_COLUMNS = 7
WEIGHTS = "final.safetensors"


@dataclass(frozen=True)
class Disk:
    """Bytes of one run."""

    checkpoints: float
    """While it is trained."""
    sealed: float
    detections: float
    """Of all its evaluations."""
    basis: str
    detections_basis: str


def disk(training: Training, durations: Durations, runs: Runs) -> Disk | None:
    """Return what a run takes, or None where nothing tells the size of its network."""
    config = resolve(training, durations.tier, 0, None)
    weights, basis = _weights(training, durations, runs)
    if weights is None:
        return None
    copies = COPIES.get(config["optim_wrapper"]["optimizer"]["type"], max(COPIES.values()))
    detections, detections_basis = _detections(training, config, durations, runs)
    return Disk(CHECKPOINTS * copies * weights, weights, detections, basis, detections_basis)


def _weights(training: Training, durations: Durations, runs: Runs) -> tuple[float | None, str]:
    alike = [t.name for t in load().trainings.values() if kind(t) == kind(training)]
    for name in sorted(alike, key=lambda name: name != training.name):
        for folder in sorted(runs.runs.glob(f"{runs.tier.name}-{name}-s*-*")):
            if (folder / WEIGHTS).exists():
                return (folder / WEIGHTS).stat().st_size, "sealed runs"
    for name in alike:
        if name in durations.calibrated:
            assert durations.calibration is not None
            return BYTES * durations.calibration["trainings"][name]["parameters"], "parameters counted by calibrate"
    stated = load_paper().parameters
    if durations.paper_size and training.backbone in stated:
        listed = ", ".join(f"{count / 1e6:g} M with {name}" for name, count in stated.items())
        return BYTES * stated[training.backbone], f"the paper's parameters: {listed}"
    return None, ""


def _detections(training: Training, config: dict[str, Any], durations: Durations, runs: Runs) -> tuple[float, str]:
    found: list[Path] = sorted((runs.results / training.name).glob(f"seed*/{DETECTIONS}"))
    if found:
        return found[0].stat().st_size, "sealed evaluations"
    own = max(value for key, value in flat(config["model"]) if key.endswith("max_per_img"))
    variants = [load().variants[e.variant] for e in load().evaluations_of(training.name)]
    rows = durations.length(training).images * sum(variant.max_per_img or own for variant in variants)
    return float(rows * DETECTION_COLUMNS * BYTES), "at most, uncompressed"
