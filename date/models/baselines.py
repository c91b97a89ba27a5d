"""MMDetection's RetinaNet and FCOS heads, with losses that take the whole batch at once and stay in float32.

Parameters, predictions and inference are MMDetection's. Its losses go from image to image and wait for the device at
each; these are the same sums, as functions that the one-to-many branches use as well, and their normalisers do not
depend on how a batch is divided. Our FCOS head stands in MMDetection's registry under MMDetection's name: a config
means the same with and without this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead as MMDetectionsFCOSHead
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, IoULoss
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from date.models.assigners import assign_fcos, assign_max_iou
from date.models.branches import flatten_level
from date.models.geometry import feature_points
from date.models.losses import weighted
from date.models.objects import pack
from date.models.one_to_many import (
    fcos_losses,
    grid_anchors,
    point_ranges,
    retinanet_losses,
    thresholds,
    valid_anchors,
)
from date.models.precision import PreciseConv2d

Maps = Sequence[Tensor]


@MODELS.register_module(force=True)
class FCOSHead(MMDetectionsFCOSHead):
    """FCOS's head, of which the paper's baseline is computed here: no centre sampling, ``exp``, centre-ness by classes.

    Any other variant is left to MMDetection's code.

    Args:
        args, kwargs: of MMDetection's head.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        losses = (type(self.loss_cls), type(self.loss_bbox), type(self.loss_centerness))
        self.is_plain = (
            not (self.center_sampling or self.norm_on_bbox or self.centerness_on_reg or self.cls_predictor_cfg)
            and losses == (FocalLoss, IoULoss, CrossEntropyLoss)
            and self.loss_bbox.mode == "log"
        )

    def _init_layers(self) -> None:
        super()._init_layers()
        _make_precise(self, "conv_cls", "conv_reg", "conv_centerness")

    def forward_single(self, x: Tensor, scale: nn.Module, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a level's class logits, ltrb distances in pixels and centre-ness logits, each (B, ., H, W)."""
        if not self.is_plain:
            return super().forward_single(x, scale, stride)
        cls, reg, cls_feat, _ = AnchorFreeHead.forward_single(self, x)
        return cls, scale(reg).exp(), self.conv_centerness(cls_feat)

    def loss_by_feat(
        self,
        cls_scores: Maps,
        bbox_preds: Maps,
        centernesses: Maps,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: object = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_centerness``; see `fcos_losses`."""
        if not self.is_plain:
            return super().loss_by_feat(cls_scores, bbox_preds, centernesses, batch_gt_instances, batch_img_metas)
        objects = pack(batch_gt_instances, batch_img_metas)
        shapes = [(x.shape[-2], x.shape[-1]) for x in cls_scores]
        points = feature_points(shapes, self.strides, bbox_preds[0])
        ranges = point_ranges(self.regress_ranges, [height * width for height, width in shapes], bbox_preds[0])
        taken = assign_fcos(points, ranges, objects)
        cls, reg = _flattened(cls_scores, self.num_classes), _flattened(bbox_preds, 4)
        ctr = _flattened(centernesses, 1)[:, 0]
        focal = (self.loss_cls.alpha, self.loss_cls.gamma)
        losses = fcos_losses(cls, reg, ctr, points, taken, objects, focal)
        modules = (self.loss_cls, self.loss_bbox, self.loss_centerness)
        names = ("loss_cls", "loss_bbox", "loss_centerness")
        return {name: weighted(part.loss_weight, loss) for name, part, loss in zip(names, modules, losses, strict=True)}


@MODELS.register_module()
class RetinaNetHead(RetinaHead):
    """RetinaNet's head.

    Args:
        reduce_normaliser: True divides by the mean over the processes of their numbers of positive anchors; False by
            this process's own, as MMDetection does. In one process the two are the same.
        args, kwargs: of `RetinaHead`, with ``train_cfg.assigner`` a `MaxIoUAssigner`.
    """

    def __init__(self, *args: Any, reduce_normaliser: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reduce_normaliser = reduce_normaliser

    def _init_layers(self) -> None:
        super()._init_layers()
        _make_precise(self, "retina_cls", "retina_reg")

    def loss_by_feat(
        self,
        cls_scores: Maps,
        bbox_preds: Maps,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: object = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``; see `retinanet_losses`."""
        objects = pack(batch_gt_instances, batch_img_metas)
        shapes = [(x.shape[-2], x.shape[-1]) for x in cls_scores]
        anchors = grid_anchors(self.prior_generator, shapes, bbox_preds[0].device)
        valid = valid_anchors(self.prior_generator, shapes, objects.pad_shapes, anchors.device)
        taken = assign_max_iou(anchors, valid, objects, *thresholds(self.assigner))
        cls, reg = _flattened(cls_scores, self.num_classes), _flattened(bbox_preds, 4)
        focal = (self.loss_cls.alpha, self.loss_cls.gamma)
        cls_loss, reg_loss = retinanet_losses(cls, reg, anchors, taken, objects, focal, self.reduce_normaliser)
        return {
            "loss_cls": weighted(self.loss_cls.loss_weight, cls_loss),
            "loss_bbox": weighted(self.loss_bbox.loss_weight, reg_loss),
        }


def _make_precise(head: nn.Module, *names: str) -> None:
    for name in names:
        setattr(head, name, PreciseConv2d.replacing(getattr(head, name)))


def _flattened(maps: Maps, channels: int) -> Tensor:
    """Return (B, channels, P) predictions of all levels, in the order of the priors."""
    return torch.cat([flatten_level(x, channels) for x in maps], dim=-1)
