"""The method: heads, branches, assignment, matching, losses. Importing it registers them with MMDetection."""

from date import compat

compat.activate()

from date.models.assigners import OneNetQuality, POTOQuality  # noqa: E402
from date.models.baselines import RetinaNetHead  # noqa: E402
from date.models.branches import FCOSBranch, OneToOneBranch, RetinaBranch  # noqa: E402
from date.models.efficientnet_lite import EfficientNetLite  # noqa: E402
from date.models.head import DualAssignmentHead  # noqa: E402

__all__ = [
    "DualAssignmentHead",
    "EfficientNetLite",
    "FCOSBranch",
    "OneNetQuality",
    "OneToOneBranch",
    "POTOQuality",
    "RetinaBranch",
    "RetinaNetHead",
]
