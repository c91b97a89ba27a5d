"""Prediction branches on shared features: what they have in common, and the one-to-one branch, kept at inference.

A branch owns its prediction convolutions, its assignment, its losses and its decoding; towers and the per-level scales
belong to the head and are shared (DATE fig. 2). Parameter names are those of the official DATE code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.cnn import Scale
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.model import BaseModule, bias_init_with_prob, normal_init
from torch import Tensor, nn
from torch.nn import functional as F

from date.models.assigners import assign_auxiliary, assign_one_to_one
from date.models.filtering import MaxFilter3D, product_log_probs
from date.models.geometry import Points, feature_points, ltrb_to_xyxy, pick, xyxy_to_cxcywh
from date.models.levels import Parameters, by_level
from date.models.losses import (
    NORMALISER_EPS,
    class_targets,
    focal_loss_from_log_probs,
    giou_loss,
    sigmoid_focal_loss,
)
from date.models.normalisers import reduce_mean
from date.models.objects import BatchObjects
from date.models.precision import PreciseConv2d


@dataclass
class BranchOutput:
    """What a branch predicts for B images, its P priors (points or anchors) concatenated over the levels."""

    cls: Tensor
    """(B, C, P) class logits."""
    reg: Tensor
    """(B, 4, P): ltrb distances in pixels, or RetinaNet's deltas."""
    extra: Tensor | None
    """(B, 1, P) centre-ness logits (FCOS) or filter logits (3DMF)."""
    level_shapes: list[tuple[int, int]]
    """Height and width of each level's map."""
    level_sizes: list[int]
    """Number of priors of each level; they sum to P."""


@dataclass
class Candidates:
    """Scored boxes of one image before NMS and the cut at the top k, best of each level first."""

    bboxes: Tensor
    """(K, 4) xyxy in pixels, clipped to the image."""
    scores: Tensor
    """(K,)."""
    labels: Tensor
    """(K,)."""


def flatten_level(x: Tensor, channels: int) -> Tensor:
    """Turn (B, A*channels, H, W) into (B, channels, H*W*A), the order of MMDetection's priors (A per cell, last)."""
    batch, _, height, width = x.shape
    return x.view(batch, -1, channels, height * width).permute(0, 2, 3, 1).reshape(batch, channels, -1)


def _predict(conv: PreciseConv2d, own: Sequence[Parameters], feats: Sequence[Tensor], channels: int) -> list[Tensor]:
    """Convolve each level with its own copy of the parameters, and flatten it."""
    return [flatten_level(conv(x, *parameters), channels) for x, parameters in zip(feats, own, strict=True)]


