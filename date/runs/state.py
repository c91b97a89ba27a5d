"""The state of each run of a tier, decided in one place for plan, status, training and report.

A run is looked for in three places: the results that the DAG keeps, the sealed folders, and the working folders of
unfinished runs. Needs no PyTorch and no data, writes nothing.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from date.catalogue import Tier, Training, load, load_dataset
from date.catalogue.settings import data_root, dataset_name
from date.errors import UserError, listed
from date.formatting import format_duration
from date.identity.code import code_fingerprint, module_digests
from date.identity.config import resolve
from date.identity.digests import CARRIED_OUT, config_digest, run_digest
from date.identity.length import length
from date.results import CONFIG, EVALUATION, MANIFESTS, METRICS, PICTURES, PROVENANCE, last_evaluation
from date.runs.working import RunStatus, Worker, changed_at, read_or_empty
from date.training.journal import LOG
from date.training.lease import slurm_job_state

FINISHED = ("cached", "imported", "done")
"""States of runs that need no more work."""
CHANGES_SHOWN = 3


@dataclass(frozen=True)
class State:
    """The state of a training or an evaluation, and the share of the work that is left."""

    state: Literal["cached", "new", "changed", "interrupted"]
    why: str = ""
    done: int = 0
    """Steps that need not be made again."""
    steps: int = 0
    """Steps in all, where some are done."""

    @property
    def left(self) -> float:
        """Share of the work that is still to be done."""
        if self.state == "cached":
            return 0.0
        return 1 - min(1.0, self.done / self.steps) if self.steps else 1.0


@dataclass
class Folder:
    """The working folder and the sealed folder of one run."""

    name: str
    digest: str
    """The first ten digits of the run's identity."""
    work: Path | None = None
    sealed: Path | None = None

    def changed(self) -> float:
        """Return when it last changed."""
        if self.sealed is not None:
            return changed_at(self.sealed / PROVENANCE)
        assert self.work is not None
        return Worker(self.work).changed()


