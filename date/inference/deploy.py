# ruff: noqa: E402 - MMDetection is imported by `stack`
"""A trained network as one module from pixels to detections, without MMDetection's samples, for export.

Everything is a function of tensors with a batch in front, so that `torch.onnx` and `torch.jit.trace` can follow it.
Its detections equal the evaluation's; the tests compare them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from date import stack

stack.load()

import torch
from mmdet.models.dense_heads import AnchorHead, FCOSHead, RetinaHead
from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox
from mmdet.structures.bbox import distance2bbox
from torch import Tensor, nn
from torch.nn import functional as F

from date.errors import UserError
from date.inference.evaluate import Selection
from date.models.branches import Branch, BranchOutput
from date.models.head import DualAssignmentHead
from date.models.one_to_many import RetinaBranch

NONE = -1.0
"""Score of a place that holds no detection; the label there is -1."""


class Priors(NamedTuple):
    """The predictions of a head for B images at P points or anchors, all levels in a row."""

    probs: list[Tensor]
    """Per level (B, P_l, C): class probabilities, which the score threshold judges."""
    factors: Tensor | None
    """(B, P) of the final score, or None."""
    reg: Tensor
    """(B, P, 4) distances or deltas."""
    priors: Tensor
    """(P, 2) points or (P, 4) anchors, in pixels of the network's input."""


@torch.library.custom_op("date::class_nms", mutates_args=())
def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, iou: float) -> Tensor:
    """Return (B, K) which boxes class-wise NMS leaves; an operator of its own, which in ONNX is one node.

    Args:
        boxes: (B, K, 4) xyxy.
        scores: (B, K); boxes with a score below 0 are none and are left out.
        labels: (B, K).
        classes: number of classes.
        iou: above which the lower-scored of two boxes of a class is dropped.
    """
    return _kept(boxes, scores, labels, iou)


