"""Weights from files: read without running code, compared by name, and copied into a new detector (DATE sec. 4.6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from date import compat

compat.activate()

import torch  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from date.errors import UserError  # noqa: E402
from date.files import file_digest  # noqa: E402

FEATURE_EXTRACTOR = ("backbone.", "neck.", "bbox_head.cls_convs.", "bbox_head.reg_convs.")
"""Prefixes of the parameters below the predictors: backbone, FPN and the two towers."""


def load_checkpoint(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Return the weights in a file by parameter name, on the CPU.

    Args:
        path: a ``.safetensors`` file, or else a checkpoint of PyTorch: a plain state dict, or a dict with
            ``state_dict`` as MMDetection 2 and 3 write it.
        sha256: the digest that the file must have, if any.

    Raises:
        UserError: the file is absent, another one, damaged, no checkpoint, or holds anything that would execute code
            when read.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; correct the name of the checkpoint.")
    if sha256 is not None and (digest := file_digest(path)) != sha256:
        raise UserError(f"{path} has the SHA-256 {digest} and not {sha256}; restore the file or name another.")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(state, Mapping) and "state_dict" in state:
        state = state["state_dict"]
    if not (isinstance(state, Mapping) and state and all(map(_is_weight, state.items()))):
        raise UserError(f"{path} has no weights: neither a state dict nor a dict with 'state_dict'; give another file.")
    return {name: value.detach() for name, value in state.items()}


def _is_weight(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from None


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes are a stranger's: PyTorch's reader raises anything, down to KeyError
        if not _would_execute(path, str(error)):
            raise _unreadable(path, error) from None
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        detail = f" ({named[1]})" if named else ""
        raise UserError(
            f"{path} is refused: it holds more than weights{detail}, and reading that could execute code; "
            "where you trust it, write its state_dict alone to a .safetensors file and give that."
        ) from None


def _would_execute(path: Path, message: str) -> bool:
    """Return whether PyTorch's safe reader refused a program rather than stumbled over damage."""
    if "Unsupported operand" in message:  # not what torch.save writes: a foreign pickle, or no pickle at all
        with path.open("rb") as stream:
            return stream.read(1) == b"\x80"
    return "Weights only load failed" in message or "TorchScript" in message


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if "weights_only" in reason:  # PyTorch goes on to advise against its own safety
        reason = "not a file that its safe reader knows"
    return UserError(f"{path} is damaged, incomplete or no checkpoint ({reason}); get it again from its source.")


def match_state(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return every difference in names and shapes in words, sorted by kind and name; empty where there is none.

    Args:
        wanted: what a network has.
        given: what a file has.
    """
    missing = [f"missing: {name}" for name in sorted(wanted.keys() - given.keys())]
    extra = [f"not in the network: {name}" for name in sorted(given.keys() - wanted.keys())]
    both = sorted(wanted.keys() & given.keys())
    shaped = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in both
        if given[name].shape != wanted[name].shape
    ]
    return missing + extra + shaped


def feature_extractor(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a detector's state that DATE sec. 4.6 and A.2 take from a trained FCOS.

    That is backbone, neck and the first pair of towers. Left out, and thereby left at their random beginning, are the
    predictors, the towers that further branches have of their own, and the per-level scales (1.0).
    """
    return {name: value for name, value in state.items() if name.startswith(FEATURE_EXTRACTOR)}


def initialise_feature_extractor(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy backbone, neck and towers of a trained detector into another, in place.

    Args:
        model: of any head whose towers are ``cls_convs`` and ``reg_convs``.
        state: the trained detector's whole state.
        source: where it came from, for the message.

    Raises:
        UserError: the two differ in a name or a shape; all differences are listed, and nothing was copied.
    """
    given = feature_extractor(state)
    differences = match_state(feature_extractor(model.state_dict()), given)
    if differences:
        raise UserError(
            f"{source} does not fit the network's backbone, neck and towers ({'; '.join(differences)}); "
            "start from a training of the same backbone, tier and towers."
        )
    model.load_state_dict(given, strict=False)