class Runs:
    """Looks at the results and runs of a tier, as they are when it is made.

    Args:
        tier: whose runs.
        results: folder of all results, which has the manifests of the data, too.
        runs: folder of all runs.
    """

    def __init__(self, tier: Tier, results: Path, runs: Path) -> None:
        self.tier, self.results, self.runs = tier, results / tier.name, runs
        self._digests: dict[tuple[str, int, str], str] = {}
        self.folders = self._folders()
        self._job_state = functools.cache(slurm_job_state)  # a job is asked for once

    def manifest(self, training: Training) -> str | None:
        """Return the digest of the data that a training sees, as the DAG last verified them; None if it never did."""
        dataset = load_dataset(dataset_name(training, self.tier))
        return (read_json(self.results / MANIFESTS / f"{dataset.name}.json") or {}).get("digest")

    def provenance(self, training: str, seed: int) -> dict[str, Any] | None:
        """Return the provenance of a run's sealed result, or None."""
        return read_json(self.results / training / f"seed{seed}" / PROVENANCE)

    def evaluation(self, training: str, seed: int) -> dict[str, Any] | None:
        """Return a run's evaluation, or None."""
        return read_json(self.results / training / f"seed{seed}" / EVALUATION)

    def status(self, name: str, seed: int) -> RunStatus:
        """Return where a run stands.

        ``imported``, ``done`` (its sealed folder is here) and ``cached`` (its results are here) are finished; ``stale``
        has results of other code, settings or data alone; for the others see `date.runs.working.STATES`.

        Raises:
            UserError: a result is damaged.
        """
        found = self.folders.get((name, seed), [])
        provenance, chosen = self.provenance(name, seed), self._present(name, seed, found)
        training = load().trainings.get(name)
        if provenance is not None and "imported" in provenance:
            status = self._result(name, seed, "imported", _imported(provenance))
        elif chosen is not None and chosen.sealed is not None:
            status = _sealed(name, seed, chosen.sealed)
        elif provenance is not None and training is not None and self._is_present(training, seed, provenance):
            known = self.identity(name, seed) is not None
            reason = "its results are here" if known else "config and code are current; the data are not known"
            status = self._result(name, seed, "cached", reason)
        elif chosen is not None and chosen.work is not None:
            status = self._worker(chosen.work).status(name, seed)
        elif provenance is not None and training is not None:
            status = self._result(name, seed, "stale", self._why_stale(training, seed, provenance))
        else:
            status = RunStatus(name, seed)
        others = [folder for folder in found if folder is not chosen]
        status.older = len(others)
        status.older_running = sum(
            folder.sealed is None
            and folder.work is not None
            and self._worker(folder.work).status(name, seed).state == "running"
            for folder in others
        )
        return status

    def trained(self, training: Training, seed: int) -> State:
        """Return what is left to do of a training."""
        status = self.status(training.name, seed)
        provenance = self.provenance(training.name, seed)
        if status.state == "imported":
            return State("cached", "imported")
        if status.state == "cached":
            return State("cached", "" if self.identity(training.name, seed) else status.reason)
        if status.state == "done":
            copied = provenance is not None and provenance.get("run") == status.run
            return State(
                "cached", "" if copied else f"sealed as {self.runs / str(status.run)}; the DAG will copy its results"
            )
        before = ""
        if provenance is not None:
            before = (
                "; ".join(self._changes(training, seed, provenance))
                or f"starts from {training.init}, which is another now"
            )
        work = None if status.run is None else self.runs / ".work" / status.run
        if work is None or not self._worker(work).segments:
            return State("changed", before) if before else State("new", "never trained")
        step, steps = self._worker(work).saved_step(), status.steps or length(training, self.tier).steps
        resumes = f"{status.state}: resumes from step {step:,} of {steps:,}"
        unsure = "" if self.identity(training.name, seed) else ", if config, code and data are the same"
        return State("interrupted", f"{before and before + '; '}{resumes}{unsure}", step, steps)

    def evaluated(self, training: Training, seed: int, trained: State) -> State:
        """Return what is there of a run's evaluation."""
        evaluation = self.evaluation(training.name, seed)
        if trained.state != "cached":
            return State("new" if evaluation is None else "changed", "its training runs")
        if evaluation is None:
            return State("new", "never evaluated")
        if evaluation["run_digest"] != (self.provenance(training.name, seed) or {}).get("run_digest"):
            return State("changed", "it judges another run")
        wanted = [e.variant for e in load().evaluations_of(training.name)]
        if missing := [variant for variant in wanted if variant not in evaluation["variants"]]:
            return State("changed", f"not judged yet: {', '.join(missing)}")
        pictures = self.results / training.name / f"seed{seed}" / PICTURES
        if training.name in load().pictured and not pictures.exists():
            return State("changed", "it has no pictures yet")
        return State("cached")

    def identity(self, name: str, seed: int) -> str | None:
        """Return the present identity of a run, or None where that of the data, or the training, is not known."""
        training = load().trainings.get(name)
        if training is None:
            return None
        try:
            manifest = self.manifest(training)
            return None if manifest is None else self._digest(training, seed, manifest)
        except UserError:  # no such dataset or file any more: then nothing can be trained under that name either
            return None

    def _digest(self, training: Training, seed: int, manifest: str) -> str:
        key = (training.name, seed, manifest)
        if key not in self._digests:
            self._digests[key] = run_digest(training, self.tier, seed, manifest)
        return self._digests[key]

    def _is_present(self, training: Training, seed: int, provenance: Mapping[str, Any]) -> bool:
        """Return whether a result is of the present identity, or could be, where the data are not known."""
        identity = self.identity(training.name, seed)
        if identity is not None:
            return provenance["run_digest"] == identity
        return not self._changes(training, seed, provenance)

    def _present(self, name: str, seed: int, found: list[Folder]) -> Folder | None:
        """Return the run of the present identity, or an import; the newest one where the identity is not known."""
        identity = self.identity(name, seed)
        if identity is None:
            return max(found, key=Folder.changed, default=None)
        for folder in found:
            if folder.digest == identity[:10]:
                return folder
        imported = (f for f in found if f.sealed and "imported" in (read_or_empty(f.sealed / PROVENANCE)))
        return max(imported, key=Folder.changed, default=None)

    def _folders(self) -> dict[tuple[str, int], list[Folder]]:
        pattern = re.compile(rf"{re.escape(self.tier.name)}-(.+)-s(\d+)-([0-9a-f]{{10}})")
        runs: dict[str, Folder] = {}
        places: dict[tuple[str, int], list[Folder]] = defaultdict(list)
        # The working folders first: a run that is sealed meanwhile is then seen twice, and not never.
        for folder, part in ((self.runs / ".work", "work"), (self.runs, "sealed")):
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                match = pattern.fullmatch(path.name)
                if match is None or not path.is_dir():
                    continue
                training, seed = match[1], int(match[2])
                # `mini-` begins the names of a tier `mini-large`, too.
                if training not in load().trainings and read_or_empty(path / PROVENANCE).get("tier") != self.tier.name:
                    continue
                if path.name not in runs:
                    runs[path.name] = Folder(path.name, match[3])
                    places[training, seed].append(runs[path.name])
                setattr(runs[path.name], part, path)
        return places

    def _worker(self, folder: Path) -> Worker:
        return Worker(folder, self._job_state)

    def _result(self, name: str, seed: int, state: str, reason: str) -> RunStatus:
        status = RunStatus(name, seed, state, reason=reason)
        status.ap = (last_evaluation(self.results / name / f"seed{seed}" / METRICS) or {}).get("AP")
        return status

    def _why_stale(self, training: Training, seed: int, provenance: Mapping[str, Any]) -> str:
        changes = self._changes(training, seed, provenance)
        return "; ".join(changes) or f"starts from {training.init}, which is another now"

    def _changes(self, training: Training, seed: int, provenance: Mapping[str, Any]) -> list[str]:
        """Return what differs between a sealed result and the present, each a few words."""
        changes = []
        config = resolve(training, self.tier, seed, None)
        if provenance.get("config_sha256") != config_digest(config):
            changes.append(self._config_changes(training, seed, provenance))
        if provenance.get("code_sha256") != code_fingerprint():
            changes.append("training code changed")
        if (now := module_digests(training.modules)) != (before := provenance.get("modules", {})):
            named = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
            changes.append(f"own modules changed: {', '.join(named)}")
        manifest = self.manifest(training)
        if manifest is not None and provenance["data"]["digest"] != manifest:
            changes.append(f"data of {provenance['data'].get('dataset', 'the training')} changed")
        return changes

    def _config_changes(self, training: Training, seed: int, provenance: Mapping[str, Any]) -> str:
        path = self.runs / str(provenance.get("run")) / CONFIG
        try:
            old = dict(flat(read_config(path.read_text(encoding="utf-8"))))
        except (FileNotFoundError, ValueError, SyntaxError):
            return f"config changed ({path} can't be read, so the difference is not known)"
        new = dict(flat(resolve(training, self.tier, seed, data_root())))
        keys = [k for k in [*new, *(k for k in old if k not in new)] if _shown(old.get(k)) != _shown(new.get(k))]
        keys = [k for k in keys if not set(k.split(".")) & set(CARRIED_OUT)]
        changes = [f"{key} {_shown(old.get(key))} -> {_shown(new.get(key))}" for key in keys[:CHANGES_SHOWN]]
        return f"config changed: {listed(changes, len(keys))}" if changes else "config changed"


