"""The durations of trainings and evaluations, from the best basis that exists.

``measured``: a sealed run of the same training at the tier, or one of the same kind, scaled. ``calibrated``: a few
steps timed by ``python -m date calibrate``. ``catalogue``: ``gpu_hours`` of ``trainings.yaml``, from published speeds.
``relative``: the catalogue's hours at a tier whose networks or images have another size; they tell the order of jobs
and nothing else.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from date.catalogue import Tier, Training, load, load_tier
from date.catalogue.publication import load_paper
from date.identity.config import resolve
from date.identity.digests import config_digest
from date.identity.length import Length, length
from date.results import METRICS, PROVENANCE, last_evaluation
from date.runs.working import read_or_empty

Basis = Literal["measured", "calibrated", "catalogue", "relative"]
CALIBRATION = "calibration.json"
CALIBRATION_SCHEMA = 1
INFERENCE_SHARE = 1 / 3
"""GPU time of judging an image over that of training on it. FCOS with ResNet-50 on a V100: 44 ms (MMDetection's
benchmark) against OneNet's 0.28 s x 8 GPUs / 16 images = 140 ms."""
SIZE = ("channels", "levels", "pixel_scale", "batch_size", "backbones")
"""Fields of a tier that decide what a step costs."""


@dataclass(frozen=True)
class Duration:
    """Hours of one GPU."""

    hours: float
    basis: Basis
    source: str
    """What the basis is, for the eye."""

    @property
    def known(self) -> bool:
        """Whether the hours are an estimate of anything but the order."""
        return self.basis != "relative"


@dataclass(frozen=True)
class Speed:
    """GPU seconds of a training step with its batch, and of judging an image; None where only the other is known."""

    step: float | None
    image: float | None


def kind(training: Training) -> tuple[Any, ...]:
    """Return what decides the cost of a training's step."""
    return (
        training.model, *training.network.cost, training.backbone, training.data
    )  # fmt: skip


