"""Where the runs of a tier stand, read from what they leave in the runs folder. Needs no PyTorch, writes nothing."""

from __future__ import annotations

import functools
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from date.catalogue import Tier, Training, load, load_dataset
from date.catalogue.settings import dataset_name
from date.errors import UserError
from date.files import read_replaced
from date.identity.digests import run_digest
from date.results import METRICS, PROVENANCE
from date.training.journal import LOG, STATUS, read_segments
from date.training.lease import HOLDER, SILENCE, known_dead, read_holder, slurm_job_state

STATES = ("running", "stalled", "dead", "failed", "interrupted", "waiting", "done")
"""``stalled``: held by a process that is not heard of, or makes no step; ``dead``: left by a process that is gone;
``interrupted``: left with its state saved. The same command resumes all but the first two."""
NO_NEWS = 1800.0
"""Seconds after which a process that lives but has told of no step counts as stalled."""
TAIL = 1 << 20
"""Bytes at the end of ``metrics.jsonl`` in which the last evaluation is looked for first."""


@dataclass
class RunStatus:
    """Where one training with one seed stands."""

    training: str
    seed: int
    state: str = "waiting"
    run: str | None = None
    """Name of its folder, if there is one."""
    step: int | None = None
    steps: int | None = None
    eta_seconds: float | None = None
    ap: float | None = None
    """Of the last evaluation, in percent."""
    host: str | None = None
    job: str | None = None
    heard_seconds: float | None = None
    """Since a run that is not done was last heard of."""
    reason: str = ""
    log: str | None = None
    older: int = 0
    """Runs of other code, settings or data."""
    older_running: int = 0


@dataclass
class _Run:
    """What lies in the runs folder under one name."""

    name: str
    digest: str
    work: Path | None = None
    sealed: Path | None = None

    def changed(self) -> float:
        """Return when it last changed."""
        if self.sealed is not None:
            return _mtime(self.sealed / PROVENANCE)
        assert self.work is not None
        return max(_mtime(self.work), _mtime(self.work / STATUS), _mtime(self.work / HOLDER))


