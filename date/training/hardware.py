"""The hardware and threads of a run, as far as they can change the last bits of a result."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

COMPARED = {"devices": "device", "cpu": "processor", "kernels": "CPU kernels", "processes": "number of processes"}
"""Facts of a segment whose change can change the last bits of the weights, by their names for a reader."""


def hardware() -> dict[str, Any]:
    """Return the devices of this process, its processor with the kernels that PyTorch chose for it, and its threads."""
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "devices": devices or ["cpu"],
        "processor": platform.processor() or platform.machine(),
        "cpu": cpu_name(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if devices else None,
        "threads": torch.get_num_threads(),
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model as the system names it, else its architecture."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()


def kept_threads(work: Path, wanted: int | None) -> tuple[int | None, str | None]:
    """Return the number of CPU threads that a training has to use, and a note on it, if any.

    Sums over another number of threads are rounded in another order. A training that goes on from a checkpoint keeps
    the number that made it.

    Args:
        work: the working folder.
        wanted: the number that was asked for; None for PyTorch's choice.
    """
    from date.training import checkpoint
    from date.training.journal import read_segments

    segments = read_segments(work)
    if not segments or not checkpoint.steps(work / "checkpoints") or segments[-1].get("devices") != ["cpu"]:
        return wanted, None
    kept = segments[-1].get("threads")
    if kept is None or wanted in (None, kept):
        return kept or wanted, None
    return kept, f"goes on with --threads {kept}, as it began, and not {wanted}, which would give other last bits"


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in words what differs between two segments of a run and can change the last bits of its weights."""
    return [
        f"{name} {_text(before[key])} before and {_text(now[key])} now"
        for key, name in COMPARED.items()
        if key in before and before[key] != now[key]
    ]


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
