"""MMDetection's own single-stage detectors with one dense head: RetinaNet, FCOS, ATSS, GFL and their like."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from date.families.base import Branch, BranchView, Facts, Family
from date.families.sizes import size_dense_detector

if TYPE_CHECKING:
    from torch import Tensor

ONLY = "head"
"""Name of the only branch."""


class DenseHead(Family):
    """A detector whose dense head is used as it is trained; its detections need NMS."""

    name = "dense"

    @property
    def branches(self) -> dict[str, Branch]:
        """The head itself."""
        return {ONLY: Branch(one_to_one=False)}

    def complete(self, model: dict[str, Any], facts: Facts) -> None:
        """See `Family`."""
        size_dense_detector(model, facts)

    def has_anchors(self, branch: str) -> bool:
        """See `Family`."""
        return "anchor_generator" in self.fragment["model"]["bbox_head"]

    @property
    def shows_positives(self) -> bool:
        """Whether the head is RetinaNet's or FCOS's, whose targets MMDetection computes."""
        return self.fragment["model"]["bbox_head"]["type"] in ("RetinaHead", "RetinaNetHead", "FCOSHead")

    @classmethod
    def serves(cls, head: Any) -> bool:
        """See `Family`."""
        from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

        return isinstance(head, BaseDenseHead)

    @classmethod
    def component(cls, part: str, *rest: str) -> str | None:
        """See `Family`."""
        if part in ("cls_convs", "reg_convs"):
            return "towers"
        return "scales" if part == "scales" else "predictors"

    @classmethod
    def test_cfg(cls, head: Any, branch: str) -> Mapping[str, Any]:
        """See `Family`."""
        return head.test_cfg

    @classmethod
    def candidates(
        cls,
        model: Any,
        inputs: Tensor,
        samples: Sequence[Any],
        wanted: Iterable[tuple[str, float]],
        look: Callable[[str, Any], None],
    ) -> dict[tuple[str, float], Sequence[Any]]:
        """See `Family`."""
        head = model.bbox_head
        metas = [sample.metainfo for sample in samples]
        maps = head(model.extract_feat(inputs))

        def select(threshold: float) -> Any:
            cfg = copy.copy(head.test_cfg)
            cfg["score_thr"] = threshold
            return head.predict_by_feat(*maps, batch_img_metas=metas, cfg=cfg, rescale=False, with_nms=False)

        return {(branch, threshold): select(threshold) for branch, threshold in wanted}

    @classmethod
    def views(cls, head: Any, feats: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, BranchView]:
        """See `Family`."""
        from mmdet.models.dense_heads import FCOSHead, RetinaHead

        maps = head(feats)
        metas = [sample.metainfo for sample in samples]
        found = head.predict_by_feat(*maps, batch_img_metas=metas, rescale=False, with_nms=False)

        def shown(image: int, sample: Any) -> tuple[Tensor, Tensor, Tensor]:
            return positives(head, maps, sample)

        known = isinstance(head, RetinaHead | FCOSHead)
        return {ONLY: BranchView(found, head.test_cfg, shown if known else None)}


def positives(head: Any, maps: Sequence[Sequence[Tensor]], sample: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return which points the loss of MMDetection's RetinaNet or FCOS head calls positive, by its own targets.

    Args:
        head: MMDetection's.
        maps: its outputs, lists of maps by level.
        sample: MMDetection's, with ``gt_instances`` in pixels of the network's input.

    Returns:
        Centres (K, 2) in pixels of the network's input, strides (K,) and indices of the objects (K,). An anchor is
        where its centre is.
    """
    import torch
    from mmdet.models.dense_heads import AnchorHead

    sizes = [level.shape[-2:] for level in maps[0]]
    like = maps[1][0]
    if isinstance(head, AnchorHead):
        anchors, flags = head.get_anchors(sizes, [sample.metainfo], device=like.device)
        priors = anchors[0]
        labels, _, targets, *_ = head.get_targets(anchors, flags, [sample.gt_instances], [sample.metainfo])
        labels, targets = [level[0] for level in labels], [level[0] for level in targets]
    else:
        priors = head.prior_generator.grid_priors(sizes, dtype=like.dtype, device=like.device)
        labels, targets = head.get_targets(priors, [sample.gt_instances])
    # RetinaNet's strides are pairs.
    steps = [stride[0] for stride in head.prior_generator.strides]
    strides = torch.cat([like.new_full((len(level),), step) for level, step in zip(labels, steps, strict=True)])
    every, label = torch.cat(list(priors)), torch.cat(list(labels))
    chosen = ((label >= 0) & (label < head.num_classes)).nonzero(as_tuple=True)[0]
    boxes = head.bbox_coder.decode(every[chosen], torch.cat(list(targets))[chosen])
    centers = anchor_centers(every[chosen]) if isinstance(head, AnchorHead) else every[chosen]
    return centers, strides[chosen], nearest(boxes, sample.gt_instances.bboxes)


def anchor_centers(anchors: Tensor) -> Tensor:
    """Return the centres (K, 2) of (K, 4) xyxy anchors."""
    return (anchors[:, :2] + anchors[:, 2:]) / 2


def nearest(targets: Tensor, bboxes: Tensor) -> Tensor:
    """Return the object that each regression target is, up to rounding: (K,) indices into the (G, 4) boxes."""
    return (targets[:, None] - bboxes.to(targets.dtype)).abs().amax(-1).argmin(-1)
