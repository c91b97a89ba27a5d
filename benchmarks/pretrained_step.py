"""What a training step costs with the pretrained backbone: processor time, against the network that starts at random.

    python -m benchmarks.pretrained_step

Three starts, in one process, which take turns step by step: *random*, the ResNet-18 of half width that `mini` had
before; *plain*, EfficientNet-Lite0 with its frozen batch normalisations as layers of their own; *folded*, as it is
trained. All else is the tier's, with its optimiser, clipping and memory format. Random images with 7 objects each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import date.models  # noqa: F401 - registers the heads, and lets MMDetection be imported
from benchmarks.training_step import batch
from date.catalogue import load, load_tier
from date.identity.config import merge, resolve
from date.models.efficientnet_lite import ConvNorm
from date.training.memory import keep_memory
from date.training.network import build_network, build_optimizer

MMLogger.get_current_instance().setLevel("ERROR")  # it tells of every parameter

NETWORKS = ("date_f-r50-coco-12e", "onenet-r50-coco-12e", "fcos-r50-coco-12e")
RANDOM = {
    "_delete_": True, "type": "ResNet", "depth": 18, "base_channels": 32, "frozen_stages": -1, "norm_eval": False,
    "norm_cfg": {"type": "BN", "requires_grad": True}, "style": "pytorch", "num_stages": 4,
}  # fmt: skip
RANDOM_CHANNELS = [32, 64, 128, 256]


def plain(layer: ConvNorm, x: Tensor) -> Tensor:
    """Convolution, normalisation and ReLU6 one after the other."""
    conv: Any = layer.conv
    x = nn.functional.conv2d(x, conv.weight.flip(2, 3), None, conv.stride, conv.padding, groups=conv.groups)
    x = layer.norm(x)
    return nn.functional.relu6(x, inplace=True) if layer.relu6 else x


class Network:
    """A network in training."""

    def __init__(self, name: str, tier: str, start: str) -> None:
        config = resolve(load().training(name), load_tier(tier), 0, None)
        config["model"]["backbone"].pop("init_cfg", None)
        if start == "random":
            merge(config["model"], {"backbone": RANDOM})
            config["model"]["neck"]["in_channels"] = RANDOM_CHANNELS
            config["optim_wrapper"]["paramwise_cfg"]["custom_keys"]["backbone"]["lr_mult"] = 1.0
        self.config = Config(config)
        torch.manual_seed(0)
        self.model: Any = build_network(self.config, torch.device("cpu"))
        self.optimizer, self.clip = build_optimizer(self.config, self.model)
        for group in self.optimizer.param_groups:
            group["lr"] *= 1e-3  # images of noise teach nothing
        self.plain = start == "plain"

    def step(self, data: dict[str, Any]) -> float:
        """Take a step and return its processor time in seconds."""
        began = time.process_time()
        with mock.patch.object(ConvNorm, "forward", plain if self.plain else ConvNorm.forward):
            data = self.model.data_preprocessor(data, True)
            if self.config.compute.channels_last:
                data["inputs"] = data["inputs"].contiguous(memory_format=torch.channels_last)
            loss, _ = self.model.parse_losses(self.model(**data, mode="loss"))
            loss.backward()
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], **self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--returned-memory", action="store_true", help="leave the allocator as it is")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.returned_memory:
        keep_memory()
    init_default_scope("mmdet")
    starts = ("random", "plain", "folded")
    networks = {(name, start): Network(name, args.tier, start) for name in args.networks for start in starts}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in networks}
    for step in range(args.steps + 2):
        for key, network in networks.items():
            data = batch((args.size, args.size), args.batch, network.model.bbox_head.num_classes, "cpu")
            seconds = network.step(data)
            if step >= 2:
                times[key].append(seconds)
    print("| network | start | median ms of processor time | against random |\n|---|---|--:|--:|")
    for (name, start), values in times.items():
        base = statistics.median(times[name, "random"])
        print(f"| {name} | {start} | {1000 * statistics.median(values):.1f} | {statistics.median(values) / base:.2f} |")
    if args.json:
        seconds = {f"{name} {start}": values for (name, start), values in times.items()}
        args.json.write_text(json.dumps({"setting": vars(args) | {"json": None}, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
