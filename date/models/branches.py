"""Prediction branches on shared features: one-to-one (kept at inference), FCOS- and RetinaNet-style one-to-many.

A branch owns its prediction convolutions, its assignment, its losses and its decoding; towers and the per-level scales
belong to the head and are shared (DATE fig. 2). Parameter names are those of the official DATE code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh, distance2bbox
from mmengine.model import BaseModule, bias_init_with_prob, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from date.models.assigners import ImageObjects, Points, assign_auxiliary, assign_fcos, assign_one_to_one
from date.models.filtering import MaxFilter3D, product_log_probs
from date.models.losses import (
    NORMALISER_EPS,
    centerness_target,
    focal_loss_from_log_probs,
    giou_loss,
    log_iou_loss,
    one_hot_targets,
    sigmoid_focal_loss,
)
from date.models.normalisers import reduce_mean


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


def full_precision(x: Tensor) -> Tensor:
    """Return a half-precision tensor (autocast) in float32 and any other as it is: losses and boxes need the bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def flatten_level(x: Tensor, channels: int) -> Tensor:
    """Turn (B, A*channels, H, W) into (B, channels, H*W*A), the order of MMDetection's priors (A per cell, last)."""
    batch, _, height, width = x.shape
    return x.view(batch, -1, channels, height * width).permute(0, 2, 3, 1).reshape(batch, channels, -1)


