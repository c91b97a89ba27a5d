"""DeFCN: its auxiliary assignment against literal loops and by hand, its losses against plain formulas, its settings."""

from __future__ import annotations

import math
import statistics
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from date.experiments.fragments import fragment
from date.models import DualAssignmentHead
from date.models.assigners import assign_auxiliary
from date.models.geometry import Points
from date.models.objects import BatchObjects, objects_of
from tests.support.examples import examples
from tests.support.objects import objects_in

CLASSES, CHANNELS = 4, 16
SHAPES, STRIDES = ((6, 8), (3, 4), (2, 2)), (8, 16, 32)  # the last level has fewer points than candidates
SIZES = [height * width for height, width in SHAPES]


def make_points() -> Points:
    grid = [
        [(column + 0.5) * stride, (row + 0.5) * stride, stride]
        for (height, width), stride in zip(SHAPES, STRIDES, strict=True)
        for row in range(height)
        for column in range(width)
    ]
    table = torch.tensor(grid, dtype=torch.float64)
    return Points(table[:, :2], table[:, 2])


def make_case(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor, BatchObjects]:
    """Predictions around objects most of which overlap; a few predicted boxes have no extent, so qualities tie at 0."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    points = make_points()
    log_probs = torch.nn.functional.logsigmoid(uniform(CLASSES, sum(SIZES)) * 6 - 3)
    reach = uniform(sum(SIZES), 4) * 24 * (uniform(sum(SIZES), 1) > 0.2)
    bboxes = torch.cat([points.centers - reach[:, :2], points.centers + reach[:, 2:]], dim=-1)
    corner = uniform(count, 2) * 20
    gt_bboxes = torch.cat([corner, corner + 6 + uniform(count, 2) * 34], dim=-1)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return log_probs, bboxes, objects_in((gt_bboxes, labels))


def plain_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def literal_assignment(
    log_probs: torch.Tensor, bboxes: torch.Tensor, points: Points, sizes: list[int], objects: Any
) -> tuple[list[int], int]:
    """Return the labels, and how many points several objects claimed."""
    claims: list[list[tuple[float, int]]] = [[] for _ in range(sum(sizes))]
    for gt_bbox, label in zip(objects.bboxes.tolist(), objects.labels.tolist(), strict=True):
        quality = [
            math.exp(log_probs[label, n].item()) ** 0.2 * plain_iou(bboxes[n].tolist(), gt_bbox) ** 0.8
            for n in range(sum(sizes))
        ]
        candidates, start = [], 0
        for size in sizes:
            candidates += sorted(range(start, start + size), key=lambda n: (-quality[n], n))[:9]
            start += size
        chosen = [quality[n] for n in candidates]
        threshold = statistics.mean(chosen) + statistics.stdev(chosen)
        for n in candidates:
            x, y = points.centers[n].tolist()
            if quality[n] >= threshold and gt_bbox[0] < x < gt_bbox[2] and gt_bbox[1] < y < gt_bbox[3]:
                claims[n].append((quality[n], label))
    labels = [max(claim, key=lambda c: c[0])[1] if claim else CLASSES for claim in claims]
    return labels, sum(len({label for _, label in claim}) > 1 for claim in claims)


def auxiliary_labels(log_probs: torch.Tensor, bboxes: torch.Tensor, points: Points, objects: Any) -> torch.Tensor:
    """Return an image's labels, whose predictions share the batch with those of an image without objects."""
    alone = objects_in((objects.bboxes[:0], objects.labels[:0]), (objects.bboxes, objects.labels))
    predictions = (log_probs.expand(2, -1, -1), bboxes.t().expand(2, -1, -1))
    empty, taken = assign_auxiliary(*predictions, points, SIZES, alone)
    assert empty.eq(len(objects.labels)).all()
    return objects.labels_of(taken, CLASSES)


@settings(max_examples=examples(60))
@given(st.integers(0, 10**6), st.integers(0, 12))
def test_assignment_equals_literal_loops(seed: int, count: int) -> None:
    log_probs, bboxes, objects = make_case(seed, count)
    points = make_points()
    labels = auxiliary_labels(log_probs, bboxes, points, objects)
    assert labels.dtype == torch.long
    assert labels.tolist() == literal_assignment(log_probs, bboxes, points, SIZES, objects)[0]


def test_the_random_cases_have_positives_and_competing_objects() -> None:
    positives, contested = 0, 0
    for seed in range(10):
        log_probs, bboxes, objects = make_case(seed, 8)
        labels, several = literal_assignment(log_probs, bboxes, make_points(), SIZES, objects)
        positives += sum(label < CLASSES for label in labels)
        contested += several
    assert positives > 50
    assert contested > 10


def test_without_objects_everything_is_background() -> None:
    log_probs, bboxes, objects = make_case(0, 0)
    labels = auxiliary_labels(log_probs, bboxes, make_points(), objects)
    assert labels.tolist() == [CLASSES] * sum(SIZES)


