"""EfficientNet-Lite, the pretrained backbone of the tiers that train on a CPU.

EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 in place of SiLU, and with a stem and a head
that do not grow with the model. It was trained in TensorFlow, with its ``SAME`` padding and a
batch normalisation's epsilon of 1e-3. Inputs are RGB, less 127, over 128.
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
    """A convolution without bias, its batch normalisation, and ReLU6 where asked for.

    Where the statistics are frozen, the normalisation is a factor and an offset of every output channel, and the
    convolution's weights take them in during the forward pass: the same function up to rounding, with the same
    gradients, without a pass over the features. Parameters and buffers stay those of the two layers.

    The input is the layer's turned by 180 degrees, and so is the output; see `EfficientNetLite.forward`.

    Args:
        channels: of input and output.
        kernel: its side, odd; 1 takes a stride of 1.
        norm_cfg: of MMCV.
        stride: of the convolution.
        groups: as of `torch.nn.Conv2d`.
        relu6: whether ReLU6 follows.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        norm_cfg: dict[str, Any],
        stride: int = 1,
        groups: int = 1,
        relu6: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = build_norm_layer(norm_cfg, channels[1])[1]
        self.relu6 = relu6

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C', H / stride, W / stride)``, sizes rounded up, of ``(B, C, H, W)``."""
        conv: Any = self.conv
        norm: Any = self.norm
        weight = conv.weight.flip(2, 3) if conv.kernel_size[0] > 1 else conv.weight
        frozen = isinstance(norm, _BatchNorm) and not norm.training
        if not frozen:
            x = norm(F.conv2d(x, weight, None, conv.stride, conv.padding, groups=conv.groups))
            return F.relu6(x, inplace=True) if self.relu6 else x
        scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
        shift = torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)
        constant = not (norm.weight.requires_grad or norm.bias.requires_grad)
        if constant and (conv.kernel_size[0] == 1 or conv.groups > 1) and _on_onednn(x):
            return _Convolution.apply(x, weight, scale, shift, conv.stride[0], self.relu6)
        x = F.conv2d(x, weight * _per_output(scale), shift, conv.stride, conv.padding, groups=conv.groups)
        return F.relu6(x, inplace=True) if self.relu6 else x


def _per_output(factors: Tensor) -> Tensor:
    return factors[:, None, None, None]