def anchor_deltas(anchors: Tensor, gt_bboxes: Tensor) -> Tensor:
    """Return RetinaNet's regression targets (K, 4): shift of the centre over the size, log of the sizes' ratio.

    What MMDetection's `DeltaXYWHBBoxCoder` computes with means 0 and deviations 1, in the boxes' own precision.

    Args:
        anchors: (K, 4) xyxy in pixels.
        gt_bboxes: (K, 4) xyxy of the objects that they take.
    """
    anchor, gt = bbox_xyxy_to_cxcywh(anchors.to(gt_bboxes.dtype)), bbox_xyxy_to_cxcywh(gt_bboxes)
    return torch.cat([(gt[:, :2] - anchor[:, :2]) / anchor[:, 2:], (gt[:, 2:] / anchor[:, 2:]).log()], dim=-1)


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
        self.conv_cls = nn.Conv2d(in_channels, num_base_priors * num_classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(in_channels, num_base_priors * 4, 3, padding=1)

    def init_weights(self) -> None:
        """Draw the predictors from N(0, 0.01); the class bias makes every initial probability 0.01 (RetinaNet)."""
        for name, conv in self.named_children():
            if isinstance(conv, nn.Conv2d):
                bias = bias_init_with_prob(0.01) if name == "conv_cls" else 0.0
                normal_init(conv, std=0.01, bias=bias)
            elif isinstance(conv, BaseModule):
                conv.init_weights()

    def regress(self, scaled: Tensor, stride: int) -> Tensor:
        """Turn a level's scaled regression map into what the branch decodes; the identity unless overridden."""
        return scaled

    def extra_levels(self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the branch's third map per level, each (B, 1, H, W), or None."""
        return None

    def forward(
        self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor], scales: Sequence[nn.Module]
    ) -> BranchOutput:
        """Predict from the towers' outputs of all levels, each (B, in_channels, H_l, W_l), finest first."""
        cls = [flatten_level(full_precision(self.conv_cls(x)), self.num_classes) for x in cls_feats]
        reg = [
            flatten_level(self.regress(scale(full_precision(self.conv_reg(x))), stride), 4)
            for x, scale, stride in zip(reg_feats, scales, self.strides, strict=True)
        ]
        extra = self.extra_levels(cls_feats, reg_feats)
        return BranchOutput(
            cls=torch.cat(cls, dim=-1),
            reg=torch.cat(reg, dim=-1),
            extra=None if extra is None else torch.cat([flatten_level(full_precision(x), 1) for x in extra], dim=-1),
            level_shapes=[(x.shape[-2], x.shape[-1]) for x in cls_feats],
            level_sizes=[x.shape[-1] for x in cls],
        )

    def points(self, output: BranchOutput) -> Points:
        """Return the (x, y) and stride of every feature-map point of the output's levels."""
        like = output.reg
        centers, strides = [], []
        for (height, width), stride in zip(output.level_shapes, self.strides, strict=True):
            y, x = torch.meshgrid(
                (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) * stride,
                (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) * stride,
                indexing="ij",
            )
            centers.append(torch.stack([x, y], dim=-1).view(-1, 2))
            strides.append(like.new_full((height * width,), stride))
        return Points(torch.cat(centers), torch.cat(strides))

    def loss(self, output: BranchOutput, batch_objects: Sequence[ImageObjects]) -> dict[str, Tensor]:
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
        """Threshold and top-k per level on (C, P) probabilities; return scores, labels and prior indices, each (K,)."""
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
        self.quality = TASK_UTILS.build(quality)
        self.cls_weight, self.reg_weight, self.iou_weight = cls_weight, reg_weight, iou_weight
        self.aux_weight = aux_weight
        self.min_box_normaliser = min_box_normaliser
        self.product_eps: float | None = None
        self.max3d: MaxFilter3D | None = None
        if max_filter is not None:
            channels = self.conv_cls.in_channels
            self.max3d = MaxFilter3D(channels, max_filter["norm_cfg"])
            self.filter = nn.Conv2d(channels, 1, 3, padding=1)
            self.product_eps = max_filter.get("eps")

    def regress(self, scaled: Tensor, stride: int) -> Tensor:
        """Return non-negative ltrb distances in pixels."""
        return scaled.clamp(min=0) * stride

    def extra_levels(self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the filter's logits where there is one."""
        if self.max3d is None:
            return None
        return [self.filter(x) for x in self.max3d(reg_feats)]

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
        return distance2bbox(self.points(output).centers[prior_index], output.reg[image].t()[prior_index])

    def all_bboxes(self, output: BranchOutput) -> Tensor:
        """Decode the predictions of all images to (B, P, 4) xyxy boxes in pixels, unclipped and detached."""
        return distance2bbox(self.points(output).centers.expand(len(output.reg), -1, -1), output.reg.detach().mT)

    def match(self, output: BranchOutput, batch_objects: Sequence[ImageObjects]) -> list[Tensor]:
        """Return each image's matched points, (G,) indices into the P points (-1: object without a point)."""
        log_probs = self.log_probs(output)[0].detach()
        return assign_one_to_one(self.quality, log_probs, self.all_bboxes(output), self.points(output), batch_objects)

    def loss(self, output: BranchOutput, batch_objects: Sequence[ImageObjects]) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_reg`` (L1 on normalised cxcywh) and ``loss_iou`` (GIoU) of eq. 2 times lambda.

        Classification and box losses are divided by the mean number of positives over the processes, the former's at
        least 1, the latter's at least ``min_box_normaliser``. There is no ``loss_reg`` where ``reg_weight`` is 0, and
        a ``loss_aux`` where ``aux_weight`` is not.
        """
        labels = output.cls.new_full((output.cls.shape[0], output.cls.shape[-1]), self.num_classes, dtype=torch.long)
        pred, target, size = [], [], []
        for i, (matched, objects) in enumerate(zip(self.match(output, batch_objects), batch_objects, strict=True)):
            objects_matched = (matched >= 0).nonzero(as_tuple=True)[0]
            points_matched = matched[objects_matched]
            labels[i, points_matched] = objects.labels[objects_matched]
            pred.append(self.bboxes(output, i, points_matched))
            target.append(objects.bboxes[objects_matched].to(output.reg.dtype))
            height, width = objects.img_shape
            size.append(output.reg.new_tensor([width, height, width, height]).expand(len(points_matched), 4))
        pred_bboxes, target_bboxes, scale = torch.cat(pred), torch.cat(target), torch.cat(size)

        num_pos = reduce_mean(output.reg.new_tensor(float(len(pred_bboxes))))
        targets = one_hot_targets(labels, self.num_classes).mT
        if output.extra is None:
            cls = sigmoid_focal_loss(output.cls, targets, self.alpha, self.gamma)
        else:
            cls = focal_loss_from_log_probs(*self.log_probs(output), targets, self.alpha, self.gamma)
        iou = giou_loss(pred_bboxes, target_bboxes)
        num_boxes = num_pos.clamp(min=self.min_box_normaliser)
        losses = {"loss_cls": self.loss_weight * self.cls_weight * cls / (num_pos.clamp(min=1) + NORMALISER_EPS)}
        if self.reg_weight:
            reg = (bbox_xyxy_to_cxcywh(pred_bboxes) / scale - bbox_xyxy_to_cxcywh(target_bboxes) / scale).abs().sum()
            losses["loss_reg"] = self.loss_weight * self.reg_weight * reg / (num_boxes + NORMALISER_EPS)
        losses["loss_iou"] = self.loss_weight * self.iou_weight * iou / (num_boxes + NORMALISER_EPS)
        if self.aux_weight:
            losses["loss_aux"] = self.loss_weight * self.aux_weight * self._auxiliary_loss(output, batch_objects)
        return losses

    def _auxiliary_loss(self, output: BranchOutput, batch_objects: Sequence[ImageObjects]) -> Tensor:
        """Return the focal loss of the class logits without the filter under `assign_auxiliary` (DeFCN).

        It is divided by its own mean number of positives over the processes, at least 1.
        """
        log_probs, bboxes, points = F.logsigmoid(output.cls.detach()), self.all_bboxes(output), self.points(output)
        labels = torch.stack(
            [
                assign_auxiliary(log_probs[i], bboxes[i], points, output.level_sizes, objects, self.num_classes)
                for i, objects in enumerate(batch_objects)
            ]
        )
        num_pos = reduce_mean((labels < self.num_classes).sum().to(output.cls.dtype))
        targets = one_hot_targets(labels, self.num_classes).mT
        loss = sigmoid_focal_loss(output.cls, targets, self.alpha, self.gamma)
        return loss / (num_pos.clamp(min=1) + NORMALISER_EPS)


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
        self.regress_ranges = [tuple(pair) for pair in regress_ranges]
        self.conv_ctr = nn.Conv2d(self.conv_cls.in_channels, 1, 3, padding=1)

    def regress(self, scaled: Tensor, stride: int) -> Tensor:
        """Return positive ltrb distances in pixels."""
        return scaled.exp()

    def extra_levels(self, cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the centre-ness logits."""
        return [self.conv_ctr(x) for x in cls_feats]

    def bboxes(self, output: BranchOutput, image: int, prior_index: Tensor | slice) -> Tensor:
        """See `Branch`."""
        return distance2bbox(self.points(output).centers[prior_index], output.reg[image].t()[prior_index])

    def score_factors(self, output: BranchOutput) -> Tensor | None:
        """Return the centre-ness; the threshold judges the class probability alone, as MMDetection's FCOS."""
        assert output.extra is not None
        return output.extra[:, 0].sigmoid()

    def loss(self, output: BranchOutput, batch_objects: Sequence[ImageObjects]) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_iou`` and ``loss_ctr``, times lambda.

        Normalisers, each a mean over the processes: number of positives, at least 1 (class, centre-ness); sum of the
        centre-ness targets, at least 1e-6 (box).
        """
        assert output.extra is not None
        points = self.points(output)
        ranges = torch.cat(
            [
                points.centers.new_tensor(pair).expand(size, 2)
                for pair, size in zip(self.regress_ranges, output.level_sizes, strict=True)
            ]
        )
        assigned = [assign_fcos(points, ranges, objects, self.num_classes) for objects in batch_objects]
        labels = torch.stack([label for label, _ in assigned])
        image, point = (labels < self.num_classes).nonzero(as_tuple=True)
        target_ltrb = torch.stack([ltrb for _, ltrb in assigned])[image, point]
        centers = points.centers[point]
        ctr_target = centerness_target(target_ltrb)
        num_pos = reduce_mean(ctr_target.new_tensor(float(len(point)))).clamp(min=1)
        ctr_sum = reduce_mean(ctr_target.sum()).clamp(min=1e-6)

        cls = sigmoid_focal_loss(output.cls, one_hot_targets(labels, self.num_classes).mT, self.alpha, self.gamma)
        pred_ltrb = output.reg.mT[image, point]
        iou = log_iou_loss(distance2bbox(centers, pred_ltrb), distance2bbox(centers, target_ltrb), ctr_target)
        ctr = F.binary_cross_entropy_with_logits(output.extra[:, 0][image, point], ctr_target, reduction="sum")
        return {
            "loss_cls": self.loss_weight * cls / (num_pos + NORMALISER_EPS),
            "loss_iou": self.loss_weight * iou / (ctr_sum + NORMALISER_EPS),
            "loss_ctr": self.loss_weight * ctr / (num_pos + NORMALISER_EPS),
        }


@MODELS.register_module()
class RetinaBranch(Branch):
    """RetinaNet-style one-to-many branch: 9 anchors a cell, class and box deltas; discarded after training.

    The deltas are multiplied by the head's shared scale of the level, as every regression map (official DATE code).

    Args:
        anchor_generator, assigner, bbox_coder: configs of MMDetection's `AnchorGenerator`, `MaxIoUAssigner` and
            `DeltaXYWHBBoxCoder` (means 0, deviations 1).
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
        """Return the (P, 4) xyxy anchors of all levels in pixels.

        Always in float32, as MMDetection's: rounding decides which of several equally good anchors an object takes.
        """
        return torch.cat(self.prior_generator.grid_priors(output.level_shapes, device=output.reg.device))

    def bboxes(self, output: BranchOutput, image: int, prior_index: Tensor | slice) -> Tensor:
        """See `Branch`."""
        return self.bbox_coder.decode(self.anchors(output)[prior_index], output.reg[image].t()[prior_index])

    def assign(self, output: BranchOutput, anchors: Tensor, objects: ImageObjects) -> tuple[Tensor, Tensor]:
        """Return an image's (P,) labels (C: background, -1: ignored) and the (P,) index of each anchor's object."""
        valid = torch.cat(self.prior_generator.valid_flags(output.level_shapes, objects.pad_shape, anchors.device))
        gt_instances = InstanceData(bboxes=objects.bboxes, labels=objects.labels)
        gt_inds = self.assigner.assign(InstanceData(priors=anchors[valid]), gt_instances).gt_inds
        labels = objects.labels.new_full((len(anchors),), -1)
        index = torch.zeros_like(labels)
        index[valid] = (gt_inds - 1).clamp(min=0)
        inside = torch.where(gt_inds == 0, self.num_classes, -1)
        positive = gt_inds > 0
        inside[positive] = objects.labels[gt_inds[positive] - 1]
        labels[valid] = inside
        return labels, index

    def loss(self, output: BranchOutput, batch_objects: Sequence[ImageObjects]) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_reg`` (L1 on the deltas), times lambda; see ``reduce_normaliser``."""
        anchors = self.anchors(output)
        assigned = [self.assign(output, anchors, objects) for objects in batch_objects]
        labels = torch.stack([label for label, _ in assigned])
        positive = (labels >= 0) & (labels < self.num_classes)
        num_pos = positive.sum(-1).clamp(min=1).sum().to(output.reg.dtype)
        num_pos = reduce_mean(num_pos, self.reduce_normaliser)

        judged = (labels >= 0).unsqueeze(1)  # ignored anchors: a logit of -inf would be exact but has no gradient path
        logits = torch.where(judged, output.cls, output.cls.new_tensor(-1e4))
        cls = sigmoid_focal_loss(logits, one_hot_targets(labels, self.num_classes).mT, self.alpha, self.gamma)
        target, pred = [], []
        for i, objects in enumerate(batch_objects):
            prior = positive[i].nonzero(as_tuple=True)[0]
            gt_bboxes = objects.bboxes[assigned[i][1][prior]]
            target.append(anchor_deltas(anchors[prior], gt_bboxes))
            pred.append(output.reg[i].t()[prior])
        reg = (torch.cat(pred) - torch.cat(target)).abs().sum()
        return {
            "loss_cls": self.loss_weight * cls / (num_pos + NORMALISER_EPS),
            "loss_reg": self.loss_weight * reg / (num_pos + NORMALISER_EPS),
        }
