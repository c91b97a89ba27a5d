"""A few steps of each kind of network, timed on the machine at hand: ``python -m date calibrate``.

The networks, optimisers and steps are the trainer's own; the images are random, of the size and number that the tier's
training has, so that neither data nor weights are needed. Loading of images, which goes on beside the steps, is not
timed.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from date import compat, stack

stack.load()

import torch  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402
from torch import nn  # noqa: E402

import date.models  # noqa: E402, F401 - registers the heads
from date.catalogue import Dataset, Tier, Training, load_dataset  # noqa: E402
from date.catalogue.modules import import_modules  # noqa: E402
from date.catalogue.publication import load_paper  # noqa: E402
from date.catalogue.settings import dataset_name  # noqa: E402
from date.errors import UserError  # noqa: E402
from date.files import replace_text  # noqa: E402
from date.formatting import counted  # noqa: E402
from date.identity.config import resolve  # noqa: E402
from date.memory import ran_out  # noqa: E402
from date.planning.durations import CALIBRATION, CALIBRATION_SCHEMA, kind, speed_digest  # noqa: E402
from date.results import utc  # noqa: E402
from date.training.compiler import check_tools  # noqa: E402
from date.training.network import build_network, build_optimizer, set_precision, total_loss  # noqa: E402
from date.training.recorder import peak_memory  # noqa: E402

WARM_UP = 3
"""Steps before the timed ones: kernels are chosen, memory is taken, compilers run."""
ASPECT = 4 / 3
"""Of most of COCO's images; generated scenes are square."""


def representatives(trainings: Sequence[Training]) -> list[Training]:
    """Return the first training of each kind of network and schedule, which decides the size of the images."""
    found: dict[Any, Training] = {}
    for training in trainings:
        found.setdefault((kind(training), training.schedule), training)
    return list(found.values())


