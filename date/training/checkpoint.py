"""Checkpoints of a training in progress: complete or absent, verified before use, and read without running code.

A checkpoint is a plain file of PyTorch, ``step-00001234-<digest>.ckpt``, where the digest is the first 16 hexadecimal
digits of the SHA-256 of its bytes: one rename makes it appear complete, and any damage to it shows.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from date import compat

compat.activate()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from date.errors import UserError  # noqa: E402
from date.files import replace_bytes, sync_path  # noqa: E402
from date.training.options import KEPT_CHECKPOINTS  # noqa: E402

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.ckpt")


class CheckpointError(UserError):
    """A checkpoint can't be used."""


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint, then remove all but the last `date.training.options.KEPT_CHECKPOINTS`, and return its path.

    Those of later steps are removed, too: the training went back behind them because they are damaged.

    Args:
        folder: of a run's checkpoints.
        step: that the state stands after.
        state: tensors, numbers and strings in dicts, lists and tuples.

    Raises:
        OSError: the file can't be written, e.g. for want of space; earlier checkpoints are as they were.
    """
    buffer = io.BytesIO()
    torch.save({"schema_version": SCHEMA, "step": step, **state}, buffer)
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest()[:16]
    path = folder / f"step-{step:08d}-{digest}.ckpt"
    _remove_torn(folder)
    replace_bytes(path, data)
    sync_path(folder)
    _keep(folder, {path, *_before(folder, step)[: KEPT_CHECKPOINTS - 1]})
    return path


def steps(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a folder by step, the latest first, without looking into them."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def latest(folder: Path, run_digest: str, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest good checkpoint and its state; None where the folder never had any.

    Args:
        folder: of the run's checkpoints.
        run_digest: the identity of the run that the checkpoint has to be of.
        say: gets a line for every checkpoint that is passed over.

    Raises:
        CheckpointError: there are checkpoints, and none of them is good.
    """
    found = steps(folder)
    problems = []
    for step, path in found:
        try:
            state = load(path, run_digest)
        except CheckpointError as error:
            problems.append(str(error))
            say(str(error))
            continue
        if problems:
            say(f"going on from the checkpoint before it, of step {step}")
        return path, state
    if found:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used ({'; '.join(problems)}); restore one, or delete "
            f"{folder.parent} to train from the beginning."
        )
    return None


def load(path: Path, run_digest: str) -> dict[str, Any]:
    """Return the state in a checkpoint of a certain run, on the CPU.

    Raises:
        CheckpointError: see `read`; or the checkpoint is of another run.
    """
    state = read(path)
    if state["run_digest"] != run_digest:
        raise CheckpointError(f"{path.name} is of another run ({str(state['run_digest'])[:10]})")
    return state


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state, on the CPU.

    Raises:
        CheckpointError: the file is damaged, or holds anything that would execute code when read.
    """
    match = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} can't be read ({error.strerror})") from None
    if match is None or hashlib.sha256(data).hexdigest()[:16] != match[2]:
        raise CheckpointError(f"{path.name} is damaged: its bytes are not those that were written")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch's reader raises anything on foreign bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path.name} is not a checkpoint of a training ({reason})") from None
    if not isinstance(state, dict) or state.get("schema_version") != SCHEMA or "run_digest" not in state:
        raise CheckpointError(f"{path.name} is not a checkpoint of this version")
    return state


def finite(state: dict[str, Tensor]) -> bool:
    """Return whether all floating-point tensors of a state are finite; one wait for the device at most."""
    floating = [value for value in state.values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in floating]).all())


def free_space(folder: Path, step: int) -> None:
    """Remove all checkpoints but the newest one before a step, so that the step's own fits on a full disk."""
    _remove_torn(folder)
    _keep(folder, {*_before(folder, step)[:1]})


def _before(folder: Path, step: int) -> list[Path]:
    return [path for at, path in steps(folder) if at < step]


def _keep(folder: Path, kept: set[Path]) -> None:
    for _, path in steps(folder):
        if path not in kept:
            path.unlink()


def _remove_torn(folder: Path) -> None:
    """Remove what is left of a checkpoint whose writer was killed."""
    for path in folder.glob(".step-*.partial"):
        path.unlink()
