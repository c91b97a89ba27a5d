"""Assignment of objects to points: one-to-one qualities (OneNet, POTO), the one-to-many rules of FCOS and DeFCN.

One-to-one qualities are tensors (N points, G objects), larger is better, that `date.models.matching` maximises. They
are stored object by object (the transpose of a contiguous (G, N) tensor), which is how the predictions lie in memory
and what the matcher reads fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps, bbox_xyxy_to_cxcywh
from torch import Tensor

from date.models.matching import match_batch


class ImageObjects(NamedTuple):
    """The annotated objects of one image, on the device of the predictions."""

    bboxes: Tensor
    """(G, 4) xyxy in pixels of the network's input."""
    labels: Tensor
    """(G,) class indices."""
    img_shape: tuple[int, int]
    """Height and width of the image before padding."""
    pad_shape: tuple[int, int]
    """Height and width of the image padded by itself; a batch may be larger."""


class Points(NamedTuple):
    """The N feature-map points of all levels, concatenated from the finest level to the coarsest."""

    centers: Tensor
    """(N, 2) x, y in pixels of the network's input: (index + 0.5) * stride."""
    strides: Tensor
    """(N,) stride of each point's level."""


class MatchingQuality(Protocol):
    """How good a point's prediction is for an object."""

    def __call__(self, log_probs: Tensor, bboxes: Tensor, points: Points, objects: ImageObjects) -> Tensor:
        """Return the quality (N, G) of every point for every object.

        Args:
            log_probs: (C, N) log of the class probabilities, detached.
            bboxes: (N, 4) predicted xyxy boxes in pixels, detached.
            points: where the predictions were made.
            objects: the image's objects.
        """
        ...


@TASK_UTILS.register_module()
class OneNetQuality:
    """OneNet's (and DETR's) minimum cost, negated: class + L1 + GIoU terms with no spatial prior.

    The class term is the focal cost ``alpha (1-p)^gamma (-log p) - (1-alpha) p^gamma (-log(1-p))``; L1 is the sum over
    cxcywh normalised by the un-padded image size, as the official DATE code has it (OneNet's own: xyxy); the GIoU term
    is ``-GIoU``. Weights 2, 5, 2 (OneNet sec. 3; DETR).
    """

    def __init__(
        self,
        cls_weight: float = 2.0,
        reg_weight: float = 5.0,
        iou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        self.cls_weight, self.reg_weight, self.iou_weight = cls_weight, reg_weight, iou_weight
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, log_probs: Tensor, bboxes: Tensor, points: Points, objects: ImageObjects) -> Tensor:
        """See `MatchingQuality`; the result is the negated cost."""
        prob = log_probs[objects.labels].exp()  # (G, N)
        eps = 1e-12
        positive = -(prob + eps).log() * self.alpha * (1 - prob).pow(self.gamma)
        negative = -(1 - prob + eps).log() * (1 - self.alpha) * prob.pow(self.gamma)
        cost = self.cls_weight * (positive - negative)

        height, width = objects.img_shape
        size = bboxes.new_tensor([width, height, width, height])
        gt = bbox_xyxy_to_cxcywh(objects.bboxes.to(bboxes.dtype)) / size
        pred = bbox_xyxy_to_cxcywh(bboxes) / size
        for k in range(4):  # one (G, N) term at a time instead of a (G, N, 4) difference
            cost += self.reg_weight * (gt[:, k, None] - pred[None, :, k]).abs()

        cost -= self.iou_weight * bbox_overlaps(objects.bboxes.to(bboxes.dtype), bboxes, mode="giou")
        return -cost.t()


@TASK_UTILS.register_module()
class POTOQuality:
    """POTO (DeFCN eq. 5): ``p^(1-alpha) * IoU^alpha`` for points near the object's centre.

    A point is admissible if it lies strictly inside the object's box and within ``center_radius`` strides of its centre
    (the stride of the point's own level; every level competes). The IoU is plain, as in the official DATE code, whose
    ``iou_type='giou'`` setting has no effect.

    Args:
        alpha: exponent of the IoU.
        center_radius: half the side of the admissible square, in strides; 0 admits the whole box.
        outside: quality of points that are not admissible: 0 as DATE, or -1 as DeFCN. They differ for an object of
            which no admissible point has a positive quality: with 0 any point of the image may be matched, with -1 an
            admissible one is preferred.
    """

    def __init__(self, alpha: float = 0.8, center_radius: float = 1.5, outside: float = 0.0) -> None:
        self.alpha, self.center_radius, self.outside = alpha, center_radius, outside

    def __call__(self, log_probs: Tensor, bboxes: Tensor, points: Points, objects: ImageObjects) -> Tensor:
        """See `MatchingQuality`."""
        gt_bboxes = objects.bboxes.to(bboxes.dtype)
        quality = _class_times_iou(log_probs, bboxes, objects.labels, gt_bboxes, self.alpha)
        admissible = points_near_centers(points, gt_bboxes, self.center_radius)
        return torch.where(admissible, quality, self.outside).t()


def _class_times_iou(log_probs: Tensor, bboxes: Tensor, labels: Tensor, gt_bboxes: Tensor, alpha: float) -> Tensor:
    """Return ``p^(1-alpha) * IoU^alpha``, (G, N), of every point's prediction for every object, wherever the point."""
    iou = bbox_overlaps(gt_bboxes, bboxes)
    return (log_probs[labels] * (1 - alpha)).exp() * iou.pow(alpha)


