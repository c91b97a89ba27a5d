"""A trained network as a TorchScript file, and such a file in PyTorch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401 - registers the operator nms, which networks with NMS call
from numpy.typing import NDArray

from date.errors import UserError
from date.inference.deploy import Deployable

_METADATA = "metadata.json"
"""Name of the file in the archive that has the metadata."""


def write_torchscript(module: Deployable, divisor: int, metadata: Mapping[str, str], path: Path) -> None:
    """Write a network as one TorchScript file, with the inputs and outputs of `Deployable.forward`.

    Args:
        module: in evaluation mode.
        divisor: height and width of images are multiples of it.
        metadata: text by key, kept in the file as ``extra/metadata.json``.
        path: of the file.
    """
    images = torch.zeros(2, 3, 3 * divisor, 4 * divisor)
    sizes = torch.tensor([[3 * divisor, 4 * divisor] * 2] * 2)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; and sizes of levels are no constants
        traced = torch.jit.trace(module, (images, sizes), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={_METADATA: json.dumps(dict(metadata))})


class TorchScriptRunner:
    """A TorchScript file in PyTorch, on the CPU.

    Args:
        path: of the file.

    Raises:
        UserError: the file is none, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        extra = {_METADATA: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
                self.text: dict[str, str] = json.loads(extra[_METADATA] or "{}")
            except (RuntimeError, ValueError) as error:
                reason = (str(error).splitlines() or ["no reason given"])[0][:200]
                raise UserError(f"{path} is not a TorchScript file ({reason}); export the run again.") from None

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return boxes, scores and labels; see `Deployable.forward`."""
        with torch.inference_mode():
            found = self.module(torch.from_numpy(images), torch.from_numpy(sizes))
        return [part.numpy() for part in found]
