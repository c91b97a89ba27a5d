"""An evaluation by the process that trained, kept for the DAG's job that asks for it.

That process has PyTorch, MMDetection and the data at hand, whose imports are most of a small evaluation. It keeps what
it found beside the sealed run, with all that decides the bytes: run, data, variants, pictures, code, versions, threads.
``date evaluate --results`` takes it where all of that is still so, and computes it otherwise, as it does a second time:
what was kept is gone once it was taken. A training that is interrupted, ends on a time limit, trains in several
processes or by deterministic kernels keeps nothing, and nor does an evaluation that fails: its own job says why.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from date.catalogue import load
from date.catalogue.settings import data_root
from date.files import file_digest, replace_bytes, sync_folder, sync_path
from date.identity.code import PACKAGE, module_digests
from date.identity.config import resolve
from date.inference.evaluate import EVALUATION_SCHEMA, evaluate, subject, write_evaluation
from date.results import DETECTIONS, EVALUATION, PICTURES
from date.training.interruption import SIGNALS
from date.training.run import read_provenance
from date.training.waiting import PATIENCE

KEPT = ".evaluated"
"""Folder beside the sealed runs; it has a folder for each evaluation that waits to be taken."""
DECIDED = "decided_by.json"
FILES = (DETECTIONS, PICTURES, EVALUATION)
"""The last one is written last, as by `write_evaluation`."""
SOFTWARE = (
    "torch",
    "torchvision",
    "mmengine",
    "mmdet",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "pillow",
    "hotcoco",
)


class _Stopped(BaseException):
    """The process has to end now."""


def decided_by(run: Path, tier_name: str | None, threads: int | None) -> dict[str, Any]:
    """Return all that decides what an evaluation of a sealed run by all of its variants writes.

    Args:
        run: the sealed folder.
        tier_name: see `evaluate`.
        threads: see `evaluate`.

    Raises:
        UserError: see `evaluate`.
    """
    catalogue = load()
    provenance, training, tier, dataset, manifest = subject(run, tier_name)
    loader = resolve(training, tier, provenance["seed"], data_root())["test_dataloader"]
    pictures = catalogue.pictures
    settings = {
        "dataset": dataset.model_dump(),
        "tier": tier.name,
        "loader": loader,
        "variants": {
            e.variant: catalogue.variants[e.variant].model_dump() for e in catalogue.evaluations_of(training.name)
        },
        "pictures": [str(catalogue.picture_choice(training.name)), pictures.floor, pictures.nms],
    }
    return {
        "schema_version": EVALUATION_SCHEMA,
        "run_digest": provenance["run_digest"],
        "weights_sha256": provenance["weights_sha256"],
        "data_digest": manifest["digest"],
        "settings_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest(),
        "code_sha256": _code_digest(),
        "modules": module_digests(training.modules),
        "versions": {name: _version(name) for name in SOFTWARE},
        "threads": threads,
    }


@functools.cache
def _code_digest() -> str:
    """Return the SHA-256 of all of the package's code."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0{file_digest(path)}\0".encode())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def keep(run: Path, tier_name: str, threads: int | None, seconds: float | None, patience: float = PATIENCE) -> None:
    """Evaluate a run that this process has just trained, and keep the result; whatever prevents it is no failure.

    Args:
        run: the sealed folder.
        tier_name: see `evaluate`.
        threads: see `evaluate`.
        seconds: after which this process has to be gone; None for no limit.
        patience: see `evaluate`.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several or read_provenance(run)["compute"]["deterministic"] or (seconds is not None and seconds <= 0):
        return
    target = run.parent / KEPT / run.name
    partial = target.with_name(f".{run.name}.{os.getpid()}")
    for left in target.parent.glob(f".{run.name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        with _stopped_at(seconds):
            decided = decided_by(run, tier_name, threads)
            write_evaluation(*evaluate(run, None, threads, tier_name, patience), partial)
            digests = {name: file_digest(partial / name) for name in FILES}
            replace_bytes(partial / DECIDED, (json.dumps(decided | {"files": digests}, indent=1) + "\n").encode())
            sync_folder(partial)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            sync_path(target.parent)
    except (_Stopped, Exception) as error:
        why = "it has to end" if isinstance(error, _Stopped) else f"{type(error).__name__}: {error}"
        print(f"{run.name} is not evaluated by this process ({why}); its own job does it", file=sys.stderr, flush=True)
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _stopped_at(seconds: float | None) -> Iterator[None]:
    """Raise `_Stopped` in the block on a signal that ends jobs, and when the time is up."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # processes that load data inherit the handler
            os._exit(128 + number)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():  # a second signal is the process's own matter
            signal.signal(each, handler)
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in (*SIGNALS, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def take(run: Path, tier_name: str | None, threads: int | None, folder: Path) -> dict[str, Any] | None:
    """Move an evaluation that was kept to a folder of results, and return its record; None where none is of use.

    Args:
        run: the sealed folder.
        tier_name: see `evaluate`.
        threads: see `evaluate`.
        folder: that gets the files; it is made.

    Raises:
        UserError: there is one, and the run or its data have changed.
    """
    kept = run.parent / KEPT / run.name
    try:
        decided = json.loads((kept / DECIDED).read_bytes())
        contents = {name: (kept / name).read_bytes() for name in FILES}
    except (OSError, ValueError):
        return None
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    useful = decided == decided_by(run, tier_name, threads) | {"files": files}
    if useful:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            replace_bytes(folder / name, content)
    shutil.rmtree(kept, ignore_errors=True)
    return json.loads(contents[EVALUATION]) if useful else None
