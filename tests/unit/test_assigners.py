"""Assignment against literal loops, MMDetection's implementations and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.task_modules.assigners import BBoxL1Cost, FocalLossCost, IoUCost, MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData
from torch.nn import functional as F

from date.models.assigners import (
    OneNetQuality,
    POTOQuality,
    assign_fcos,
    assign_max_iou,
    assign_one_to_one,
    points_near_centers,
)
from date.models.geometry import Points
from date.models.objects import BatchObjects, pack
from date.models.one_to_many import valid_anchors
from tests.support.objects import objects_in

STRIDES = (8, 16)
SHAPES = ((6, 8), (3, 4))
CLASSES = 5


def make_points() -> Points:
    centers, strides = [], []
    for (height, width), stride in zip(SHAPES, STRIDES, strict=True):
        for row in range(height):
            for column in range(width):
                centers.append([(column + 0.5) * stride, (row + 0.5) * stride])
                strides.append(stride)
    return Points(torch.tensor(centers).double(), torch.tensor(strides).double())


def make_instances(generator: torch.Generator, count: int) -> InstanceData:
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40
    size = 2 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 30
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return InstanceData(bboxes=torch.cat([corner, corner + size], dim=-1), labels=labels)


def make_objects(generator: torch.Generator, *counts: int) -> BatchObjects:
    return pack([make_instances(generator, count) for count in counts], [dict(img_shape=(48, 60))] * len(counts))


def make_predictions(generator: torch.Generator, points: Points) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(CLASSES, len(points.centers), generator=generator, dtype=torch.float64)
    reach = torch.rand(len(points.centers), 4, generator=generator, dtype=torch.float64) * 20
    bboxes = torch.cat([points.centers - reach[:, :2], points.centers + reach[:, 2:]], dim=-1)
    return logits, bboxes


def plain_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


@pytest.mark.parametrize(("radius", "outside"), [(1.5, 0.0), (1.5, -1.0), (0.0, 0.0)])
def test_poto_quality_equals_literal_loops(radius: float, outside: float) -> None:
    generator = torch.Generator().manual_seed(0)
    points, objects = make_points(), make_objects(generator, 6)
    logits, bboxes = make_predictions(generator, points)
    quality = POTOQuality(alpha=0.8, center_radius=radius, outside=outside)(
        F.logsigmoid(logits)[None], bboxes.t()[None], points, objects
    )
    assert quality.shape == (6, len(points.centers))
    admitted = 0
    for n, ((x, y), stride) in enumerate(zip(points.centers.tolist(), points.strides.tolist(), strict=True)):
        for g, (x1, y1, x2, y2) in enumerate(objects.bboxes.tolist()):
            near = abs(x - (x1 + x2) / 2) < radius * stride and abs(y - (y1 + y2) / 2) < radius * stride
            expected = outside
            if x1 < x < x2 and y1 < y < y2 and (near or radius == 0):
                admitted += 1
                p = 1 / (1 + np.exp(-logits[objects.labels[g], n].item()))
                expected = p**0.2 * plain_iou(bboxes[n].tolist(), [x1, y1, x2, y2]) ** 0.8
            assert quality[g, n].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert 0 < admitted < quality.numel()


def test_onenet_quality_equals_mmdetections_match_costs() -> None:
    generator = torch.Generator().manual_seed(1)
    points, objects = make_points(), make_objects(generator, 6)
    logits, bboxes = make_predictions(generator, points)
    pred = InstanceData(scores=logits.t(), bboxes=bboxes)
    gt = InstanceData(labels=objects.labels, bboxes=objects.bboxes)
    meta = dict(img_shape=(48, 60))
    costs = (FocalLossCost(weight=2.0), BBoxL1Cost(weight=5.0, box_format="xywh"), IoUCost(iou_mode="giou", weight=2.0))
    theirs = sum(cost(pred, gt, img_meta=meta) for cost in costs)
    mine = OneNetQuality()(F.logsigmoid(logits)[None], bboxes.t()[None], points, objects)
    torch.testing.assert_close(-mine.t(), theirs, rtol=1e-9, atol=1e-9)


def test_center_region_by_hand() -> None:
    points = Points(
        torch.tensor([[10.0, 10.0], [22.0, 10.0], [23.0, 10.0], [10.0, 10.0]]), torch.tensor([8.0, 8, 8, 16])
    )
    gt = torch.tensor([[0.0, 0.0, 20.0, 20.0], [2.0, 2.0, 40.0, 18.0], [9.0, 9.0, 10.0, 10.0]])
    # Object 1's centre is (21, 10); at stride 8 the square reaches 12 pixels to either side, at 16 it reaches 24. A point
    # on an edge (object 2) is not inside.
    expected = [[True, False, False, True], [True, True, True, True], [False, False, False, False]]
    assert points_near_centers(points, gt, 1.5).tolist() == expected


def test_poto_outside_value_decides_for_an_object_without_overlap() -> None:
    points = make_points()
    logits = torch.zeros(CLASSES, len(points.centers)).double()
    bboxes = torch.cat([points.centers, points.centers], dim=-1)  # no extent, as ReLU gives early in training
    objects = objects_in((torch.tensor([[26.0, 18.0, 34.0, 30.0]]).double(), torch.tensor([2])))
    matched = {}
    for outside in (0.0, -1.0):
        quality = POTOQuality(outside=outside)
        (match,) = assign_one_to_one(quality, F.logsigmoid(logits)[None], bboxes.t()[None], points, objects)
        matched[outside] = bool(points_near_centers(points, objects.bboxes, 1.5)[0, match[0]])
    assert matched == {0.0: False, -1.0: True}


def test_one_to_one_without_objects_and_with_more_objects_than_points() -> None:
    generator = torch.Generator().manual_seed(2)
    points = make_points()
    few = Points(points.centers[:3], points.strides[:3])
    logits, bboxes = make_predictions(generator, few)
    log_probs, bboxes = F.logsigmoid(logits).expand(2, -1, -1), bboxes.t().expand(2, -1, -1)
    crowd, empty = assign_one_to_one(OneNetQuality(), log_probs, bboxes, few, make_objects(generator, 5, 0))
    assert empty.shape == (0,)
    assert sorted(crowd.tolist()) == [-1, -1, 0, 1, 2]


def test_fcos_equals_mmdetection() -> None:
    generator = torch.Generator().manual_seed(3)
    points = make_points()
    head = FCOSHead(CLASSES, 8, strides=STRIDES, regress_ranges=((-1, 16), (16, 1e8)), norm_cfg=None)
    per_level = [points.centers[points.strides == stride] for stride in STRIDES]
    ranges = torch.where(points.strides == 8, torch.tensor([[-1.0], [16.0]]), torch.tensor([[16.0], [1e8]]))
    instances = [make_instances(generator, count) for count in (0, 1, 4, 12)]
    objects = pack(instances, [dict(img_shape=(48, 60))] * 4)
    taken = assign_fcos(points, ranges, objects)
    positives = 0
    for own, labels, found in zip(taken, objects.labels_of(taken, CLASSES), instances, strict=True):
        theirs = head.get_targets(per_level, [found])
        assert labels.tolist() == torch.cat(theirs[0]).tolist()
        positive = labels < CLASSES
        positives += int(positive.sum())
        centers, bboxes = points.centers[positive], objects.bboxes[own[positive]]
        ltrb = torch.cat([centers - bboxes[:, :2], bboxes[:, 2:] - centers], dim=-1)
        torch.testing.assert_close(ltrb, torch.cat(theirs[1])[positive])
    assert positives > 20


def test_fcos_prefers_the_smaller_object_by_hand() -> None:
    points = Points(torch.tensor([[10.0, 10.0]]), torch.tensor([8.0]))
    boxes = torch.tensor([[0.0, 0, 30, 30], [5.0, 5, 15, 15], [11.0, 0, 12, 20]])
    labels = torch.tensor([0, 1, 2])
    nothing = (boxes[:0], labels[:0])
    objects = objects_in((boxes, labels), nothing, (boxes[:1], labels[:1]))
    assert assign_fcos(points, torch.tensor([[-1.0], [64.0]]), objects).tolist() == [[1], [4], [3]]
    assert assign_fcos(points, torch.tensor([[-1.0], [64.0]]), objects_in(nothing, nothing)).tolist() == [[0], [0]]


def make_anchors() -> tuple[AnchorGenerator, list[tuple[int, int]]]:
    generator = AnchorGenerator(strides=list(STRIDES), ratios=[0.5, 1.0, 2.0], octave_base_scale=4, scales_per_octave=3)
    return generator, list(SHAPES)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 10**6), st.sampled_from([0.0, 0.3]))
def test_anchors_go_to_the_objects_of_mmdetections_assigner(counts: list[int], seed: int, min_pos_iou: float) -> None:
    random = torch.Generator().manual_seed(seed)
    generator, shapes = make_anchors()
    anchors = torch.cat(generator.grid_priors(shapes, device="cpu"))
    pads = [((48, 64), (40, 50), (17, 64))[i % 3] for i in range(len(counts))]
    instances = [make_instances(random, count) for count in counts]
    for found in instances:
        found.bboxes = found.bboxes.float()
        if len(found) > 1:
            found.bboxes[-1] = found.bboxes[0]  # two objects with the same box
    objects = pack(instances, [dict(img_shape=pad, pad_shape=pad) for pad in pads])
    valid = valid_anchors(generator, shapes, objects.pad_shapes, anchors.device)
    taken = assign_max_iou(anchors, valid, objects, 0.5, 0.4, min_pos_iou)
    theirs = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=min_pos_iou, ignore_iof_thr=-1)
    total = sum(counts)
    for i, found in enumerate(instances):
        inside = valid[i]
        assert torch.equal(inside, torch.cat(generator.valid_flags(shapes, pads[i], device="cpu")))
        expected = torch.full((len(anchors),), -1)
        inds = theirs.assign(InstanceData(priors=anchors[inside]), found).gt_inds
        expected[inside] = torch.where(inds > 0, inds - 1 + sum(counts[:i]), torch.where(inds == 0, total, -1))
        assert taken[i].tolist() == expected.tolist()
