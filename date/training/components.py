"""What MMEngine's runner builds from a config: importing this module registers it with MMDetection."""

from date import compat

compat.activate()

from date.training.metric import CocoDetectionMetric, CrowdHumanDetectionMetric  # noqa: E402
from date.training.recorder import MetricsHook  # noqa: E402
from date.training.sampling import EpochSampler, SeededDataset  # noqa: E402
from date.training.weights import FeatureExtractorHook  # noqa: E402

__all__ = [
    "CocoDetectionMetric",
    "CrowdHumanDetectionMetric",
    "EpochSampler",
    "FeatureExtractorHook",
    "MetricsHook",
    "SeededDataset",
]
