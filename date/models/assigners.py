"""Assignment of objects to points: one-to-one qualities (OneNet, POTO), the one-to-many rules of FCOS and DeFCN.

The objects of all images of a batch are assigned together, as T rows of one matrix over the N points, so that the
number of operations does not depend on the number of images, and nothing waits for a device but the matching itself.
One-to-one qualities are such tensors (T, N), larger is better; each image's rows, transposed, are what
`date.models.matching` maximises, in the memory layout that it reads fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from date.models.geometry import Points, pairwise_giou, pairwise_iou
from date.models.matching import match_batch
from date.models.objects import BatchObjects


class MatchingQuality(Protocol):
    """How good a point's prediction is for an object."""

    def __call__(self, log_probs: Tensor, bboxes: Tensor, points: Points, objects: BatchObjects) -> Tensor:
        """Return the quality (T, N) of every point of an object's image for the object.

        Args:
            log_probs: (B, C, N) log of the class probabilities, detached.
            bboxes: (B, 4, N) predicted xyxy boxes in pixels, detached.
            points: where the predictions were made.
            objects: the batch's T objects.
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

    def __call__(self, log_probs: Tensor, bboxes: Tensor, points: Points, objects: BatchObjects) -> Tensor:
        """See `MatchingQuality`; the result is the negated cost."""
        prob = log_probs[objects.image, objects.labels].exp()  # (T, N)
        eps = 1e-12
        other = 1 - prob
        gain = (prob + eps).log() * self.alpha * other.pow(self.gamma)
        loss = (other + eps).log() * (1 - self.alpha) * prob.pow(self.gamma)
        quality = self.cls_weight * (gain - loss)

        gt_bboxes = objects.bboxes.to(bboxes.dtype)
        gt = _normalised_cxcywh(gt_bboxes[:, :, None], objects.extents[objects.image])
        pred = _normalised_cxcywh(bboxes, objects.extents)[objects.image]
        for term in pred.sub_(gt).abs_().mul_(self.reg_weight).unbind(1):  # in place: (T, 4, N) is large
            quality -= term
        quality += self.iou_weight * pairwise_giou(gt_bboxes, bboxes[objects.image])
        return quality


def _normalised_cxcywh(bboxes: Tensor, extents: Tensor) -> Tensor:
    """Return cxcywh (M, 4, N) of boxes (M, 4, N) xyxy over the images' extents (M, 4)."""
    near, far = bboxes[:, :2], bboxes[:, 2:]
    return torch.cat([(near + far) / 2, far - near], dim=1) / extents[:, :, None]


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

    def __call__(self, log_probs: Tensor, bboxes: Tensor, points: Points, objects: BatchObjects) -> Tensor:
        """See `MatchingQuality`."""
        quality = _class_times_iou(log_probs, bboxes, objects, self.alpha)
        admissible = points_near_centers(points, objects.bboxes.to(bboxes.dtype), self.center_radius)
        return torch.where(admissible, quality, self.outside)


def _class_times_iou(log_probs: Tensor, bboxes: Tensor, objects: BatchObjects, alpha: float) -> Tensor:
    """Return ``p^(1-alpha) * IoU^alpha``, (T, N), of every point's prediction for every object, wherever the point."""
    iou, _ = pairwise_iou(objects.bboxes.to(bboxes.dtype), bboxes[objects.image])
    return (log_probs[objects.image, objects.labels] * (1 - alpha)).exp() * iou.pow(alpha)


