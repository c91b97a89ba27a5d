"""Points, boxes and their overlaps: pure functions of tensors, without a transfer between host and device.

Overlaps are MMDetection's ``bbox_overlaps`` in every term, but keep their gradient's path where there are no boxes: a
process whose images have no positives still gives every parameter a gradient, of zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

T = TypeVar("T")
CACHED_SHAPES = 32
"""Shapes of feature maps whose points or anchors are kept: batches are padded to few different sizes."""


class Points(NamedTuple):
    """The N feature-map points of all levels, concatenated from the finest level to the coarsest."""

    centers: Tensor
    """(N, 2) x, y in pixels of the network's input: (index + 0.5) * stride."""
    strides: Tensor
    """(N,) stride of each point's level."""


class ShapeCache:
    """Keeps what depends on the shapes of the feature maps alone, the newest `CACHED_SHAPES` of it."""

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """Return what was made for a key, or make it; as an ordinary tensor even inside ``torch.inference_mode``.

        Where a graph is made of the code (export, compilation), shapes are symbols, and it is made anew.
        """
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return make()
        if key not in self.kept:
            if len(self.kept) >= CACHED_SHAPES:
                del self.kept[next(iter(self.kept))]
            with torch.inference_mode(False), torch.no_grad():
                self.kept[key] = make()
        return self.kept[key]


_points = ShapeCache()
_constants = ShapeCache()


def feature_points(level_shapes: Sequence[tuple[int, int]], strides: Sequence[int], like: Tensor) -> Points:
    """Return the points of all levels, made once for each combination of shapes.

    Args:
        level_shapes: height and width of each level's map.
        strides: of the levels, in pixels.
        like: whose dtype and device the points take.
    """
    key = (tuple(level_shapes), tuple(strides), like.dtype, like.device)
    make = functools.partial(_make_points, level_shapes, strides, like.dtype, like.device)
    return _points.get(key, make)


def _make_points(
    level_shapes: Sequence[tuple[int, int]], strides: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Points:
    centers, stride_of = [], []
    for (height, width), stride in zip(level_shapes, strides, strict=True):
        y, x = torch.meshgrid(
            (torch.arange(height, dtype=dtype, device=device) + 0.5) * stride,
            (torch.arange(width, dtype=dtype, device=device) + 0.5) * stride,
            indexing="ij",
        )
        centers.append(torch.stack([x, y], dim=-1).view(-1, 2))
        stride_of.append(torch.full((height * width,), stride, dtype=dtype, device=device))
    return Points(torch.cat(centers), torch.cat(stride_of))


def constant(value: float, device: torch.device) -> Tensor:
    """Return a number as a scalar on a device, in the default dtype, made once."""
    return _constants.get((value, torch.get_default_dtype(), device), lambda: torch.full((), value, device=device))


def pick(values: Tensor, image: Tensor, point: Tensor) -> Tensor:
    """Return ``values[image, point]`` for places that differ from each other.

    The gradient then needs no sum over equal places, for which a GPU sorts them in some twenty kernels.

    Args:
        values: (B, N, ...).
        image: (K,) index into the first dimension.
        point: (K,) index into the second.
    """
    picked: Tensor = _Pick.apply(values, image, point)
    return picked


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, image: Tensor, point: Tensor) -> Tensor:
        ctx.save_for_backward(image, point)
        ctx.shape = values.shape
        return values[image, point]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        whole = grad.new_zeros(ctx.shape)
        whole[ctx.saved_tensors] = grad + 0.0  # a sum, which -0.0 does not survive either
        return whole, None, None


def ltrb_to_xyxy(centers: Tensor, ltrb: Tensor) -> Tensor:
    """Return the boxes (..., 4) xyxy whose sides lie at distances (..., 4) ltrb from points (..., 2)."""
    near, far = ltrb.chunk(2, dim=-1)
    return torch.cat([centers - near, centers + far], dim=-1)


def pairwise_iou(gt_bboxes: Tensor, bboxes: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Return IoU and union, each (T, N), of every object with N boxes.

    Args:
        gt_bboxes: (T, 4) xyxy.
        bboxes: (T, 4, N) xyxy, the boxes for each object, or (4, N), the same for all.
        eps: least union.
    """
    (near, far), (gt_near, gt_far) = bboxes.chunk(2, dim=-2), gt_bboxes[:, :, None].chunk(2, dim=1)
    overlap = _area(torch.minimum(far, gt_far).sub_(torch.maximum(near, gt_near)).clamp_(min=0), -2)
    union = (_area(gt_far - gt_near, -2) + _area(far - near, -2) - overlap).clamp(min=eps)
    return overlap / union, union


def pairwise_giou(gt_bboxes: Tensor, bboxes: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the generalised IoU (T, N); arguments as for `pairwise_iou`."""
    iou, union = pairwise_iou(gt_bboxes, bboxes, eps)
    (near, far), (gt_near, gt_far) = bboxes.chunk(2, dim=-2), gt_bboxes[:, :, None].chunk(2, dim=1)
    hull = _area(torch.maximum(far, gt_far).sub_(torch.minimum(near, gt_near)).clamp_(min=0), -2).clamp(min=eps)
    return iou - (hull - union) / hull


def aligned_iou(pred: Tensor, target: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return IoU and union, each (K,), of (K, 4) boxes with (K, 4) others; the union is at least ``eps``."""
    (near, far), (target_near, target_far) = pred.chunk(2, dim=-1), target.chunk(2, dim=-1)
    overlap = _area((torch.minimum(far, target_far) - torch.maximum(near, target_near)).clamp(min=0))
    union = (_area(far - near) + _area(target_far - target_near) - overlap).clamp(min=eps)
    return overlap / union, union


def aligned_giou(pred: Tensor, target: Tensor, eps: float) -> Tensor:
    """Return the generalised IoU (K,) of (K, 4) boxes with (K, 4) others."""
    iou, union = aligned_iou(pred, target, eps)
    (near, far), (target_near, target_far) = pred.chunk(2, dim=-1), target.chunk(2, dim=-1)
    hull = _area((torch.maximum(far, target_far) - torch.minimum(near, target_near)).clamp(min=0)).clamp(min=eps)
    return iou - (hull - union) / hull


def _area(extent: Tensor, dim: int = -1) -> Tensor:
    width, height = extent.unbind(dim)
    return width * height


def xyxy_to_cxcywh(bboxes: Tensor) -> Tensor:
    """Return centres and sizes, (..., 4) as cx, cy, w, h, of boxes (..., 4) xyxy."""
    near, far = bboxes.chunk(2, dim=-1)
    return torch.cat([(near + far) / 2, far - near], dim=-1)


def anchor_deltas(anchors: Tensor, gt_bboxes: Tensor) -> Tensor:
    """Return RetinaNet's regression targets (K, 4): shift of the centre over the size, log of the sizes' ratio.

    What MMDetection's `DeltaXYWHBBoxCoder` computes with means 0 and deviations 1, in the boxes' own precision.

    Args:
        anchors: (K, 4) xyxy in pixels.
        gt_bboxes: (K, 4) xyxy of the objects that they take.
    """
    anchor, gt = xyxy_to_cxcywh(anchors.to(gt_bboxes.dtype)), xyxy_to_cxcywh(gt_bboxes)
    return torch.cat([(gt[:, :2] - anchor[:, :2]) / anchor[:, 2:], (gt[:, 2:] / anchor[:, 2:]).log()], dim=-1)
