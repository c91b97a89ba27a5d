"""Each branch's losses equal formulas written out in plain Python, in double precision, from the papers' equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_head import CLASSES, STRIDES, batch, dual_head

from date.models.objects import objects_of

LAMBDA = 1.5


def focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def iou_and_giou(a: list[float], b: list[float]) -> tuple[float, float]:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union, width * height / union - (hull - union) / hull


def points_of(shapes: list[tuple[int, int]]) -> list[tuple[float, float, int]]:
    return [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for (height, width), stride in zip(shapes, STRIDES, strict=True)
        for row in range(height)
        for column in range(width)
    ]


def setting(o2m: str | None) -> tuple[Any, Any, list[Any], list[tuple[float, float, int]]]:
    head = dual_head(o2m, lambda_o2o=LAMBDA, lambda_o2m=LAMBDA)
    feats, samples = batch((3, 0, 5))
    outputs = head(feats)
    return head, outputs, samples, points_of(outputs[0].level_shapes)


def test_one_to_one_losses() -> None:
    head, outputs, samples, points = setting(None)
    branch, output = head.branch(0), outputs[0]
    matches = branch.match(output, objects_of(samples))
    cls = reg = iou = 0.0
    for i, (objects, meta) in enumerate((s.gt_instances, s.metainfo) for s in samples):
        label_of = {int(n): int(objects.labels[g]) for g, n in enumerate(matches[i])}
        for n in range(len(points)):
            for c in range(CLASSES):
                cls += focal(output.cls[i, c, n].item(), label_of.get(n) == c)
        height, width = meta["img_shape"]
        for g, n in enumerate(matches[i].tolist()):
            x, y, _ = points[n]
            left, top, right, bottom = output.reg[i, :, n].tolist()
            pred, target = [x - left, y - top, x + right, y + bottom], objects.bboxes[g].tolist()
            for a, b, size in ((0, 2, width), (1, 3, height)):
                reg += abs((pred[a] + pred[b]) / 2 - (target[a] + target[b]) / 2) / size
                reg += abs((pred[b] - pred[a]) - (target[b] - target[a])) / size
            iou += 1 - iou_and_giou(pred, target)[1]
    losses = branch.loss(output, objects_of(samples))
    scale = 8 / (8 + torch.finfo(torch.float32).eps)  # what MMDetection adds to every normaliser
    assert losses["loss_cls"].item() == pytest.approx(LAMBDA * 2 * cls / 8 * scale, rel=1e-9)
    assert losses["loss_reg"].item() == pytest.approx(LAMBDA * 5 * reg / 8 * scale, rel=1e-9)
    assert losses["loss_iou"].item() == pytest.approx(LAMBDA * 2 * iou / 8 * scale, rel=1e-9)


def test_fcos_losses() -> None:
    head, outputs, samples, points = setting("fcos")
    output, ranges = outputs[1], {8: (-1, 32), 16: (32, 1e8)}
    cls = box = ctr = weights = 0.0
    positives = 0
    for i, objects in enumerate(s.gt_instances for s in samples):
        for n, (x, y, stride) in enumerate(points):
            best = None
            for (x1, y1, x2, y2), label in zip(objects.bboxes.tolist(), objects.labels.tolist(), strict=True):
                ltrb = (x - x1, y - y1, x2 - x, y2 - y)
                if min(ltrb) > 0 and ranges[stride][0] <= max(ltrb) <= ranges[stride][1]:
                    candidate = ((x2 - x1) * (y2 - y1), label, ltrb, [x1, y1, x2, y2])
                    best = candidate if best is None or candidate[0] < best[0] else best
            for c in range(CLASSES):
                cls += focal(output.cls[i, c, n].item(), best is not None and best[1] == c)
            if best is None:
                continue
            left, top, right, bottom = best[2]
            target = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
            d = output.reg[i, :, n].tolist()
            iou, _ = iou_and_giou([x - d[0], y - d[1], x + d[2], y + d[3]], best[3])
            q = 1 / (1 + math.exp(-output.extra[i, 0, n].item()))
            box += -math.log(iou) * target
            ctr += -target * math.log(q) - (1 - target) * math.log(1 - q)
            weights += target
            positives += 1
    assert positives > 20
    eps = torch.finfo(torch.float32).eps
    losses = head.branch(1).loss(output, objects_of(samples))
    assert losses["loss_cls"].item() == pytest.approx(LAMBDA * cls / (positives + eps), rel=1e-9)
    assert losses["loss_iou"].item() == pytest.approx(LAMBDA * box / (weights + eps), rel=1e-9)
    assert losses["loss_ctr"].item() == pytest.approx(LAMBDA * ctr / (positives + eps), rel=1e-9)


def anchors_of(points: list[tuple[float, float, int]]) -> list[list[float]]:
    """RetinaNet's nine anchors a cell, rounded to float32 as MMDetection's are; centred on the cell's corner."""
    anchors = []
    for x, y, stride in points:
        for ratio in (0.5, 1.0, 2.0):
            for octave in range(3):
                side = stride * 4 * 2 ** (octave / 3)
                width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
                cx, cy = x - stride / 2, y - stride / 2
                anchors.append([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    return anchors


def test_retinanet_losses() -> None:
    head, outputs, samples, points = setting("retinanet")
    branch, output = head.branch(1), outputs[1]
    anchors = branch.anchors(output).double().tolist()
    by_hand = anchors_of(points)
    assert max(abs(a - b) for p, q in zip(anchors, by_hand, strict=True) for a, b in zip(p, q, strict=True)) < 1e-4
    cls = reg = normaliser = 0.0
    for i, objects in enumerate(s.gt_instances for s in samples):
        gts, labels = objects.bboxes.tolist(), objects.labels.tolist()
        overlaps = [[iou_and_giou(anchor, gt)[0] for gt in gts] for anchor in anchors]
        assigned: list[int | None] = []
        for row in overlaps:
            best = max(range(len(gts)), key=lambda g: row[g]) if gts else None
            if best is None or row[best] < 0.4:
                assigned.append(-1)  # background
            else:
                assigned.append(best if row[best] >= 0.5 else None)  # None: ignored
        for g in range(len(gts)):  # every object takes its best anchors, however low the overlap
            top = max(row[g] for row in overlaps)
            for n, row in enumerate(overlaps):
                if math.isclose(row[g], top, rel_tol=1e-12):
                    assigned[n] = g
        positives = 0
        for n, g in enumerate(assigned):
            if g is None:
                continue
            for c in range(CLASSES):
                cls += focal(output.cls[i, c, n].item(), g >= 0 and labels[g] == c)
            if g < 0:
                continue
            positives += 1
            (ax1, ay1, ax2, ay2), (x1, y1, x2, y2) = anchors[n], gts[g]
            aw, ah = ax2 - ax1, ay2 - ay1
            target = (
                ((x1 + x2) / 2 - (ax1 + ax2) / 2) / aw,
                ((y1 + y2) / 2 - (ay1 + ay2) / 2) / ah,
                math.log((x2 - x1) / aw),
                math.log((y2 - y1) / ah),
            )
            reg += sum(abs(p - t) for p, t in zip(output.reg[i, :, n].tolist(), target, strict=True))
        normaliser += max(positives, 1)
    eps = torch.finfo(torch.float32).eps
    losses = branch.loss(output, objects_of(samples))
    assert losses["loss_cls"].item() == pytest.approx(LAMBDA * cls / (normaliser + eps), rel=1e-9)
    assert losses["loss_reg"].item() == pytest.approx(LAMBDA * reg / (normaliser + eps), rel=1e-9)
