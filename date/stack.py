"""Import PyTorch, torchvision and MMDetection without the parts that no detector uses, in half of the time.

All of them import large packages for the sake of single names: sharded training, PyTorch's compiler, its rules for
tensors without data, collections of data sets and networks, SciPy's optimisers, matplotlib. While they are imported,
placeholders with just these names stand for those modules; afterwards the placeholders are gone, and whoever imports
such a module gets the real one. A module that was imported before is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from date import compat


def is_compile_supported(device_type: str) -> bool:
    """Return what PyTorch's function of this name does, which torchvision asks when it pools regions of interest."""
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(device_type)


def _at_first_call(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports another one when it is called, and calls that."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call


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
    # of torchvision itself, whose operators alone are used
    "torchvision.datasets": {},
    "torchvision.models": {},
    # of MMDetection's drawings of tracks
    "matplotlib": {},
    "matplotlib.pyplot": {},
    "matplotlib.patches": dict.fromkeys(("Rectangle",)),
}
"""Modules that are left out of what is imported after PyTorch.

Given are the names that are imported from them; None stands for a class that nobody makes an instance of.
"""
SCIPY: dict[str, dict[str, Any]] = {
    # of assignment by MMDetection and `date.models.matching`; the solver is added to it
    "scipy.optimize": {},
    # of large assignments, and of MMDetection's evaluation of CrowdHuman
    "scipy.sparse": {name: _at_first_call("scipy.sparse", name) for name in ("csr_array", "csr_matrix")},
    "scipy.sparse.csgraph": {
        name: _at_first_call("scipy.sparse.csgraph", name)
        for name in ("maximum_bipartite_matching", "min_weight_full_bipartite_matching")
    },
    # of MMDetection's filter of tracks
    "scipy.linalg": {},
}
"""Modules of SciPy with the functions that are imported from them."""


def load() -> None:
    """Import the stack, and make MMDetection work on it (see `date.compat`); calling it again changes nothing.

    Raises:
        UserError: mmcv is not installed.
    """
    with _without_collection():
        importlib.import_module("torch")
        compat.activate()
        with _placeholders(PLACEHOLDERS), without_scipy():
            for name in ("mmengine.runner", "torchvision", "mmdet.models", "mmdet.datasets"):
                importlib.import_module(name)
    _leave_compiler_alone()


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Keep what is imported in the block, which lives as long as the process, from being looked through for garbage.

    That would take a tenth of its time, and as much again for every data set that MMEngine opens, which collects.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def without_scipy() -> Iterator[None]:
    """Import SciPy's functions in the block without the packages around them, some 500 modules."""
    with _placeholders(SCIPY) as made:
        if (optimize := made.get("scipy.optimize")) is not None:
            # A compiled module that needs no other; the package itself takes it from here, if it is imported one day.
            optimize.__path__ = [f"{folder}/optimize" for folder in importlib.import_module("scipy").__path__]
            solver = importlib.import_module("scipy.optimize._lsap").linear_sum_assignment
            vars(optimize)["linear_sum_assignment"] = solver
        yield


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
def _placeholders(wanted: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, ModuleType]]:
    """Let placeholders stand for modules that are not imported yet, and give them by name."""
    made = {}
    for name, members in wanted.items():
        if name in sys.modules:
            continue
        made[name] = module = ModuleType(name, "A placeholder, see `date.stack`.")
        module.__path__ = []
        for member, value in members.items():
            setattr(module, member, type(member, (), {}) if value is None else value)
    sys.modules |= made
    try:
        yield made
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and vars(sys.modules[parent]).get(child) is module:
                _import_at_first_use(sys.modules[parent], child)


def _import_at_first_use(parent: ModuleType, child: str) -> None:
    """Take a placeholder out of its package, whose attribute is then the real module, imported when it is asked for."""
    delattr(parent, child)
    others = vars(parent).get("__getattr__")

    def find(name: str) -> Any:
        if name == child:
            return importlib.import_module(f"{parent.__name__}.{name}")
        if others is None:
            raise AttributeError(f"module {parent.__name__!r} has no attribute {name!r}")
        return others(name)

    vars(parent)["__getattr__"] = find
