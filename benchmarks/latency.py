"""`detect` beside the evaluation's own pass, an ONNX file beside MMDetection's own FCOS, and what exports take.

    python -m benchmarks.latency [--tier mini] [--images 100] [--rounds 5] [--all-kinds]

Everything on one core, in processor time, which other work on the machine leaves alone; what is compared takes turns.
Networks have random weights, and a class bias with which an image has as many detections as it has places.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from date.catalogue import Training, load, load_dataset, load_tier
from date.catalogue.settings import data_root, dataset_name
from date.datasets.decoding import decode
from date.datasets.prepare import prepare
from date.identity.config import resolve
from date.inference.deploy import Deployable
from date.inference.detect import Job, Pipeline, detect
from date.inference.evaluate import batch_detections
from date.inference.exported import ExportedDetector, network_input
from date.inference.exporting import export, kept_network
from date.inference.network import Choice, Detector, Network
from date.inference.onnx_format import OnnxRunner, write_onnx
from date.inference.sources import find_images
from date.training.sampling import build_loader

LEAST_DETECT, LEAST_PEER = 0.8, 1.5
"""Targets: of the evaluation's pass, and of MMDetection's inference."""


def network(training: Training, tier: str) -> Network:
    """Return an untrained network that detects as much as it can."""
    torch.manual_seed(0)
    init_default_scope("mmdet")
    from mmdet.registry import MODELS

    config = Config(resolve(training, load_tier(tier), 0, data_root()))
    config.model.backbone.pop("init_cfg", None)
    model = MODELS.build(config.model)
    for key, parameter in model.bbox_head.named_parameters():
        if key.endswith("_cls.bias"):
            parameter.data.fill_(-1.0)
    return Network(training.name, model.eval(), config, training.name, None, Path(__file__), torch.device("cpu"))


def turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of processor time of some functions that take turns, after a first call of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def detect_beside_evaluation(net: Network, count: int, rounds: int) -> dict[str, float]:
    """Return the seconds of `detect` and of the evaluation's pass over the same images."""
    loader_config = copy.deepcopy(net.config.test_dataloader)
    loader_config.dataset.dataset.indices = count
    with contextlib.redirect_stdout(io.StringIO()):
        loader = build_loader(loader_config, torch.device("cpu"))
    source = net.source
    images = find_images([Path(source["ann_file"])], Path(source["data_prefix"]["img"])).images[:count]
    selection, ids = net.selection(Choice()), list(range(1, len(net.classes) + 1))
    detector, job = Detector(net, selection, ids), Job(net.pipeline, net.batch_size, same_size=False)

    def evaluation() -> None:
        with torch.inference_mode():
            for batch in loader:
                batch_detections(net.model, batch, {"x": selection}, ids)

    def detection() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            assert len(detect(detector, job, images).found) == count

    return turns({"evaluation": evaluation, "detect": detection}, rounds)


def onnx_beside_mmdetection(net: Network, count: int, rounds: int, folder: Path) -> dict[str, float]:
    """Return the seconds of MMDetection's `inference_detector`, our module in PyTorch and the ONNX file, end to end."""
    from mmdet.apis import inference_detector, init_detector

    export(net, "mmdet", folder / "mmdet", Choice())
    export(net, "onnx", folder / "x.onnx", Choice())
    theirs = init_detector(str(folder / "mmdet" / "config.py"), str(folder / "mmdet" / "checkpoint.pth"), device="cpu")
    source = net.source
    paths = [i.path for i in find_images([Path(source["ann_file"])], Path(source["data_prefix"]["img"])).images[:count]]
    pipeline = Pipeline(net.pipeline)
    ids = list(range(1, len(net.classes) + 1))
    runner = ExportedDetector(
        OnnxRunner(folder / "x.onnx", 1), net.config.model.data_preprocessor.pad_size_divisor, ids
    )
    ours = Detector(net, net.selection(Choice()), ids)

    def through(detector: Any) -> None:
        for path in paths:
            detector.detect([pipeline(decode(path.read_bytes()), str(path), 0)])

    def peer() -> None:
        for path in paths:
            inference_detector(theirs, str(path))

    return turns(
        {"MMDetection": peer, "run in PyTorch": lambda: through(ours), "ONNX file": lambda: through(runner)}, rounds
    )


def exports(tier: str, folder: Path) -> list[tuple[str, float, float, float]]:
    """Return of each kind of network: seconds of an export, megabytes, and the largest difference from PyTorch.

    The difference is of the boxes in pixels on 8 noisy images, matched by their order.
    """
    kinds = {(t.model, *t.network.cost): t for t in reversed(load().trainings.values())}
    rows = []
    for training in kinds.values():
        net = network(training, tier)
        selection, divisor = net.selection(Choice()), net.config.model.data_preprocessor.pad_size_divisor
        model, _ = kept_network(net, selection.branch)
        path = folder / f"{training.name}.onnx"
        began = time.process_time()
        write_onnx(Deployable(model, selection, for_onnx=True).eval(), divisor, {}, path)
        took = time.process_time() - began
        pipeline, worst = Pipeline(net.pipeline), 0.0
        reference, runner = Deployable(model, selection).eval(), OnnxRunner(path, 1)
        for seed in range(8):
            noise = np.random.default_rng(seed).integers(0, 256, (128, 160, 3), dtype=np.uint8)
            images, sizes = network_input([pipeline(noise, "", 0)], divisor)
            with torch.inference_mode():
                boxes, scores, _ = reference(torch.from_numpy(images), torch.from_numpy(sizes))
            found = runner(images, sizes)
            order = np.abs(found[1] - scores.numpy()).max()
            assert order < 1e-5, f"{training.name}: scores differ by {order}"
            apart = np.abs(found[0] - boxes.numpy()).max(-1)
            worst = max(worst, float(np.quantile(apart, 0.99)))  # equal scores may change places
        rows.append((training.name, took, path.stat().st_size / 1e6, worst))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="mini")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all-kinds", action="store_true", help="also export every kind of network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training = load().training("fcos-r50-coco-12e")
    prepare(load_dataset(dataset_name(training, load_tier(args.tier))), data_root())
    net = network(training, args.tier)
    found: dict[str, Any] = {"tier": args.tier, "images": args.images}
    found["pass"] = detect_beside_evaluation(net, args.images, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        found["end to end"] = onnx_beside_mmdetection(net, args.images, args.rounds, Path(folder))
        if args.all_kinds:
            found["exports"] = exports(args.tier, Path(folder))
    share = found["pass"]["evaluation"] / found["pass"]["detect"]
    peer = found["end to end"]["MMDetection"]
    print(json.dumps(found, indent=1))
    print(f"detect: {share:.2f} of the evaluation's pass (target {LEAST_DETECT})")
    for name in ("run in PyTorch", "ONNX file"):
        print(f"{name}: {peer / found['end to end'][name]:.2f} times as fast as MMDetection (target {LEAST_PEER})")


if __name__ == "__main__":
    main()
