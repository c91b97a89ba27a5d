"""From catalogue entry, tier and seed to one flat MMEngine config.

Fragments in ``experiments/models`` and ``experiments/schedules`` hold the paper's settings in MMEngine's own form; a
tier scales them by the rules of `date.catalogue.Tier`. Nothing here imports PyTorch, so that the DAG is built in a
second.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from date.catalogue import Dataset, Tier, Training, load_dataset
from date.catalogue.publication import load_paper
from date.catalogue.settings import dataset_name
from date.datasets.files import NAMES_ONLY, data_files, weights_file
from date.datasets.lengths import least_side, steps_per_epoch
from date.datasets.sizes import pixel_scale
from date.errors import UserError
from date.experiments.fragments import fragment, merge, schedule_fragment
from date.families import Facts

WHOLE = 1e-6
"""What a number of epochs may differ from a whole one by rounding."""


def resolve(training: Training, tier: Tier, seed: int, root: Path | None) -> dict[str, Any]:
    """Return the complete MMEngine config of a run as a plain dict, which MMDetection users can read and edit.

    Args:
        training: what is trained.
        tier: how large.
        seed: of initialisation, data order and augmentation.
        root: the data root; None leaves names in place of paths, and the digest in that of weights, for the run's
            identity.
    """
    dataset = load_dataset(dataset_name(training, tier))
    files = NAMES_ONLY if root is None else data_files(dataset, root)
    schedule = schedule_fragment(training.schedule)
    base = fragment("schedules/base.py")

    train_cfg, decay = _duration(schedule, training.data, tier)
    if not tier.monitors(training.name):
        train_cfg["val_interval"] = train_cfg.get("max_epochs", train_cfg.get("max_iters"))
    steps = schedule_steps(train_cfg, training.data, tier)
    warmup = base["warmup"] | dict(end=_warmup(steps, tier))

    scale = pixel_scale(tier, training.data)
    training_images = _images(dataset, scale, files.train_annotations, files.train_images, schedule["train_pipeline"])
    test_pipeline = schedule.get("test_pipeline", base["test_pipeline"])
    validation_images = _images(dataset, scale, files.val_annotations, files.val_images, test_pipeline)
    val_loader = _validation_loader(validation_images, tier, seed)
    evaluator = _evaluator(dataset, files.val_annotations)
    return dict(
        default_scope="mmdet",
        custom_imports=dict(
            imports=["date.models", "date.training.components", *training.modules], allow_failed_imports=False
        ),
        model=_model(training, tier, len(dataset.classes), steps, root),
        train_dataloader=_training_loader(training_images, tier, seed),
        val_dataloader=val_loader,
        test_dataloader=copy.deepcopy(val_loader),
        val_evaluator=evaluator,
        test_evaluator=copy.deepcopy(evaluator),
        train_cfg=train_cfg,
        val_cfg=dict(type="ValLoop"),
        test_cfg=dict(type="TestLoop"),
        optim_wrapper=optimisation(training, tier),
        param_scheduler=[warmup, decay],
        randomness=dict(seed=seed),
        metrics_interval=tier.log_interval,
        compute=tier.compute.model_dump(),
    )


def _images(
    dataset: Dataset, scale: float, annotations: Path, folder: Path, pipeline: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return MMDetection's dataset of a split, as a validation reads it: every image, in the order of the file."""
    return dict(
        type="CocoDataset",
        ann_file=str(annotations),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=tuple(dataset.classes)),
        pipeline=scale_pixels(pipeline, scale),
        test_mode=True,
    )


def _training_loader(images: dict[str, Any], tier: Tier, seed: int) -> dict[str, Any]:
    """Return the loader of a training: images without objects left out, in an order that the seed decides."""
    source = images | dict(test_mode=False, filter_cfg=dict(filter_empty_gt=True, min_size=least_side(tier)))
    sampling = dict(sampler=dict(type="EpochSampler", seed=seed), batch_sampler=dict(type="GlobalBatchSampler"))
    return _loader(source, tier, seed, sampling)


def _validation_loader(images: dict[str, Any], tier: Tier, seed: int) -> dict[str, Any]:
    return _loader(images, tier, seed, dict(sampler=dict(type="DefaultSampler", shuffle=False)))


def _loader(images: dict[str, Any], tier: Tier, seed: int, sampling: dict[str, Any]) -> dict[str, Any]:
    return dict(
        batch_size=tier.batch_size,
        num_workers=tier.workers,
        persistent_workers=tier.workers > 0,
        drop_last=False,
        **sampling,
        dataset=dict(type="SeededDataset", dataset=images, seed=seed),
    )


def _evaluator(dataset: Dataset, annotations: Path) -> dict[str, Any]:
    if dataset.protocol == "coco":
        return dict(
            type="CocoDetectionMetric", ann_file=str(annotations), area_thresholds=list(dataset.area_thresholds)
        )
    return dict(type="CrowdHumanDetectionMetric", ann_file=str(annotations))


