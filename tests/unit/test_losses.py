"""Losses against MMDetection's, against formulas written out, and at the ends of the number range."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.losses import GIoULoss, IoULoss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from date.models.filtering import product_log_probs
from date.models.losses import (
    centerness_target,
    class_targets,
    focal_loss_from_log_probs,
    giou_loss,
    log_iou_loss,
    log_one_minus_exp,
    sigmoid_focal_loss,
)


def boxes(generator: torch.Generator, count: int) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 50
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40], dim=-1)


def test_focal_loss_equals_mmdetection() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 7, generator=generator, dtype=torch.float64) * 4
    labels = torch.randint(0, 8, (40,), generator=generator)
    theirs = py_sigmoid_focal_loss(logits, torch.nn.functional.one_hot(labels, 8)[:, :7], reduction="sum")
    torch.testing.assert_close(
        sigmoid_focal_loss(logits.t()[None], class_targets(labels[None], 7)), theirs, rtol=1e-12, atol=0
    )


def test_focal_loss_by_hand() -> None:
    # p = 0.5 for a positive and a negative: 0.25 * 0.25 * ln 2 + 0.75 * 0.25 * ln 2
    logits = torch.zeros(1, 2, dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(0.25 * math.log(2), rel=1e-14)


@given(st.floats(min_value=-700, max_value=-1e-12))
def test_log_one_minus_exp_is_exact(log_p: float) -> None:
    mine = log_one_minus_exp(torch.tensor(log_p, dtype=torch.float64)).item()
    exact = math.log(-math.expm1(log_p)) if log_p > -1 else math.log1p(-math.exp(log_p))
    assert mine == pytest.approx(exact, rel=1e-14)


@given(st.floats(-12, 12), st.floats(-12, 12), st.booleans())
def test_filtered_focal_loss_equals_the_plain_product(cls: float, filter_logit: float, positive: bool) -> None:
    c, f = (torch.tensor([[[x]]], dtype=torch.float64) for x in (cls, filter_logit))
    targets = torch.tensor([[[positive]]])
    mine = focal_loss_from_log_probs(*product_log_probs(c, f), targets).item()
    p = (c.sigmoid() * f.sigmoid()).item()
    plain = -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log1p(-p)
    assert mine == pytest.approx(plain, rel=1e-9)


def test_tiny_products_keep_their_gradient_unless_clamped() -> None:
    cls = torch.tensor([[[-20.0]]], dtype=torch.float64, requires_grad=True)
    filter_logit = torch.tensor([[[-3.0]]], dtype=torch.float64)
    targets = torch.tensor([[[True]]])
    (safe,) = torch.autograd.grad(focal_loss_from_log_probs(*product_log_probs(cls, filter_logit), targets), cls)
    clamped = focal_loss_from_log_probs(*product_log_probs(cls, filter_logit, eps=1e-5), targets)
    (official,) = torch.autograd.grad(clamped, cls)
    assert safe.item() == pytest.approx(-0.25, rel=1e-6)
    assert abs(official.item()) < 1e-9


def test_box_losses_equal_mmdetection() -> None:
    generator = torch.Generator().manual_seed(1)
    pred, target = boxes(generator, 30), boxes(generator, 30)
    target[:10] = pred[:10] + 1
    weight = torch.rand(30, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(giou_loss(pred, target), GIoULoss(reduction="sum")(pred, target), rtol=1e-12, atol=0)
    theirs = IoULoss(reduction="sum")(pred, target, weight=weight)
    torch.testing.assert_close(log_iou_loss(pred, target, weight), theirs, rtol=1e-12, atol=0)


def test_box_losses_by_hand() -> None:
    pred, target = torch.tensor([[0.0, 0, 2, 2]]).double(), torch.tensor([[1.0, 1, 3, 3]]).double()
    # intersection 1, union 7, hull 9
    assert giou_loss(pred, target).item() == pytest.approx(1 - (1 / 7 - 2 / 9), rel=1e-12)
    weight = torch.tensor([0.5]).double()
    assert log_iou_loss(pred, target, weight).item() == pytest.approx(0.5 * math.log(7), rel=1e-12)
    assert giou_loss(pred[:0], target[:0]).item() == 0


def test_centerness_by_hand() -> None:
    ltrb = torch.tensor([[1.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 3.0]]).double()
    assert centerness_target(ltrb).tolist() == pytest.approx([math.sqrt(1 / 4 * 2 / 8), 1.0])
