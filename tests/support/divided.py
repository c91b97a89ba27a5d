"""Losses and gradients of a batch, whole and divided among processes and passes: ``python -m tests.support.divided``.

Every distinct network of the catalogue takes a step's forward and backward pass by the trainer's own code, in double
precision, on images some of which have no objects: of two or three processes one has none at all. Processes are forks
of this one, which talk by gloo.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import date.models
import date.training.components  # noqa: F401 - both register what configs name
from date.catalogue import load, load_tier
from date.identity.config import resolve
from date.training.loop import Trainer
from date.training.network import build_network
from date.training.options import Options
from date.training.processes import Processes

COUNTS = (0, 0, 0, 4, 1, 0)
"""Objects of the images: the first of two processes has none, and the first of three."""
TIER = """
extends: smoke
compute: {precision: fp64}
backbones:
  r50: &small {depth: 18, base_channels: 8, stage_channels: [8, 16, 32, 64], frozen_stages: -1, norm_eval: true,
    norm_cfg: {type: BN, requires_grad: true}, style: pytorch}
  r101: *small
"""


configs: dict[str, Any] = {}
"""Resolved, by training."""


def networks() -> dict[str, list[str]]:
    """Return the trainings by the first one that has the same network; the lambdas, plain factors, count for nothing."""
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tier = Path(folder) / "divided.yaml"
        tier.write_text(TIER)
        for name, training in load().trainings.items():
            config = resolve(training, load_tier(str(tier)), 0, Path("data"))
            configs[name] = config
            network = re.sub(r'"loss_weight": [\d.]+', "", json.dumps(config["model"], default=str))
            found.setdefault(network, []).append(name)
    return {names[0]: names for names in found.values()}


def batch(num_classes: int, of: slice) -> dict[str, Any]:
    """Return a part of the batch of `COUNTS` as a loader gives it."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for number, count in enumerate(COUNTS):
        height, width = (64, 96) if number % 2 else (96, 64)
        corner = torch.rand(count, 2, generator=generator) * 40
        instances = InstanceData(
            bboxes=torch.cat([corner, corner + 8 + torch.rand(count, 2, generator=generator) * 40], dim=-1),
            labels=torch.randint(0, num_classes, (count,), generator=generator),
        )
        shape = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), img_id=number)
        sample = DetDataSample(metainfo=shape)
        sample.gt_instances = instances
        samples.append(sample)
        inputs.append((torch.rand(3, height, width, generator=generator) * 255).to(torch.uint8))
    return {"inputs": inputs[of], "data_samples": samples[of]}


def trainer(name: str, processes: Processes, images_per_pass: int | None = None) -> Any:
    """Return as much of a trainer as a step's forward and backward pass need."""
    found: Any = Trainer.__new__(Trainer)
    found.config, found.processes = Config(configs[name]), processes
    found.config.model.backbone.pop("init_cfg", None)
    torch.manual_seed(0)
    found.model = found.network = build_network(found.config, processes.device)
    for parameter in found.model.bbox_head.parameters():  # predictions that differ from point to point
        parameter.data += 0.02 * torch.randn_like(parameter)
    if processes.count > 1:
        found.network = DistributedDataParallel(found.model, forward_sync_buffers=False, gradient_as_bucket_view=True)
    found.options = Options(images_per_pass=images_per_pass)
    share = len(COUNTS) // processes.count
    found.passes = -(-share // (images_per_pass or share))
    return found


def step(
    name: str, processes: Processes, images_per_pass: int | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the losses, as the mean over the processes, and the gradients of every parameter."""
    made = trainer(name, processes, images_per_pass)
    share = len(COUNTS) // processes.count
    of = slice(processes.rank * share, (processes.rank + 1) * share)
    for _ in range(2):  # what was left without a gradient shows in the second step
        made.model.zero_grad(set_to_none=True)
        losses = made._backward(batch(made.model.bbox_head.num_classes, of))
    means = processes.mean(torch.stack([value.detach() for value in losses.values()]))
    gradients = {name: p.grad for name, p in made.model.named_parameters() if p.requires_grad}
    return dict(zip(losses, means.tolist(), strict=True)), gradients


def difference(mine: Any, theirs: Any) -> float:
    """Return the largest relative difference of losses and of gradients, these relative to each parameter's largest."""
    assert mine[0].keys() == theirs[0].keys() and mine[1].keys() == theirs[1].keys()
    worst = max(abs(mine[0][k] - v) / max(abs(v), 1e-12) for k, v in theirs[0].items())
    for name, gradient in theirs[1].items():
        assert mine[1][name] is not None, f"{name} has no gradient"
        scale = max(gradient.abs().max().item(), 1e-6)
        worst = max(worst, (mine[1][name] - gradient).abs().max().item() / scale)
    return worst


def process(rank: int, count: int, folder: str, names: list[str], whole: dict[str, Any]) -> None:
    """Be one of several processes, and let the first write the differences."""
    store = distributed.FileStore(f"{folder}/store-{count}", count)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    processes = Processes(rank, count, torch.device("cpu"), distributed.new_group(backend="gloo"))
    found = {}
    for name in names:
        for size in (None, 1):
            found[f"{name}, {count} processes, passes of {size or 'all'}"] = difference(
                step(name, processes, size), whole[name]
            )
    if rank == 0:
        Path(folder, f"differences-{count}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def forked(rank: int, *arguments: Any) -> int:
    """Return the number of a fork that is one of the processes."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            process(rank, *arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    return pid


def main() -> int:
    """Print the differences as one JSON object."""
    torch.set_num_threads(1)
    MMLogger.get_instance("mmengine", log_level="WARNING")
    init_default_scope("mmdet")
    names = list(networks())
    one = Processes(0, 1, torch.device("cpu"))
    whole = {name: step(name, one) for name in names}
    found = {f"{name}, passes of 1": difference(step(name, one, 1), whole[name]) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for count in (2, 3):
            pids = [forked(rank, count, folder, names, whole) for rank in range(count)]
            if sum(os.waitpid(pid, 0)[1] for pid in pids):
                return 1
            found |= json.loads(Path(folder, f"differences-{count}.json").read_text())
    print(json.dumps({"networks": networks(), "differences": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
