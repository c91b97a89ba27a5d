"""Write a trained network for use elsewhere: ONNX, TorchScript, plain MMDetection, or the weights alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from date.errors import UserError
from date.files import file_digest, sealing
from date.inference.deploy import Deployable
from date.inference.evaluate import Selection
from date.inference.export import inference_network
from date.inference.metadata import Metadata, Preprocessing
from date.inference.mmdet_format import write_mmdet
from date.inference.network import BRANCH_NAMES, Choice, Network
from date.inference.onnx_format import require, write_onnx
from date.inference.torchscript_format import write_torchscript
from date.models.head import DualAssignmentHead

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors", "mmdet": ""}
"""Of the formats' files; MMDetection's is a folder."""


def metadata_of(network: Network, selection: Selection) -> Metadata:
    """Return what an export says of a network.

    Args:
        network: that is exported.
        selection: how its detections are chosen.
    """
    provenance = network.provenance or {}
    resize = next((step for step in network.pipeline if step["type"] == "Resize"), None)
    if resize is None or not resize.get("keep_ratio"):
        raise UserError(f"{network.name} does not resize images in proportion, which exports take for granted.")
    divisor = network.config.model.data_preprocessor.pad_size_divisor
    return Metadata(
        name=network.name,
        training=network.training,
        classes=network.classes,
        category_ids=network.category_ids(),
        preprocessing=Preprocessing(long_side=max(resize["scale"]), short_side=min(resize["scale"]), multiple=divisor),
        pipeline=network.pipeline,
        batch_size=network.batch_size,
        selection=selection,
        weights_sha256=provenance.get("weights_sha256") or file_digest(network.weights),
        run_digest=provenance.get("run_digest"),
        tier=provenance.get("tier"),
        seed=provenance.get("seed"),
    )


def kept_network(network: Network, branch: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the network that is left for inference with one branch, on the CPU, and the config of its detector."""
    config = copy.deepcopy(network.config.model.to_dict())
    config["backbone"].pop("init_cfg", None)
    head = network.model.bbox_head
    if not isinstance(head, DualAssignmentHead):
        return copy.deepcopy(network.model).cpu(), config
    index = BRANCH_NAMES.index(branch)
    before, head.predict_from = head.predict_from, index
    try:
        model = inference_network(network.model).cpu()
    finally:
        head.predict_from = before
    config["bbox_head"]["branches"] = [config["bbox_head"]["branches"][index]]
    config["bbox_head"] |= {"share_towers": True, "predict_from": 0}
    return model, config


def export(network: Network, form: str, path: Path, choice: Choice) -> Metadata:
    """Write a network with one branch, and return what the export says of it.

    Args:
        network: a trained network.
        form: key of `SUFFIXES`.
        path: of the file or folder, which appears complete or not at all.
        choice: of branch and NMS.

    Raises:
        UserError: a format that can't hold this network, or needs what is not installed; or the path exists.
    """
    if form == "onnx":
        require("onnx", "onnxscript")
    if path.exists():
        raise UserError(f"{path} exists; delete it, or name another place by --out.")
    selection = network.selection(choice)
    metadata = metadata_of(network, selection)
    model, config = kept_network(network, selection.branch)
    write: Callable[[Path], None]
    divisor, text = metadata.preprocessing.multiple, metadata.to_text()
    if form == "onnx":
        module = Deployable(model, selection, for_onnx=True).eval()
        write = lambda file: write_onnx(module, divisor, text, file)  # noqa: E731
    elif form == "torchscript":
        module = Deployable(model, selection).eval()
        write = lambda file: write_torchscript(module, divisor, text, file)  # noqa: E731
    elif form == "safetensors":
        write = lambda file: _write_safetensors(model, config, text, file)  # noqa: E731
    else:
        with sealing(path, f"exporting {network.name}") as (folder, _):
            write_mmdet(model, config, network, selection, text, folder)
        return metadata
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return metadata


def _write_safetensors(model: torch.nn.Module, config: dict[str, Any], text: dict[str, str], path: Path) -> None:
    """Write weights with the detector's MMEngine config, from which this project builds the network again."""
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, metadata=text | {"model": json.dumps(config)})
