"""A network made ready to detect: the same numbers, bit for bit, in less time.

Training computes anew in every step what its weights change; here it is computed once. Convolutions of the pretrained
backbone take in the factors of their frozen batch normalisation. The backbone's features stay in oneDNN's layout from
layer to layer, where `ConvNorm` turns them to PyTorch's and back. MMCV's layers are called without the module around
them. Kernels and operands are the same.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from date.models.efficientnet_lite import ConvNorm, EfficientNetLite


def prepared(model: Any) -> Any:
    """Return a detector for inference that computes what another one does, bit for bit.

    Args:
        model: in evaluation mode, on its device; it is left as it is, and shares its parameters with the copy.
    """
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    model = copy.deepcopy(model, shared)
    if isinstance(getattr(model, "backbone", None), EfficientNetLite):
        model.backbone = PreparedBackbone(model.backbone)
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, ConvModule) and _is_plain(layer):
                setattr(module, name, PlainConvModule(layer))
    return model


def _is_plain(layer: ConvModule) -> bool:
    """Return whether a layer of MMCV is a convolution, GroupNorm or nothing, and ReLU or nothing."""
    conv: Any = layer.conv
    norm = layer.norm if layer.with_norm else None
    plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not layer.with_explicit_padding
    ends = (norm is None or type(norm) is nn.GroupNorm) and (
        not layer.with_activation or type(layer.activate) is nn.ReLU
    )
    return plain and ends and not layer.with_spectral_norm and layer.order == ("conv", "norm", "act")


class PlainConvModule(nn.Module):
    """A `ConvModule` of MMCV without its questions at every call: convolution, GroupNorm or nothing, ReLU or nothing.

    Args:
        layer: with these parts alone.
    """

    def __init__(self, layer: ConvModule) -> None:
        super().__init__()
        self.conv, self.norm = layer.conv, layer.norm if layer.with_norm else None
        self.relu = layer.with_activation

    def forward(self, x: Tensor) -> Tensor:
        """Return what the `ConvModule` returns."""
        conv: Any = self.conv
        norm: Any = self.norm
        x = torch.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        if norm is not None:
            x = torch.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return torch.relu_(x) if self.relu else x


class FoldedConv(nn.Module):
    """A `ConvNorm` in evaluation mode whose weights took in the normalisation.

    Args:
        layer: whose statistics are stored ones.
    """

    def __init__(self, layer: ConvNorm) -> None:
        super().__init__()
        conv: Any = layer.conv
        norm: Any = layer.norm
        size = conv.kernel_size[0]
        self.stride, self.padding, self.groups, self.relu6 = conv.stride, conv.padding, conv.groups, layer.relu6
        with torch.no_grad():
            scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
            weight = conv.weight.flip(2, 3) if size > 1 else conv.weight
            self.weight = nn.Buffer(weight * scale[:, None, None, None])
            self.shift = nn.Buffer(torch.addcmul(norm.bias, norm.running_mean, scale, value=-1))
        constant = not (norm.weight.requires_grad or norm.bias.requires_grad)
        plain = conv.weight.device.type == "cpu" and conv.weight.dtype == torch.float32
        self.pointwise = constant and plain and (size == 1 or conv.groups > 1) and torch.backends.mkldnn.is_available()
        """Whether `ConvNorm` runs oneDNN's kernel, which takes features in oneDNN's layout, too."""
        self.after: tuple[str, list[float]] = ("hardtanh", [0.0, 6.0]) if layer.relu6 else ("none", [])

    def forward(self, x: Tensor) -> Tensor:
        """Return what the `ConvNorm` returns, in the layout of the input."""
        if self.pointwise:
            return torch.ops.mkldnn._convolution_pointwise.default(
                x, self.weight, self.shift, self.padding, self.stride, [1, 1], self.groups, *self.after, ""
            )
        x = F.conv2d(x, self.weight, self.shift, self.stride, self.padding, groups=self.groups)
        return F.relu6(x, inplace=True) if self.relu6 else x


class PreparedBackbone(nn.Module):
    """An `EfficientNetLite` whose layers took in their normalisation, where its statistics are stored ones.

    Args:
        backbone: in evaluation mode; its layers are replaced.
    """

    def __init__(self, backbone: EfficientNetLite) -> None:
        super().__init__()
        for module in list(backbone.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, ConvNorm) and isinstance(layer.norm, _BatchNorm) and not layer.norm.training:
                    setattr(module, name, FoldedConv(layer))
        self.stem, self.stages, self.out_indices = backbone.stem, backbone.stages, backbone.out_indices
        layers = [layer for layer in self.stages.modules() if isinstance(layer, ConvNorm | FoldedConv)]
        self.blocked = all(isinstance(layer, FoldedConv) and layer.pointwise for layer in layers)
        """Whether all blocks take features in oneDNN's layout."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what `EfficientNetLite.forward` returns."""
        x = self.stem(x.flip(2, 3))
        x = x.to_mkldnn() if self.blocked else x
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        found = [features[index + 1] for index in self.out_indices]
        return tuple((x.to_dense() if self.blocked else x).flip(2, 3) for x in found)
