"""Networks that `date.inference.exporting` wrote, opened to detect."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from date.errors import UserError
from date.inference.evaluate import Selection
from date.inference.metadata import Metadata, from_text
from date.inference.mmdet_format import CHECKPOINT, CONFIG
from date.inference.network import Detector, Network, build
from date.inference.onnx_format import OnnxRunner
from date.inference.torchscript_format import TorchScriptRunner
from date.models.head import DualAssignmentHead
from date.training.metric import detection_rows
from date.training.weights import load_checkpoint

Run = Callable[[NDArray[np.float32], NDArray[np.int64]], list[NDArray[Any]]]


def is_exported(path: Path) -> bool:
    """Return whether a path looks like an exported network; `open_exported` reports what is wrong with it."""
    if path.is_dir():
        return (path / CHECKPOINT).is_file() and (path / CONFIG).is_file()
    return path.suffix in (".onnx", ".pt") or (path.suffix == ".safetensors" and "format" in _safetensors_text(path))


def open_exported(path: Path, threads: int | None = None) -> tuple[Metadata, Callable[[list[int]], Any]]:
    """Open an exported network.

    Args:
        path: an ``.onnx``, ``.pt`` or ``.safetensors`` file, or the folder of MMDetection's format.
        threads: of onnxruntime; None lets it choose.

    Returns:
        Its metadata, and a function that gives a detector from the category id of each class.

    Raises:
        UserError: the file is damaged, or was not exported by this version of this project.
    """
    if path.suffix in (".onnx", ".pt") and path.is_file():
        runner = OnnxRunner(path, threads) if path.suffix == ".onnx" else TorchScriptRunner(path)
        metadata = from_text(runner.text, path)
        return metadata, lambda ids: ExportedDetector(runner, metadata.preprocessing.multiple, ids)
    if path.is_dir():
        config = Config.fromfile(str(path / CONFIG))
        metadata = from_text(config.get("export", {}), path)
        model, state = config.model.to_dict(), load_checkpoint(path / CHECKPOINT)
    else:
        text = _safetensors_text(path)
        metadata = from_text(text, path)
        model, state = json.loads(text["model"]), load_checkpoint(path)
    network = build(path.name, Config(dict(model=model)), state, path, metadata.training)
    selection = _of_the_kept_branch(network, metadata.selection)
    return metadata, lambda ids: Detector(network, selection, ids)


def _of_the_kept_branch(network: Network, selection: Selection) -> Selection:
    """Return a selection from the head that was left, which has but one branch."""
    return replace(selection, branch="o2o" if isinstance(network.model.bbox_head, DualAssignmentHead) else "head")


def _safetensors_text(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file ({error}); name another file.") from None


class ExportedDetector:
    """Detects by an exported network, whose images and sizes it makes from prepared samples.

    Args:
        run: the network.
        divisor: height and width of its input are multiples of it.
        ids: category id of each class.
    """

    def __init__(self, run: Run, divisor: int, ids: list[int]) -> None:
        self.run, self.divisor, self.ids = run, divisor, ids

    def detect(self, samples: Sequence[Any]) -> list[NDArray[np.float64]]:
        """Return the detections of some prepared images; see `date.inference.network.Detector.detect`."""
        boxes, scores, labels = self.run(*network_input(samples, self.divisor))
        result = []
        for i, sample in enumerate(samples):
            there = scores[i] >= 0
            image_id = sample["data_samples"].metainfo["img_id"]
            result.append(detection_rows(image_id, boxes[i][there], scores[i][there], labels[i][there], self.ids))
        return result


def network_input(samples: Sequence[Any], divisor: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images (B, 3, H, W) and sizes (B, 4) for `date.inference.deploy.Deployable` of prepared samples."""
    images = [sample["inputs"].numpy() for sample in samples]
    shapes = [image.shape[1:] for image in images]
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*shapes, strict=True))
    batch = np.zeros((len(images), 3, height, width), dtype=np.float32)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    before = [sample["data_samples"].metainfo["ori_shape"][:2] for sample in samples]
    return batch, np.array([[*shape, *ori] for shape, ori in zip(shapes, before, strict=True)], dtype=np.int64)
