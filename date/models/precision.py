"""What keeps float32 where everything around it is in bfloat16 (autocast): the convolutions that predict."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PreciseConv2d(nn.Conv2d):
    """A convolution in the precision of its weights, also under autocast.

    Eight bits of a class logit or of a box's logarithm are too few: a box of 500 pixels would be off by pixels.
    """

    @classmethod
    def replacing(cls, conv: nn.Conv2d) -> PreciseConv2d:
        """Return a convolution that has another one's parameters, without drawing any."""
        height, width = conv.kernel_size
        same = (1, 1), (1, 1), (height // 2, width // 2), 1, "zeros"
        assert (conv.stride, conv.dilation, conv.padding, conv.groups, conv.padding_mode) == same
        precise = cls(
            conv.in_channels,
            conv.out_channels,
            (height, width),
            padding=same[2],
            bias=conv.bias is not None,
            device="meta",
        )
        precise.weight, precise.bias = conv.weight, conv.bias
        return precise

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Convolve (B, in, H, W) to (B, out, H, W), with the module's weight and bias or with copies of both."""
        if weight is None:
            weight, bias = self.weight, self.bias
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return self._conv_forward(x, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(x.to(weight.dtype), weight, bias)
