"""The method: heads, branches, assignment, matching, losses. Importing it registers them with MMDetection."""

from date import stack

stack.load()

with stack.without_scipy():
    from date.models.assigners import OneNetQuality, POTOQuality
    from date.models.baselines import FCOSHead, RetinaNetHead
    from date.models.branches import OneToOneBranch
    from date.models.efficientnet_lite import EfficientNetLite
    from date.models.head import DualAssignmentHead
    from date.models.one_to_many import FCOSBranch, RetinaBranch
    from date.models.preprocessor import DetDataPreprocessor

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
