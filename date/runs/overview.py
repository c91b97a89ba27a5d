"""The states of a tier's runs: those that ``all`` makes, and others in the runs folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from date.catalogue import Tier, load
from date.runs.state import Runs
from date.runs.working import RunStatus


@dataclass
class Overview:
    """Looks at all runs of a tier.

    Args:
        tier: whose runs.
        trainings: patterns of what ``all`` trains.
        seeds: returns those that ``all`` trains a training with.
        runs: folder of all runs.
        results: folder of the results, which has the manifests of the data.
    """

    tier: Tier
    trainings: list[str]
    seeds: Callable[[str], Sequence[int]]
    runs: Path
    results: Path

    def statuses(self) -> list[RunStatus]:
        """Return the state of every run: those that ``all`` makes in its order, then the others in the folder."""
        runs, planned = Runs(self.tier, self.results, self.runs), self._planned()
        rest = sorted(runs.folders.keys() - set(planned))
        return [runs.status(training, seed) for training, seed in planned + rest]

    def _planned(self) -> list[tuple[str, int]]:
        """Return the trainings and seeds that ``all`` makes, with those that they start from."""
        catalogue = load()
        trainings = [training.name for training in catalogue.chosen(self.tier, self.trainings)]
        chosen = [(name, seed) for name in trainings for seed in self.seeds(name)]
        for name, seed in chosen:
            first = catalogue.trainings[name].init_training
            if first is not None and (first, seed) not in chosen:
                chosen.append((first, seed))
        order = list(catalogue.trainings)
        return sorted(chosen, key=lambda run: (order.index(run[0]), run[1]))
