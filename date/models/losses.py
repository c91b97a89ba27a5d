"""Losses of the one-to-one and one-to-many branches, as unreduced sums; the branches divide them by their normalisers.

Every function returns the *sum* over its samples, because each branch of the paper uses another normaliser
(number of positives, sum of centre-ness targets, number of anchors) and one sum serves all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from date.models.geometry import ShapeCache, aligned_giou, aligned_iou, constant

# What MMDetection adds to every normaliser (float32 machine epsilon), so that no positives give 0 and not NaN.
NORMALISER_EPS = torch.finfo(torch.float32).eps

_classes = ShapeCache()


def class_targets(labels: Tensor, num_classes: int) -> Tensor:
    """Return bool (B, C, N) targets for (B, N) labels; those outside of [0, C), e.g. C of background, have none."""
    key = (num_classes, labels.device)
    return labels.unsqueeze(1) == _classes.get(key, lambda: torch.arange(num_classes, device=labels.device)[:, None])


def weighted(weight: float, loss: Tensor) -> Tensor:
    """Return a loss times its weight, which most often is 1."""
    return loss if weight == 1 else weight * loss


def _class_weights(targets: Tensor, alpha: float) -> Tensor:
    return torch.where(targets, constant(alpha, targets.device), constant(1.0 - alpha, targets.device))


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum the sigmoid focal loss (RetinaNet, eq. 5) over all points and classes.

    Args:
        logits: class logits, any shape.
        targets: bool, same shape: True where the point is a positive of the class.
        alpha: weight of positives; negatives weigh ``1 - alpha``.
        gamma: focusing exponent.
    """
    loss: Tensor = _SigmoidFocalLoss.apply(logits, targets, alpha, gamma)
    return loss


class _SigmoidFocalLoss(torch.autograd.Function):
    """Computes its derivative along with the loss: half the kernels, and one tensor kept instead of six."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
        right = torch.where(targets, logits, -logits)  # logit of the right answer: p for positives, 1 - p for negatives
        log_right, wrong = F.logsigmoid(right), torch.sigmoid(-right)
        weight = _class_weights(targets, alpha).to(logits.dtype) * wrong.pow(gamma)
        if ctx.needs_input_grad[0]:
            slope = weight * (gamma * log_right * (1 - wrong) - wrong)
            ctx.save_for_backward(torch.where(targets, slope, -slope))
        return -(weight * log_right).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad, None, None, None


def focal_loss_from_log_probs(
    log_p: Tensor, log_not_p: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum the focal loss from log-probabilities ``log p`` and ``log(1 - p)``, any shape, targets bool of that shape.

    The form for probabilities that are products (3D max filtering), where no finite logit need exist.
    """
    log_right = torch.where(targets, log_p, log_not_p)
    log_wrong = torch.where(targets, log_not_p, log_p)
    weight = _class_weights(targets, alpha)
    return -(weight * torch.exp(gamma * log_wrong) * log_right).sum()


def log_one_minus_exp(log_p: Tensor) -> Tensor:
    """Return ``log(1 - exp(log_p))`` for ``log_p < 0``, accurate (and with accurate gradient) at both ends.

    Above -ln 2 the difference is taken by ``expm1``, below it by ``log1p``, so neither cancels.
    """
    near_one = log_p > -0.6931471805599453
    # Each side is evaluated on values that suit it, since the untaken side's gradient would turn a NaN into the result.
    high = torch.where(near_one, log_p, -1.0)
    low = torch.where(near_one, -1.0, log_p)
    return torch.where(near_one, torch.log(-torch.expm1(high)), torch.log1p(-torch.exp(low)))


def giou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Sum ``1 - GIoU`` over (K, 4) aligned xyxy boxes in pixels (GIoU paper; eps 1e-7 as MMDetection)."""
    return (1.0 - aligned_giou(pred, target, eps=1e-7)).sum()


def log_iou_loss(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum weighted ``-log IoU`` over (K, 4) aligned xyxy boxes; FCOS weighs by its centre-ness targets (K,)."""
    iou = aligned_iou(pred, target, eps=1e-6)[0].clamp(min=1e-6)
    return -(weight * iou.log()).sum()


def centerness_target(ltrb: Tensor) -> Tensor:
    """FCOS eq. 3: ``sqrt(min(l,r)/max(l,r) * min(t,b)/max(t,b))`` of (K, 4) ltrb distances, all positive; (K,)."""
    left, top, right, bottom = ltrb.unbind(-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    return (horizontal * (torch.minimum(top, bottom) / torch.maximum(top, bottom))).sqrt()