def speed_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the parts of a config that decide what a step costs."""
    return config_digest({k: config[k] for k in ("model", "train_dataloader", "optim_wrapper", "compute")})


@functools.cache
def published_step(training: Training) -> float:
    """Return the V100 seconds of a step at the paper's size, from the catalogue's ``gpu_hours``."""
    return 3600 * training.gpu_hours / length(training, load_tier(load_paper().reference_tier)).steps


class Durations:
    """Estimates for a tier.

    Args:
        tier: how large the work is.
        results: folder of all results.
        runs: folder of all runs, of which the sealed ones count where their results are not here.
    """

    def __init__(self, tier: Tier, results: Path, runs: Path) -> None:
        self.tier = tier
        self.measured = _measured(tier, results, runs)
        self.calibration = read_calibration(results / tier.name / CALIBRATION)
        self.calibrated = self._calibrated()
        paper = load_tier(load_paper().reference_tier)
        self.paper_size = all(getattr(tier, field) == getattr(paper, field) for field in SIZE)
        self._lengths: dict[str, Length] = {}

    def length(self, training: Training) -> Length:
        """See `length`."""
        if training.name not in self._lengths:
            self._lengths[training.name] = length(training, self.tier)
        return self._lengths[training.name]

    def training(self, training: Training) -> Duration:
        """Return the hours of a training from its beginning, its validations included where they are known."""
        work = self.length(training)
        seconds, basis, source = self._step(training)
        if basis == "calibrated":
            image = _scaled(training, self.calibrated, lambda speed: speed.image)
            return Duration(
                (work.steps * seconds + work.validations * work.images * (image or 0.0)) / 3600, basis, source
            )
        return Duration(work.steps * seconds / 3600, basis, source)

    def evaluation(self, training: Training) -> Duration:
        """Return the hours of an evaluation: one pass over the validation images, whatever the number of variants.

        Where no validation was measured or calibrated, an image takes `INFERENCE_SHARE` of what training on it takes.
        """
        images = self.length(training).images
        for donors, basis in ((self.measured, "measured"), (self.calibrated, "calibrated")):
            second = _scaled(training, donors, lambda speed: speed.image)
            if second is not None:
                source = self._calibration_source if basis == "calibrated" else "validations of sealed runs"
                return Duration(images * second / 3600, basis, source)  # type: ignore[arg-type]
        seconds, found, _ = self._step(training)
        source = "a third of the GPU time of training on the images"
        return Duration(images * seconds / self.tier.batch_size * INFERENCE_SHARE / 3600, found, source)

    def _step(self, training: Training) -> tuple[float, Basis, str]:
        """Return the GPU seconds of a step."""
        own = self.measured.get(training.name)
        if own is not None and own.step is not None:
            return own.step, "measured", "sealed runs of the same training"
        alike = {name: speed for name, speed in self.measured.items() if kind(load().trainings[name]) == kind(training)}
        for donors, basis, source in (
            (alike, "measured", "sealed runs of the same kind of network, scaled"),
            (self.calibrated, "calibrated", self._calibration_source),
            (self.measured, "measured", "sealed runs of other networks, scaled by the catalogue"),
        ):
            seconds = _scaled(training, donors, lambda speed: speed.step)
            if seconds is not None:
                return seconds, basis, source  # type: ignore[return-value]
        if self.paper_size:
            return published_step(training), "catalogue", load_paper().gpu_hours_basis
        return published_step(training), "relative", "the catalogue's hours, which tell the order of jobs alone"

    @property
    def _calibration_source(self) -> str:
        if self.calibration is None:
            return ""
        return f"calibration of {self.calibration['date']} on {self.calibration['device']}"

    def _calibrated(self) -> dict[str, Speed]:
        """Return the calibrated speeds of networks that have not changed since."""
        found = {}
        for name, entry in (self.calibration or {"trainings": {}})["trainings"].items():
            training = load().trainings.get(name)
            if training is None or training.data not in self.tier.datasets:
                continue
            if speed_digest(resolve(training, self.tier, 0, None)) == entry["speed_sha256"]:
                found[name] = Speed(entry["seconds_per_step"], entry["seconds_per_image"])
        return found


def _scaled(training: Training, donors: Mapping[str, Speed], value: Callable[[Speed], float | None]) -> float | None:
    """Return a training's seconds from others': of the same training, else the same kind (and schedule), else any.

    Networks of another kind are scaled by the ratio of the catalogue's seconds per step.
    """
    trainings = load().trainings
    known = {name: found for name, speed in donors.items() if (found := value(speed)) is not None}
    alike = [name for name in known if kind(trainings[name]) == kind(training)]
    same_images = [name for name in alike if trainings[name].schedule == training.schedule]
    chosen = [training.name] if training.name in known else same_images or alike or list(known)
    own = published_step(training)
    ratios = [known[name] * own / published_step(trainings[name]) for name in chosen]
    return statistics.median(ratios) if ratios else None


def read_calibration(path: Path) -> dict[str, Any] | None:
    """Return a tier's ``calibration.json``, or None where there is none of the present schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content if content.get("schema_version") == CALIBRATION_SCHEMA else None


def _measured(tier: Tier, results: Path, runs: Path) -> dict[str, Speed]:
    """Return the speeds of a tier's sealed runs by training, medians over seeds; what was imported is left out.

    Of a training and seed its result counts, or else the sealed folder that was written last.
    """
    folders = {(path.parent.name, path.name): path for path in sorted((results / tier.name).glob("*/seed*"))}
    speeds = {key: _speed(folder) for key, folder in folders.items()}
    for path in sorted(runs.glob(f"{tier.name}-*/{PROVENANCE}"), key=lambda path: (-path.stat().st_mtime, path)):
        provenance = read_or_empty(path)
        key = (str(provenance.get("training")), f"seed{provenance.get('seed')}")
        if provenance.get("tier") == tier.name and speeds.get(key) is None:
            speeds[key] = _speed(path.parent)
    by_training: dict[str, list[Speed]] = {}
    for (name, _), speed in sorted(speeds.items()):
        if speed is not None and name in load().trainings:
            by_training.setdefault(name, []).append(speed)
    return {
        name: Speed(_median(s.step for s in found), _median(s.image for s in found))
        for name, found in by_training.items()
    }


def _speed(folder: Path) -> Speed | None:
    """Return the speed of a sealed run, from its folder or its results; None where it was not timed."""
    provenance = read_or_empty(folder / PROVENANCE)  # the report names a damaged one
    segments, steps = provenance.get("segments") or [], provenance.get("steps")
    if not segments or not steps:
        return None
    seconds = sum(segment.get("seconds", 0.0) * segment.get("processes", 1) for segment in segments)
    images = provenance.get("data", {}).get("splits", {}).get("val", {}).get("images")
    validation = (last_evaluation(folder / METRICS) or {}).get("seconds")
    return Speed(seconds / steps, validation / images if validation and images else None)


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
