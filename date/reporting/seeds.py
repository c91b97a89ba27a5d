"""Seeds that are not what they seem: one run that counts as two seeds, and seeds that were dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from date.results import RunResult, started_runs

DIGESTS = {"run_digest": "identity", "weights_sha256": "weights", "metrics_sha256": "records", "imported": "detections"}
"""Of a provenance: what no two runs have in common."""


def digests(run: RunResult) -> dict[str, str]:
    """Return what tells a run from all others; an import has no records of its own, but files of detections."""
    found = {key: run.provenance.get(key) for key in DIGESTS}
    imported = run.provenance.get("imported")
    if imported is not None:
        files = imported.get("detections") if imported.get("kind") == "detections" else None
        found |= {"metrics_sha256": None, "imported": json.dumps(files, sort_keys=True) if files else None}
    return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class SeedAudit:
    """What is wrong with the seeds of a tier's results."""

    kept: list[RunResult]
    """The results without those that repeat another."""
    reused: dict[str, list[str]] = field(default_factory=dict)
    """Sentences by training, of results that are left out since they repeat another."""
    unfinished: dict[str, dict[int, str]] = field(default_factory=dict)
    """By training and seed: what is lacking of a seed that was configured or started."""

    def remarks(self, trainings: Sequence[str]) -> list[str]:
        """Return what has to be said beside a claim over these trainings."""
        said = [sentence for name in trainings for sentence in self.reused.get(name, ())]
        seeds = {name: {run.seed for run in self.kept if run.training == name} for name in trainings}
        for name, by_seed in self.unfinished.items():
            if name in seeds:
                said += [f"Seed {seed} of {name} was dropped: {why}." for seed, why in sorted(by_seed.items())]
        union = set().union(*seeds.values())
        for name in trainings if len(trainings) > 1 else ():
            lacking = sorted(union - seeds[name] - self.unfinished.get(name, {}).keys())
            if lacking and seeds[name]:
                listed = ", ".join(map(str, lacking))
                word = "Seeds" if len(lacking) > 1 else "Seed"
                said.append(
                    f"{word} {listed} of {name} {'have' if len(lacking) > 1 else 'has'} no result, others have."
                )
        return list(dict.fromkeys(said))


def audit_seeds(results: Sequence[RunResult], results_dir: Path, tier: str) -> SeedAudit:
    """Find results that repeat another one, and seeds that were started but have no result.

    Args:
        results: of the tier, in order; of results that share a digest the first is kept.
        results_dir: the folder that holds ``<tier>/``.
        tier: its name.
    """
    audit = SeedAudit([])
    seen: dict[tuple[str, str], RunResult] = {}
    for run in results:
        known = list(digests(run).items())
        same = next(((key, seen[key, value]) for key, value in known if (key, value) in seen), None)
        if same is not None:
            key, first = same
            sentence = (
                f"Left out: seed {run.seed} of {run.training} has the same {DIGESTS[key]} as seed {first.seed} of "
                f"{first.training}; one run does not count twice."
            )
            for name in {run.training, first.training}:
                audit.reused.setdefault(name, []).append(sentence)
            continue
        seen |= dict.fromkeys(known, run)
        audit.kept.append(run)
        if run.evaluation is None:
            audit.unfinished.setdefault(run.training, {})[run.seed] = "it was trained but not evaluated"
    for training, seed in started_runs(results_dir, tier):
        audit.unfinished.setdefault(training, {})[seed] = "it was started and has no sealed result"
    return audit
