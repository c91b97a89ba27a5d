"""The rehearsal as a folder of own experiments: the tier's networks, for a few epochs of a few images.

Everything else is the tier's own: network, weights, recipe, augmentation, batch, loading processes, precision. Thus the
commands of every day train and judge it; there is no other loop.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from date.catalogue import Tier, Training, Variant, load
from date.datasets.sizes import pixel_scale
from date.experiments.fragments import schedule_fragment
from date.files import replace_text
from date.rehearsal.sample import Sample

TIER = "rehearsal"
LOADING = "rehearsal-loading"
"""The tier whose images are loaded, and not trained on."""
STEPS = 20
EPOCH = 10
"""Steps of an epoch, after which there are a checkpoint and a validation; fewer where there are too few images."""
VALIDATED = 50
LENGTH = ("iterations", "epochs", "milestones")
"""Variables of a schedule that say how long it is."""


def rehearsed_name(training: Training) -> str:
    """Return the name of a training's rehearsal."""
    return f"rehearsal-{training.name}"


def steps_and_epochs(sample: Sample, batch: int) -> tuple[int, int]:
    """Return the steps of an epoch of a sample, and how many epochs make `STEPS`, two at least."""
    steps = math.ceil(sample.train / batch)
    return steps, max(2, math.ceil(STEPS / steps))


def variants(training: Training) -> list[str]:
    """Return the variants that evaluate a training's checkpoint; any that fits where the catalogue names none."""
    known: dict[str, Variant] = load().variants
    listed = [evaluation.variant for evaluation in load().evaluations_of(training.name)]
    return listed or [name for name, variant in known.items() if variant.branch in training.branches][:1]


def write_experiments(
    folder: Path, tier: Tier, trainings: list[Training], samples: dict[str, Sample], root: Path
) -> None:
    """Write the folder of experiments.

    Args:
        folder: has the sampled datasets.
        tier: that is rehearsed.
        trainings: that are rehearsed.
        samples: of the tier's datasets, by part.
        root: the data root, of pretrained weights.
    """
    named, judged = {}, {}
    for training in trainings:
        _, epochs = steps_and_epochs(samples[training.data], tier.batch_size)
        schedule = f"rehearsal_{training.schedule}_{epochs}"
        replace_text(folder / "schedules" / f"{schedule}.py", _schedule(training.schedule, epochs))
        named[rehearsed_name(training)] = {
            "model": training.model,
            "options": training.options.model_dump(mode="json"),
            "backbone": training.backbone,
            "data": training.data,
            "schedule": schedule,
            "gpu_hours": 1,
            "why": f"{training.name}, rehearsed.",
        }
        judged[rehearsed_name(training)] = variants(training)
    replace_text(folder / "trainings.yaml", json.dumps(named, indent=1) + "\n")
    replace_text(folder / "evaluations.yaml", json.dumps({"evaluations": judged}, indent=1) + "\n")
    for name, suffix in ((TIER, ""), (LOADING, "-loading")):
        datasets = {part: f"{sample.name}{suffix}" for part, sample in samples.items()}
        content = _tier(tier, datasets, samples, list(named), root)
        replace_text(folder / "tiers" / f"{name}.yaml", json.dumps(content, indent=1) + "\n")


def _schedule(name: str, epochs: int) -> str:
    """Return a schedule's file with everything that it has but its length."""
    content = {key: value for key, value in schedule_fragment(name).items() if key not in LENGTH}
    lines = [f"{key} = {value!r}" for key, value in content.items()]
    return "\n".join(
        [f"# The schedule {name}, but short.", f"epochs = {epochs}", f"milestones = [{epochs}]", *lines, ""]
    )


def _tier(
    tier: Tier, datasets: dict[str, str], samples: dict[str, Sample], trainings: list[str], root: Path
) -> dict[str, Any]:
    """Return the content of the rehearsal's tier; one size of images, the largest, where the data choose it."""
    unlike = {"name", "reference", "tuned", "steps_per_epoch", "monitored", "fit_pixels"}
    content = tier.model_dump(mode="json", exclude=unlike)
    for weights in content["weights"].values():
        if weights["package"] is None:
            weights["file"] = str((root / weights["file"]).resolve())
    shortest = min(steps_and_epochs(sample, tier.batch_size)[0] for sample in samples.values())
    return content | {
        "summary": f"A rehearsal of {tier.name}.",
        "watermark": f"rehearsal of the tier {tier.name}; the numbers mean nothing",
        "datasets": datasets,
        "trainings": trainings,
        "pixel_scale": max(pixel_scale(tier, part) for part in datasets),
        "epoch_scale": 1.0,
        "log_interval": max(1, min(shortest, EPOCH) // 2),
    }