def _sealed(name: str, seed: int, folder: Path) -> RunStatus:
    status = RunStatus(name, seed, "done", folder.name)
    provenance = read_or_empty(folder / PROVENANCE)
    if not provenance:
        status.state = "failed"
        status.reason = f"{folder / PROVENANCE} can't be read; delete the folder and train again"
        return status
    if (folder / LOG).exists():
        status.log = str(folder / LOG)
    segments = provenance.get("segments", [])
    if "imported" in provenance:
        status.state, status.reason = "imported", _imported(provenance)
    elif segments:
        status.step = status.steps = provenance["steps"]
        status.host, status.job = segments[-1].get("host"), segments[-1].get("job")
        status.reason = format_duration(sum(segment["seconds"] for segment in segments))
        if len(segments) > 1:
            status.reason += f", resumed {len(segments) - 1} time{'s' if len(segments) > 2 else ''}"
    status.ap = (last_evaluation(folder / METRICS) or {}).get("AP")
    return status


def _imported(provenance: Mapping[str, Any]) -> str:
    imported = provenance["imported"]
    files = [imported.get("file"), *(entry["file"] for entry in imported.get("detections", {}).values())]
    files.append((imported.get("log") or {}).get("file"))
    return f"imported from {', '.join(dict.fromkeys(filter(None, files)))}"


def read_config(text: str) -> dict[str, Any]:
    """Return the variables of a dumped MMEngine config without running it: literals and ``dict(...)``.

    Raises:
        ValueError: it has anything else.
        SyntaxError: it is not Python.
    """

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return {keyword.arg: value(keyword.value) for keyword in node.keywords}
        if isinstance(node, ast.Dict):
            return {value(k): value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        if isinstance(node, ast.List | ast.Tuple):
            return [value(item) for item in node.elts]
        return ast.literal_eval(node)

    variables = {}
    for statement in ast.parse(text).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            raise ValueError("a dumped config assigns variables and does nothing else")
        variables[statement.targets[0].id] = value(statement.value)
    return variables


def flat(item: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dicts and lists under their dotted names."""
    pairs: Any = None
    if isinstance(item, Mapping):
        pairs = item.items()
    elif isinstance(item, list | tuple) and any(isinstance(i, Mapping | list | tuple) for i in item):
        pairs = enumerate(item)
    if not pairs:
        yield prefix, list(item) if isinstance(item, tuple) else item
        return
    for key, value in pairs:
        yield from flat(value, f"{prefix}.{key}" if prefix else str(key))


def _shown(value: Any) -> str:
    """Return a value for the eye; of a path only the name, since the place of data does not matter."""
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return "-" if value is None else str(value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON file's content, None where it is absent.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the DAG again.") from None
