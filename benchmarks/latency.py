"""`detect` beside the evaluation's own pass, it and an ONNX file beside MMDetection's own FCOS, and what exports take.

    python -m benchmarks.latency [--tier mini] [--images 100] [--rounds 5] [--all-kinds]

Everything on one core, in processor time, which other work on the machine leaves alone; what is compared takes turns.
Networks have the pretrained backbone, random weights elsewhere, and a class bias with which an image has as many
detections as it has places.
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
from functools import partial
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
from date.inference.prepared import prepared
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
    model = MODELS.build(config.model)
    model.backbone.init_weights()
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
    ready = prepared(net.model)

    def evaluation() -> None:
        with torch.inference_mode():
            for batch in loader:
                batch_detections(ready, batch, {"x": selection}, ids)

    def detection() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            assert len(detect(detector, job, images).found) == count

    return turns({"evaluation": evaluation, "detect": detection}, rounds)


def beside_mmdetection(net: Network, count: int, rounds: int, folder: Path) -> dict[str, float]:
    """Return the seconds of MMDetection's `inference_detector` and of ours, from files to detections.

    MMDetection's network has our weights, and layers that do nothing where the backbone is an EfficientNet-Lite (see
    `date.inference.mmdet_format`); it is timed with and without them.
    """
    from mmdet.apis import inference_detector, init_detector
    from mmdet.models.layers import InvertedResidual

    export(net, "mmdet", folder / "mmdet", Choice())
    export(net, "onnx", folder / "x.onnx", Choice())
    files = str(folder / "mmdet" / "config.py"), str(folder / "mmdet" / "checkpoint.pth")
    theirs = {"MMDetection as exported": init_detector(*files, device="cpu")}
    if net.config.model.backbone.type == "EfficientNetLite":
        theirs["MMDetection"] = bare = init_detector(*files, device="cpu")
        for module in bare.modules():
            if isinstance(module, InvertedResidual):
                module.with_se = False
    source = net.source
    images = find_images([Path(source["ann_file"])], Path(source["data_prefix"]["img"])).images[:count]
    pipeline, ids = Pipeline(net.pipeline), list(range(1, len(net.classes) + 1))
    ours = Detector(net, net.selection(Choice()), ids)
    runner = ExportedDetector(
        OnnxRunner(folder / "x.onnx", 1), net.config.model.data_preprocessor.pad_size_divisor, ids
    )

    def through(detector: Any) -> None:
        for image in images:
            detector.detect([pipeline(decode(image.path.read_bytes()), str(image.path), 0)])

    def peer(detector: Any) -> None:
        for image in images:
            inference_detector(detector, str(image.path))

    def command() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            assert len(detect(ours, Job(net.pipeline, net.batch_size, same_size=True), images).found) == count

    return turns(
        {name: partial(peer, detector) for name, detector in theirs.items()}
        | {"detect": command, "run, image by image": partial(through, ours)}
        | {"ONNX file, image by image": partial(through, runner)},
        rounds,
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
        found["end to end"] = beside_mmdetection(net, args.images, args.rounds, Path(folder))
        if args.all_kinds:
            found["exports"] = exports(args.tier, Path(folder))
    share = found["pass"]["evaluation"] / found["pass"]["detect"]
    print(json.dumps(found, indent=1))
    print(f"detect: {share:.2f} of the evaluation's pass (target {LEAST_DETECT})")
    seconds = found["end to end"]
    for peer in (name for name in seconds if name.startswith("MMDetection")):
        for name in (name for name in seconds if not name.startswith("MMDetection")):
            print(f"{name}: {seconds[peer] / seconds[name]:.2f} times as fast as {peer} (target {LEAST_PEER})")


if __name__ == "__main__":
    main()
