"""The module that is exported detects what the evaluation detects, for every kind of network of the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torchvision.ops import batched_nms

from date.catalogue import Training, load, load_dataset, load_tier
from date.datasets.prepare import prepare
from date.identity.config import resolve
from date.inference.deploy import Deployable, class_nms
from date.inference.detect import Job, _prepared
from date.inference.exported import ExportedDetector, network_input
from date.inference.exporting import kept_network
from date.inference.latency import profiled_shares
from date.inference.network import Choice, Detector, Network
from date.inference.onnx_format import OnnxRunner, below, write_onnx
from date.inference.sources import Source, find_images
from date.inference.torchscript_format import TorchScriptRunner, write_torchscript
from tests.support.alone import alone


def kinds() -> dict[str, Training]:
    """A training of each kind of network: head, branches, 3D max filtering, towers."""
    found: dict[Any, Training] = {}
    for training in load().trainings.values():
        found.setdefault((training.model, *training.network.cost), training)
    return {training.name: training for training in found.values()}


def filtered(training: Training) -> bool:
    """Whether the dual head has 3D max filtering."""
    return bool(getattr(training.options, "max_filter", False))


ROUNDING = 2e-6
"""By which scores of onnxruntime and PyTorch may differ; both are as far from float64."""
KINDS = kinds()
EVERY = [(name, branch) for name, t in KINDS.items() for branch in sorted(t.branches)]


def test_there_are_all_kinds() -> None:
    assert {t.model for t in KINDS.values()} == {"retinanet", "fcos", "dual", "defcn"}
    assert sum(map(filtered, KINDS.values())) == 1 and len(KINDS) == 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """50 images: of scenes, of crowds, and of cells under a microscope where the shared data are."""
    from tests.conftest import ROOT

    root = tmp_path_factory.mktemp("data")
    with alone(root):
        for name in ("scenes-smoke", "crowd-smoke"):
            prepare(load_dataset(name), root)
    folders = [next(root.glob(f"{part}-smoke*")) / "train" for part in ("scenes", "crowd")]
    found = [source for folder in folders for source in find_images([folder]).images[:20]]
    real = ROOT.parent / "shared" / "data" / "bccd" / "images"
    found += find_images([real]).images[:10] if real.is_dir() else find_images([folders[0].parent / "val"]).images
    return found


@cache
def network(name: str) -> Network:
    """A network with random weights that detects something.

    A small ResNet stands in the place of the tier's backbone, whose features are so large at random weights that float32
    alone, in PyTorch as in onnxruntime, moves boxes by pixels: there nothing can be compared.
    """
    torch.manual_seed(0)
    config = Config(resolve(KINDS[name], load_tier("smoke"), 0, Path()))
    config.model.bbox_head.stacked_convs = 2
    norm = dict(type="BN", requires_grad=True)
    config.model.backbone = dict(type="ResNet", depth=18, base_channels=8, norm_cfg=norm, norm_eval=True)
    config.model.neck.update(in_channels=[8, 16, 32, 64], start_level=1)
    with DefaultScope.overwrite_default_scope("mmdet"):
        from mmdet.registry import MODELS

        model = MODELS.build(config.model)
    model.init_weights()
    for part, size in ((model.bbox_head, 0.08), (model.neck, 0.02)):
        for parameter in part.parameters():
            parameter.data += size * torch.randn_like(parameter)
    for key, parameter in model.bbox_head.named_parameters():
        if key.endswith("_cls.bias"):
            parameter.data.normal_(-2.5, 0.3)
    return Network(name, model.eval(), config, name, None, Path("none"), torch.device("cpu"))


def samples_of(net: Network, images: list[Source]) -> list[Any]:
    return [sample for _, sample in _prepared(images, Job(net.pipeline, 1, True))]


def compare(theirs: list[Any], mine: list[Any], atol: float, rounding: float = 0.0) -> None:
    """The same detections in the same order, of which there are many; scores that differ by rounding may change places.

    Args:
        theirs: rows of each image.
        mine: to be compared.
        atol: of boxes, in pixels.
        rounding: of scores.
    """
    assert sum(map(len, theirs)) > 100
    for image, other in zip(theirs, mine, strict=True):
        assert len(image) == len(other)
        np.testing.assert_allclose(image[:, 5], other[:, 5], rtol=0, atol=rounding)
        left = list(other)
        for row in image:
            # Strictly the next one, or else one that rounding can have put before it.
            near = [i for i, o in enumerate(left) if i == 0 or abs(o[5] - left[0][5]) <= 2 * rounding]
            same = [i for i in near if left[i][6] == row[6] and np.abs(left[i][1:5] - row[1:5]).max() <= atol]
            assert same or abs(row[5] - image[-1][5]) <= 2 * rounding, "the last places may go to another of equals"
            left.pop(same[0] if same else 0)


def by_module(module: Deployable) -> Any:
    def run(images: Any, sizes: Any) -> list[Any]:
        with torch.inference_mode():
            return [part.numpy() for part in module(torch.from_numpy(images), torch.from_numpy(sizes))]

    return run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with alone(Path("unused")):
        yield


@pytest.mark.parametrize(("name", "branch"), EVERY)
def test_it_detects_what_the_evaluation_detects(name: str, branch: str, images: list[Source], tmp_path: Path) -> None:
    net = network(name)
    selection = net.selection(Choice(None if branch == "head" else branch))
    ids = list(range(1, 7))
    samples = samples_of(net, images)
    theirs = [rows for s in samples for rows in Detector(net, selection, ids).detect([s])]
    model, _ = kept_network(net, selection.branch)
    compare(
        theirs,
        [
            r
            for s in samples
            for r in ExportedDetector(by_module(Deployable(model, selection).eval()), 32, ids).detect([s])
        ],
        1e-6,
    )
    write_torchscript(Deployable(model, selection).eval(), 32, {"a": "b"}, tmp_path / "x.pt")
    script = TorchScriptRunner(tmp_path / "x.pt")
    assert script.text == {"a": "b"}
    compare(theirs, [r for s in samples for r in ExportedDetector(script, 32, ids).detect([s])], 1e-4, 1e-6)


def test_a_batch_of_different_sizes_is_padded_as_in_the_evaluation(images: list[Source]) -> None:
    net = network(next(name for name, t in KINDS.items() if getattr(t.options, "o2m", None) == "fcos"))
    selection, ids = net.selection(Choice()), list(range(1, 7))
    samples = samples_of(net, images)
    mixed = [samples[0], samples[-1], samples[25]]
    assert len({tuple(s["inputs"].shape) for s in mixed}) > 1 or "bccd" not in str(images[-1].path)
    model, _ = kept_network(net, "o2o")
    run = by_module(Deployable(model, selection).eval())
    theirs = Detector(net, selection, ids).detect(mixed)
    compare(theirs, ExportedDetector(run, 32, ids).detect(mixed), 1e-6)
    # What lies beside an image is not looked at.
    inputs, sizes = network_input(mixed, 32)
    noisy = inputs.copy()
    for place, (height, width) in zip(noisy, sizes[:, :2], strict=True):
        place[:, height:], place[:, :, width:] = 255, 7
    assert all(np.array_equal(a, b) for a, b in zip(run(inputs, sizes), run(noisy, sizes), strict=True))


def left(name: str) -> tuple[str, list[tuple[str, torch.Size]], str | None]:
    """What is left of a network for inference, but its numbers: what the nodes of an ONNX file depend on."""
    net = network(name)
    selection = net.selection(Choice())
    module = Deployable(kept_network(net, selection.branch)[0], selection, for_onnx=True)
    branch = None if module.branch is None else f"{type(module.branch).__name__} {module.branch.strides}"
    return str(module), [(key, value.shape) for key, value in module.state_dict().items()], branch


def different() -> dict[str, int]:
    """One kind for each network that is left: the plain one-to-one branch is the same whatever was trained beside it."""
    plain = [name for name, t in KINDS.items() if t.model == "dual" and not filtered(t)]
    return {name: int("head" in t.branches) for name, t in KINDS.items() if name not in plain[1:]}


EXPORTED = different()
"""Kinds of which tests write an ONNX file, which takes seconds each, and its nodes of NMS."""


def test_every_kind_leaves_a_network_whose_onnx_file_is_tested() -> None:
    exported = [left(name) for name in EXPORTED]
    assert len(exported) == 5 and not any(one == other for i, one in enumerate(exported) for other in exported[:i])
    assert all(left(name) in exported for name in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_an_onnx_file_detects_the_same(name: str, images: list[Source], tmp_path: Path) -> None:
    net = network(name)
    selection, ids = net.selection(Choice()), list(range(1, 7))
    metadata = {"classes": json.dumps(net.classes)}
    path = tmp_path / "x.onnx"
    model, _ = kept_network(net, selection.branch)
    write_onnx(Deployable(model, selection, for_onnx=True).eval(), 32, metadata, path)
    samples = samples_of(net, images)
    runner = OnnxRunner(path, 1)
    assert runner.text == metadata
    theirs = [rows for s in samples for rows in Detector(net, selection, ids).detect([s])]
    detector = ExportedDetector(runner, 32, ids)
    compare(theirs, [rows for s in samples for rows in detector.detect([s])], 1e-3, ROUNDING)
    # Batch and size are free. The last images are enlarged 7.5 times: 1e-4 pixels of the input are 1e-3.
    some = [samples[i : i + 5] for i in range(0, 50, 5)]
    theirs = [rows for batch in some for rows in Detector(net, selection, ids).detect(batch)]
    compare(theirs, [rows for batch in some for rows in detector.detect(batch)], 1e-3, ROUNDING)
    graph = onnx.load(path).graph
    nodes = [node.op_type for node in graph.node]
    assert nodes.count("NonMaxSuppression") == EXPORTED[name]
    assert str(Path.cwd()) not in path.read_bytes().decode("latin1"), "no folder of this machine"
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert shapes["images"][1] == 3 and shapes["sizes"][1] == 4
    assert all(isinstance(side, str) for side in (shapes["images"][0], *shapes["images"][2:], shapes["sizes"][0]))
    outputs = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in graph.output}
    assert outputs == {"boxes": [100, 4], "scores": [100], "labels": [100]}
    shares = profiled_shares(path, *network_input(samples[:1], 32), threads=1)
    assert abs(sum(shares.values()) - 1) < 1e-9 and min(shares["network"], shares["decoding"]) > 0
    assert (shares["nms"] > 0) == bool(EXPORTED[name])
    with pytest.raises(Exception, match="images"):
        onnxruntime.InferenceSession(str(path)).run(None, {})


@pytest.mark.parametrize("iou", [0.5, 0.6, 0.7])
def test_nms_is_torchvisions(iou: float) -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 40, (3, 300, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + torch.randint(1, 30, (3, 300, 2), generator=generator)], -1)
    scores = torch.randint(0, 50, (3, 300), generator=generator) / 50  # many are equal
    labels = torch.randint(0, 4, (3, 300), generator=generator)
    scores[:, ::7] = -1
    keep = class_nms(boxes, scores, labels, 4, iou)
    for image in range(3):
        there = (scores[image] >= 0).nonzero().flatten()
        kept = batched_nms(boxes[image][there], scores[image][there], labels[image][there], iou)
        assert set(there[kept].tolist()) == set(keep[image].nonzero().flatten().tolist())


def test_the_threshold_of_nms_is_the_float_below() -> None:
    for iou in (0.5, 0.6, 0.55, 0.7, 0.1, 1 / 3):
        found = below(iou)
        assert found <= iou < float(np.nextafter(np.float32(found), np.float32(1)))
