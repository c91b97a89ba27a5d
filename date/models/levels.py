"""Parameters that all levels of the pyramid share: their gradients are summed together, in a few kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Parameters = tuple[Tensor, Tensor | None]


def by_level(convs: Sequence[nn.Conv2d], levels: int) -> list[list[Parameters]]:
    """Return each convolution's weight and bias for each level, whose gradients are added up level by level.

    Autograd by itself adds them parameter by parameter, in the same order. Where no gradient is wanted, or a graph is
    made of the code (export, compilation), the parameters are returned themselves.
    """
    parameters = [(conv.weight, conv.bias) for conv in convs]
    flat = [value for pair in parameters for value in pair if value is not None]
    plain = torch.jit.is_tracing() or torch.compiler.is_compiling() or not torch.is_grad_enabled()
    if plain or not all(value.requires_grad for value in flat):
        return [[pair] * levels for pair in parameters]
    copies = iter(_Copies.apply(levels, *flat))
    found: list[list[Parameters]] = [[] for _ in convs]
    for _ in range(levels):
        for own, (_, bias) in zip(found, parameters, strict=True):
            own.append((next(copies), None if bias is None else next(copies)))
    return found


class _Copies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, levels: int, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.levels = levels
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for _ in range(levels) for value in values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        number = len(grads) // ctx.levels
        parts = [
            [grad for grad in grads[i::number][::-1] if grad is not None]
            for i in range(number)
            # By parameter, the last level's first.
        ]
        total: list[Any] = [own[0] if own else None for own in parts]
        for level in range(1, ctx.levels):
            more = [i for i, own in enumerate(parts) if level < len(own)]
            if more:
                sums = torch._foreach_add([total[i] for i in more], [parts[i][level] for i in more])
                for i, value in zip(more, sums, strict=True):
                    total[i] = value
        return None, *total