def calibrate(
    trainings: Sequence[Training], tier: Tier, steps: int, threads: int | None, results: Path
) -> dict[str, Any]:
    """Time the trainings, write ``<results>/<tier>/calibration.json``, and return its content.

    Args:
        trainings: to be timed.
        tier: whose sizes count.
        steps: timed for each.
        threads: CPU threads; None lets PyTorch choose.
        results: folder of all results.

    Raises:
        UserError: the tier has no data for a training, no network fits into the memory, or one can't be compiled.
    """
    warnings.filterwarnings("ignore", category=UserWarning)
    if threads is not None:
        torch.set_num_threads(threads)
    MMLogger.get_instance("date", log_level="WARNING")
    init_default_scope("mmdet")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and tier.compute.compile:
        check_tools()
    entries = {}
    for number, training in enumerate(trainings, 1):
        try:
            entries[training.name] = _timed(training, tier, steps, device)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            print(f"{training.name} does not fit into the memory of {device_name(device)}; left out", file=sys.stderr)
            continue
        finally:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        seconds = entries[training.name]["seconds_per_step"]
        print(f"{number}/{len(trainings)} {training.name}: {seconds:.3f} s a step", file=sys.stderr, flush=True)
    if not entries:
        raise UserError(
            f"no network of tier {tier.name} fits into the memory of {device_name(device)}; use a larger GPU."
        )
    found = {
        "schema_version": CALIBRATION_SCHEMA,
        "tier": tier.name,
        "date": utc(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": compat.stack_versions(),
        "steps": steps,
        "trainings": entries,
    }
    replace_text(results / tier.name / CALIBRATION, _json(found))
    return found


def _timed(training: Training, tier: Tier, steps: int, device: torch.device) -> dict[str, Any]:
    plain = resolve(training, tier, 0, None)
    config = Config(plain)
    config.model.backbone.pop("init_cfg", None)  # the speed does not depend on the weights
    import_modules(training.modules)
    dataset = load_dataset(dataset_name(training, tier))
    set_precision(config.compute)
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model: Any = build_network(config, device)
    optimizer, clip = build_optimizer(config, model)
    height, width = image_size(plain["train_dataloader"]["dataset"]["dataset"]["pipeline"], dataset)
    batch = random_batch(
        height, width, tier.batch_size, len(dataset.classes), load_paper().parts[training.data].objects_per_image
    )

    if device.type == "cuda":
        batch["inputs"] = [pixels.pin_memory() for pixels in batch["inputs"]]  # as the trainer's loader does

    def step() -> None:
        total_loss(model(**_prepared(model, config, batch, training=True), mode="loss"))[0].backward()
        if clip is not None:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], **clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def judge() -> None:
        with torch.no_grad():
            model(**_prepared(model, config, batch, training=False), mode="predict")

    for group in optimizer.param_groups:  # random images would drive the weights to infinity
        group["lr"] = 0.0
    seconds = _seconds(step, steps, device)
    memory = peak_memory(device)
    model.eval()
    judging = _seconds(judge, max(1, steps // 2), device)
    return {
        "seconds_per_step": round(seconds, 6),
        "seconds_per_image": round(judging / tier.batch_size, 6),
        "image_size": [height, width],
        "memory_mb": memory,
        "parameters": sum(p.numel() for p in model.parameters()),
        "speed_sha256": speed_digest(plain),
    }


def _prepared(model: Any, config: Config, batch: dict[str, Any], training: bool) -> dict[str, Any]:
    data = model.data_preprocessor(dict(inputs=list(batch["inputs"]), data_samples=_copies(batch)), training)
    if config.compute.precision == "fp64":
        data["inputs"] = data["inputs"].double()
        for sample in data["data_samples"]:
            sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
    if config.compute.channels_last:
        data["inputs"] = data["inputs"].contiguous(memory_format=torch.channels_last)
    return data


def _copies(batch: dict[str, Any]) -> list[DetDataSample]:
    return [sample.clone() for sample in batch["data_samples"]]


def _seconds(work: Callable[[], None], times: int, device: torch.device) -> float:
    """Return how long a piece of work takes when it is done again and again: on a GPU in one go, else the median."""
    for _ in range(WARM_UP):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / times
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def image_size(pipeline: list[dict[str, Any]], dataset: Dataset) -> tuple[int, int]:
    """Return height and width of a typical image of a pipeline: the mean of the sizes that it resizes to at last.

    Args:
        pipeline: transforms of MMDetection, scaled to the tier.
        dataset: whose images they are; generated ones are square, others taken for landscapes of 4:3.
    """
    scales: list[tuple[int, int]] = []
    for transform in pipeline:
        choices = transform.get("transforms") or [[transform]]
        for choice in choices:
            sizes = [t.get("scales") or [t["scale"]] for t in choice if t.get("scales") or t.get("scale")]
            scales += sizes[-1] if sizes else []
    aspect = 1.0 if dataset.scenes is not None else ASPECT
    fitted = [min(min(scale), max(scale) / aspect) for scale in scales]
    height = round(statistics.mean(fitted))
    return height, round(height * aspect)


def random_batch(height: int, width: int, images: int, num_classes: int, objects: int) -> dict[str, Any]:
    """Return a batch of random pixels and boxes, as a loader gives it."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        corner = torch.rand(objects, 2, generator=generator) * torch.tensor([width, height]) * 0.7
        extent = min(height, width) * (0.04 + 0.26 * torch.rand(objects, 2, generator=generator))
        shape = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=shape)
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + extent], dim=-1),
            labels=torch.randint(0, num_classes, (objects,), generator=generator),
        )
        samples.append(sample)
    pixels = [(torch.rand(3, height, width, generator=generator) * 255).to(torch.uint8) for _ in samples]
    return dict(inputs=pixels, data_samples=samples)


def device_name(device: torch.device) -> str:
    """Return what a device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {counted(torch.get_num_threads(), 'threads')}"


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1) + "\n"


def to_text(found: dict[str, Any]) -> str:
    """Return a calibration for the eye."""
    lines = [f"{found['device']}, {found['steps']} steps each, {found['date']}"]
    width = max(map(len, found["trainings"]))
    for name, entry in found["trainings"].items():
        size = "x".join(map(str, entry["image_size"]))
        lines.append(
            f"  {name:{width}}  {entry['seconds_per_step']:.3f} s a step  {1000 * entry['seconds_per_image']:.1f} ms "
            f"an image judged  {size} px  {entry['memory_mb']:,} MiB"
        )
    return "\n".join(lines)