class Branch(BaseModule):
    """What all branches share: two prediction convolutions, logits of all levels in one tensor, candidate selection.

    Args:
        num_classes: C.
        in_channels: channels of the towers' outputs.
        strides: of the levels, in pixels.
        loss_weight: the branch's lambda in DATE eq. 1; it multiplies every loss of the branch.
        alpha, gamma: of the focal loss.
        test_cfg: ``score_thr``, ``nms_pre`` (per level), ``nms`` (IoU, or None) and ``max_per_img``.
        num_base_priors: priors per cell (1 for points, 9 for RetinaNet's anchors).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        strides: Sequence[int],
        loss_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        test_cfg: dict[str, Any] | None = None,
        num_base_priors: int = 1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = list(strides)
        self.loss_weight = loss_weight
        self.alpha, self.gamma = alpha, gamma
        self.test_cfg = dict(score_thr=0.01, nms_pre=1000, nms=None, max_per_img=100) | dict(test_cfg or {})
        self.conv_cls = PreciseConv2d(in_channels, num_base_priors * num_classes, 3, padding=1)
        self.conv_reg = PreciseConv2d(in_channels, num_base_priors * 4, 3, padding=1)
        self.reg_units: Tensor
        """(L,) the pixels, or other units of the regression maps, by which each level's scale is multiplied."""
        self.register_buffer("reg_units", torch.ones(len(self.strides)), persistent=False)

    def init_weights(self) -> None:
        """Draw the predictors from N(0, 0.01); the class bias makes every initial probability 0.01 (RetinaNet)."""
        for name, conv in self.named_children():
            if isinstance(conv, nn.Conv2d):
                bias = bias_init_with_prob(0.01) if name == "conv_cls" else 0.0
                normal_init(conv, std=0.01, bias=bias)
            elif isinstance(conv, BaseModule):
                conv.init_weights()

    def regress(self, scaled: Tensor) -> Tensor:
        """Turn the scaled regression maps (B, 4, P) into what the branch decodes; the identity unless overridden."""
        return scaled

    def extra_conv(self) -> PreciseConv2d | None:
        """Return the convolution that predicts the branch's third map, or None."""
        return None

    def extra_feats(self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what the third map is predicted from, per level (B, in_channels, H, W)."""
        return cls_feats

    def forward(
        self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor], scales: Sequence[Scale]
    ) -> BranchOutput:
        """Predict from the towers' outputs of all levels, each (B, in_channels, H_l, W_l), finest first."""
        shapes = [(x.shape[-2], x.shape[-1]) for x in cls_feats]
        extra_conv = self.extra_conv()
        convs = [self.conv_cls, self.conv_reg, *([] if extra_conv is None else [extra_conv])]
        of_cls, of_reg, *of_extra = by_level(convs, len(shapes))
        cls = _predict(self.conv_cls, of_cls, cls_feats, self.num_classes)
        reg = _predict(self.conv_reg, of_reg, reg_feats, 4)
        sizes = [x.shape[-1] for x in cls]
        factors = torch.stack([module.scale for module in scales]) * self.reg_units
        factor = torch.cat([f.expand(size) for f, size in zip(factors.unbind(), sizes, strict=True)])
        extra = None
        if extra_conv is not None:
            extra = _predict(extra_conv, of_extra[0], self.extra_feats(cls_feats, reg_feats), 1)
        return BranchOutput(
            cls=torch.cat(cls, dim=-1),
            reg=self.regress(torch.cat(reg, dim=-1) * factor),
            extra=None if extra is None else torch.cat(extra, dim=-1),
            level_shapes=shapes,
            level_sizes=sizes,
        )

    def points(self, output: BranchOutput) -> Points:
        """Return the (x, y) and stride of every feature-map point of the output's levels."""
        return feature_points(output.level_shapes, self.strides, output.reg)

    def loss(self, output: BranchOutput, objects: BatchObjects) -> dict[str, Tensor]:
        """Assign the objects and return the branch's losses, multiplied by its lambda."""
        raise NotImplementedError

    def bboxes(self, output: BranchOutput, image: int, prior_index: Tensor | slice) -> Tensor:
        """Decode some of an image's predictions to (K, 4) xyxy boxes in pixels, unclipped."""
        raise NotImplementedError

    def class_probs(self, output: BranchOutput) -> Tensor:
        """Return (B, C, P) the probabilities that the score threshold judges."""
        return output.cls.sigmoid()

    def score_factors(self, output: BranchOutput) -> Tensor | None:
        """Return (B, P) factors of the final score, applied after the threshold, or None."""
        return None

    def candidates(
        self, output: BranchOutput, img_shapes: Sequence[tuple[int, int]], score_thr: float | None = None
    ) -> list[Candidates]:
        """Select each image's (prior, class) pairs above the score threshold, at most ``nms_pre`` a level.

        Args:
            output: of this branch.
            img_shapes: height and width of each image before padding, to which boxes are clipped.
            score_thr: the threshold, where it is not ``test_cfg``'s.
        """
        threshold = self.test_cfg["score_thr"] if score_thr is None else score_thr
        probs = self.class_probs(output).detach()
        factors = self.score_factors(output)
        result = []
        for image, (height, width) in enumerate(img_shapes):
            scores, labels, priors = self._select(probs[image], output.level_sizes, threshold)
            if factors is not None:
                scores = scores * factors[image].detach()[priors]
            bboxes = self.bboxes(output, image, priors).detach()
            limit = bboxes.new_tensor([width, height, width, height])
            result.append(Candidates(bboxes.clamp(min=0).minimum(limit), scores, labels))
        return result

    def _select(self, probs: Tensor, level_sizes: Sequence[int], threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """Take each level's best of (C, P) probabilities above a threshold: scores, labels and priors, each (K,)."""
        picked, start = [], 0
        for size in level_sizes:
            level = probs[:, start : start + size].t()
            prior, label = (level > threshold).nonzero(as_tuple=True)
            scores, order = level[prior, label].sort(descending=True, stable=True)
            keep = order[: self.test_cfg["nms_pre"]]
            picked.append((scores[: self.test_cfg["nms_pre"]], label[keep], prior[keep] + start))
            start += size
        scores, labels, priors = (torch.cat(parts) for parts in zip(*picked, strict=True))
        return scores, labels, priors


@MODELS.register_module()
class OneToOneBranch(Branch):
    """The branch that is kept at inference: one point per object, no NMS (DATE sec. 3.1, eq. 2).

    A point's box is ``relu(scale * conv) * stride`` as ltrb distances in pixels.

    Args:
        quality: config of the matching quality, e.g. ``dict(type='POTOQuality')``.
        cls_weight, reg_weight, iou_weight: alpha_cls, alpha_reg, alpha_iou of eq. 2 (OneNet's: 2, 5, 2). A
            ``reg_weight`` of 0 leaves the L1 loss out (DeFCN).
        aux_weight: of DeFCN's auxiliary one-to-many loss on the unfiltered class logits; 0 leaves it out.
        min_box_normaliser: least number of positives by which box losses are divided: 0 as DATE, 1 as DeFCN. They
            differ where fewer than one positive falls to a process on average.
        max_filter: adds 3D max filtering (DeFCN); None, or ``dict(norm_cfg=..., eps=None)`` where ``eps`` is
            `product_log_probs`'s.
        kwargs: of `Branch`.
    """

    def __init__(
        self,
        *,
        quality: dict[str, Any],
        cls_weight: float = 2.0,
        reg_weight: float = 5.0,
        iou_weight: float = 2.0,
        aux_weight: float = 0.0,
        min_box_normaliser: float = 0.0,
        max_filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reg_units = torch.tensor(self.strides, dtype=torch.get_default_dtype())
        self.quality = TASK_UTILS.build(quality)
        self.cls_weight, self.reg_weight, self.iou_weight = cls_weight, reg_weight, iou_weight
        self.aux_weight = aux_weight
        self.min_box_normaliser = min_box_normaliser
        self.product_eps: float | None = None
        self.max3d: MaxFilter3D | None = None
        if max_filter is not None:
            channels = self.conv_cls.in_channels
            self.max3d = MaxFilter3D(channels, max_filter["norm_cfg"])
            self.filter = PreciseConv2d(channels, 1, 3, padding=1)
            self.product_eps = max_filter.get("eps")

    def regress(self, scaled: Tensor) -> Tensor:
        """Return non-negative ltrb distances in pixels."""
        return scaled.clamp(min=0)

    def extra_conv(self) -> PreciseConv2d | None:
        """Return the convolution of the filter's logits where there is one."""
        return None if self.max3d is None else self.filter

    def extra_feats(self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the filtered outputs of the regression tower."""
        assert self.max3d is not None
        return self.max3d(reg_feats)

    def log_probs(self, output: BranchOutput) -> tuple[Tensor, Tensor]:
        """Return ``log p`` and ``log(1 - p)`` of the (filtered) class probabilities, each (B, C, P)."""
        if output.extra is None:
            return F.logsigmoid(output.cls), F.logsigmoid(-output.cls)
        return product_log_probs(output.cls, output.extra, self.product_eps)

    def class_probs(self, output: BranchOutput) -> Tensor:
        """Return the (filtered) class probabilities."""
        return output.cls.sigmoid() if output.extra is None else self.log_probs(output)[0].exp()

    def bboxes(self, output: BranchOutput, image: int, prior_index: Tensor | slice) -> Tensor:
        """See `Branch`."""
        return ltrb_to_xyxy(self.points(output).centers[prior_index], output.reg[image].t()[prior_index])

    def all_bboxes(self, output: BranchOutput) -> Tensor:
        """Decode the predictions of all images to (B, 4, P) xyxy boxes in pixels, unclipped and detached."""
        centers, ltrb = self.points(output).centers.t(), output.reg.detach()
        return torch.cat([centers - ltrb[:, :2], centers + ltrb[:, 2:]], dim=1)

    def match(self, output: BranchOutput, objects: BatchObjects) -> list[Tensor]:
        """Return each image's matched points, (G,) indices into the P points (-1: object without a point)."""
        return self._match(self.log_probs(output)[0], output, objects)

    def _match(self, log_probs: Tensor, output: BranchOutput, objects: BatchObjects) -> list[Tensor]:
        points = self.points(output)
        return assign_one_to_one(self.quality, log_probs.detach(), self.all_bboxes(output), points, objects)

    def loss(self, output: BranchOutput, objects: BatchObjects) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_reg`` (L1 on normalised cxcywh) and ``loss_iou`` (GIoU) of eq. 2 times lambda.

        Classification and box losses are divided by the mean number of positives over the processes, the former's at
        least 1, the latter's at least ``min_box_normaliser``. There is no ``loss_reg`` where ``reg_weight`` is 0, and
        a ``loss_aux`` where ``aux_weight`` is not.
        """
        log_probs, log_others = self.log_probs(output)
        points = torch.cat(self._match(log_probs, output, objects))
        image, gt_labels, gt_bboxes = objects.image, objects.labels, objects.bboxes.to(output.reg.dtype)
        if max(objects.counts) > output.cls.shape[-1]:  # only then does an object go without a point
            taken = (points >= 0).nonzero(as_tuple=True)[0]
            points, image, gt_labels, gt_bboxes = points[taken], image[taken], gt_labels[taken], gt_bboxes[taken]
        labels = torch.full_like(output.cls[:, 0], self.num_classes, dtype=torch.long)
        labels[image, points] = gt_labels
        bboxes = ltrb_to_xyxy(self.points(output).centers[points], pick(output.reg.mT, image, points))

        num_pos = reduce_mean(output.reg.new_full((), float(len(points))))
        targets = class_targets(labels, self.num_classes)
        if output.extra is None:
            cls = sigmoid_focal_loss(output.cls, targets, self.alpha, self.gamma)
        else:
            cls = focal_loss_from_log_probs(log_probs, log_others, targets, self.alpha, self.gamma)
        by_boxes = num_pos.clamp(min=self.min_box_normaliser) + NORMALISER_EPS
        losses = {"loss_cls": self.loss_weight * self.cls_weight * cls / (num_pos.clamp(min=1) + NORMALISER_EPS)}
        if self.reg_weight:
            extents = objects.extents[image]
            reg = (xyxy_to_cxcywh(bboxes) / extents - xyxy_to_cxcywh(gt_bboxes) / extents).abs().sum()
            losses["loss_reg"] = self.loss_weight * self.reg_weight * reg / by_boxes
        iou = giou_loss(bboxes, gt_bboxes)
        losses["loss_iou"] = self.loss_weight * self.iou_weight * iou / by_boxes
        if self.aux_weight:
            losses["loss_aux"] = self.loss_weight * self.aux_weight * self._auxiliary_loss(output, objects)
        return losses

    def _auxiliary_loss(self, output: BranchOutput, objects: BatchObjects) -> Tensor:
        """Return the focal loss of the class logits without the filter under `assign_auxiliary` (DeFCN).

        It is divided by its own mean number of positives over the processes, at least 1.
        """
        log_probs, bboxes, points = F.logsigmoid(output.cls.detach()), self.all_bboxes(output), self.points(output)
        labels = objects.labels_of(
            assign_auxiliary(log_probs, bboxes, points, output.level_sizes, objects), self.num_classes
        )
        num_pos = reduce_mean((labels < self.num_classes).sum().to(output.cls.dtype))
        loss = sigmoid_focal_loss(output.cls, class_targets(labels, self.num_classes), self.alpha, self.gamma)
        return loss / (num_pos.clamp(min=1) + NORMALISER_EPS)
