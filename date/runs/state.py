"""What is there of each run of a tier, and why it would be trained or evaluated again. Needs no PyTorch and no data."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from date.catalogue import Tier, Training, load, load_dataset
from date.catalogue.settings import data_root, dataset_name
from date.errors import UserError, listed
from date.identity.code import code_fingerprint
from date.identity.config import resolve
from date.identity.digests import CARRIED_OUT, config_digest, run_digest, run_name
from date.planning.durations import length
from date.results import EVALUATION, PICTURES, PROVENANCE
from date.training.journal import STATUS, read_segments

CONFIG = "config.py"
CHANGES_SHOWN = 3


@dataclass(frozen=True)
class State:
    """Of a training or an evaluation."""

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


class Runs:
    """Looks at the results and runs of a tier.

    Args:
        tier: whose runs.
        results: folder of all results, which has the manifests of the data, too.
        runs: folder of all runs.
    """

    def __init__(self, tier: Tier, results: Path, runs: Path) -> None:
        self.tier, self.results, self.runs = tier, results / tier.name, runs
        self._digests: dict[tuple[str, int], str] = {}

    def manifest(self, training: Training) -> str | None:
        """Return the digest of the data that a training sees, as the DAG last verified them; None if it never did."""
        dataset = load_dataset(dataset_name(training, self.tier))
        return (_json(self.results / "data" / f"{dataset.name}.json") or {}).get("digest")

    def provenance(self, training: str, seed: int) -> dict[str, Any] | None:
        """Return the provenance of a run's sealed result, or None."""
        return _json(self.results / training / f"seed{seed}" / PROVENANCE)

    def evaluation(self, training: str, seed: int) -> dict[str, Any] | None:
        """Return a run's evaluation, or None."""
        return _json(self.results / training / f"seed{seed}" / EVALUATION)

    def trained(self, training: Training, seed: int) -> State:
        """Return what is there of a training, compared with the present config, code and data."""
        provenance = self.provenance(training.name, seed)
        if provenance is not None and "imported" in provenance:
            return State("cached", "imported")
        digest = self._digest(training, seed)
        if provenance is not None:
            if digest is not None and provenance["run_digest"] == digest:
                return State("cached")
            if digest is None and not (changes := self._changes(training, seed, provenance)):
                return State("cached", "config and code are the present ones; the data are not known")
        if digest is not None:
            name = run_name(training, self.tier, seed, digest)
            if (self.runs / name / PROVENANCE).exists():
                return State("cached", f"sealed as {self.runs / name}; its results are copied")
            working = self.runs / ".work" / name
        else:
            found = (self.runs / ".work").glob(f"{self.tier.name}-{training.name}-s{seed}-{'[0-9a-f]' * 10}")
            working = max(found, key=lambda path: path.stat().st_mtime, default=self.runs / ".work" / "none")
        if provenance is not None:
            changes = self._changes(training, seed, provenance)
            state, why = "changed", "; ".join(changes) or f"starts from {training.init}, which is another now"
        else:
            state, why = "new", "never trained"
        progress = self._progress(working, training)
        if progress is None:
            return State(state, why)  # type: ignore[arg-type]
        step, steps, told = progress
        before = "" if state == "new" else f"{why}; "
        unsure = "" if digest else ", if config, code and data are the same"
        return State("interrupted", f"{before}{told} step {step:,} of {steps:,}{unsure}", step, steps)

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

    def _digest(self, training: Training, seed: int) -> str | None:
        """Return the present identity of a run, or None where that of the data is not known."""
        manifest = self.manifest(training)
        if manifest is None:
            return None
        key = (training.name, seed)
        if key not in self._digests:
            self._digests[key] = run_digest(training, self.tier, seed, manifest)
        return self._digests[key]

    def _changes(self, training: Training, seed: int, provenance: dict[str, Any]) -> list[str]:
        """Return what differs between a sealed result and the present, each a few words."""
        changes = []
        config = resolve(training, self.tier, seed, None)
        if provenance.get("config_sha256") != config_digest(config):
            changes.append(self._config_changes(training, seed, provenance))
        if provenance.get("code_sha256") != code_fingerprint():
            changes.append("training code changed")
        manifest = self.manifest(training)
        if manifest is not None and provenance["data"]["digest"] != manifest:
            changes.append(f"data of {provenance['data'].get('dataset', 'the training')} changed")
        return changes

    def _config_changes(self, training: Training, seed: int, provenance: dict[str, Any]) -> str:
        path = self.runs / str(provenance.get("run")) / CONFIG
        try:
            old = dict(flat(read_config(path.read_text(encoding="utf-8"))))
        except (FileNotFoundError, ValueError, SyntaxError):
            return f"config changed (where, {path} would tell)"
        new = dict(flat(resolve(training, self.tier, seed, data_root())))
        keys = [k for k in [*new, *(k for k in old if k not in new)] if _shown(old.get(k)) != _shown(new.get(k))]
        keys = [k for k in keys if not set(k.split(".")) & set(CARRIED_OUT)]
        told = [f"{key} {_shown(old.get(key))} -> {_shown(new.get(key))}" for key in keys[:CHANGES_SHOWN]]
        return f"config changed: {listed(told, len(keys))}" if told else "config changed"

    def _progress(self, working: Path, training: Training) -> tuple[int, int, str] | None:
        """Return the step of the last checkpoint, all steps, and words before them; None where nobody worked on it."""
        if not working.is_dir() or not read_segments(working):
            return None
        names = (path.name.split("-") for path in (working / "checkpoints").glob("step-*-*.ckpt"))
        step = max((int(parts[1]) for parts in names if parts[1].isdecimal()), default=0)
        steps = (_json(working / STATUS) or {}).get("steps")
        if not steps:
            steps = length(training, self.tier).steps
        running = "ended" not in read_segments(working)[-1]
        return step, steps, "under way, or killed: saved at" if running else "interrupted: resumes from"


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


def _json(path: Path) -> dict[str, Any] | None:
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