def by_hand(qualities: list[list[float]], gt_bboxes: list[list[float]], sizes: list[int], top: int) -> list[int]:
    """Assign object g, of class g, given its quality of every point: with alpha 0 that is the probability alone."""
    count = len(qualities[0])
    points = Points(torch.tensor([[10.0 * n, 5.0] for n in range(count)]), torch.full((count,), 8.0))
    objects = objects_in((torch.tensor(gt_bboxes), torch.arange(len(qualities))))
    bboxes = torch.zeros(1, 4, count)
    (taken,) = assign_auxiliary(torch.tensor(qualities).log()[None], bboxes, points, sizes, objects, alpha=0.0, top=top)
    return objects.labels_of(taken, len(qualities)).tolist()


def test_assignment_by_hand() -> None:
    # Points lie at x = 0, 10, ..., 60; levels of 4, 2 and 1 points. With the 2 best of a level as candidates, these are
    # .95 .9 | .1 .1 | .1: mean .43, unbiased deviation sqrt(.818 / 4) = .452, threshold .882. The point of .89 reaches
    # it but is no candidate.
    one = [0.9, 0.89, 0.95, 0.1, 0.1, 0.1, 0.1]
    everywhere = [-5.0, 0.0, 65.0, 10.0]
    assert by_hand([one], [everywhere], [4, 2, 1], top=2) == [0, 1, 0, 1, 1, 1, 1]
    # On the box's edge (x = 0) a point is not inside; it still is a candidate.
    assert by_hand([one], [[0.0, 0.0, 65.0, 10.0]], [4, 2, 1], top=2) == [1, 1, 0, 1, 1, 1, 1]
    # All points are candidates: mean .446, unbiased deviation .432, threshold .877 (biased: .400 and .845, under .87).
    third = [0.9, 0.87, 0.95, 0.1, 0.1, 0.1, 0.1]
    assert by_hand([third], [everywhere], [4, 2, 1], top=9) == [0, 1, 0, 1, 1, 1, 1]
    # Another object claims the points at x = 20 and 30 (threshold .889) and is the better of the two at 20.
    other = [0.1, 0.1, 0.96, 0.9, 0.1, 0.1, 0.1]
    assert by_hand([one, other], [everywhere, everywhere], [4, 2, 1], top=2) == [0, 2, 1, 1, 2, 2, 2]
    assert by_hand([other, one], [everywhere, everywhere], [4, 2, 1], top=2) == [1, 2, 0, 0, 2, 2, 2]


def test_equal_qualities_go_to_the_first_points_and_the_first_object() -> None:
    everywhere = [-5.0, 0.0, 65.0, 10.0]
    flat = [0.5, 0.5, 0.5, 0.5, 0.5]
    assert by_hand([flat, flat], [everywhere, everywhere], [3, 2], top=2) == [0, 0, 2, 0, 0]


def defcn_head(**changes: Any) -> DualAssignmentHead:
    """The head of the model fragment, smaller, with predictions that differ from point to point."""
    config = fragment("models/defcn.py")["model"]["bbox_head"]
    (branch,) = config["branches"]
    norm = dict(type="GN", num_groups=4)
    branch["max_filter"]["norm_cfg"] = norm
    branch.update(changes)
    torch.manual_seed(0)
    head = DualAssignmentHead(
        CLASSES,
        [branch],
        CHANNELS,
        CHANNELS,
        stacked_convs=2,
        strides=STRIDES,
        norm_cfg=norm,
        conv_bias=config["conv_bias"],
    )
    head.init_weights()
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return head.double()