@class_nms.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, iou: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _kept(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(scores.shape[0]):
        there = (scores[image] >= 0).nonzero().flatten()
        # Boxes of other classes or images never meet: a class at a time, without the rounding of shifted boxes.
        for label in torch.unique(labels[image][there]):
            of = there[labels[image][there] == label]
            kept = torch.ops.torchvision.nms(boxes[image][of], scores[image][of], iou)
            keep[image, of[kept]] = True
    return keep


@functools.cache
def _scripted_kept() -> Any:
    """Return `_kept` with its loops, which tracing would unroll."""
    return torch.jit.script(_kept)


class Deployable(nn.Module):
    """A network that turns resized images into detections, for export.

    Args:
        model: a detector with the dual-assignment head, or MMDetection's RetinaNet or FCOS head.
        selection: how detections are chosen.
        for_onnx: choose by ``topk``, which in ONNX takes the first of equals; PyTorch's may not, so that elsewhere a
            stable sort, which takes longer, stands in its place.

    Raises:
        UserError: another head.
    """

    def __init__(self, model: Any, selection: Selection, for_onnx: bool = False) -> None:
        super().__init__()
        head = model.bbox_head
        if not isinstance(head, DualAssignmentHead | FCOSHead | RetinaHead):
            raise UserError(f"{type(head).__name__} can't be exported; only the catalogue's own heads can.")
        self.backbone, self.neck = model.backbone, model.neck
        self.head: Any = head
        self.selection, self.for_onnx = selection, for_onnx
        preprocessor = model.data_preprocessor
        self.flip = bool(preprocessor._channel_conversion)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", preprocessor.mean.clone())
        self.register_buffer("std", preprocessor.std.clone())
        self.num_classes = int(head.num_classes)
        self.branch: Branch | None = None
        if isinstance(head, DualAssignmentHead):
            self.index = ("o2o", "o2m").index(selection.branch) if len(head.predictors) > 1 else 0
            self.branch = head.branch(self.index)

    @property
    def detections(self) -> int:
        """Places for detections of an image."""
        levels = len(self.head.prior_generator.strides if self.branch is None else self.branch.strides)
        return min(self.selection.max_per_img, levels * self.selection.nms_pre)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the detections of a batch.

        Args:
            images: (B, 3, H, W) float32, BGR from 0 to 255, resized as the evaluation resizes them; each lies in the
                upper left corner, and H and W are multiples of the network's divisor. What lies beside an image is
                not looked at.
            sizes: (B, 4) int64: height and width of each image as resized, and before.

        Returns:
            Boxes (B, K, 4) xyxy in pixels of the image before it was resized; scores (B, K), best first; labels (B, K).
            Where an image has fewer than K detections, the last have score and label -1.
        """
        found = self.predict(self.features(images, sizes))
        resized, before = sizes[:, [1, 0]].to(images.dtype), sizes[:, [3, 2]].to(images.dtype)
        boxes, scores, labels = self.candidates(found, resized.repeat(1, 2)[:, None])
        boxes = boxes / (resized / before).repeat(1, 2)[:, None]
        return self.final(boxes, scores, labels)

    def features(self, images: Tensor, sizes: Tensor) -> Sequence[Tensor]:
        """Normalise images, make what lies beside them 0, and return the neck's levels."""
        if self.flip:
            images = images.flip(1)
        rows = torch.arange(images.shape[2], device=images.device)[:, None] < sizes[:, 0, None, None]
        columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1, None, None]
        images = torch.where((rows & columns)[:, None], (images - self.mean) / self.std, 0.0)
        return self.neck(self.backbone(images))

    def predict(self, feats: Sequence[Tensor]) -> Priors:
        """Run the head."""
        if self.branch is None:
            return _baseline(self.head, feats)
        output = self.head(feats, [self.index])[self.index]
        probs = self.branch.class_probs(output).mT
        levels, start = [], 0
        for size in output.level_sizes:
            levels.append(probs[:, start : start + size])
            start = start + size
        return Priors(levels, self.branch.score_factors(output), output.reg.mT, _priors(self.branch, output))

    def candidates(self, found: Priors, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes in pixels of the input, scores and labels of the best (prior, class) pairs of each level.

        Args:
            found: what the head predicts.
            limits: (B, 1, 4) width, height, width, height of each image, to which boxes are clipped.
        """
        values, priors, labels = [], [], []
        start = 0
        for probs in found.probs:
            value, index = self._top(self._judged(probs), self.selection.nms_pre)
            index = torch.where(value >= 0, index, 0)  # what fills the places of a small level lies behind its end
            values.append(value)
            priors.append(index // self.num_classes + start)
            labels.append(index % self.num_classes)
            start = start + probs.shape[1]
        score, prior, label = torch.cat(values, 1), torch.cat(priors, 1), torch.cat(labels, 1)
        there = score >= 0
        if found.factors is not None:
            score = torch.where(there, score * found.factors.gather(1, prior), NONE)
        reg = found.reg.gather(1, prior[..., None].expand(-1, -1, 4))
        boxes = self._decode(found.priors[prior], reg)
        boxes = boxes.clamp(min=0).minimum(limits)
        least = self.head.test_cfg.get("min_bbox_size", -1) if self.branch is None else -1
        if least >= 0:
            large = (boxes[..., 2] - boxes[..., 0] > least) & (boxes[..., 3] - boxes[..., 1] > least)
            score = torch.where(large, score, NONE)
        return boxes, score, label

    def final(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best detections, after NMS where there is any."""
        if self.selection.nms is not None:
            if torch.jit.is_tracing():
                keep = _scripted_kept()(boxes, scores, labels, self.selection.nms)
            else:
                keep = class_nms(boxes, scores, labels, self.num_classes, self.selection.nms)
            scores = torch.where(keep, scores, NONE)
        score, place = self._top(scores, self.detections)
        label = torch.where(score >= 0, labels.gather(1, place), -1)
        return boxes.gather(1, place[..., None].expand(-1, -1, 4)), score, label

    def _judged(self, probs: Tensor) -> Tensor:
        return _masked(probs.flatten(1), self.selection.score_thr, self.selection.nms_pre)

    def _top(self, scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
        if self.for_onnx:
            return torch.topk(scores, number, dim=1)
        score, index = scores.sort(dim=1, descending=True, stable=True)
        return score[:, :number], index[:, :number]

    def _decode(self, priors: Tensor, reg: Tensor) -> Tensor:
        if isinstance(self.branch, RetinaBranch) or (isinstance(self.head, AnchorHead) and self.branch is None):
            coder = self.head.bbox_coder if self.branch is None else self.branch.bbox_coder
            return _decode_deltas(coder, priors, reg)
        return distance2bbox(priors, reg)


def _masked(probs: Tensor, threshold: float, places: int) -> Tensor:
    """Return (B, N + places) probabilities, `NONE` in place of those up to the threshold and in the places after."""
    return F.pad(torch.where(probs > threshold, probs, NONE), (0, places), value=NONE)


def _priors(branch: Branch, output: BranchOutput) -> Tensor:
    return branch.anchors(output) if isinstance(branch, RetinaBranch) else branch.points(output).centers


def _baseline(head: Any, feats: Sequence[Tensor]) -> Priors:
    """Run MMDetection's RetinaNet or FCOS head."""
    cls, reg, *factors = head(feats)
    shapes = [level.shape[-2:] for level in cls]
    priors = head.prior_generator.grid_priors(shapes, dtype=cls[0].dtype, device=cls[0].device)
    return Priors(
        [_rows(level, head.cls_out_channels).sigmoid() for level in cls],
        torch.cat([_rows(level, 1).sigmoid() for level in factors[0]], 1)[..., 0] if factors else None,
        torch.cat([_rows(level, 4) for level in reg], 1),
        torch.cat(list(priors)),
    )


def _rows(level: Tensor, channels: int) -> Tensor:
    """Turn (B, A*channels, H, W) into (B, H*W*A, channels)."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels)


def _decode_deltas(coder: Any, anchors: Tensor, deltas: Tensor) -> Tensor:
    """Return what MMDetection's coder makes of (B, K, 4) anchors and deltas, unclipped."""
    boxes = delta2bbox(
        anchors.reshape(-1, 4), deltas.reshape(-1, 4), coder.means, coder.stds,
        add_ctr_clamp=coder.add_ctr_clamp, ctr_clamp=coder.ctr_clamp,
    )  # fmt: skip
    return boxes.view(deltas.shape)