def _on_onednn(x: Tensor) -> bool:
    """Return whether the features are oneDNN's: in single precision, on a CPU, not to be cast, compiled or exported."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first, since the compiler can't follow the others
        return False
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and torch.backends.mkldnn.is_available()


class _Convolution(torch.autograd.Function):
    """A 1x1 or depthwise convolution, a factor and an offset of every output channel, and ReLU6 where asked for.

    In single precision on a CPU, the same as PyTorch's up to rounding: forward in one of oneDNN's kernels; backward as
    products of matrices, where kernels are 1x1. Of depthwise weights, oneDNN has fast gradients for 3x3 kernels alone;
    those of a 5x5 kernel consist of four of them, at its corners, which agree where they overlap. Factors and offsets
    get no gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, stride: int, relu6: bool) -> Tensor:
        """Return ``(B, C', H', W')`` of ``x`` (B, C, H, W), ``weight`` (C', C or 1, K, K), ``scale`` and ``shift``."""
        groups, padding = x.shape[1] // weight.shape[1], weight.shape[-1] // 2
        after = ("hardtanh", [0.0, 6.0]) if relu6 else ("none", [])
        weight = weight * _per_output(scale)
        y = torch.ops.mkldnn._convolution_pointwise(
            x, weight, shift, [padding] * 2, [stride] * 2, [1, 1], groups, *after, ""
        )
        ctx.stride, ctx.relu6 = stride, relu6
        ctx.save_for_backward(x, weight, scale, *([y] if relu6 else []))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input and weight, where they are needed."""
        x, weight, scale = ctx.saved_tensors[:3]
        needed = ctx.needs_input_grad
        if ctx.relu6:
            grad = torch.ops.aten.hardtanh_backward(grad, ctx.saved_tensors[3], 0.0, 6.0)
        of_x = of_weight = None
        if weight.shape[-1] == 1:
            rows = grad.permute(0, 2, 3, 1).flatten(0, 2)
            if needed[0]:
                of_x = (rows @ weight.flatten(1)).view(*grad.shape[:1], *grad.shape[2:], -1).permute(0, 3, 1, 2)
            if needed[1]:
                of_weight = (rows.t() @ x.permute(0, 2, 3, 1).flatten(0, 2)).view_as(weight)
        else:
            padding = weight.shape[-1] // 2
            if needed[0]:
                of_x = _gradients(grad, x, weight, ctx.stride, padding)[0]
            if needed[1]:
                of_weight = _weight_gradient(grad, x, weight, ctx.stride)
        return of_x, None if of_weight is None else of_weight.mul_(_per_output(scale)), None, None, None, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient ``(C, 1, K, K)`` of a depthwise weight, of 5x5 kernels from four of 3x3."""
    if weight.shape[-1] != 5:
        return _gradients(grad, x, weight, stride, weight.shape[-1] // 2, of_weight=True)[1]
    x = F.pad(x, (2, 2, 2, 2))
    height, width = (stride * (side - 1) + 3 for side in grad.shape[2:])
    whole, part = torch.empty_like(weight), weight[:, :, :3, :3].contiguous()
    for i in (0, 2):
        for j in (0, 2):
            seen = x[:, :, i : i + height, j : j + width].contiguous(memory_format=torch.channels_last)
            whole[:, :, i : i + 3, j : j + 3] = _gradients(grad, seen, part, stride, 0, of_weight=True)[1]
    return whole


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, of_weight: bool = False
) -> tuple[Tensor, Tensor]:
    """Return PyTorch's gradients of a depthwise convolution's input and weight, of which one is computed."""
    wanted = [not of_weight, of_weight, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), wanted
    )[:2]


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
        self.expand = ConvNorm((channels[0], inner), 1, norm_cfg) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm((inner, inner), kernel, norm_cfg, stride, groups=inner)
        self.project = ConvNorm((inner, channels[1]), 1, norm_cfg, relu6=False)
        self.residual = stride == 1 and channels[0] == channels[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C', H / stride, W / stride)``, sizes rounded up, of ``(B, C, H, W)``."""
        projected = self.project(self.depthwise(self.expand(x)))
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
            the backbone has to be in it, and nothing may be left but the classifier and stages that are not built.
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
        self.arch, self.out_indices = arch, tuple(out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
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
        """Return the features of ``out_indices``, ``(B, C, H / stride, W / stride)`` each, of ``(B, 3, H, W)``.

        TensorFlow's ``SAME`` padding puts the odd row below and the odd column to the right. With images and kernels
        turned by 180 degrees that is half a kernel on every side, whatever the size. So the images are turned, all
        layers compute on turned features, and the results are turned back.
        """
        x = self.stem(x.flip(2, 3))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features[index + 1].flip(2, 3) for index in self.out_indices)

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
    """Return a published file's tensors by the names of `EfficientNetLite`.

    Left out are the classifier and, where the network ends below the last stage, the blocks above its end.
    """
    total = sum(repeats for *_, repeats in scaled(model.arch))
    places = [f"stages.{i}.{j}" for i, stage in enumerate(model.stages) for j, _ in enumerate(stage.children())]
    renamed = {}
    for name, value in state.items():
        if name.startswith(CLASSIFIER):
            continue
        first, _, rest = name.partition(".")
        if first == "_blocks":
            number, layer, parameter = rest.split(".")
            if len(places) <= int(number) < total:
                continue
            place = places[int(number)] if int(number) < total else f"blocks.{number}"
            renamed[f"{place}.{LAYERS.get(layer, layer)}.{parameter}"] = value
        else:
            renamed[f"{ {'_conv_stem': 'stem.conv', '_bn0': 'stem.norm'}.get(first, first) }.{rest}"] = value
    return renamed
