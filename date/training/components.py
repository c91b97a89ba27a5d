"""Importing this module registers the components that a config names and MMDetection does not have."""

from date import stack

stack.load()

from date.training.metric import CocoDetectionMetric, CrowdHumanDetectionMetric  # noqa: E402
from date.training.sampling import EpochSampler, GlobalBatchSampler, LoadRecordedImage, SeededDataset  # noqa: E402

__all__ = [
    "CocoDetectionMetric",
    "CrowdHumanDetectionMetric",
    "EpochSampler",
    "GlobalBatchSampler",
    "LoadRecordedImage",
    "SeededDataset",
]
