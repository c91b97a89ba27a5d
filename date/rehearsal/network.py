"""One network's rehearsal: trained, killed, resumed, evaluated and scored by the commands of every day."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from date.catalogue import Tier, Training, load_dataset
from date.datasets.files import data_files
from date.experiments.folders import VARIABLE, folders
from date.rehearsal import children
from date.rehearsal.experiments import TIER, VALIDATED, rehearsed_name, variants
from date.rehearsal.sample import Sample
from date.results import DETECTIONS, EVALUATION, METRICS, PROVENANCE, WEIGHTS, read_metrics

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Of batch normalisation, in the weights but not trained."""


class StageFailedError(Exception):
    """A stage of a rehearsal failed; the message says why."""


@dataclass(frozen=True)
class Place:
    """The place of a rehearsal and the command line that runs it."""

    folder: Path
    """Of experiments; runs and results lie in it, too."""
    command: Callable[[Sequence[str]], int]
    """The command line, ``date.cli.main``."""
    deadline: float
    """By `time.monotonic`."""
    options: list[str] = field(default_factory=list)
    """Further options of training."""
    threads: int | None = None
    forks: bool = True
    """Whether a forked process can use the GPU; else each command starts a new Python."""

    def log(self, training: Training) -> Path:
        """Return the log of a network's rehearsal."""
        return self.folder / f"{training.name}.log"

    def date(
        self, *words: object, log: Path, out: Path | None = None, until: Callable[[], bool] = lambda: False
    ) -> bool:
        """Run a command on the sampled data; return false where it was killed as ``until`` asks.

        Raises:
            StageFailedError: it failed.
            TimeIsUpError: see `children.run`.
        """
        status = children.run(lambda: self._main(words), log, self.deadline, out, until)
        if status:
            raise StageFailedError(last_words(log) or f"`date {words[0]}` ended with status {status}")
        return status is not None

    def read_sample(self) -> None:
        """Let this process read the rehearsal's experiments and its sampled data from now on."""
        os.environ[VARIABLE] = os.pathsep.join(map(str, [*folders(), self.folder]))
        os.environ["DATE_DATA_ROOT"] = str(self.folder / "data")

    def _main(self, words: Sequence[object]) -> int:
        self.read_sample()
        if not self.forks:
            os.execv(sys.executable, [sys.executable, "-m", "date", *map(str, words)])
        return self.command([str(word) for word in words])


@dataclass(frozen=True)
class Measured:
    """The measurements of the rehearsal of a network."""

    seconds_per_step: float
    seconds_per_image: float
    """Of the validation."""
    memory_mb: int
    parameters: int


def rehearse_network(place: Place, training: Training, tier: Tier, sample: Sample) -> Measured:
    """Rehearse a network on sampled data and return what was measured.

    Raises:
        StageFailedError: something did not work.
        TimeIsUpError: the time was over.
    """
    log, name = place.log(training), rehearsed_name(training)
    runs, results = place.folder / "runs", place.folder / "results" / training.name
    threads = [] if place.threads is None else ["--threads", place.threads]
    train = ["train", name, "--tier", TIER, "--runs", runs, *threads, *place.options]
    saved = f".work/{TIER}-{name}-s0-*/checkpoints/step-*.ckpt"
    try:
        if place.date(*train, log=log, until=lambda: any(runs.glob(saved))):
            raise StageFailedError("the training ended before it could be killed after its first checkpoint")
        place.date(*train, log=log)
        (run,) = runs.glob(f"{TIER}-{name}-s0-*")
        _check_resumed(run)
        place.date("evaluate", run, "--tier", TIER, "--results", results, *threads, log=log)
        _check_score(place, training, sample, results, log)
        return _measured(run, tier, min(sample.val, VALIDATED))
    finally:
        shutil.rmtree(runs, ignore_errors=True)  # weights and checkpoints of some hundred MB


