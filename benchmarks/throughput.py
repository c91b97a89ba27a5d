"""Images/s and memory of a DATE-F training step under every option of precision and speed, against stock FCOS.

    python -m benchmarks.throughput                                             # a CUDA machine: 800x1333, batch 16
    python -m benchmarks.throughput --device cpu --height 160 --width 256 --batch 2 --steps 3   # a trial

The network is the paper's (ResNet-50, 256 channels, 80 classes) with random weights, on random images with COCO's mean
of 7 objects. A step is the trainer's own: forward, matching, losses, backward, clipping, update. The baseline is
MMDetection's FCOS in float32, stepped as MMEngine does it. Every variant runs in a process of its own; the baseline
runs first and last, and what it drifts by is shown. Where the batch does not fit, it is halved until it does, and the
row says so.

Each row's hours of the whole paper are the steps of all trainings, weighted by the catalogue's hours per step relative
to DATE-F's, on one such device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from date.catalogue import ROOT, load, load_tier

STOCK = "MMDetection FCOS, fp32"
VARIANTS: dict[str, dict[str, Any]] = {
    STOCK: {},
    "DATE-F, fp32": {},
    "DATE-F, tf32": {"precision": "tf32"},
    "DATE-F, bf16": {"precision": "bf16"},
    "DATE-F, bf16, channels last": {"precision": "bf16", "channels_last": True},
    "DATE-F, bf16, channels last, fused": {"precision": "bf16", "channels_last": True, "fused_optimizer": True},
    "DATE-F, bf16, channels last, fused, compiled": {
        "precision": "bf16", "channels_last": True, "fused_optimizer": True, "compile": True,
    },
    "DATE-F, tf32, fused, compiled": {"precision": "tf32", "fused_optimizer": True, "compile": True},
    "DATE-F, fp32, deterministic": {"deterministic": True},
    f"{STOCK}, again": {},
}  # fmt: skip


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time one variant in this process."""
    import torch
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    import date.models
    import date.training.components  # noqa: F401 - both register what the config names
    from benchmarks.training_step import batch
    from date.catalogue import Compute
    from date.identity.config import resolve
    from date.training.network import build_network, build_optimizer, set_precision

    init_default_scope("mmdet")
    device = torch.device(args.device)
    stock = name.startswith(STOCK)
    training = load().training("fcos-r50-coco-12e" if stock else "date_f-r50-coco-12e")
    config = Config(resolve(training, load_tier("paper"), 0, Path("/data")))
    config.model.backbone.pop("init_cfg", None)
    config.compute = Compute(**VARIANTS[name]).model_dump()
    set_precision(config.compute)
    torch.manual_seed(0)
    model = build_network(config, device)
    if stock:
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    else:
        optimizer, clip = build_optimizer(config, model)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    data = batch((args.height, args.width), args.batch, 80, args.device)

    def step() -> None:
        if stock:
            model.train_step(data, wrapper)
            return
        prepared = model.data_preprocessor(data, True)
        if config.compute.channels_last:
            prepared["inputs"] = prepared["inputs"].contiguous(memory_format=torch.channels_last)
        total, _ = model.parse_losses(model(**prepared, mode="loss"))
        total.backward()
        torch.nn.utils.clip_grad_norm_(trained, **clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    times = []
    for number in range(args.warmup + args.steps):
        synchronise()
        began = time.perf_counter()
        step()
        synchronise()
        if number >= args.warmup:
            times.append(time.perf_counter() - began)
    seconds = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return {"seconds": seconds, "images": args.batch / seconds, "gib": memory, "batch": args.batch, "device": hardware}


def in_process(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time one variant in a process of its own, with a smaller batch where memory does not suffice."""
    size = args.batch
    while True:
        options = ["--device", args.device, "--height", args.height, "--width", args.width, "--batch", size]
        command = [sys.executable, "-m", "benchmarks.throughput", "--variant", name, *map(str, options)]
        command += ["--steps", str(args.steps), "--warmup", str(args.warmup)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        if "OutOfMemoryError" not in done.stderr or size == 1:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        size //= 2


def paper_hours(seconds_per_step: float) -> float:
    """Return the hours of all of the paper's trainings on one such device, from DATE-F's seconds per step."""
    from date.identity.config import resolve

    tier = load_tier("paper")

    def steps(training: Any) -> int:
        loop = resolve(training, tier, 0, None)["train_cfg"]
        return loop["max_epochs"] * tier.steps_per_epoch[training.data] if "max_epochs" in loop else loop["max_iters"]

    trainings = load().trainings
    reference = trainings["date_f-r50-coco-12e"]
    per_step = reference.gpu_hours / steps(reference)
    return sum(seconds_per_step * training.gpu_hours / per_step for training in trainings.values()) / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--variant", choices=VARIANTS, help="time this one alone, in this process, and print JSON")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.variant is not None:
        print(json.dumps(measure(args.variant, args)))
        return
    rows = {name: in_process(name, args) for name in VARIANTS}
    stock = rows[STOCK]["images"]
    print(f"{rows[STOCK]['device']}, {args.height}x{args.width}\n")
    print("| step | batch | ms | images/s | against FCOS | GiB | the paper, hours |\n|---|--:|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        hours = "" if name.startswith(STOCK) else f"{paper_hours(16 / row['images']):.0f}"
        gib = "" if row["gib"] is None else f"{row['gib']:.1f}"
        ratio = row["images"] / stock
        timing = f"{1000 * row['seconds']:.1f} | {row['images']:.1f} | {ratio:.2f}"
        print(f"| {name} | {row['batch']} | {timing} | {gib} | {hours} |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
