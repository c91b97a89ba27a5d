"""What dual assignment costs: a training step of DATE-F and DATE-R against OneNet's, same sizes, same batches, one run.

    python -m benchmarks.training_step                                   # mini tier, CPU, one thread
    python -m benchmarks.training_step --tier paper --size 320 --batch 2 # the paper's networks on smaller images
    python -m benchmarks.training_step --tier paper --size 800 --batch 16 --device cuda

Random images with COCO's mean of 7 objects each. The networks take turns step by step, so that whatever else the
machine does falls on all of them; the ratio is between the medians. A step begins with the batch in the host's memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import date.models  # noqa: F401 - registers the heads, and lets MMDetection be imported
from date.catalogue import load, load_tier
from date.identity.config import resolve

BASELINE = "onenet-r50-coco-12e"
OTHERS = ("onenet_poto-r50-coco-12e", "date_f-r50-coco-12e", "date_r-r50-coco-12e", "fcos-r50-coco-12e")
OBJECTS = 7


def batch(size: tuple[int, int], images: int, num_classes: int) -> dict:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        corner = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor(size[::-1]) * 0.7
        extent = min(size) * (0.04 + 0.26 * torch.rand(OBJECTS, 2, generator=generator))
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + extent], dim=-1),
            labels=torch.randint(0, num_classes, (OBJECTS,), generator=generator),
        )
        samples.append(sample)
    pixels = [torch.rand(3, *size, generator=generator) * 255 for _ in samples]
    return dict(inputs=pixels, data_samples=samples)


def build(name: str, tier: str, device: str) -> tuple[torch.nn.Module, object]:
    from mmdet.registry import MODELS

    config = Config(resolve(load().training(name), load_tier(tier), 0, Path("/data")))
    config.model.backbone.pop("init_cfg", None)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    model.to(device).train()
    return model, build_optim_wrapper(model, config.optim_wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope("mmdet")
    networks = {name: build(name, args.tier, args.device) for name in (BASELINE, *OTHERS)}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for step in range(args.steps + 2):
        for name, (model, optim_wrapper) in networks.items():
            data = batch((args.size, args.size), args.batch, model.bbox_head.num_classes)
            began = time.perf_counter()
            model.train_step(data, optim_wrapper)
            if args.device != "cpu":
                torch.cuda.synchronize()
            if step >= 2:
                times[name].append(time.perf_counter() - began)
    base = statistics.median(times[BASELINE])
    work = f"{args.tier} tier, {args.batch} images of {args.size} px, {args.steps} steps"
    print(
        f"{work}, {args.device}, threads: {args.threads}\n\n| network | median ms | against OneNet |\n|---|---:|---:|"
    )
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {1000 * median:.1f} | {median / base:.3f} |")
    if args.json:
        args.json.write_text(json.dumps({"setting": vars(args) | {"json": None}, "seconds": times}) + "\n")


if __name__ == "__main__":
    main()
