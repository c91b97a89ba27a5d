"""The method: heads, branches, assignment, matching, losses. Importing it registers them with MMDetection."""

from date import stack

stack.load()

from date.models.assigners import OneNetQuality, POTOQuality  # noqa: E402
from date.models.baselines import FCOSHead, RetinaNetHead  # noqa: E402
from date.models.branches import OneToOneBranch  # noqa: E402
from date.models.efficientnet_lite import EfficientNetLite  # noqa: E402
from date.models.head import DualAssignmentHead  # noqa: E402
from date.models.one_to_many import FCOSBranch, RetinaBranch  # noqa: E402
from date.models.preprocessor import DetDataPreprocessor  # noqa: E402

__all__ = [
    "DetDataPreprocessor",
    "DualAssignmentHead",
    "EfficientNetLite",
    "FCOSBranch",
    "FCOSHead",
    "OneNetQuality",
    "OneToOneBranch",
    "POTOQuality",
    "RetinaBranch",
    "RetinaNetHead",
]
