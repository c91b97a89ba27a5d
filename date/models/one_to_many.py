"""The one-to-many branches, FCOS- and RetinaNet-style, and the losses that they share with the baselines.

The losses are functions of predictions flattened over the levels, as branches and MMDetection's heads can give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor
from torch.nn import functional as F

from date.models.assigners import assign_fcos, assign_max_iou
from date.models.branches import Branch, BranchOutput
from date.models.geometry import Points, ShapeCache, anchor_deltas, ltrb_to_xyxy, pick
from date.models.losses import (
    NORMALISER_EPS,
    centerness_target,
    class_targets,
    log_iou_loss,
    sigmoid_focal_loss,
    weighted,
)
from date.models.normalisers import reduce_mean
from date.models.objects import BatchObjects
from date.models.precision import PreciseConv2d

_ranges = ShapeCache()
_anchors = ShapeCache()
_valid = ShapeCache()


def point_ranges(regress_ranges: Sequence[tuple[float, float]], level_sizes: Sequence[int], like: Tensor) -> Tensor:
    """Return (2, N) the lower and upper end of each point's range in pixels, made once for each combination of sizes.

    Args:
        regress_ranges: of the levels.
        level_sizes: number of points of each level; they sum to N.
        like: whose dtype and device the ranges take.
    """

    def make() -> Tensor:
        ranges = torch.tensor(regress_ranges, dtype=like.dtype).t()
        return ranges.repeat_interleave(torch.tensor(level_sizes), dim=1).to(like.device)

    return _ranges.get((tuple(map(tuple, regress_ranges)), tuple(level_sizes), like.dtype, like.device), make)


def fcos_losses(
    cls: Tensor, reg: Tensor, ctr: Tensor, points: Points, taken: Tensor, objects: BatchObjects, focal: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return FCOS's class, box (``-log IoU`` weighted by the centre-ness target) and centre-ness losses.

    Normalisers, each a mean over the processes: number of positives, at least 1 (class, centre-ness); sum of the
    centre-ness targets, at least 1e-6 (box).

    Args:
        cls: (B, C, N) class logits.
        reg: (B, 4, N) ltrb distances in pixels.
        ctr: (B, N) centre-ness logits.
        points: the N points.
        taken: (B, N) the object of each point, see `assign_fcos`.
        objects: the batch's T objects.
        focal: alpha and gamma.
    """
    num_classes, num_objects = cls.shape[1], len(objects.labels)
    image, point = (taken < num_objects).nonzero(as_tuple=True)
    centers, bboxes = points.centers[point], objects.bboxes.to(reg.dtype)[taken[image, point]]
    ctr_target = centerness_target(torch.cat([centers - bboxes[:, :2], bboxes[:, 2:] - centers], dim=-1))
    num_pos = reduce_mean(reg.new_full((), float(len(point)))).clamp(min=1)
    ctr_sum = reduce_mean(ctr_target.sum()).clamp(min=1e-6)

    cls_loss = sigmoid_focal_loss(cls, class_targets(objects.labels_of(taken, num_classes), num_classes), *focal)
    iou_loss = log_iou_loss(ltrb_to_xyxy(centers, pick(reg.mT, image, point)), bboxes, ctr_target)
    ctr_loss = F.binary_cross_entropy_with_logits(pick(ctr, image, point), ctr_target, reduction="sum")
    by_points, by_centerness = num_pos + NORMALISER_EPS, ctr_sum + NORMALISER_EPS
    return cls_loss / by_points, iou_loss / by_centerness, ctr_loss / by_points