def make_batch(counts: tuple[int, ...]) -> tuple[list[torch.Tensor], list[Any]]:
    generator = torch.Generator().manual_seed(1)
    feats = [torch.randn(len(counts), CHANNELS, *shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    samples = []
    for i, count in enumerate(counts):
        *_, objects = make_case(i, count)
        instances = InstanceData(bboxes=objects.bboxes, labels=objects.labels)
        samples.append(SimpleNamespace(metainfo=dict(img_shape=(48, 60)), gt_instances=instances))
    return feats, samples


def focal(p: torch.Tensor, targets: torch.Tensor) -> float:
    """Focal loss on probabilities, as DeFCN writes it."""
    cross_entropy = torch.nn.functional.binary_cross_entropy(p, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    return float(((0.25 * targets + 0.75 * (1 - targets)) * cross_entropy * (1 - p_t) ** 2).sum())


def plain_giou(a: list[float], b: list[float]) -> float:
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = plain_iou(a, b)
    union = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) / (1 + iou)
    return iou - (hull - union) / hull


EPS = torch.finfo(torch.float32).eps  # in every normaliser, as MMDetection


def test_losses_equal_plain_formulas() -> None:
    head = defcn_head(loss_weight=0.5, aux_weight=3.0)
    feats, samples = make_batch((3, 0, 6))
    losses = {k: v.item() for k, v in head.loss(feats, samples).items()}
    assert set(losses) == {"o2o.loss_cls", "o2o.loss_iou", "o2o.loss_aux"}

    output = head(feats)[0]
    matches = head.branch(0).match(output, objects_of(samples))
    points = make_points()
    reach = output.reg.detach().transpose(1, 2)
    bboxes = torch.cat([points.centers - reach[..., :2], points.centers + reach[..., 2:]], dim=-1)
    raw = output.cls.detach().sigmoid()
    one, many, giou, num_one, num_many = torch.zeros_like(raw), torch.zeros_like(raw), 0.0, 0, 0
    for i, sample in enumerate(samples):
        objects = sample.gt_instances
        for point, gt_bbox, label in zip(matches[i].tolist(), objects.bboxes.tolist(), objects.labels, strict=True):
            one[i, label, point] = 1
            num_one += 1
            giou += 1 - plain_giou(bboxes[i, point].tolist(), gt_bbox)
        labels, _ = literal_assignment(raw[i].log(), bboxes[i], points, SIZES, objects)
        for point, label in enumerate(labels):
            if label < CLASSES:
                many[i, label, point] = 1
                num_many += 1
    assert num_one == 9 and num_many > 9
    filtered = raw * output.extra.detach().sigmoid()
    assert losses["o2o.loss_cls"] == pytest.approx(0.5 * focal(filtered, one) / (num_one + EPS), rel=1e-9)
    assert losses["o2o.loss_iou"] == pytest.approx(0.5 * 2 * giou / (num_one + EPS), rel=1e-9)
    assert losses["o2o.loss_aux"] == pytest.approx(0.5 * 3 * focal(raw, many) / (num_many + EPS), rel=1e-9)


def test_auxiliary_loss_trains_the_class_predictor_and_not_the_filter() -> None:
    head = defcn_head()
    feats, samples = make_batch((3, 6))
    head.loss(feats, samples)["o2o.loss_aux"].backward()
    branch = head.branch(0)
    for parameter in [*branch.conv_cls.parameters(), *head.cls_convs.parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    untouched = [branch.filter, branch.max3d, branch.conv_reg, head.reg_convs]
    assert all(parameter.grad is None for module in untouched for parameter in module.parameters())


def test_without_objects_the_losses_are_those_of_background() -> None:
    head = defcn_head()
    feats, samples = make_batch((0, 0))
    losses = head.loss(feats, samples)
    raw = head(feats)[0].cls.detach().sigmoid()
    assert losses["o2o.loss_iou"].item() == 0
    assert losses["o2o.loss_aux"].item() == pytest.approx(focal(raw, torch.zeros_like(raw)) / (1 + EPS), rel=1e-9)
    sum(losses.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in head.parameters())


def test_box_normaliser_is_clamped_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    feats, samples = make_batch((1,))
    # As if one of four processes had this image and the others none.
    monkeypatch.setattr("date.models.branches.reduce_mean", lambda count: count / 4)
    defcn, date = (
        defcn_head(min_box_normaliser=least).loss(feats, samples)["o2o.loss_iou"].item() for least in (1.0, 0.0)
    )
    assert date == pytest.approx(defcn * (1 + EPS) / (0.25 + EPS), rel=1e-12)


def test_convolutions_have_a_bias_beside_the_normalisation() -> None:
    config = fragment("models/defcn.py")["model"]["bbox_head"]
    head = DualAssignmentHead(
        **{k: v for k, v in config.items() if k != "type"} | dict(in_channels=32, feat_channels=32)
        | dict(branches=[config["branches"][0] | dict(max_filter=None)])
    )  # fmt: skip
    head.init_weights()
    towers = [*head.cls_convs, *head.reg_convs]
    assert len(towers) == 8
    assert all(block.conv.bias.shape == (32,) and block.conv.bias.abs().sum() == 0 for block in towers)
    plain = DualAssignmentHead(CLASSES, [config["branches"][0] | dict(max_filter=None)], 32, 32)
    assert all(block.conv.bias is None for block in [*plain.cls_convs, *plain.reg_convs])


def test_schedules_differ_in_their_length_only() -> None:
    short, long = fragment("schedules/defcn_1x.py"), fragment("schedules/defcn_3x.py")
    assert (short["iterations"], short["milestones"]) == (90000, [60000, 80000])
    assert long == {"base": "defcn_1x", "iterations": 270000, "milestones": [210000, 250000]}
    resize = next(t for t in short["train_pipeline"] if t["type"] == "RandomChoiceResize")
    assert resize["scales"] == [(1333, short) for short in (640, 672, 704, 736, 768, 800)]