def last_words(log: Path) -> str:
    """Return the last message of a command: its error without the prefix, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else next(iter(lines[-1:]), "")


def _check_resumed(run: Path) -> None:
    """Raise a `StageFailedError` unless the run went on from the checkpoint of one that was killed."""
    segments = json.loads((run / PROVENANCE).read_text())["segments"]
    reasons = [segment["reason"] for segment in segments]
    if reasons != ["killed", "finished"] or not segments[1]["from_step"]:
        raise StageFailedError(f"the training did not resume from its checkpoint (its processes: {', '.join(reasons)})")


def _check_score(place: Place, training: Training, sample: Sample, results: Path, log: Path) -> None:
    """Raise a `StageFailedError` unless scoring the file of detections gives the numbers of the evaluation."""
    dataset = load_dataset(str(place.folder / "datasets" / f"{sample.name}.yaml"))
    truth = data_files(dataset, place.folder / "data").val_annotations
    variant = variants(training)[0]
    evaluated = json.loads((results / EVALUATION).read_text())
    thresholds = evaluated["area_thresholds"]
    words: list[object] = ["score", "--protocol", dataset.protocol, "--gt", truth, "--variant", variant, "--json"]
    words += ["--area-thresholds", *thresholds] if thresholds else []
    out = results / "score.json"
    place.date(*words, "--detections", results / DETECTIONS, log=log, out=out)
    scored, metrics = json.loads(out.read_text()), evaluated["variants"][variant]["metrics"]
    if scored != metrics:
        raise StageFailedError(f"`date score` gives other numbers than `date evaluate`: {scored} and {metrics}")


def _measured(run: Path, tier: Tier, images: int) -> Measured:
    """Return what the records of a rehearsed run say, without the steps in which a process warms up."""
    records = read_metrics(run / METRICS)
    lines = [record for record in records if record["kind"] == "train"]
    resumed = json.loads((run / PROVENANCE).read_text())["segments"][1]["from_step"]
    first = [next(line for line in lines if line["step"] > step) for step in (0, resumed)]
    warm = [line for line in lines if line not in first] or lines
    validations = [record["seconds"] for record in records if record["kind"] == "eval"]
    return Measured(
        statistics.median(line["seconds_per_step"] for line in warm),
        validations[-1] / images,
        max(line["memory_mb"] for line in lines),
        count_parameters(run / WEIGHTS),
    )


def count_parameters(weights: Path) -> int:
    """Return the number of trained or frozen parameters in a safetensors file."""
    with weights.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return sum(prod(entry["shape"]) for name, entry in tensors.items() if not name.endswith(BUFFERS))


def loading_speed(name: str, tier_name: str) -> float:
    """Return the images that the loading processes of a training make in a second, when nothing else is to be done.

    What the processes load first is not counted: their start would be.

    Args:
        name: of the training.
        tier_name: of the tier.
    """
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import date.training.components  # noqa: F401 - registers what the config names
    from date.catalogue import load, load_tier
    from date.catalogue.modules import import_modules
    from date.catalogue.settings import data_root
    from date.errors import UserError
    from date.identity.config import resolve
    from date.training.sampling import LoadFailure, build_loader
    from date.training.waiting import all_batches

    training = load().training(name)
    import_modules(training.modules)
    init_default_scope("mmdet")
    config = Config(resolve(training, load_tier(tier_name), 0, data_root()))
    loader = build_loader(config.train_dataloader, torch.device("cpu"))
    began, arrivals = time.perf_counter(), []
    for batch in all_batches(loader):
        if isinstance(batch, LoadFailure):
            raise UserError(f"{batch.image} can't be loaded ({batch.reason}); restore the file.")
        arrivals.append(time.perf_counter())
    size = loader.batch_sampler.batch_size
    at_first = loader.num_workers
    if len(arrivals) <= 2 * at_first or not at_first:
        return len(arrivals) * size / (arrivals[-1] - began)
    return (len(arrivals) - at_first) * size / (arrivals[-1] - arrivals[0])