def points_near_centers(points: Points, gt_bboxes: Tensor, radius: float) -> Tensor:
    """Return bool (G, N): the point is strictly inside the box and, for radius > 0, within ``radius`` strides of its
    centre.
    """
    x, y = points.centers.unbind(-1)
    x1, y1, x2, y2 = gt_bboxes[:, :, None].unbind(1)
    if radius > 0:
        reach = radius * points.strides
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        x1, x2 = torch.maximum(x1, cx - reach), torch.minimum(x2, cx + reach)
        y1, y2 = torch.maximum(y1, cy - reach), torch.minimum(y2, cy + reach)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


@torch.no_grad()
def assign_one_to_one(
    quality: MatchingQuality,
    log_probs: Tensor,
    bboxes: Tensor,
    points: Points,
    batch_objects: Sequence[ImageObjects],
) -> list[Tensor]:
    """Match every object of the batch to one point: maximum total quality, at most one object a point.

    Args:
        quality: the measure, e.g. `POTOQuality`.
        log_probs: (B, C, N) log class probabilities.
        bboxes: (B, N, 4) predicted xyxy boxes in pixels.
        points: the N points.
        batch_objects: B images' objects.

    Returns:
        Per image a LongTensor (G,): the matched point of each object, -1 where there are more objects than points.
    """
    qualities = [quality(log_probs[i], bboxes[i], points, objects) for i, objects in enumerate(batch_objects)]
    return match_batch(qualities)


@torch.no_grad()
def assign_fcos(
    points: Points, regress_ranges: Tensor, objects: ImageObjects, num_classes: int
) -> tuple[Tensor, Tensor]:
    """FCOS's one-to-many rule without centre sampling (FCOS sec. 3.2).

    A point is a positive of an object if it lies strictly inside the box and its largest ltrb distance falls in its
    level's range (ends included); of several such objects it takes the one of the smallest area.

    Args:
        points: the N points.
        regress_ranges: (N, 2) lower and upper end of each point's range in pixels.
        objects: the image's objects.
        num_classes: C, the label that means background.

    Returns:
        labels (N,) in [0, C] and ltrb targets (N, 4) in pixels, meaningful where the label is not C.
    """
    num_points = len(points.centers)
    if len(objects.labels) == 0:
        background = objects.labels.new_full((num_points,), num_classes)
        return background, points.centers.new_zeros((num_points, 4))
    gt_bboxes = objects.bboxes.to(points.centers.dtype)
    x, y = points.centers[:, None].unbind(-1)
    x1, y1, x2, y2 = gt_bboxes.unbind(-1)
    ltrb = torch.stack([x - x1, y - y1, x2 - x, y2 - y], dim=-1)  # (N, G, 4)
    reach = ltrb.amax(-1)
    positive = (ltrb.amin(-1) > 0) & (reach >= regress_ranges[:, :1]) & (reach <= regress_ranges[:, 1:])
    areas = ((x2 - x1) * (y2 - y1)).expand(num_points, -1)
    smallest, index = torch.where(positive, areas, torch.inf).min(dim=1)
    labels = torch.where(smallest.isfinite(), objects.labels[index], num_classes)
    return labels, ltrb[torch.arange(num_points, device=index.device), index]


@torch.no_grad()
def assign_auxiliary(
    log_probs: Tensor,
    bboxes: Tensor,
    points: Points,
    level_sizes: Sequence[int],
    objects: ImageObjects,
    num_classes: int,
    alpha: float = 0.8,
    top: int = 9,
) -> Tensor:
    """DeFCN's one-to-many rule for its auxiliary loss, akin to ATSS's but by predictions (official DeFCN code).

    An object's candidates are the ``top`` points of each level by POTO's quality ``p^(1-alpha) * IoU^alpha`` without
    the centre region, equal ones by index. Positive are those candidates strictly inside the box whose quality reaches
    mean + standard deviation (unbiased) of all candidates' qualities. A point that several objects claim takes the one
    of the highest quality, the first of equals.

    Args:
        log_probs: (C, N) log of the class probabilities before any filter.
        bboxes: (N, 4) predicted xyxy boxes in pixels.
        points: the N points.
        level_sizes: number of points of each level; they sum to N. A level of fewer than ``top`` is all candidates.
        objects: the image's objects.
        num_classes: C, the label that means background.
        alpha: exponent of the IoU.
        top: candidates per level and object.

    Returns:
        labels (N,) in [0, C].
    """
    if len(objects.labels) == 0:
        return objects.labels.new_full((len(points.centers),), num_classes)
    gt_bboxes = objects.bboxes.to(bboxes.dtype)
    quality = _class_times_iou(log_probs, bboxes, objects.labels, gt_bboxes, alpha)  # (G, N)
    levels = [_best(level, min(top, level.shape[1])) for level in quality.split(list(level_sizes), dim=1)]
    best = torch.cat([values for values, _ in levels], dim=1)
    candidate = torch.cat([mask for _, mask in levels], dim=1)
    threshold = best.mean(dim=1, keepdim=True) + best.std(dim=1, keepdim=True)
    positive = candidate & (quality >= threshold) & points_near_centers(points, gt_bboxes, 0)
    highest, index = torch.where(positive, quality, -1.0).max(dim=0)
    return torch.where(highest >= 0, objects.labels[index], num_classes)


def _best(quality: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's ``count`` largest values, (G, count) in order, and their places as a bool mask (G, N).

    ``topk`` leaves open which of equal values it takes; here it is those of the lowest index.
    """
    values = quality.topk(count, dim=1).values
    last = values[:, -1:]
    above, equal = quality > last, quality == last
    return values, above | (equal & (equal.cumsum(dim=1) <= count - above.sum(dim=1, keepdim=True)))
