"""Two ideas of detectors after DATE, on its dual-assignment head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from date.errors import UserError
from date.models import DualAssignmentHead
from date.models.branches import BranchOutput


@MODELS.register_module()
class AfterDATEHead(DualAssignmentHead):
    """The dual-assignment head whose branches share less, or share it for a while.

    Args:
        stop_gradient: the one-to-one branch takes the towers' features as they are and trains its own predictors alone
            (YOLOv10, arXiv 2405.14458, stops that gradient before the head's features, too).
        o2m_weight: what multiplies the one-to-many losses in the first and in the last step, and in equal steps between
            them (YOLO26 goes from 0.8 to 0.1); None for a weight that stays.
        steps: of the training; the model's ``adapt`` fills it in.
        kwargs: of `DualAssignmentHead`.
    """

    steps_done: Tensor

    def __init__(
        self,
        *,
        stop_gradient: bool = False,
        o2m_weight: tuple[float, float] | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if o2m_weight is not None and not steps:
            raise UserError("a weight that changes during training needs 'steps'; set it in the model's 'adapt'.")
        self.stop_gradient, self.o2m_weight, self.steps = stop_gradient, o2m_weight, steps
        if o2m_weight is not None:  # in every checkpoint, so that a resumed training goes on with the same weight
            self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def forward(self, feats: Sequence[Tensor], branches: Sequence[int] | None = None) -> dict[int, BranchOutput]:
        """See `DualAssignmentHead`."""
        if not self.stop_gradient:
            return super().forward(feats, branches)
        outputs = {}
        for index in range(len(self.predictors)) if branches is None else branches:
            towers = self.tower_levels(feats, index)
            if index == 0:
                towers = ([x.detach() for x in towers[0]], [x.detach() for x in towers[1]])
            outputs[index] = self.predictors[index](*towers, self.scales)
        return outputs

    def weight(self) -> float:
        """Return what multiplies the one-to-many losses in the step that comes next."""
        if self.o2m_weight is None or self.steps is None:
            return 1.0
        first, last = self.o2m_weight
        return first + (last - first) * min(1.0, int(self.steps_done) / max(1, self.steps - 1))

    def loss(self, feats: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """See `DualAssignmentHead`; each call in training is a step.

        Raises:
            UserError: the batch is divided into passes, of which a step has several.
        """
        losses = super().loss(feats, batch_data_samples)
        if self.o2m_weight is None or not self.training:
            return losses
        if not torch.is_grad_enabled():  # the trainer's first look at a divided batch
            raise UserError("a weight that falls by steps needs whole batches; leave --images-per-pass out.")
        weight = self.weight()
        self.steps_done += 1
        return {name: value * weight if name.startswith("o2m.") else value for name, value in losses.items()}
