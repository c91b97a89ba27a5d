"""3D max filtering (DeFCN sec. 3.4): duplicates lose against their neighbours in space and scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, normal_init
from torch import Tensor, nn
from torch.nn import functional as F

from date.models.losses import log_one_minus_exp


class MaxFilter3D(BaseModule):
    """Residual max filter over a 3x3 neighbourhood on a level and its two neighbouring levels.

    All parameters are shared by the levels. Parameter names follow the official DATE code (``conv``, ``norm``).

    Args:
        channels: of the regression tower's output.
        norm_cfg: normalisation after the residual sum (paper: GroupNorm, 32 groups).
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = build_norm_layer(norm_cfg, channels)[1]

    def init_weights(self) -> None:
        """Draw the convolution from N(0, 0.01), as every convolution of the head."""
        normal_init(self.conv, std=0.01)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Filter the regression tower's levels, each (B, C, H_l, W_l), finest first; shapes are kept."""
        convolved = [self.conv(x) for x in feats]
        filtered = []
        for level, x in enumerate(feats):
            neighbours = [_resize(y, x.shape[-2:]) for y in convolved[max(level - 1, 0) : level + 2]]
            filtered.append(F.relu(self.norm(max_over_neighbourhood(neighbours) + x)))
        return filtered


def max_over_neighbourhood(maps: Sequence[Tensor]) -> Tensor:
    """Return the maximum over maps of one size, each (B, C, H, W), and over 3x3 positions.

    The values of ``max_pool3d``, whose gradient is not deterministic on GPUs; the gradient goes to one of the largest:
    the first position in reading order, there the first of the maps. (``max_pool3d`` takes the first of the maps that
    has one; they differ only where two maps hold the same maximum at different positions.)
    """
    highest = maps[0]
    for other in maps[1:]:
        highest = torch.where((highest >= other) | highest.isnan(), highest, other)
    return F.max_pool2d(highest, kernel_size=3, stride=1, padding=1)


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def product_log_probs(cls_logits: Tensor, filter_logits: Tensor, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """Return ``log p`` and ``log(1 - p)`` of ``p = sigmoid(cls) * sigmoid(filter)``.

    Args:
        cls_logits: (B, C, N).
        filter_logits: (B, 1, N), broadcast over the classes.
        eps: None computes in log space, where every p has a gradient. A number clamps p and 1 - p from below as the
            official DATE code does (1e-5), which stops the gradient of every smaller product.
    """
    log_p = F.logsigmoid(cls_logits) + F.logsigmoid(filter_logits)
    if eps is None:
        return log_p, log_one_minus_exp(log_p)
    p = log_p.exp()
    logit = (p.clamp(min=eps) / (1 - p).clamp(min=eps)).log()
    return F.logsigmoid(logit), F.logsigmoid(-logit)