def points_near_centers(points: Points, gt_bboxes: Tensor, radius: float) -> Tensor:
    """Return bool (T, N): the point is strictly inside the box and, for radius > 0, within ``radius`` strides of its
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
    quality: MatchingQuality, log_probs: Tensor, bboxes: Tensor, points: Points, objects: BatchObjects
) -> list[Tensor]:
    """Match every object of the batch to one point: maximum total quality, at most one object a point.

    Args:
        quality: the measure, e.g. `POTOQuality`.
        log_probs: (B, C, N) log class probabilities.
        bboxes: (B, 4, N) predicted xyxy boxes in pixels.
        points: the N points.
        objects: the batch's T objects.

    Returns:
        Per image a LongTensor (G,): the matched point of each object, -1 where there are more objects than points.
    """
    qualities = quality(log_probs, bboxes, points, objects).split(objects.counts)
    return match_batch([by_object.t() for by_object in qualities])


@torch.no_grad()
def assign_fcos(points: Points, regress_ranges: Tensor, objects: BatchObjects) -> Tensor:
    """Assign by FCOS's one-to-many rule without centre sampling (FCOS sec. 3.2).

    A point is a positive of an object if it lies strictly inside the box and its largest ltrb distance falls in its
    level's range (ends included); of several such objects it takes the one of the smallest area, the first of equals.

    Args:
        points: the N points.
        regress_ranges: (2, N) lower and upper end of each point's range in pixels.
        objects: the batch's T objects.

    Returns:
        (B, N) the object that each point of each image takes, an index in [0, T), or T: background.
    """
    centers = points.centers.t()
    gt_near, gt_far = objects.bboxes.to(centers.dtype)[:, :, None].chunk(2, dim=1)  # (T, 2, 1) each
    width, height = (gt_far - gt_near).unbind(1)
    areas = (width * height).flatten()
    ranks = areas.argsort(stable=True)  # the smallest first, so that the least row is the smallest object's
    left_top, right_bottom = centers - gt_near, gt_far - centers
    reach = torch.maximum(*torch.maximum(left_top, right_bottom).unbind(1))
    nearest = torch.minimum(*torch.minimum(left_top, right_bottom).unbind(1))
    positive = (nearest > 0) & (reach >= regress_ranges[0]) & (reach <= regress_ranges[1])
    rank = _least_row(positive[ranks], objects.image[ranks], len(objects.counts))
    return torch.cat([ranks, ranks.new_full((1,), len(areas))])[rank]


def _least_row(chosen: Tensor, image: Tensor, images: int) -> Tensor:
    """Return (B, N) the least of the rows of each image, among T, that a bool (T, N) has chosen; T where none is."""
    rows = len(chosen)
    index = torch.where(chosen, torch.arange(rows, device=chosen.device)[:, None], rows)
    least = index.new_full((images, chosen.shape[1]), rows)
    return least.scatter_reduce_(0, image[:, None].expand_as(index), index, "amin")


def _greatest_value(values: Tensor, image: Tensor, images: int, otherwise: float) -> Tensor:
    """Return (B, N) the greatest of the values (T, N) of the rows of each image, and of ``otherwise``."""
    greatest = values.new_full((images, values.shape[1]), otherwise)
    return greatest.scatter_reduce_(0, image[:, None].expand_as(values), values, "amax")


@torch.no_grad()
def assign_auxiliary(
    log_probs: Tensor,
    bboxes: Tensor,
    points: Points,
    level_sizes: Sequence[int],
    objects: BatchObjects,
    alpha: float = 0.8,
    top: int = 9,
) -> Tensor:
    """Assign by DeFCN's one-to-many rule for its auxiliary loss, like ATSS's but by predictions (official code).

    An object's candidates are the ``top`` points of each level by POTO's quality ``p^(1-alpha) * IoU^alpha`` without
    the centre region, equal ones by index. Positive are those candidates strictly inside the box whose quality reaches
    mean + standard deviation (unbiased) of all candidates' qualities. A point that several objects claim takes the one
    of the highest quality, the first of equals.

    Args:
        log_probs: (B, C, N) log of the class probabilities before any filter.
        bboxes: (B, 4, N) predicted xyxy boxes in pixels.
        points: the N points.
        level_sizes: number of points of each level; they sum to N. A level of fewer than ``top`` is all candidates.
        objects: the batch's T objects.
        alpha: exponent of the IoU.
        top: candidates per level and object.

    Returns:
        (B, N) the object that each point of each image takes, an index in [0, T), or T: background.
    """
    if not len(objects.labels):
        return objects.labels.new_zeros((len(bboxes), len(points.centers)))
    quality = _class_times_iou(log_probs, bboxes, objects, alpha)  # (T, N)
    levels = [_best(level, min(top, level.shape[1])) for level in quality.split(list(level_sizes), dim=1)]
    best = torch.cat([values for values, _ in levels], dim=1)
    candidate = torch.cat([mask for _, mask in levels], dim=1)
    threshold = best.mean(dim=1, keepdim=True) + best.std(dim=1, keepdim=True)
    inside = points_near_centers(points, objects.bboxes.to(bboxes.dtype), 0)
    claimed = torch.where(candidate & (quality >= threshold) & inside, quality, -1.0)
    highest = _greatest_value(claimed, objects.image, len(objects.counts), -1.0)
    return _least_row((claimed >= 0) & (claimed == highest[objects.image]), objects.image, len(objects.counts))


def _best(quality: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's ``count`` largest values, (T, count) in order, and their places as a bool mask (T, N).

    ``topk`` leaves open which of equal values it takes; here it is those of the lowest index.
    """
    values = quality.topk(count, dim=1).values
    last = values[:, -1:]
    above, equal = quality > last, quality == last
    return values, above | (equal & (equal.cumsum(dim=1) <= count - above.sum(dim=1, keepdim=True)))


@torch.no_grad()
def assign_max_iou(
    anchors: Tensor,
    valid: Tensor,
    objects: BatchObjects,
    pos_iou_thr: float = 0.5,
    neg_iou_thr: float = 0.4,
    min_pos_iou: float = 0.0,
) -> Tensor:
    """Assign by RetinaNet's one-to-many rule, as MMDetection's `MaxIoUAssigner` has it (RetinaNet sec. 4.1).

    An anchor takes the object of its highest IoU, the first of equals, where that IoU reaches ``pos_iou_thr``; below
    ``neg_iou_thr`` it is background, between them it is ignored. Besides, every object takes all anchors that have the
    highest IoU with it, if that reaches ``min_pos_iou``; the last of several objects that claim an anchor so gets it.

    Args:
        anchors: (P, 4) xyxy in pixels.
        valid: (B, P) or (1, P): the anchor's cell lies in the image padded by itself; others are ignored.
        objects: the batch's T objects.
        pos_iou_thr: least IoU of a positive.
        neg_iou_thr: IoU from which on an anchor is not background.
        min_pos_iou: least IoU of an object's best anchors.

    Returns:
        (B, P) the object that each anchor takes, an index in [0, T), or T: background, or -1: ignored.
    """
    images, rows = len(objects.counts), len(objects.labels)
    iou, _ = pairwise_iou(objects.bboxes, anchors.t())  # (T, P), in the wider of their precisions
    iou = torch.where(valid.expand(images, -1)[objects.image], iou, -1.0)
    highest = _greatest_value(iou, objects.image, images, 0.0)  # an image without objects: all background
    first = _least_row(iou == highest[objects.image], objects.image, images)
    taken = torch.where(highest < neg_iou_thr, rows, -1)
    taken = torch.where(highest >= pos_iou_thr, first, taken)
    # Empty images are none of the rows; where there are no rows at all, amax has nothing to reduce.
    best = iou.amax(dim=1, keepdim=True) if rows else iou[:, :1]
    claims = (iou == best) & (best >= min_pos_iou)
    index = torch.where(claims, torch.arange(rows, device=iou.device)[:, None], -1)
    last = _greatest_value(index, objects.image, images, -1)
    return torch.where(valid, torch.where(last >= 0, last, taken), -1)
