"""Values of metrics on resamples as an evaluation stores them, see `date.evaluation.resamples`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

UNDEFINED = "-"


def read_resamples(stored: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """Return the stored values by metric, (R,); NaN where undefined."""
    return {
        name: np.array([math.nan if v == UNDEFINED else float(v) for v in text.split()])
        for name, text in stored.items()
    }  # fmt: skip
