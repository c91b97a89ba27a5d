"""The network, its optimiser and its schedulers from a config, with the tier's options of precision and speed."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from date.errors import UserError

RECOMPILATIONS = 16
"""Most variants of a compiled part: in training and in evaluation, and where a size of 1 or equal sizes matter."""


def set_precision(compute: dict[str, Any]) -> None:
    """Set what is the process's alone: TensorFloat-32 (which PyTorch otherwise uses in convolutions), determinism.

    Args:
        compute: the fields of `date.catalogue.Compute`.
    """
    tf32 = compute["precision"] == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False
    if compute["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)


def build_network(config: Config, device: torch.device) -> nn.Module:
    """Return the initialised detector, in training mode and on its device.

    Raises:
        UserError: batch statistics would depend on the division of the batch, or compilation needs what is not there.
    """
    compute = config.compute
    model = MODELS.build(config.model)
    model.init_weights()
    if compute.precision == "fp64":
        model.double()
    if get_world_size() > 1 and trains_batch_statistics(model):
        if device.type != "cuda":
            raise UserError(
                "this network normalises by batch statistics, which several processes can share on GPUs alone; "
                "train it in one process, or freeze its batch normalisation in the tier's 'backbones'."
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    memory_format = torch.channels_last if compute.channels_last else torch.contiguous_format
    model.to(device=device, memory_format=memory_format).train()
    if device.type == "cuda" and compute.precision != "bf16" and not compute.compile:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.training and not module.weight.requires_grad:
                _as_affine_map(module)
    parts = (model.backbone, model.neck, model.bbox_head)
    if compute.precision == "bf16":
        for part in parts:
            _autocast(part, device.type)
        for module in model.modules():
            if isinstance(module, nn.GroupNorm):
                _normalise_in_bfloat16(module)
    if compute.compile:
        if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
            raise UserError(
                "compiling a network for the CPU needs a C++ compiler, and there is no g++; install one, or set "
                "'compile: false' in the tier's 'compute'."
            )
        for part in parts:  # each with its own limit, and one graph for all sizes of images
            part.compile(dynamic=True, isolate_recompiles=True, recompile_limit=RECOMPILATIONS)
    return model


def compilations() -> int:
    """Return how many graphs this process has compiled so far."""
    compiler = sys.modules.get("torch._dynamo.utils")  # imported by the first call of ``torch.compile``
    return 0 if compiler is None else compiler.counters["stats"]["unique_graphs"]


def total_loss(parts: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of a detector's losses, and them by name with the sum as ``loss``.

    MMEngine's ``parse_losses`` in a few kernels.

    Args:
        parts: by name a loss or a list of them; what has no "loss" in its name, e.g. an accuracy, is not summed.
    """
    values = {name: _mean(part) for name, part in parts.items()}
    total = torch.stack([value for name, value in values.items() if "loss" in name]).sum()
    return total, {"loss": total, **values}


def _mean(part: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(part, Tensor):
        return part.mean() if part.dim() else part
    return torch.stack([value.mean() for value in part]).sum()


def trains_batch_statistics(model: nn.Module) -> bool:
    """Return whether any batch normalisation uses the statistics of the batch at hand in training."""
    model.train()
    return any(module.training for module in model.modules() if isinstance(module, _BatchNorm))


def _autocast(module: nn.Module, device: str) -> None:
    """Run a module's forward in bfloat16 where PyTorch deems it safe; features go on as they are.

    What a head predicts is float32 all the same: see `date.models.precision`.
    """
    forward = module.forward

    def in_bfloat16(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return forward(*args, **kwargs)

    module.forward = in_bfloat16


def _normalise_in_bfloat16(module: nn.GroupNorm) -> None:
    """Let a GroupNorm take and give bfloat16 under autocast, on every device; its sums are float32 in the kernel.

    CUDA's autocast would run it in float32, and so keep twice the bytes for the backward pass.
    """

    def in_bfloat16(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.bfloat16()
            return F.group_norm(x, module.num_groups, module.weight.to(x), module.bias.to(x), module.eps)

    setattr(module, "forward", in_bfloat16)  # noqa: B010 - a method of this module alone


def _as_affine_map(module: nn.BatchNorm2d) -> None:
    """Let a frozen batch normalisation multiply and add, in one kernel each way that keeps no activation.

    PyTorch's own takes two forward and keeps its input. A compiler finds this by itself.
    """
    kept: dict[Any, tuple[Tensor, Tensor]] = {}

    def forward(x: Tensor) -> Tensor:
        weight, bias, mean, var = module.weight, module.bias, module.running_mean, module.running_var
        assert mean is not None and var is not None
        state = tuple((value.data_ptr(), value._version) for value in (weight, bias, mean, var))
        if state not in kept:  # at first, and after a checkpoint was loaded
            kept.clear()
            scale = weight.detach() * (var + module.eps).rsqrt()
            kept[state] = scale[:, None, None], (bias.detach() - mean * scale)[:, None, None]
        scale, shift = kept[state]
        mapped: Tensor = _Affine.apply(x, scale, shift)
        return mapped

    setattr(module, "forward", forward)  # noqa: B010 - a method of this module alone


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale, None, None


def build_optimizer(config: Config, model: nn.Module) -> tuple[torch.optim.Optimizer, dict[str, Any] | None]:
    """Return the optimiser of a config's ``optim_wrapper`` and how it clips gradients.

    MMEngine makes a parameter group of every parameter; those with equal settings are united, so that the optimiser
    can treat them in a few kernels.
    """
    wrapper = copy.deepcopy(config.optim_wrapper)
    if config.compute.fused_optimizer:
        wrapper.optimizer.fused = True
    clip = wrapper.pop("clip_grad", None)
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    united: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        trained = [parameter for parameter in group["params"] if parameter.requires_grad]
        united.setdefault(tuple(sorted(settings.items())), settings | {"params": []})["params"] += trained
    optimizer.param_groups = [group for group in united.values() if group["params"]]
    return optimizer, clip


def build_schedulers(config: Config, optimizer: torch.optim.Optimizer) -> Sequence[Any]:
    """Return MMEngine's schedulers of a config, not yet stepped."""
    return [
        PARAM_SCHEDULERS.build(copy.deepcopy(s), default_args=dict(optimizer=optimizer)) for s in config.param_scheduler
    ]
