"""A GPU that computes nothing, built from the C sources beside this file: `build` and `run` for tests, `Watch` inside.

What is real: device checks of every operation, the allocator's peaks, launches, copies and waits, the sentences of
`torch.use_deterministic_algorithms`. What is not: every value. Convolutions allocate and count; cuDNN's workspace, and
NCCL and Triton, are not there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
COUNTERS = ("launches", "waits", "to_device", "to_host", "within", "unpinned")


class NoStandIn(Exception):
    """The stand-in can't be built here; the message says why."""


@functools.cache
def build(folder: Path) -> dict[str, str]:
    """Build the libraries into a folder and return the environment in which Python finds them.

    Raises:
        NoStandIn: there is no C compiler, or PyTorch's wheels bring no headers of CUDA.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NoStandIn("the stand-in for a GPU is built by gcc, which is not here")
    site = Path(torch.__file__).parents[1]
    headers = next(site.glob("nvidia/*/include/cuda_runtime_api.h"), None)
    driver = next(site.glob("triton/backends/nvidia/include/cuda.h"), None)
    if headers is None or driver is None:
        raise NoStandIn("the stand-in for a GPU needs the headers that PyTorch's CUDA wheels bring")
    shared = [compiler, "-shared", "-fPIC", "-O1", "-w"]
    include = [f"-I{headers.parent}", f"-I{driver.parent}"]
    subprocess.run(
        [*shared, *include, HERE / "runtime.c", "-o", folder / "runtime.so", "-ldl", "-lpthread"], check=True
    )
    subprocess.run([*shared, HERE / "driver.c", "-o", folder / "libcuda.so.1"], check=True)
    return {"LD_PRELOAD": str(folder / "runtime.so"), "LD_LIBRARY_PATH": str(folder)}


def run(folder: Path, arguments: Sequence[object], timeout: float, gigabytes: float = 80) -> str:
    """Run ``python -m`` with arguments on the stand-in and return what it prints.

    Args:
        folder: of the libraries, built where they are not there.
        arguments: module and its arguments.
        timeout: in seconds.
        gigabytes: memory of the GPU, in GiB.
    """
    environment = {**os.environ, **build(folder), "OMP_NUM_THREADS": "1", "STANDIN_BYTES": str(int(gigabytes * 2**30))}
    command = [sys.executable, "-m", *map(str, arguments)]
    root = HERE.parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


class Watch:
    """Counts what PyTorch does on the stand-in; make one before anything else is done there."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        library.standin_counters.restype = ctypes.POINTER(ctypes.c_ulong)
        self._counters = library.standin_counters()
        self._set_count = library.standin_set_count
        self._set_count.argtypes = [ctypes.c_int64]
        self.convolutions = 0
        torch.backends.cudnn.enabled = False
        self._kernels = torch.library.Library("aten", "IMPL")
        self._kernels.impl("convolution", self._convolution, "CUDA")
        self._kernels.impl("convolution_backward", self._convolution_backward, "CUDA")

    def counts(self) -> dict[str, int]:
        """Return the counters' values; ``kernels`` are launches and convolutions, a gradient of which is one as well."""
        found = {name: int(self._counters[i]) for i, name in enumerate(COUNTERS)}
        return found | {"convolutions": self.convolutions, "kernels": found["launches"] + self.convolutions}

    def set_count(self, value: int) -> None:
        """Let what the device has counted, e.g. positives, be this number."""
        self._set_count(value)

    def _convolution(
        self, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
    ) -> Any:  # fmt: skip
        self.convolutions += 1
        layout = _layout(x, weight)
        x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
        sides = [
            (side + 2 * pad - gap * (kernel - 1) - 1) // step + 1
            for side, pad, gap, kernel, step in zip(
                x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
            )
        ]
        shape = (x.shape[0], weight.shape[0], *sides)
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)

    def _convolution_backward(
        self, grad: Any, x: Any, weight: Any, biases: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
        extra: Any, groups: int, wanted: Any,
    ) -> Any:  # fmt: skip
        self.convolutions += sum(wanted)
        layout = _layout(x, weight)
        grad = grad.contiguous(memory_format=layout)
        of_x = torch.empty_like(x, memory_format=layout) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[1] else None
        return of_x, of_weight, grad.new_empty(grad.shape[1]) if wanted[2] else None


def _layout(*tensors: Any) -> torch.memory_format:
    last = torch.channels_last
    turned = any(t.dim() == 4 and t.is_contiguous(memory_format=last) and not t.is_contiguous() for t in tensors)
    return last if turned else torch.contiguous_format
