"""What networks are rehearsed on, and whether processes that are forked can use its GPU."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Variable that makes PyTorch ask the driver's library, and not CUDA, whether there is a GPU."""


@dataclass(frozen=True)
class Machine:
    """A machine, as a job sees it."""

    device: str
    memory_mib: int | None
    """Of the GPU; None without one."""
    threads: int
    cpus: int
    versions: dict[str, str]


def look(threads: int | None) -> Machine:
    """Look at this machine; afterwards no process that this one forks can use the GPU."""
    import torch

    from date import compat
    from date.planning.calibration import device_name

    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    memory = torch.cuda.get_device_properties(device).total_memory >> 20 if device.type == "cuda" else None
    cpus = len(os.sched_getaffinity(0))
    return Machine(device_name(device), memory, torch.get_num_threads(), cpus, compat.stack_versions())


def look_anew(threads: int | None, answer: Path) -> None:
    """Put a new Python in this process's place that writes `look`'s answer as JSON."""
    script = "import sys; from date.rehearsal.machine import write; write(*sys.argv[1:])"
    os.execv(sys.executable, [sys.executable, "-c", script, str(threads or ""), str(answer)])


def write(threads: str, answer: str) -> None:
    """Write what `look` finds."""
    Path(answer).write_text(json.dumps(asdict(look(int(threads) if threads else None))))


def import_for_children() -> None:
    """Import what every child would import by itself; where the driver's library allows it, no GPU is touched."""
    before = os.environ.get(CHECK)
    os.environ[CHECK] = "1"
    try:
        import date.training.components
        import date.training.loop  # noqa: F401
    finally:
        if before is None:
            del os.environ[CHECK]


def forked_in_vain() -> dict[str, Any]:
    """Return, in a child, whether CUDA refuses to work in it, whoever touched the GPU in its parent."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except RuntimeError:
        return {"refused": True}
    return {"refused": False}