@dataclass
class Survey:
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
    _identities: dict[tuple[str, int, str], str] = field(default_factory=dict)
    _job_state: Callable[[str], str | None] = slurm_job_state

    def look(self) -> list[RunStatus]:
        """Return where every run stands: those that ``all`` makes in its order, then what else there is."""
        self._job_state = functools.cache(slurm_job_state)  # a job is asked for once
        found = self._found()
        planned = self._planned()
        rest = sorted(found.keys() - set(planned))
        return [self._status(training, seed, found.get((training, seed), [])) for training, seed in planned + rest]

    def _planned(self) -> list[tuple[str, int]]:
        """Return the trainings and seeds that ``all`` makes, with those that they start from."""
        catalogue = load()
        chosen = [
            (training.name, seed) for training in catalogue.select(self.trainings) for seed in self.seeds(training.name)
        ]
        for name, seed in chosen:
            training = catalogue.trainings[name]
            if training.init is not None and training.init_file is None and (training.init, seed) not in chosen:
                chosen.append((training.init, seed))
        order = list(catalogue.trainings)
        return sorted(chosen, key=lambda run: (order.index(run[0]), run[1]))

    def _found(self) -> dict[tuple[str, int], list[_Run]]:
        pattern = re.compile(rf"{re.escape(self.tier.name)}-(.+)-s(\d+)-([0-9a-f]{{10}})")
        runs: dict[str, _Run] = {}
        places: dict[tuple[str, int], list[_Run]] = defaultdict(list)
        # The working folders first: a run that is sealed meanwhile is then seen twice, and not never.
        for folder, part in ((self.runs / ".work", "work"), (self.runs, "sealed")):
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                match = pattern.fullmatch(path.name)
                if match is None or not path.is_dir():
                    continue
                training, seed = match[1], int(match[2])
                # `mini-` begins the names of a tier `mini-large`, too.
                if training not in load().trainings and _json(path / PROVENANCE).get("tier") != self.tier.name:
                    continue
                if path.name not in runs:
                    runs[path.name] = _Run(path.name, match[3])
                    places[training, seed].append(runs[path.name])
                setattr(runs[path.name], part, path)
        return places

    def _status(self, training: str, seed: int, found: list[_Run]) -> RunStatus:
        chosen = self._present(training, seed, found)
        if chosen is None:
            status = RunStatus(training, seed)
        elif chosen.sealed is not None:
            status = _sealed(training, seed, chosen.sealed)
        else:
            assert chosen.work is not None
            status = self._working(training, seed, chosen.work)
        others = [run for run in found if run is not chosen]
        status.older = len(others)
        status.older_running = sum(
            run.sealed is None and run.work is not None and self._working(training, seed, run.work).state == "running"
            for run in others
        )
        return status

    def _present(self, training: str, seed: int, found: list[_Run]) -> _Run | None:
        """Return the run of the present identity, or an import; the newest one where the identity can't be told."""
        identity = self._identity(training, seed)
        if identity is None:
            return max(found, key=_Run.changed, default=None)
        for run in found:
            if run.digest == identity[:10]:
                return run
        imported = (run for run in found if run.sealed and "imported" in _json(run.sealed / PROVENANCE))
        return max(imported, key=_Run.changed, default=None)

    def _identity(self, training: str, seed: int) -> str | None:
        """Return the digest of a run with the present settings and the data that the DAG prepared, or None."""
        entry = load().trainings.get(training)
        if entry is None:
            return None
        try:
            dataset = load_dataset(dataset_name(entry, self.tier))
            manifest = _json(self.results / self.tier.name / "data" / f"{dataset.name}.json").get("digest")
            return None if manifest is None else self._digest(entry, seed, manifest)
        except UserError:  # no such dataset or file any more: then nothing can be trained under that name either
            return None

    def _digest(self, training: Training, seed: int, manifest: str) -> str:
        key = (training.name, seed, manifest)
        if key not in self._identities:
            self._identities[key] = run_digest(training, self.tier, seed, manifest)
        return self._identities[key]

    def _working(self, training: str, seed: int, folder: Path) -> RunStatus:
        """Tell the state of an unfinished run from its lease, the last word of its process, and its segments."""
        told, holder = _json(folder / STATUS), read_holder(folder / HOLDER)
        status = RunStatus(training, seed, run=folder.name, step=told.get("step"), steps=told.get("steps"))
        status.ap = last_ap(folder / METRICS)
        if (folder / LOG).exists():
            status.log = str(folder / LOG)
        segments = read_segments(folder)
        worker = holder or (segments[-1] if segments else {})
        status.host, status.job = worker.get("host"), worker.get("job")
        heard = max(_mtime(folder / HOLDER), _mtime(folder / STATUS))
        status.heard_seconds = None if heard == 0 else round(max(0.0, time.time() - heard), 1)
        if holder is not None:
            self._held(status, holder, told, folder)
        elif told.get("state") in ("interrupted", "failed"):
            status.state, status.reason = told["state"], told.get("reason", "")
        elif told.get("state") == "finished":
            status.state, status.reason = "interrupted", "trained, and not sealed yet"
        elif segments or told:
            status.state, status.reason = "dead", f"left without a word, {_ago(status)}"
        return status

    def _held(self, status: RunStatus, holder: dict[str, Any], told: dict[str, Any], folder: Path) -> None:
        """Tell the state of a run that a lease is on."""
        here = known_dead(holder, ask=lambda job: None)
        silent = time.time() - _mtime(folder / HOLDER) > SILENCE
        if here or (here is None and silent and known_dead(holder, self._job_state)):
            status.state, status.reason = "dead", f"killed, {_ago(status)}"
        elif here is None and silent:
            status.state, status.reason = "stalled", f"no heartbeat, {_ago(status)}; whoever resumes it takes it over"
        elif told.get("pid") != holder["pid"]:
            status.state, status.reason = "running", "starting"
        elif (quiet := time.time() - _mtime(folder / STATUS)) > NO_NEWS:
            status.state, status.reason = "stalled", f"lives, but made no step for {duration(quiet)}"
        else:
            status.state, status.eta_seconds = "running", told.get("eta_seconds")
            status.reason = "" if told["state"] == "training" else told["state"]


def _sealed(training: str, seed: int, folder: Path) -> RunStatus:
    status = RunStatus(training, seed, "done", folder.name)
    provenance = _json(folder / PROVENANCE)
    if not provenance:
        status.state = "failed"
        status.reason = f"{folder / PROVENANCE} can't be read; delete the folder and train again"
        return status
    if (folder / LOG).exists():
        status.log = str(folder / LOG)
    segments = provenance.get("segments", [])
    if "imported" in provenance:
        status.reason = f"imported from {provenance['imported']['file']}"
    elif segments:
        status.step = status.steps = provenance["steps"]
        status.host, status.job = segments[-1].get("host"), segments[-1].get("job")
        status.reason = duration(sum(segment["seconds"] for segment in segments))
        if len(segments) > 1:
            status.reason += f", resumed {len(segments) - 1} time{'s' if len(segments) > 2 else ''}"
    status.ap = last_ap(folder / METRICS)
    return status


def last_ap(metrics: Path) -> float | None:
    """Return the AP of the last evaluation in a ``metrics.jsonl``, also of a training under way."""
    try:
        size = metrics.stat().st_size
        with metrics.open("rb") as stream:
            for start in dict.fromkeys((max(0, size - TAIL), 0)):
                stream.seek(start)
                for line in reversed(stream.read().splitlines()):
                    if b'"eval"' in line and (record := _record(line)).get("kind") == "eval":
                        return record.get("AP")
    except FileNotFoundError:
        return None
    return None


def _record(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # torn
        return {}


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON file's content, empty where it is absent or damaged."""
    try:
        return json.loads(read_replaced(path))
    except (FileNotFoundError, ValueError):
        return {}


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, e.g. ``2 d 5 h``."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def _ago(status: RunStatus) -> str:
    return "never heard" if status.heard_seconds is None else f"last heard {duration(status.heard_seconds)} ago"
