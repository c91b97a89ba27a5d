"""Seeds that are not what they seem: a run that counts as two seeds, and seeds that were dropped or never asked for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from date.catalogue import Catalogue
from date.catalogue.settings import Settings
from date.errors import UserError, listed
from date.results import RunResult, started_runs
from date.runs.state import FINISHED

DIGESTS = {"run_digest": "identity", "weights_sha256": "weights", "metrics_sha256": "records", "imported": "detections"}
"""Of a provenance: what no two runs have in common."""


@dataclass(frozen=True)
class MissingSeed:
    """Why a seed has no result."""

    why: str
    dropped: bool
    """Whether work on it began and does not go on: it was dropped; else it is missing."""


CONFIGURED = MissingSeed("configured, and without any result", dropped=False)
STARTED = MissingSeed("it was started and has no sealed result", dropped=True)
NOT_EVALUATED = MissingSeed("it was trained but not evaluated", dropped=True)
ENDED = {"failed": "failed", "dead": "died"}
"""The states of `date status` in which nothing works on a training, in words."""


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
    unfinished: dict[str, dict[int, MissingSeed]] = field(default_factory=dict)
    """By training and seed: what is lacking of a seed that was configured or started, where something is."""
    unconfigured: dict[str, list[int]] = field(default_factory=dict)
    """By training: seeds that have results of our own, although no setting asks for them."""

    @property
    def sentences(self) -> list[str]:
        """Everything that is wrong with the seeds of trainings that have results, or that failed."""
        said = list(dict.fromkeys(sentence for sentences in self.reused.values() for sentence in sentences))
        for name, by_seed in self._reported().items():
            for missing in dict.fromkeys(by_seed.values()):
                alike = [seed for seed, found in sorted(by_seed.items()) if found == missing]
                said.append(_lacking(name, alike, missing))
        for seeds in sorted({tuple(seeds) for seeds in self.unconfigured.values()}):
            names = ", ".join(sorted(name for name, found in self.unconfigured.items() if tuple(found) == seeds))
            has, count = ("has", "it counts") if len(seeds) == 1 else ("have", "they count")
            said.append(f"{_seeds(seeds)} of {names} {has} results without being configured; {count} like all others.")
        return said

    def _reported(self) -> dict[str, dict[int, MissingSeed]]:
        """Return what is unfinished, without what is merely configured of trainings that have no result at all."""
        present = {run.training for run in self.kept}
        reported = {
            name: {seed: missing for seed, missing in by_seed.items() if name in present or missing != CONFIGURED}
            for name, by_seed in sorted(self.unfinished.items())
        }
        return {name: by_seed for name, by_seed in reported.items() if by_seed}

    def failed(self, training: str) -> list[int]:
        """Return the seeds of a training whose work began and does not go on, and that have no score."""
        return [seed for seed, missing in sorted(self.unfinished.get(training, {}).items()) if missing.dropped]

    def remarks(self, trainings: Sequence[str]) -> list[str]:
        """Return what has to be said beside a claim over these trainings."""
        said = [sentence for name in trainings for sentence in self.reused.get(name, ())]
        seeds = {name: {run.seed for run in self.kept if run.training == name} for name in trainings}
        for name, by_seed in self._reported().items():
            if name in seeds:
                said += [_lacking(name, [seed], missing) for seed, missing in sorted(by_seed.items())]
        union = set().union(*seeds.values())
        for name in trainings if len(trainings) > 1 else ():
            lacking = sorted(union - seeds[name] - self.unfinished.get(name, {}).keys())
            if lacking and seeds[name]:
                numbers = f"seed{'s' * (len(lacking) > 1)} {listed(list(map(str, lacking)))}"
                said.append(f"{name} has no result for {numbers}, which other trainings here have.")
        return list(dict.fromkeys(said))


def _lacking(name: str, seeds: Sequence[int], missing: MissingSeed) -> str:
    be = ("were" if missing.dropped else "are") if len(seeds) > 1 else ("was" if missing.dropped else "is")
    return f"{_seeds(seeds)} of {name} {be} {'dropped' if missing.dropped else 'missing'}: {missing.why}."


def _seeds(seeds: Sequence[int]) -> str:
    return f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def configured_seeds(catalogue: Catalogue, settings: Settings, chosen: Sequence[str]) -> dict[str, set[int]]:
    """Return the seeds that settings give each training: its own, and those of the chosen ones that start from it."""
    seeds = {name: set(settings.seeds_for(name)) for name in catalogue.trainings}
    for name in chosen:
        start = catalogue.training(name).init
        if start in seeds:
            seeds[start] |= set(settings.seeds_for(name))
    return seeds


def failures(path: Path, tier: str, option: str | None = None) -> dict[tuple[str, int], MissingSeed]:
    """Return why runs have no result, by training and seed, from what ``python -m date status --json`` printed.

    Args:
        path: of the file.
        tier: the name of the tier that it has to be of.
        option: what ``--tier`` takes to mean it, for messages.

    Raises:
        UserError: the file is something else, or of another tier.
    """
    remedy = f"make it by: python -m date status --tier {option or tier} --json > {shlex.quote(str(path))}"
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        runs = [(run["training"], int(run["seed"]), run["state"], run["reason"]) for run in status["runs"]]
        of = status["tier"]
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {remedy}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not what `date status --json` prints; {remedy}") from None
    if of != tier:
        raise UserError(f"{path} is of the tier {of!r}; {remedy}")
    open_runs = [run for run in runs if run[2] not in (*FINISHED, "waiting")]
    said = {}
    for training, seed, state, why in open_runs:
        text = f"its training {ENDED.get(state, f'is {state}')}"
        said[training, seed] = MissingSeed(f"{text}: {why.rstrip('.')}" if why else text, dropped=state in ENDED)
    return said


def audit_seeds(
    results: Sequence[RunResult],
    results_dir: Path,
    tier: str,
    configured: Mapping[str, Collection[int]] | None = None,
    failed: Mapping[tuple[str, int], MissingSeed] | None = None,
) -> SeedAudit:
    """Find results that repeat another one, seeds that were asked for and have no result, and those not asked for.

    Args:
        results: of the tier, in order; of results that share a digest the first is kept.
        results_dir: the folder that holds ``<tier>/``.
        tier: its name.
        configured: the seeds that the settings ask for, see `configured_seeds`; None: not known.
        failed: why runs have no result, see `failures`.
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
            audit.unfinished.setdefault(run.training, {})[run.seed] = NOT_EVALUATED
    for training, seed in started_runs(results_dir, tier):
        audit.unfinished.setdefault(training, {})[seed] = STARTED
    there = {(run.training, run.seed): run for run in results}
    for (training, seed), missing in sorted((failed or {}).items()):
        if (training, seed) not in there:
            audit.unfinished.setdefault(training, {})[seed] = missing
    for training, seeds in (configured or {}).items():
        for seed in sorted(seeds):
            if (training, seed) not in there:
                audit.unfinished.setdefault(training, {}).setdefault(seed, CONFIGURED)
    for (training, seed), run in there.items():
        asked = configured is None or "imported" in run.provenance or seed in configured.get(training, ())
        if not asked:
            audit.unconfigured.setdefault(training, []).append(seed)
    return audit
