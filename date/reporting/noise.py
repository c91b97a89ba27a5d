"""The field's stated noise between runs that differ in nothing but chance, for where one seed has to do."""

from __future__ import annotations

STATED_NOISE = {"AP": 0.3, "mMR": 1.0}
"""About so much two runs of one configuration differ. Of other columns no noise is stated."""

STATED_SD = {metric: noise / 2 for metric, noise in STATED_NOISE.items()}
"""Read as two standard deviations of a run."""

SOURCES = (
    "Stated noise: 0.3 AP and 1.0 mMR, read as two standard deviations of a run. Sources: DeFCN's README (about 0.3 AP "
    "for POTO, about 1.0 mMR for all methods), OneNet's README (about 0.3 AP), and MMDetection's maintainers (between "
    "seeds less than 0.2 to 0.3 AP on COCO: mmdetection issues 2558, 3496, 3624)."
)
