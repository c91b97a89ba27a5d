"""EfficientNet-Lite, the pretrained backbone of the tiers that train on a CPU.

EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 in place of SiLU, and with a stem and a head
that do not grow with the model. It was trained in TensorFlow: stride-2 convolutions pad below and to the right, and
batch normalisation has an epsilon of 1e-3. Inputs are RGB, less 127, over 128.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from date.errors import UserError, listed

BLOCKS = (
    # kernel, stride, expansion, channels, repeats: of EfficientNet-B0 (arXiv 1905.11946, Table 1)
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS = 32
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2), "lite3": (1.2, 1.4), "lite4": (1.4, 1.8)}
"""Factors of channels and of repeats. The first and the last group of blocks are repeated once in every model."""
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
"""What a published file has above the last block."""
EPS = 1e-3
"""Of batch normalisation, as trained."""


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch normalisation, with TensorFlow's ``SAME`` padding.

    Where the statistics are frozen, the normalisation is a factor and an offset of every output channel, and the
    convolution's weights take them in during the forward pass: the same function up to rounding, with the same
    gradients, without a pass over the features. Parameters and buffers stay those of the two layers.

    Args:
        channels: of input and output.
        kernel: its side.
        stride: of the convolution.
        groups: as of `torch.nn.Conv2d`.
        norm_cfg: of MMCV.
    """

    def __init__(
        self, channels: tuple[int, int], kernel: int, norm_cfg: dict[str, Any], stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*channels, kernel, stride, groups=groups, bias=False)
        self.norm = build_norm_layer(norm_cfg, channels[1])[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C', H / stride, W / stride)``, sizes rounded up, of ``(B, C, H, W)``."""
        conv: Any = self.conv
        norm: Any = self.norm
        x, padding = _padded(x, conv.kernel_size[0], conv.stride[0])
        frozen = isinstance(norm, _BatchNorm) and not norm.training
        if not frozen:
            return norm(F.conv2d(x, conv.weight, None, conv.stride, padding, groups=conv.groups))
        scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
        shift = torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)
        return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, padding, groups=conv.groups)


def _padded(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad as TensorFlow's ``SAME`` does, and return what of it is left to the convolution, which pads evenly."""
    height, width = (
        max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in (x.shape[-2], x.shape[-1])
    )
    if height % 2 == 0 and width % 2 == 0:
        return x, (height // 2, width // 2)
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)), (0, 0)


class MobileBlock(nn.Module):
    """Expansion by a 1x1 convolution, depthwise convolution, projection; added to the input where shapes allow it.

    Args:
        channels: of input and output.
        kernel: of the depthwise convolution.
        stride: of the depthwise convolution.
        expansion: of the channels between the two 1x1 convolutions; 1 has no first one.
        norm_cfg: of MMCV.
    """

    def __init__(
        self, channels: tuple[int, int], kernel: int, stride: int, expansion: int, norm_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        inner = channels[0] * expansion
        self.expand = ConvNorm((channels[0], inner), 1, norm_cfg) if expansion > 1 else None
        self.depthwise = ConvNorm((inner, inner), kernel, norm_cfg, stride, groups=inner)
        self.project = ConvNorm((inner, channels[1]), 1, norm_cfg)
        self.residual = stride == 1 and channels[0] == channels[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C', H / stride, W / stride)`` of ``(B, C, H, W)``."""
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        projected = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return projected + x if self.residual else projected


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite in four stages of strides 4, 8, 16 and 32, with the keys of MMDetection's ResNet.

    Args:
        arch: a key of `SCALES`.
        out_indices: stages whose features are returned; later ones are not built.
        frozen_stages: 0 freezes the stem, and n the first n stages with it; -1 freezes nothing.
        norm_cfg: of MMCV; ``requires_grad=False`` freezes the factors and offsets.
        norm_eval: keep the stored batch statistics in training.
        init_cfg: ``dict(type="Pretrained", checkpoint=...)`` takes a file with the published names. Every tensor of
            the backbone has to be in it, and nothing may be left but the classifier.
    """

    def __init__(
        self,
        arch: str,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = {"type": "BN", "eps": EPS, **(norm_cfg or {})}
        self.out_indices, self.frozen_stages, self.norm_eval = tuple(out_indices), frozen_stages, norm_eval
        self.stem = ConvNorm((3, STEM_CHANNELS), 3, norm_cfg, stride=2)
        stages: list[list[nn.Module]] = [[]]
        self.stage_channels = []
        """Of the output of each stage, the stem's (0) first."""
        channels = STEM_CHANNELS
        for kernel, stride, expansion, outputs, repeats in scaled(arch):
            if stride == 2:
                self.stage_channels.append(channels)
                stages.append([])
            for repeat in range(repeats):
                block = (channels, outputs), kernel, stride if repeat == 0 else 1, expansion, norm_cfg
                stages[-1].append(MobileBlock(*block))
                channels = outputs
        self.stage_channels.append(channels)
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages[: max(self.out_indices) + 2])
        self.train()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of ``out_indices``, ``(B, C, H / stride, W / stride)`` each, of ``(B, 3, H, W)``."""
        x = F.relu6(self.stem(x), inplace=True)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features[index + 1] for index in self.out_indices)

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Set the mode; what is frozen stays frozen, as in MMDetection's ResNet."""
        super().train(mode)
        if self.frozen_stages >= 0:
            for module in (self.stem, *self.stages[: self.frozen_stages + 1]):
                module.eval().requires_grad_(False)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Draw random weights, or read the published ones.

        Raises:
            UserError: the file is not of this network.
        """
        if not self.init_cfg or self.init_cfg.get("type") != "Pretrained":
            super().init_weights()
            return
        path = self.init_cfg["checkpoint"]
        given = published(CheckpointLoader.load_checkpoint(path, map_location="cpu"), self)
        wanted = self.state_dict()
        wrong = sorted(given.keys() ^ wanted.keys())
        wrong += [name for name in given.keys() & wanted.keys() if given[name].shape != wanted[name].shape]
        if wrong:
            raise UserError(f"{path} has other tensors than this backbone ({listed(wrong)}); name its own weights.")
        self.load_state_dict(given)


def scaled(arch: str) -> list[tuple[int, int, int, int, int]]:
    """Return `BLOCKS` with a model's channels and repeats."""
    width, depth = SCALES[arch]
    ends = (BLOCKS[0], BLOCKS[-1])
    return [
        (*block[:3], _channels(block[3] * width), block[4] if block in ends else math.ceil(block[4] * depth))
        for block in BLOCKS
    ]


def _channels(value: float) -> int:
    """Return the multiple of 8 that is nearest, but not less than 90 % of the value."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * value else rounded + 8


LAYERS = {"_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv",
          "_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm"}  # fmt: skip
"""A block's layers by their published names."""


def published(state: Mapping[str, Tensor], model: EfficientNetLite) -> dict[str, Tensor]:
    """Return a published file's backbone by the names of `EfficientNetLite`; the classifier is left out."""
    places = [f"stages.{i}.{j}" for i, stage in enumerate(model.stages) for j, _ in enumerate(stage.children())]
    renamed = {}
    for name, value in state.items():
        if name.startswith(CLASSIFIER):
            continue
        first, _, rest = name.partition(".")
        if first == "_blocks":
            number, layer, parameter = rest.split(".")
            place = places[int(number)] if int(number) < len(places) else f"blocks.{number}"
            renamed[f"{place}.{LAYERS.get(layer, layer)}.{parameter}"] = value
        else:
            renamed[f"{ {'_conv_stem': 'stem.conv', '_bn0': 'stem.norm'}.get(first, first) }.{rest}"] = value
    return renamed
