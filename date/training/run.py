"""Train a run, from its catalogue entry to its sealed folder.

While it is trained, a run lives in ``<runs>/.work/<run>/``: checkpoints, ``metrics.jsonl``, ``train.log``, and what
`date.training.journal` and `date.training.lease` write. The same command resumes it there, however it ended. At the
end ``<runs>/<run>/`` appears, complete, by a rename.
"""

from __future__ import annotations

import calendar
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date import stack
from date.catalogue import ROOT, Tier, Training, load, load_dataset
from date.catalogue.modules import import_modules
from date.catalogue.origin import origin
from date.catalogue.settings import data_root, dataset_name
from date.datasets.lengths import check_steps
from date.datasets.prepare import prepare, verify_weights
from date.errors import UserError, one_line
from date.experiments.refusals import understood
from date.files import file_digest, sync_folder, sync_path
from date.identity.code import code_fingerprint, module_digests
from date.identity.config import resolve
from date.identity.digests import config_digest, run_digest, run_name
from date.memory import noticed
from date.progress import progress_lines
from date.results import CHECKPOINTS, CONFIG, METRICS, PROVENANCE, WEIGHTS, read_metrics
from date.training.compiler import check_tools
from date.training.hardware import changes, hardware, kept_threads
from date.training.interruption import SIGNALS, Interrupted, Interruption
from date.training.options import Options

if TYPE_CHECKING:
    from date.training.journal import Journal
    from date.training.lease import Lease
    from date.training.processes import Processes

PROVENANCE_SCHEMA = 2
SAVED = (*(number.name for number in SIGNALS), "time budget")
"""Reasons with which a process leaves whose state is saved."""
STARTS_WITHOUT_PROGRESS = 5
"""How often one Slurm job may start from the same checkpoint."""


@dataclass(frozen=True)
class Plan:
    """The facts about a run that are known before PyTorch is loaded."""

    training: Training
    tier: Tier
    seed: int
    digest: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    sealed: Path
    """The folder that appears at the end."""
    initial: Path | None
    """The file of weights that backbone, neck and towers start from."""

    @property
    def title(self) -> str:
        """For the eye."""
        return f"{self.training.name} seed {self.seed}"

    @property
    def work(self) -> Path:
        """The working folder."""
        return self.sealed.parent / ".work" / self.sealed.name


def plan(training: Training, tier: Tier, seed: int, runs: Path) -> Plan:
    """Check everything that can be wrong with names, data and weights, and return what is to be trained.

    Raises:
        UserError: bad data, or missing weights.
    """
    root = data_root()
    dataset = load_dataset(dataset_name(training, tier))
    manifest = prepare(dataset, root, progress_lines(f"preparing {dataset.name}"))
    check_steps(tier, training.data, root)
    verify_weights(tier, training.weights, root)
    initial = _initial_weights(training, tier, seed, runs, manifest["digest"])
    digest = run_digest(training, tier, seed, manifest["digest"])
    sealed = runs / run_name(training, tier, seed, digest)
    config = resolve(training, tier, seed, root)
    return Plan(training, tier, seed, digest, config, manifest, sealed, initial)


def train(
    training: Training,
    tier: Tier,
    seed: int,
    runs: Path,
    threads: int | None = None,
    options: Options = Options(),  # noqa: B008 - immutable
    time_budget: float | None = None,
) -> Path:
    """Train a network, go on where an interrupted process left off, or find the finished run; return its sealed folder.

    Args:
        training: what to train.
        tier: how large.
        seed: of initialisation, data order and augmentation.
        runs: folder of all runs.
        threads: CPU threads; None lets PyTorch choose.
        options: how the training is carried out; see there.
        time_budget: seconds after which this process has to be gone; None for no limit.

    Raises:
        Interrupted: a signal or the end of the time budget; the state is saved.
        UserError: bad data, missing weights, another process training the same run, or what the training itself
            can't go on with; the message names the last checkpoint.
    """
    with Interruption(time_budget) as interruption:
        planned = plan(training, tier, seed, runs)
        if planned.sealed.exists():
            print(f"{planned.sealed.name} is trained already", file=sys.stderr)
            _clear(planned)
            return planned.sealed
        # MMDetection's datasets print pycocotools' chatter; standard output is for the run's folder alone.
        with contextlib.redirect_stdout(io.StringIO()), _processes(planned, threads) as processes:
            _train(planned, interruption, processes, options)
    return planned.sealed


