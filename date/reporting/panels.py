"""What is judged together: the scores of one metric and schedule, with their values on resamples of the images.

A panel has the runs that a variance may be learned from, see `date.reporting.crossed`. Runs that start from the same
trained weights are one unit: of one training they count as one run (their mean), of two they go together.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from date.catalogue import Catalogue
from date.reporting.crossed import Cells, Difference, Fit, fit
from date.results import RunResult

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Scores of one metric and schedule."""

    cells: Cells
    """By training and unit."""
    seeds: Mapping[tuple[str, Hashable], tuple[int, ...]]
    """Of each cell."""
    resampled: Mapping[tuple[str, Hashable], Values]
    """Of each cell that has them, the score on each resample of the images, (R,)."""
    images: Mapping[tuple[str, Hashable], str]
    """Digest of the images of those."""
    stated: Mapping[str, float] = field(default_factory=dict)
    """The field's stated deviation of a run, by training, where somebody states it."""
    image_free: bool = False
    """Whether images have no part in the scores, as in training losses."""

    @functools.cached_property
    def fit(self) -> Fit:
        """The model of these scores."""
        return fit(self.cells, self.stated)

    def with_runs(self, added: Mapping[str, Mapping[Hashable, float]]) -> Panel:
        """Return the panel with further runs, which have no resamples."""
        cells = {name: {**by_unit, **added.get(name, {})} for name, by_unit in self.cells.items()}
        return Panel(cells, self.seeds, self.resampled, self.images, self.stated, self.image_free)


def units(results: Sequence[RunResult], catalogue: Catalogue) -> dict[tuple[str, int], Hashable]:
    """Return what each run, by training and seed, shares with others: the weights it starts from, or the seed."""
    found: dict[tuple[str, int], Hashable] = {}
    for run in results:
        training = catalogue.trainings.get(run.training)
        start = run.provenance.get("initialised_from")
        trained = training is not None and training.init in catalogue.trainings
        found[run.training, run.seed] = (
            f"start {start['weights_sha256']}" if trained and isinstance(start, dict) else run.seed
        )
    return found


def panel(
    scores: Mapping[str, Mapping[int, float]],
    unit_of: Callable[[str, int], Hashable],
    resampled: Callable[[str, int], tuple[str, Values] | None],
    stated: Mapping[str, float] | None = None,
    image_free: bool = False,
) -> Panel:
    """Gather scores by training and seed.

    Args:
        scores: by training (or evaluation) and seed.
        unit_of: what a run shares with others.
        resampled: digest of the images and the score on their resamples, or None.
        stated: see `Panel`.
        image_free: see `Panel`.
    """
    cells: dict[str, dict[Hashable, float]] = {}
    members: dict[tuple[str, Hashable], list[int]] = {}
    for name, by_seed in scores.items():
        for seed in sorted(by_seed):
            members.setdefault((name, unit_of(name, seed)), []).append(seed)
    values: dict[tuple[str, Hashable], Values] = {}
    images: dict[tuple[str, Hashable], str] = {}
    for (name, unit), seeds in members.items():
        cells.setdefault(name, {})[unit] = statistics.fmean(scores[name][seed] for seed in seeds)
        found = [each for seed in seeds if (each := resampled(name, seed)) is not None]
        if len(found) == len(seeds) and len({digest for digest, _ in found}) == 1:
            images[name, unit] = found[0][0]
            values[name, unit] = np.mean([row for _, row in found], axis=0)
    by_training = {key: tuple(seeds) for key, seeds in members.items()}
    return Panel(cells, by_training, values, images, stated or {}, image_free)


def image_variance(found: Difference, panels: Sequence[Panel]) -> float | None:
    """Return what the finite set of images adds to the variance of a difference; None where it is not known.

    With images and runs both drawn anew, a mean over n runs varies by the runs, by the images, and by both together.
    The spread over runs on the same images holds the last part, and so does the spread over resamples with the same
    runs: it is taken off once (the crossed bootstrap of Owen, *Ann. Appl. Stat.* 1, 2007). It is estimated within each
    training, from how its runs' values differ in how they move with the images.
    """
    total: Values | None = None
    doubled = 0.0
    digests = set()
    for each, weights in zip(panels, found.weights, strict=True):
        if each.image_free:
            continue
        if any(key not in each.resampled for key in weights):
            return None
        digests |= {each.images[key] for key in weights}
        for key, w in weights.items():
            moved = w * each.resampled[key]
            total = moved if total is None else total + moved
        for name in {name for name, _ in weights}:
            mine = [key for key in weights if key[0] == name]
            rows = [each.resampled[key] for key in mine]
            if len(rows) > 1:
                apart = np.array(rows) - np.mean(rows, axis=0)
                both = float(np.nanvar(apart, axis=1, ddof=1).sum()) / (len(rows) - 1)
                doubled += both * sum(weights[key] ** 2 for key in mine)
    if total is None or len(digests) > 1:
        return 0.0 if total is None else None
    defined = total[~np.isnan(total)]
    return max(0.0, float(defined.var(ddof=1)) - doubled) if len(defined) > 1 else None
