"""MMDetection's RetinaNet head with a normaliser that does not depend on how a batch is divided."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS

from date.models.normalisers import reduce_mean, undivided


@MODELS.register_module()
class RetinaNetHead(RetinaHead):
    """RetinaNet's head.

    Args:
        reduce_normaliser: True divides by the mean over the processes of their numbers of positive anchors; False by
            this process's own, as MMDetection does. In one process the two are the same.
        args, kwargs: of `RetinaHead`.
    """

    def __init__(self, *args: Any, reduce_normaliser: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reduce_normaliser = reduce_normaliser

    def get_targets(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return MMDetection's targets with the number of positives that the losses are divided by."""
        *targets, num_pos = super().get_targets(*args, **kwargs)
        if undivided():
            return (*targets, num_pos)
        like = args[2][0].bboxes  # the objects' own precision; MMDetection's targets are float32 also in float64
        return (*targets, reduce_mean(like.new_tensor(float(num_pos)), self.reduce_normaliser))
