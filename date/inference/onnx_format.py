"""A trained network as an ONNX file, and such a file on onnxruntime. Needs the extra `onnx` of the package."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from date.errors import UserError
from date.inference.deploy import Deployable

OPSET = 18
"""Of the operators: the one that `torch.onnx` translates to; NonMaxSuppression and TopK are as they were."""
OUTPUTS = ("boxes", "scores", "labels")


def require(*modules: str) -> None:
    """Import what the extra `onnx` installs.

    Raises:
        UserError: it is not installed.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != name:
                raise
            raise UserError(
                f"{name} is not installed, which ONNX files need; run `make setup`, or install the extra: "
                "python -m pip install '.[onnx]'"
            ) from None


def write_onnx(module: Deployable, divisor: int, metadata: Mapping[str, str], path: Path) -> None:
    """Write a network as one ONNX file: batch, height and width are free, boxes in pixels come out.

    Inputs and outputs are those of `Deployable.forward`. NMS, where there is any, is one node.

    Args:
        module: with ``for_onnx``, in evaluation mode.
        divisor: height and width of images are multiples of it.
        metadata: text by key, kept in the file.
        path: of the file.
    """
    require("onnx", "onnxscript")
    import onnx

    images = torch.zeros(2, 3, 3 * divisor, 4 * divisor)
    sizes = torch.tensor([[3 * divisor, 4 * divisor] * 2] * 2)
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    free = {"images": {0: batch, 2: divisor * height, 3: divisor * width}, "sizes": {0: batch}}
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, (images, sizes), dynamic_shapes=free, strict=False)
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["images", "sizes"], output_names=OUTPUTS,
            custom_translation_table={torch.ops.date.class_nms.default: _nms_node}, verbose=False,
        )  # fmt: skip
    assert exported is not None
    model = exported.model_proto
    for value in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]  # stack traces, with the folders of this machine
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.producer_name = "date-reproduction"
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the messages of `torch.onnx` about its progress and our dimensions' names."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


def below(iou: float) -> float:
    """Return the largest float32 that is not above a threshold.

    torchvision compares a float32 IoU with the threshold in double, ONNX in float32, where 0.6 is a little more: an IoU
    of 3 / 5 would exceed it here and not there.
    """
    threshold = np.float32(iou)
    return float(threshold if float(threshold) <= iou else np.nextafter(threshold, np.float32(0)))


def _nms_node(boxes: Any, scores: Any, labels: Any, classes: int, iou: float) -> Any:
    """Write `date.inference.deploy.class_nms` as NonMaxSuppression, which wants a row of scores for each class."""
    from onnxscript import opset18

    op: Any = opset18

    def integers(*values: int) -> Any:
        return op.Constant(value_ints=values)

    each = op.Constant(value=_tensor(np.arange(classes, dtype=np.int64)[None, :, None]))
    mine = op.Equal(op.Unsqueeze(labels, integers(1)), each)
    none = op.Constant(value_float=-1.0)
    by_class = op.Where(mine, op.Unsqueeze(scores, integers(1)), none)
    selected = op.NonMaxSuppression(
        boxes, by_class, integers(2**31 - 1), op.Constant(value_floats=[below(iou)]), op.Constant(value_floats=[-0.5])
    )
    places = op.Gather(selected, integers(0, 2), axis=1)  # image and box; the class is the box's own
    kept = op.Expand(op.Constant(value_float=1.0), op.Shape(places, start=0, end=1))
    return op.Greater(op.ScatterND(op.ConstantOfShape(op.Shape(scores)), places, kept), op.Constant(value_float=0.0))


def _tensor(array: NDArray[np.int64]) -> Any:
    import onnx.numpy_helper

    return onnx.numpy_helper.from_array(array)


class OnnxRunner:
    """An ONNX file on onnxruntime's CPU.

    Args:
        path: of the file.
        threads: that one run may use; None lets onnxruntime choose.
        profile: beginning of the file to which ``session.end_profiling()`` writes the time of every node; None for no
            profile.

    Raises:
        UserError: onnxruntime is not installed, or the file is damaged or uses what it does not know.
    """

    def __init__(self, path: Path, threads: int | None = None, profile: Path | None = None) -> None:
        require("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
            # Else the threads of one session wait in a loop on the cores that the next session needs.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes of errors, which share no base but this
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} is not an ONNX file that onnxruntime runs ({reason}); export the run again."
            ) from None
        self.text = dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return boxes, scores and labels; see `Deployable.forward`."""
        return self.session.run(list(OUTPUTS), {"images": images, "sizes": sizes})
