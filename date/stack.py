"""Import PyTorch, torchvision and MMDetection without the parts that no detector uses, in a third of the time.

MMEngine, MMDetection and torchvision import sharded training, PyTorch's compiler and matplotlib for the sake of single
names. While they are imported, placeholders with just these names stand for those modules; afterwards the placeholders
are gone, and whoever imports such a module gets the real one. A module that was imported before is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from date import compat


def is_compile_supported(device_type: str) -> bool:
    """Return what PyTorch's function of this name does, which torchvision asks when it pools regions of interest."""
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(device_type)


_FSDP_CONFIGS = ("FullOptimStateDictConfig", "FullStateDictConfig", "LocalOptimStateDictConfig", "LocalStateDictConfig",
                 "OptimStateDictConfig", "ShardedOptimStateDictConfig", "ShardedStateDictConfig", "StateDictConfig",
                 "StateDictSettings", "StateDictType")  # fmt: skip
PLACEHOLDERS: dict[str, dict[str, Any]] = {
    # of MMEngine's wrappers and strategies for sharded training, and of its ZeRO optimiser
    "torch.distributed.fsdp": dict.fromkeys((*_FSDP_CONFIGS, "FullyShardedDataParallel")),
    "torch.distributed.fsdp.api": dict.fromkeys((*_FSDP_CONFIGS, "ShardingStrategy")),
    "torch.distributed.fsdp.fully_sharded_data_parallel": dict.fromkeys(
        (*_FSDP_CONFIGS, "BackwardPrefetch", "CPUOffload", "FullyShardedDataParallel", "MixedPrecision")
    ),
    "torch.distributed.optim": dict.fromkeys(("ZeroRedundancyOptimizer",)),
    # of torchvision's RoIAlign
    "torch._dynamo": {},
    "torch._dynamo.utils": {"is_compile_supported": is_compile_supported},
    # of MMDetection's drawings of tracks
    "matplotlib": {},
    "matplotlib.pyplot": {},
    "matplotlib.patches": dict.fromkeys(("Rectangle",)),
}
"""Modules with the names that are imported from them; None stands for a class that nobody makes an instance of."""


def load() -> None:
    """Import the stack, and make MMDetection work on it (see `date.compat`); calling it again changes nothing.

    Raises:
        UserError: mmcv is not installed.
    """
    compat.activate()
    with _placeholders():
        for name in ("mmengine.runner", "torchvision", "mmdet.models", "mmdet.datasets"):
            importlib.import_module(name)
    _leave_compiler_alone()


def _leave_compiler_alone() -> None:
    """Let optimisers not import PyTorch's compiler, which they do to be left out by it.

    They are never part of what it compiles here; outside of that, being left out and breaks of its graph mean nothing.
    """
    from torch import _compile
    from torch.optim import Optimizer, optimizer

    methods: list[Any] = list(vars(Optimizer).values())
    for method in methods:
        if _is_wrapper(method, _compile, "inner"):
            method.__wrapped__.__dict__.setdefault("__dynamo_disable", method.__wrapped__)
    for kind in Optimizer.__subclasses__():
        step: Any = vars(kind).get("step")
        if _is_wrapper(step, optimizer, "_use_grad"):
            kind.step = _without_graph_breaks(step.__wrapped__)  # type: ignore[method-assign]


def _is_wrapper(method: Any, module: ModuleType, name: str) -> bool:
    """Return whether a method is a function of this name, made by a function of the module around another one."""
    code = getattr(method, "__code__", None)
    return code is not None and (code.co_filename, code.co_name) == (module.__file__, name)


def _without_graph_breaks(step: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    @functools.wraps(step)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return wrapped


@contextlib.contextmanager
def _placeholders() -> Iterator[None]:
    made = {}
    for name, members in PLACEHOLDERS.items():
        if name.partition(".")[0] == "torch":
            importlib.import_module(name.partition(".")[0])
        if name in sys.modules:
            continue
        made[name] = module = ModuleType(name, "A placeholder, see `date.stack`.")
        module.__path__ = []
        for member, value in members.items():
            setattr(module, member, type(member, (), {}) if value is None else value)
    sys.modules |= made
    try:
        yield
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
