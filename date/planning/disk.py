"""The disk space of a tier's runs: measured on existing runs, else estimated from parameters and images.

`date plan` and `date doctor` both ask here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.catalogue import Training, load
from date.catalogue.modules import import_modules
from date.catalogue.publication import load_paper
from date.identity.config import resolve
from date.planning.durations import Durations, kind
from date.results import DETECTIONS, WEIGHTS
from date.runs.state import Runs, flat
from date.training.options import KEPT_CHECKPOINTS

BYTES = 4
"""Of a number in single precision, as weights and moments are kept."""
COPIES = {"AdamW": 3, "SGD": 2}
"""Of all weights in a checkpoint: themselves and the optimiser's moments."""
CHECKPOINTS = KEPT_CHECKPOINTS + 1
"""Of a training at work: those that are kept, and the next one while it is written."""
DETECTION_COLUMNS = 7


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


def disk(training: Training, durations: Durations, runs: Runs) -> Disk:
    """Return what a run takes.

    Where neither runs nor a calibration nor the paper tell the size of its network, the network is built without
    memory and counted, which imports PyTorch.
    """
    config = resolve(training, durations.tier, 0, None)
    weights, basis = _weights(training, durations, runs)
    copies = COPIES.get(config["optim_wrapper"]["optimizer"]["type"], max(COPIES.values()))
    detections, detections_basis = _detections(training, config, durations, runs)
    return Disk(CHECKPOINTS * copies * weights, weights, detections, basis, detections_basis)


def checkpoints_at_work(sizes: Iterable[Disk], jobs: int) -> float:
    """Return the bytes of the checkpoints of as many trainings at a time, the largest ones.

    Args:
        sizes: of each run that is to be trained.
        jobs: trainings at a time.
    """
    return sum(sorted((size.checkpoints for size in sizes), reverse=True)[:jobs])


def _weights(training: Training, durations: Durations, runs: Runs) -> tuple[float, str]:
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
    model = resolve(training, durations.tier, 0, None)["model"]
    import_modules(training.modules)
    return float(BYTES * _parameters(json.dumps(model))), "parameters counted"


@functools.cache
def _parameters(model: str) -> int:
    """Return the number of parameters of a network, given by its config as JSON, by building it without memory."""
    from date import stack

    stack.load()
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import date.models  # noqa: F401 - registers the heads

    init_default_scope("mmdet")
    with torch.device("meta"):
        network = MODELS.build(Config(json.loads(model)))
    return sum(parameter.numel() for parameter in network.parameters())


def _detections(training: Training, config: dict[str, Any], durations: Durations, runs: Runs) -> tuple[float, str]:
    found: list[Path] = sorted((runs.results / training.name).glob(f"seed*/{DETECTIONS}"))
    if found:
        return found[0].stat().st_size, "sealed evaluations"
    own = max(value for key, value in flat(config["model"]) if key.endswith("max_per_img"))
    variants = [load().variants[e.variant] for e in load().evaluations_of(training.name)]
    rows = durations.length(training).images * sum(variant.max_per_img or own for variant in variants)
    return float(rows * DETECTION_COLUMNS * BYTES), "at most, uncompressed"
