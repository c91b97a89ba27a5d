"""The dual-assignment head: shared towers and scales, one or more prediction branches (DATE sec. 3.1, fig. 2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import ConvModule, Scale
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseModule, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import batched_nms

from date.models.branches import Branch, BranchOutput, Candidates
from date.models.objects import objects_of


@MODELS.register_module()
class DualAssignmentHead(BaseModule):
    """Branches with different assignments on the same features; only one is used for inference.

    No gradient is stopped anywhere: every branch trains the shared towers, and through them neck and backbone.
    The per-level scales are shared by all branches, also when the towers are not.

    Args:
        num_classes: C.
        branches: config of each branch; ``num_classes``, ``in_channels`` and ``strides`` are filled in.
        in_channels: of the neck's levels.
        feat_channels: of the towers.
        stacked_convs: convolutions in each of the two towers.
        strides: of the levels, in pixels.
        norm_cfg: normalisation of the towers (paper: GroupNorm, 32 groups).
        conv_bias: gives the towers' convolutions a bias beside the normalisation, initially 0 (DeFCN).
        share_towers: False gives every branch towers of its own (DATE Table 9).
        predict_from: index of the branch used for inference.
        train_cfg, test_cfg: unused, taken because MMDetection's detectors pass them.
    """

    def __init__(
        self,
        num_classes: int,
        branches: Sequence[dict[str, Any]],
        in_channels: int = 256,
        feat_channels: int = 256,
        stacked_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        norm_cfg: dict[str, Any] | None = None,
        conv_bias: bool = False,
        share_towers: bool = True,
        predict_from: int = 0,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        norm_cfg = norm_cfg or dict(type="GN", num_groups=32, requires_grad=True)
        self.num_classes = num_classes
        self.share_towers = share_towers
        self.predict_from = predict_from
        shared = dict(num_classes=num_classes, in_channels=feat_channels, strides=strides)
        self.predictors = nn.ModuleList(MODELS.build(copy.deepcopy(dict(branch)) | shared) for branch in branches)

        def tower() -> nn.ModuleList:
            channels = [in_channels] + [feat_channels] * stacked_convs
            return nn.ModuleList(
                ConvModule(a, b, 3, padding=1, bias=conv_bias, norm_cfg=norm_cfg) for a, b in pairwise(channels)
            )

        self.cls_convs, self.reg_convs = tower(), tower()
        more = 0 if share_towers else len(self.predictors) - 1
        self.branch_cls_convs = nn.ModuleList(tower() for _ in range(more))
        self.branch_reg_convs = nn.ModuleList(tower() for _ in range(more))
        self.scales = nn.ModuleList(Scale(1.0) for _ in strides)

    def init_weights(self) -> None:
        """Draw every convolution from N(0, 0.01); the branches set their class biases."""
        for module in self.modules():
            if isinstance(module, ConvModule):
                normal_init(module.conv, std=0.01)
        for index in range(len(self.predictors)):
            self.branch(index).init_weights()

    def tower_levels(self, feats: Sequence[Tensor], branch: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return the class and regression towers' outputs for a branch, per level (B, feat_channels, H_l, W_l)."""
        if self.share_towers or branch == 0:
            cls_convs, reg_convs = self.cls_convs, self.reg_convs
        else:
            cls_convs, reg_convs = self.branch_towers(branch)
        return [_run(cls_convs, x) for x in feats], [_run(reg_convs, x) for x in feats]

    def branch_towers(self, branch: int) -> tuple[nn.ModuleList, nn.ModuleList]:
        """Return the class and regression towers of a branch after the first, where towers are not shared."""
        cls_convs, reg_convs = self.branch_cls_convs[branch - 1], self.branch_reg_convs[branch - 1]
        assert isinstance(cls_convs, nn.ModuleList)
        assert isinstance(reg_convs, nn.ModuleList)
        return cls_convs, reg_convs

    def forward(self, feats: Sequence[Tensor], branches: Sequence[int] | None = None) -> dict[int, BranchOutput]:
        """Predict from the neck's levels, each (B, in_channels, H_l, W_l).

        Args:
            feats: the levels, finest first.
            branches: which branches to run; all by default.

        Returns:
            The output of each branch that was run, by its index.
        """
        wanted = range(len(self.predictors)) if branches is None else branches
        towers = self.tower_levels(feats, 0) if self.share_towers else None
        return {i: self.predictors[i](*(towers or self.tower_levels(feats, i)), self.scales) for i in wanted}

    def loss(self, feats: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Return all branches' losses, already multiplied by their lambdas, named ``<branch>.<loss>``."""
        outputs = self(feats)
        objects = objects_of(batch_data_samples)
        return {
            f"{self.branch_name(i)}.{name}": value
            for i, output in outputs.items()
            for name, value in self.branch(i).loss(output, objects).items()
        }

    def branch(self, index: int) -> Branch:
        """Return a branch by its index."""
        branch = self.predictors[index]
        assert isinstance(branch, Branch)
        return branch

    def branch_name(self, index: int) -> str:
        """Return ``o2o`` for the first branch (one-to-one) and ``o2m`` for the second."""
        return ("o2o", "o2m")[index]

    def candidates(
        self, feats: Sequence[Tensor], batch_data_samples: SampleList, branches: Sequence[int] | None = None
    ) -> dict[str, list[Candidates]]:
        """Return each wanted branch's candidates per image, by the branch's name, in the network input's pixels."""
        img_shapes = [tuple(sample.metainfo["img_shape"][:2]) for sample in batch_data_samples]
        return {
            self.branch_name(i): self.branch(i).candidates(output, img_shapes)
            for i, output in self(feats, branches).items()
        }

    def predict(
        self, feats: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """Detect with the branch ``predict_from`` as its ``test_cfg`` says; best first.

        Args:
            feats: the neck's levels.
            batch_data_samples: whose ``img_shape`` and ``scale_factor`` are used.
            rescale: return boxes in the original image's pixels.
        """
        index = self.predict_from % len(self.predictors)
        cfg = self.branch(index).test_cfg
        candidates = self.candidates(feats, batch_data_samples, [index])[self.branch_name(index)]
        results = []
        for found, sample in zip(candidates, batch_data_samples, strict=True):
            bboxes = found.bboxes
            if rescale:
                bboxes = bboxes / bboxes.new_tensor(sample.metainfo["scale_factor"]).repeat(2)
            keep = final_selection(bboxes, found.scores, found.labels, cfg["nms"], cfg["max_per_img"])
            results.append(InstanceData(bboxes=bboxes[keep], scores=found.scores[keep], labels=found.labels[keep]))
        return results


def final_selection(bboxes: Tensor, scores: Tensor, labels: Tensor, nms: float | None, max_per_img: int) -> Tensor:
    """Return the indices of an image's final detections, best first: class-wise NMS or none, then the top k.

    Args:
        bboxes: (K, 4) xyxy.
        scores: (K,).
        labels: (K,).
        nms: IoU above which the lower-scored of two boxes of a class is dropped; None for no NMS.
        max_per_img: k.
    """
    if nms is None:
        return scores.argsort(descending=True, stable=True)[:max_per_img]
    return batched_nms(bboxes, scores, labels, nms)[:max_per_img]


def _run(tower: nn.ModuleList, x: Tensor) -> Tensor:
    for conv in tower:
        x = conv(x)
    return x
