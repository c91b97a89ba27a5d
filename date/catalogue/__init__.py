"""The catalogue: trainings, evaluations, rows and claims of the paper as validated data, read from ``experiments/``.

Everything a researcher edits is YAML; every name is checked when the catalogue is loaded, so that a typing error costs
a sentence and not GPU hours. Nothing here imports PyTorch.
"""

from date.catalogue.claims import (
    Claim,
    Complexity,
    Convergence,
    Gap,
    Higher,
    Loss,
    Ordered,
    Within,
)
from date.catalogue.loading import (
    load,
    load_dataset,
    load_tier,
    no_such_branch,
)
from date.catalogue.models import (
    COCO_AREA_THRESHOLDS,
    Catalogue,
    Compute,
    Dataset,
    DatasetSplit,
    Evaluation,
    Tier,
    Training,
    Variant,
    Weights,
)
from date.catalogue.paper import (
    METRICS,
    AnnotationEvaluation,
    Bracket,
    Curve,
    Figure,
    Metric,
    Panel,
    Row,
    Statement,
    Table,
    TradeOff,
)
from date.catalogue.pictures import (
    Choice,
    Pictures,
    Sheet,
    View,
)
from date.experiments.entries import (
    EXPERIMENTS,
    ROOT,
    Entry,
    parse,
    read_yaml,
    shown,
)

__all__ = [
    "EXPERIMENTS",
    "ROOT",
    "Entry",
    "parse",
    "read_yaml",
    "shown",
    "load",
    "load_dataset",
    "load_tier",
    "no_such_branch",
    "COCO_AREA_THRESHOLDS",
    "Catalogue",
    "Claim",
    "Complexity",
    "Compute",
    "Convergence",
    "Dataset",
    "DatasetSplit",
    "Evaluation",
    "Gap",
    "Higher",
    "Loss",
    "Ordered",
    "Within",
    "Tier",
    "Training",
    "Variant",
    "Weights",
    "METRICS",
    "Bracket",
    "Curve",
    "Figure",
    "AnnotationEvaluation",
    "Metric",
    "Panel",
    "Row",
    "Statement",
    "Table",
    "TradeOff",
    "Choice",
    "Pictures",
    "Sheet",
    "View",
]