def optimisation(training: Training, tier: Tier) -> dict[str, Any]:
    """Return the optimiser, clipping and per-parameter rates of a training as MMEngine's ``optim_wrapper``."""
    wrapper = (
        schedule_fragment(training.schedule).get("optim_wrapper") or fragment("schedules/base.py")["optim_wrapper"]
    )
    sgd = wrapper["optimizer"]["type"] == "SGD"  # its rate goes with the batch: arXiv 1706.02677, sec. 2.1
    recipe = load_paper().recipe
    wrapper["optimizer"]["lr"] *= tier.batch_size / recipe.batch_size if sgd else tier.lr / recipe.lr
    custom_keys = (wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}
    if "backbone" in custom_keys:
        custom_keys["backbone"]["lr_mult"] = tier.backbone_lr_mult
    return wrapper


def epochs(schedule: Mapping[str, Any], tier: Tier) -> int:
    """Return the epochs of a schedule in epochs at a tier; no data are needed."""
    return max(1, round(schedule["epochs"] * tier.epoch_scale))


def _duration(schedule: dict[str, Any], part: str, tier: Tier) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the training loop and the scheduler of a schedule in epochs or in iterations, scaled to the tier."""
    by_epoch = "iterations" not in schedule
    scale = tier.epoch_scale
    if not by_epoch:  # as many epochs of the tier's dataset as the iterations are of the paper's
        scale *= steps_per_epoch(tier, part) / load_paper().parts[part].steps_per_epoch
    if by_epoch:
        length = epochs(schedule, tier)
        loop = dict(type="EpochBasedTrainLoop", max_epochs=length, val_interval=1)
        if any(abs(m * scale - round(m * scale)) > WHOLE for m in schedule["milestones"]):  # drops within an epoch
            by_epoch, steps = False, steps_per_epoch(tier, part)
            length, scale = length * steps, scale * steps
    else:
        evaluations = load_paper().recipe.evaluations_by_iteration
        interval = max(1, round(schedule["iterations"] * scale / evaluations))
        length = interval * evaluations  # so that the last step is evaluated
        loop = dict(type="IterBasedTrainLoop", max_iters=length, val_interval=interval)
    milestones = [max(1, round(m * scale)) for m in schedule["milestones"]]
    return loop, dict(type="MultiStepLR", by_epoch=by_epoch, begin=0, end=length, milestones=milestones, gamma=0.1)


def schedule_steps(train_cfg: Mapping[str, Any], part: str, tier: Tier) -> int:
    """Return the steps of a training loop, as `resolve` writes it, on the tier's dataset of a part."""
    if train_cfg["type"] == "EpochBasedTrainLoop":
        return int(train_cfg["max_epochs"]) * steps_per_epoch(tier, part)
    return int(train_cfg["max_iters"])


def _warmup(steps: int, tier: Tier) -> int:
    """Return the steps of the warm-up: the tier's, or of a short schedule its largest share.

    MMEngine reaches the full rate in the last of them, and never if that is also the first: there are two at least.
    """
    return max(2, min(tier.warmup_iters, round(tier.warmup_max_share * steps)))


def _model(training: Training, tier: Tier, classes: int, steps: int, root: Path | None) -> dict[str, Any]:
    groups = tier.channels // load_paper().recipe.channels_per_group
    facts = Facts(classes, training.data, tier.channels, tier.levels, tier.object_scale, groups, steps, tier.batch_size)
    model = training.network.config(facts, fragment("models/detector.py")["model"])
    if training.backbone not in tier.backbones:
        raise UserError(
            f"tier {tier.name!r} has no backbone in the part of {training.backbone!r}, which {training.name} needs; "
            f"add it to 'backbones' of the tier."
        )
    merge(model, dict(backbone=tier.backbones[training.backbone]))
    weights = tier.weights.get(training.weights)
    if weights is not None:
        source = f"sha256:{weights.sha256}" if root is None else str(weights_file(weights, root))
        model["backbone"]["init_cfg"] = dict(type="Pretrained", checkpoint=source)
    if "stage_channels" in model["backbone"]:
        stages = model["backbone"].pop("stage_channels")
        fewer = model["backbone"].get("out_indices", ())  # of a network that does not use the levels of the others
        model["neck"]["in_channels"] = [stages[i] for i in fewer] if 0 < len(fewer) < len(stages) else stages
    model["data_preprocessor"]["pad_size_divisor"] = tier.pad_divisor
    if tier.normalise == "unit":
        model["data_preprocessor"].update(mean=[127.5] * 3, std=[127.5] * 3)
    elif tier.normalise == "efficientnet_lite":
        model["data_preprocessor"].update(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True)
    return model


def scale_pixels(pipeline: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Return a pipeline whose sizes in pixels (``scale``, ``scales``, ``crop_size``) are multiplied and rounded."""

    def pixels(value: Any) -> Any:
        return type(value)(map(pixels, value)) if isinstance(value, tuple | list) else max(1, round(value * factor))

    def scaled(item: Any) -> Any:
        if isinstance(item, list):
            return [scaled(i) for i in item]
        if isinstance(item, dict):
            return {k: pixels(v) if k in ("scale", "scales", "crop_size") else scaled(v) for k, v in item.items()}
        return item

    return scaled(pipeline)