@MODELS.register_module()
class FCOSBranch(Branch):
    """FCOS-style one-to-many branch: class, box and centre-ness (on the class tower); discarded after training.

    A point's box is ``exp(scale * conv)`` as ltrb distances in pixels. No centre sampling, IoU loss ``-log IoU``
    weighted by the centre-ness target (DATE eq. 3 with FCOS's weights of 1).

    Args:
        regress_ranges: per level, the (lower, upper) range in pixels of the largest ltrb distance.
        kwargs: of `Branch`.
    """

    def __init__(self, *, regress_ranges: Sequence[tuple[float, float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regress_ranges = [(float(low), float(high)) for low, high in regress_ranges]
        self.conv_ctr = PreciseConv2d(self.conv_cls.in_channels, 1, 3, padding=1)

    def regress(self, scaled: Tensor) -> Tensor:
        """Return positive ltrb distances in pixels."""
        return scaled.exp()

    def extra_conv(self) -> PreciseConv2d | None:
        """Return the convolution of the centre-ness logits; they are predicted from the class tower."""
        return self.conv_ctr

    def bboxes(self, output: BranchOutput, image: int, prior_index: Tensor | slice) -> Tensor:
        """See `Branch`."""
        return ltrb_to_xyxy(self.points(output).centers[prior_index], output.reg[image].t()[prior_index])

    def score_factors(self, output: BranchOutput) -> Tensor | None:
        """Return the centre-ness; the threshold judges the class probability alone, as MMDetection's FCOS."""
        assert output.extra is not None
        return output.extra[:, 0].sigmoid()

    def assign(self, output: BranchOutput, objects: BatchObjects) -> Tensor:
        """Return (B, P) the object that each point takes, see `assign_fcos`."""
        ranges = point_ranges(self.regress_ranges, output.level_sizes, output.reg)
        return assign_fcos(self.points(output), ranges, objects)

    def loss(self, output: BranchOutput, objects: BatchObjects) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_iou`` and ``loss_ctr``, times lambda; see `fcos_losses`."""
        assert output.extra is not None
        taken = self.assign(output, objects)
        focal = (self.alpha, self.gamma)
        found = fcos_losses(output.cls, output.reg, output.extra[:, 0], self.points(output), taken, objects, focal)
        losses = (weighted(self.loss_weight, loss) for loss in found)
        return dict(zip(("loss_cls", "loss_iou", "loss_ctr"), losses, strict=True))


def grid_anchors(generator: AnchorGenerator, level_shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Return the (P, 4) xyxy anchors of all levels in pixels, made once for each combination of shapes.

    Always in float32, as MMDetection's: rounding decides which of several equally good anchors an object takes.
    """
    key = (repr(generator), tuple(level_shapes), device)
    return _anchors.get(key, lambda: torch.cat(generator.grid_priors(level_shapes, device=device)))


def valid_anchors(
    generator: AnchorGenerator,
    level_shapes: Sequence[tuple[int, int]],
    pad_shapes: Sequence[tuple[int, int]],
    device: torch.device,
) -> Tensor:
    """Return bool (B, P): the anchor's cell lies within the image padded by itself, (height, width) in pixels."""

    def valid(pad_shape: tuple[int, int]) -> Tensor:
        key = (repr(generator), tuple(level_shapes), pad_shape, device)
        return _valid.get(key, lambda: torch.cat(generator.valid_flags(level_shapes, pad_shape, device)))

    return torch.stack([valid(shape) for shape in pad_shapes])


def thresholds(assigner: MaxIoUAssigner) -> tuple[float, float, float]:
    """Return the thresholds of `assign_max_iou` of MMDetection's assigner.

    Raises:
        ValueError: it has options that the function does not know.
    """
    if assigner.ignore_iof_thr > 0 or not assigner.match_low_quality or not assigner.gt_max_assign_all:
        raise ValueError("ignore_iof_thr, match_low_quality and gt_max_assign_all have to be left as they are")
    return assigner.pos_iou_thr, assigner.neg_iou_thr, assigner.min_pos_iou


def retinanet_losses(
    cls: Tensor,
    reg: Tensor,
    anchors: Tensor,
    taken: Tensor,
    objects: BatchObjects,
    focal: Sequence[float],
    reduce: bool,
) -> tuple[Tensor, Tensor]:
    """Return RetinaNet's class loss and its L1 loss of the boxes' deltas.

    Both are divided by the number of positives, each image counting at least 1.

    Args:
        cls: (B, C, P) class logits.
        reg: (B, 4, P) deltas.
        anchors: (P, 4) xyxy in pixels.
        taken: (B, P) the object of each anchor, see `assign_max_iou`.
        objects: the batch's T objects.
        focal: alpha and gamma.
        reduce: take the mean over the processes of the normaliser, see `RetinaBranch`.
    """
    num_classes, num_objects = cls.shape[1], len(objects.labels)
    judged = taken >= 0
    positive = judged & (taken < num_objects)
    num_pos = reduce_mean(positive.sum(-1).clamp(min=1).sum().to(reg.dtype), reduce)

    # Ignored anchors: a logit of -inf would be exact but has no gradient path.
    logits = torch.where(judged.unsqueeze(1), cls, -1e4)
    labels = objects.labels_of(torch.where(judged, taken, num_objects), num_classes)
    cls_loss = sigmoid_focal_loss(logits, class_targets(labels, num_classes), *focal)
    image, anchor = positive.nonzero(as_tuple=True)
    target = anchor_deltas(anchors[anchor], objects.bboxes.to(reg.dtype)[taken[image, anchor]])
    reg_loss = (pick(reg.mT, image, anchor) - target).abs().sum()
    return cls_loss / (num_pos + NORMALISER_EPS), reg_loss / (num_pos + NORMALISER_EPS)


@MODELS.register_module()
class RetinaBranch(Branch):
    """RetinaNet-style one-to-many branch: 9 anchors a cell, class and box deltas; discarded after training.

    The deltas are multiplied by the head's shared scale of the level, as every regression map (official DATE code).

    Args:
        anchor_generator, assigner, bbox_coder: configs of MMDetection's `AnchorGenerator`, `MaxIoUAssigner` (of which
            the thresholds count, see `assign_max_iou`) and `DeltaXYWHBBoxCoder` (means 0, deviations 1).
        reduce_normaliser: True divides by the mean over the processes of their numbers of positives (each image
            counting at least 1), so that the division into processes does not matter; False by this process's own, as
            the official code. In one process the two are the same.
        kwargs: of `Branch`.
    """

    def __init__(
        self,
        *,
        anchor_generator: dict[str, Any],
        assigner: dict[str, Any],
        bbox_coder: dict[str, Any],
        reduce_normaliser: bool = True,
        **kwargs: Any,
    ) -> None:
        generator = TASK_UTILS.build(anchor_generator)
        super().__init__(num_base_priors=generator.num_base_priors[0], **kwargs)
        self.prior_generator = generator
        self.assigner = TASK_UTILS.build(assigner)
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.reduce_normaliser = reduce_normaliser

    def anchors(self, output: BranchOutput) -> Tensor:
        """Return the (P, 4) xyxy anchors of all levels in pixels, see `grid_anchors`."""
        return grid_anchors(self.prior_generator, output.level_shapes, output.reg.device)

    def bboxes(self, output: BranchOutput, image: int, prior_index: Tensor | slice) -> Tensor:
        """See `Branch`."""
        return self.bbox_coder.decode(self.anchors(output)[prior_index], output.reg[image].t()[prior_index])

    def assign(self, output: BranchOutput, objects: BatchObjects) -> Tensor:
        """Return (B, P) the object that each anchor takes, see `assign_max_iou`."""
        anchors = self.anchors(output)
        valid = valid_anchors(self.prior_generator, output.level_shapes, objects.pad_shapes, anchors.device)
        return assign_max_iou(anchors, valid, objects, *thresholds(self.assigner))

    def loss(self, output: BranchOutput, objects: BatchObjects) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_reg`` (L1 on the deltas), times lambda; see ``reduce_normaliser``."""
        taken, focal = self.assign(output, objects), (self.alpha, self.gamma)
        cls, reg = retinanet_losses(
            output.cls, output.reg, self.anchors(output), taken, objects, focal, self.reduce_normaliser
        )
        return {"loss_cls": weighted(self.loss_weight, cls), "loss_reg": weighted(self.loss_weight, reg)}
