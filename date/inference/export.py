"""The network for inference: one branch, with OneNet's parameters and cost (DATE sec. 3.1, Table 8)."""

from __future__ import annotations

import copy

from torch import nn

from date.errors import UserError
from date.models.head import DualAssignmentHead


def inference_network(model: nn.Module) -> nn.Module:
    """Return a copy of a detector whose head has only the branch that it predicts with.

    Detections are bit for bit those of the detector. With the one-to-one branch kept, names and shapes of the
    parameters are those of OneNet, whatever was trained beside it and whether or not the towers were shared.

    Args:
        model: a detector with a `DualAssignmentHead`; it is left as it is.

    Raises:
        UserError: another head, which has no branch to leave out.
    """
    head = model.bbox_head
    if not isinstance(head, DualAssignmentHead):
        raise UserError(
            f"{type(head).__name__} has no branch that only training needs; use the trained network as it is."
        )
    model = copy.deepcopy(model)
    head = model.bbox_head
    assert isinstance(head, DualAssignmentHead)
    kept = head.predict_from % len(head.predictors)
    if not head.share_towers and kept > 0:
        head.cls_convs, head.reg_convs = head.branch_towers(kept)
    head.branch_cls_convs, head.branch_reg_convs = nn.ModuleList(), nn.ModuleList()
    head.predictors = nn.ModuleList([head.predictors[kept]])
    head.share_towers, head.predict_from = True, 0
    return model