def _clear(planned: Plan) -> None:
    """Remove what a process that was killed after sealing left of its working folder, unless somebody holds it."""
    from date.training.journal import tell
    from date.training.lease import Lease, LeaseHeldError

    if planned.work.exists():
        try:
            with Lease(planned.work, f"removing {planned.work.name}", tell(planned.title)):
                _set_aside(planned.work)
        except LeaseHeldError:
            return
    shutil.rmtree(planned.work.with_name(f"{planned.work.name}.done"), ignore_errors=True)


@contextlib.contextmanager
def _processes(planned: Plan, threads: int | None) -> Iterator[Processes]:
    warnings.filterwarnings("ignore", category=UserWarning, module="mmengine")
    stack.load()
    import torch
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    import date.models
    import date.training.components  # noqa: F401 - both register what a config names
    from date.training.journal import tell
    from date.training.processes import joined

    import_modules(planned.training.modules)
    threads, why = kept_threads(planned.work, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    if why is not None:
        tell(planned.title)(why)
    MMLogger.get_instance("date", log_level="WARNING")
    init_default_scope("mmdet")
    if planned.config["compute"]["compile"] and torch.cuda.is_available():
        check_tools()
    with joined() as processes:
        yield processes


def _train(planned: Plan, interruption: Interruption, processes: Processes, options: Options) -> None:
    from date.training.journal import Journal, tell
    from date.training.lease import Lease

    if not processes.first:
        with Journal(planned.work, planned.title, quiet=True) as journal:
            _run(planned, interruption, processes, options, None, journal)
        return
    with (
        Lease(
            planned.work,
            f"training {planned.sealed.name}",
            tell(planned.title),
            lose=lambda: os.kill(os.getpid(), signal.SIGTERM),  # all processes leave at the next step
        ) as lease,
        Journal(planned.work, planned.title) as journal,
    ):
        if not planned.sealed.exists():  # else finished by the holder before
            _complete(planned, interruption, processes, options, lease, journal)
        done = _set_aside(planned.work)
    try:
        shutil.rmtree(done)  # now that nothing in it is open: NFS keeps open files under other names
    except OSError as error:
        tell(planned.title)(f"{done} can't be removed ({error.strerror}); nobody needs it, delete it")


def _complete(
    planned: Plan,
    interruption: Interruption,
    processes: Processes,
    options: Options,
    lease: Lease,
    journal: Journal,
) -> None:
    """Train and seal, and leave word of how that ended."""
    from date.training.journal import begin_segment, end_segment, read_segments
    from date.training.lease import LeaseLostError

    segment, earlier = _segment(planned, processes), read_segments(planned.work)
    begin_segment(planned.work, segment)
    if segment["from_step"] and earlier and (changed := changes(earlier[-1], segment)):
        journal.say(f"the weights may differ in their last bits from an undisturbed run's: {'; '.join(changed)}")
    try:
        _give_up_if_stuck(planned, segment, earlier)
        _miss_nothing(planned, segment["from_step"], earlier)
        weights = _run(planned, interruption, processes, options, lease, journal)
        end_segment(planned.work, journal.status.get("step"), "finished")
        journal.end("finished", "sealed")
        lease.check()
        _seal(planned, weights, processes)
    except LeaseLostError:  # the folder is another process's, and so are the files that tell of it
        raise
    except BaseException as error:
        lease.check()  # what was lost while the training left is the other process's, too
        state, reason = ("interrupted", error.reason) if isinstance(error, Interrupted) else ("failed", one_line(error))
        with contextlib.suppress(OSError):  # on a full disk the error itself has to reach the user
            journal.end(state, reason)
            end_segment(planned.work, journal.status.get("step"), reason)
        raise


def _run(
    planned: Plan,
    interruption: Interruption,
    processes: Processes,
    options: Options,
    lease: Lease | None,
    journal: Journal,
) -> dict[str, Any]:
    from mmengine.config import Config

    from date.training.loop import Trainer
    from date.training.memory import keep_memory

    keep_memory()
    initial = None if planned.initial is None else (planned.initial, file_digest(planned.initial))
    verify = f"python -m date data verify --deep --tier {planned.tier.option}"
    with noticed(), understood():
        trainer = Trainer(
            Config(planned.config),
            planned.work,
            planned.digest,
            planned.seed,
            initial,
            replace(options, verify=verify),
            processes,
            interruption,
            lease,
            journal,
        )
        return trainer.run()


def _seal(planned: Plan, weights: dict[str, Any], processes: Processes) -> None:
    """Make the sealed folder of a finished training appear."""
    from mmengine.config import Config
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from date.training.journal import LOG

    folder = planned.work / "sealed"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    Config(planned.config).dump(str(folder / CONFIG))
    try:
        save_file(weights, folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(
            f"{folder / WEIGHTS} can't be written ({error}); make room, then run the same command again: the training "
            f"is finished and has only to be sealed."
        ) from error
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors keeps others out, whatever the umask says
    for name in (METRICS, LOG):
        shutil.copy(planned.work / name, folder / name)
    (folder / PROVENANCE).write_text(json.dumps(_provenance(planned, folder, processes), indent=1) + "\n")
    sync_folder(folder)
    folder.rename(planned.sealed)
    sync_path(planned.sealed.parent)


def _set_aside(work: Path) -> Path:
    """Rename the working folder of a finished training so that no command finds it, and return the new path."""
    done = work.with_name(f"{work.name}.done")
    if done.exists():
        shutil.rmtree(done)
    return work.rename(done)


def _initial_weights(training: Training, tier: Tier, seed: int, runs: Path, manifest_digest: str) -> Path | None:
    """Return the file of weights that a training starts from, if it starts from any.

    Raises:
        UserError: the training that it starts from has no sealed run, or one whose files have changed.
    """
    if training.init_training is None:
        return training.init_file
    run = _sealed_run(load().training(training.init_training), tier, seed, runs, manifest_digest)
    read_provenance(run)  # the identity names this run: other weights would be another one
    return run / WEIGHTS


def find_run(training: Training, tier: Tier, seed: int, runs: Path) -> Path:
    """Return the sealed run of a training with the present settings, data and code.

    Raises:
        UserError: there is none.
    """
    dataset = load_dataset(dataset_name(training, tier))
    manifest = prepare(dataset, data_root(), progress_lines(f"preparing {dataset.name}"))
    return _sealed_run(training, tier, seed, runs, manifest["digest"])


def _sealed_run(training: Training, tier: Tier, seed: int, runs: Path, manifest_digest: str) -> Path:
    run = runs / run_name(training, tier, seed, run_digest(training, tier, seed, manifest_digest))
    if not run.exists():
        command = f"python -m date train {training.name} --tier {tier.option} --seed {seed}"
        raise UserError(
            f"{training.name} with seed {seed} has not been trained with the present settings; run: {command}"
        )
    return run


def _miss_nothing(planned: Plan, step: int, segments: list[dict[str, Any]]) -> None:
    """Raise a `UserError` where a working folder lacks what an earlier process saved in it.

    Args:
        planned: the run.
        step: of its last checkpoint, 0 where there is none.
        segments: the processes that worked on it before.
    """
    anew = f"restore it, or delete {planned.work} to train from the beginning."
    saved = max((segment.get("from_step") or 0 for segment in segments), default=0)
    if segments and segments[-1].get("reason") in SAVED:
        saved = max(saved, segments[-1].get("step") or 0)
    if step == 0 and saved > 0:
        raise UserError(f"{planned.work / CHECKPOINTS} has lost the checkpoint of step {saved}; {anew}")
    if step == 0:
        return
    metrics = planned.work / METRICS
    recorded = max((record.get("step", 0) for record in read_metrics(metrics)), default=0) if metrics.exists() else 0
    if recorded + planned.config["metrics_interval"] <= step:
        raise UserError(f"{metrics} lacks records of steps up to {step}, of which there is a checkpoint; {anew}")


def _give_up_if_stuck(planned: Plan, segment: dict[str, Any], segments: list[dict[str, Any]]) -> None:
    """Raise a `UserError` where a Slurm job that is started again and again gets nowhere; another job may try anew."""
    from date.training.journal import LOG

    starts = 0
    for earlier in reversed(segments):
        same = (earlier["job"], earlier.get("from_step")) == (segment["job"], segment["from_step"])
        if segment["job"] is None or not same:
            break
        starts += 1
    if starts >= STARTS_WITHOUT_PROGRESS:
        raise UserError(
            f"{planned.title} has been started {starts} times by Slurm job {segment['job']} and is still at step "
            f"{segment['from_step']}; see {planned.work / LOG}, then run the same command again."
        )


def _segment(planned: Plan, processes: Processes) -> dict[str, Any]:
    """Return who works on a run from now on."""
    from date.training import checkpoint

    found = checkpoint.steps(planned.work / CHECKPOINTS)
    return {
        "from_step": found[0][0] if found else 0,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "processes": processes.count,
        **hardware(),
    }


def _provenance(planned: Plan, folder: Path, processes: Processes) -> dict[str, Any]:
    from date.compat import stack_versions
    from date.training.journal import read_segments

    compute = planned.config["compute"]
    provenance = {
        "schema_version": PROVENANCE_SCHEMA,
        "training": planned.training.name,
        "tier": planned.tier.name,
        "seed": planned.seed,
        "run": planned.sealed.name,
        "run_digest": planned.digest,
        "config_sha256": config_digest(resolve(planned.training, planned.tier, planned.seed, None)),
        "code_sha256": code_fingerprint(),
        "commit": _commit(),
        "data": planned.manifest,
        "weights_sha256": file_digest(folder / WEIGHTS),
        "metrics_sha256": file_digest(folder / METRICS),
        "versions": stack_versions(),
        "hardware": hardware(),
        "precision": compute["precision"],
        "compute": compute,
        "steps": _last_step(folder / METRICS),
        "batch_size": planned.config["train_dataloader"]["batch_size"],
        "processes": processes.count,
        "segments": [segment | _seconds(segment) for segment in read_segments(planned.work)],
    }
    provenance |= origin(planned.training, planned.tier)
    if planned.training.modules:
        provenance["modules"] = module_digests(planned.training.modules)
    if planned.initial is not None:
        source = planned.training.init if planned.training.init_file else planned.initial.parent.name
        provenance["initialised_from"] = {"weights": source, "weights_sha256": file_digest(planned.initial)}
    return provenance


def _seconds(segment: dict[str, Any]) -> dict[str, Any]:
    began, ended = (calendar.timegm(time.strptime(segment[k], "%Y-%m-%dT%H:%M:%SZ")) for k in ("began", "ended"))
    return {"seconds": max(1, ended - began)}  # times are whole seconds; some work was done


def _last_step(metrics: Path) -> int:
    return max(json.loads(line).get("step", 0) for line in metrics.read_text().splitlines())


def _commit() -> str | None:
    """Return the project's commit with ``+`` where files differ from it; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def read_provenance(run: Path) -> dict[str, Any]:
    """Return the provenance of a sealed run.

    Raises:
        UserError: the folder is not a sealed run, or a file is missing, damaged or does not match its digest.
    """
    path = run / PROVENANCE
    if not path.exists():
        raise UserError(f"{run} is not a sealed run (it has no {PROVENANCE}); name a folder that `date train` printed.")
    anew = f"delete {run} and train it again."
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {anew}") from None
    for name, key in ((WEIGHTS, "weights_sha256"), (METRICS, "metrics_sha256")):
        if not (run / name).is_file():
            raise UserError(f"{run / name} is missing; restore it, or {anew}")
        if file_digest(run / name) != provenance[key]:
            raise UserError(f"{run / name} has changed since it was sealed; {anew}")
    return provenance
