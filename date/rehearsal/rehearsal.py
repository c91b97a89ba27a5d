"""All networks' rehearsals, one after the other, within a number of minutes."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from date.catalogue import Tier, Training, load_dataset
from date.catalogue.settings import data_root
from date.datasets.lengths import least_side
from date.errors import UserError
from date.files import exclusive, replace_text
from date.identity.config import resolve
from date.planning.durations import CALIBRATION, CALIBRATION_SCHEMA, kind, read_calibration, speed_digest
from date.planning.memory import RESERVED, images_that_fit
from date.rehearsal import children
from date.rehearsal.experiments import EPOCH, LOADING, VALIDATED, rehearsed_name, steps_and_epochs, write_experiments
from date.rehearsal.machine import Machine, forked_in_vain, import_for_children, look_anew
from date.rehearsal.network import (
    Measured,
    Place,
    StageFailedError,
    last_words,
    loading_speed,
    rehearse_network,
)
from date.rehearsal.sample import Sample, Wanted, take_sample
from date.results import utc

LOADED = 40
"""Batches by which the speed of loading is measured."""
FAST_ENOUGH = 100.0
"""Percent of a step that loading its images may take before the GPU waits for data."""


@dataclass(frozen=True)
class Result:
    """The outcome of the rehearsal of a network."""

    training: Training
    measured: Measured | None = None
    data_share: float | None = None
    """Percent of a step that loading its images takes, with all loading processes."""
    failure: str = ""
    """What did not work, with the remedy."""
    stopped: bool = False
    """The time was over before it ended."""

    @property
    def ok(self) -> bool:
        """Whether everything worked."""
        return self.measured is not None


class Rehearsal:
    """Rehearses a tier's networks.

    Args:
        tier: that is rehearsed.
        trainings: one of each kind of network.
        minutes: after which everything is over.
        runs: folder of all runs: the rehearsal uses the same file system.
        results: folder of all results; gets the tier's ``calibration.json``.
        command: the command line, ``date.cli.main``.
        threads: CPU threads; None lets PyTorch choose.
        images_per_pass: see `date.training.options.Options`.
    """

    def __init__(
        self, tier: Tier, trainings: Sequence[Training], minutes: float, runs: Path, results: Path,
        command: Callable[[Sequence[str]], int], threads: int | None, images_per_pass: int | None,
    ) -> None:  # fmt: skip
        self.tier, self.trainings, self.minutes, self.results = tier, list(trainings), minutes, results
        self.images_per_pass = images_per_pass
        self.began = time.monotonic()
        options = [] if images_per_pass is None else ["--images-per-pass", str(images_per_pass)]
        folder = runs / ".rehearsal" / tier.name
        self.place = Place(folder, command, self.began + 60 * minutes, options, threads)
        self.samples: dict[str, Sample] = {}
        self.speeds: dict[tuple[str, str], float] = {}
        self.entries: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------- beforehand

    def prepare(self) -> Iterator[str]:
        """Look at the machine, sample the data of all networks, and say so in lines.

        Raises:
            UserError: no GPU at the paper's own size, or data that are not there.
        """
        shutil.rmtree(self.place.folder, ignore_errors=True)
        (self.place.folder / "data").mkdir(parents=True)
        self.machine = Machine(**self._ask("machine", lambda answer: look_anew(self.place.threads, answer)))
        if self.tier.reference and self.machine.memory_mib is None:
            raise UserError(
                f"there is no GPU here, and the tier {self.tier.name!r} can't be trained without; submit the rehearsal "
                "as a job with a GPU (docs/cluster.md has the command)."
            )
        import_for_children()
        if self.machine.memory_mib is not None:
            refused = self._answer("forks", forked_in_vain)["refused"]
            self.place = replace(self.place, forks=not refused)
        before = read_calibration(self.results / self.tier.name / CALIBRATION)
        if before is not None and before["device"] == self.machine.device:
            self.entries = before["trainings"]
        # Where the time is short, what has no times yet comes first.
        self.trainings.sort(key=lambda training: training.name in self.entries)
        memory = "" if self.machine.memory_mib is None else f", {self.machine.memory_mib / 1024:.1f} GiB"
        yield f"{self.machine.device}{memory}, {self.machine.cpus} CPUs"
        batch, side, root = self.tier.batch_size, least_side(self.tier), data_root()
        wanted = Wanted(EPOCH * batch, VALIDATED, LOADED * batch, side)
        for part in dict.fromkeys(training.data for training in self.trainings):
            dataset, began = load_dataset(self.tier.datasets[part]), time.monotonic()
            question = functools.partial(take_sample, dataset, root, self.place.folder, wanted)
            self.samples[part] = Sample(**self._answer(dataset.name, question))
            images = " + ".join(f"{count:,}" for count in self.samples[part].all_images.values())
            yield f"{dataset.name}: {images} images are there ({time.monotonic() - began:.0f} s)"
        write_experiments(self.place.folder, self.tier, self.trainings, self.samples, root)

    def _answer(self, title: str, question: Callable[[], Any]) -> Any:
        """Return what a child finds out; see `_ask`."""

        def work(answer: Path) -> int:
            try:
                found = question()
                replace_text(
                    answer, json.dumps(asdict(found) if is_dataclass(found) and not isinstance(found, type) else found)
                )
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            return 0

        return self._ask(title, work)

    def _ask(self, title: str, work: Callable[[Path], int | None]) -> Any:
        """Return what a child writes into a file.

        Raises:
            UserError: it failed, or the time was over.
        """
        log, answer = self.place.folder / f"{title}.log", self.place.folder / f"{title}.answer.json"
        try:
            status = children.run(lambda: work(answer), log, self.place.deadline)
        except children.TimeIsUpError:
            raise UserError(
                f"{self.minutes:g} minutes were over before {title} was looked at; give more by --minutes."
            ) from None
        if status:
            raise UserError(last_words(log) or f"looking at {title} failed with status {status}; see {log}.")
        return json.loads(answer.read_text())

    # ------------------------------------------------------------------------------------------------- networks

    def results_of_networks(self) -> Iterator[Result]:
        """Rehearse one network after the other for as long as there is time, and yield how each went."""
        longest = 0.0
        for training in self.trainings:
            began = time.monotonic()
            if began + longest > self.place.deadline:
                return
            result = self._rehearse(training)
            if result.stopped:
                return
            if result.ok:
                self._keep_times(result)
            longest = max(longest, time.monotonic() - began)
            yield result

    def _rehearse(self, training: Training) -> Result:
        sample = self.samples[training.data]
        try:
            speed = self._loading_speed(training)
            measured = rehearse_network(self.place, training, self.tier, sample)
        except children.TimeIsUpError:
            return Result(training, stopped=True)
        except (StageFailedError, UserError) as error:
            return Result(training, failure=f"{error}{self._remedy(training, str(error))}")
        share = 100 * self.tier.batch_size / measured.seconds_per_step / speed
        return Result(training, measured, share)

    def _loading_speed(self, training: Training) -> float:
        """Return the images that loading makes in a second; measured once for each augmentation of each dataset."""
        key = training.data, training.schedule
        if key not in self.speeds:

            def measure() -> float:
                self.place.read_sample()
                return loading_speed(rehearsed_name(training), LOADING)

            self.speeds[key] = self._answer(f"loading of {training.data} for {training.schedule}", measure)
        return self.speeds[key]

    def _remedy(self, training: Training, failure: str) -> str:
        """Return what to do about too little memory, which the table of planning knows best."""
        if "memory ran out" not in failure:
            return f" (log: {self.place.log(training)})"
        most = self.images_per_pass or self.tier.batch_size
        fit = 0
        if self.machine.memory_mib is not None:
            fit = images_that_fit(training, self.tier, most, self.machine.memory_mib - RESERVED)
        fewer = fit if 0 < fit < most else max(1, most // 2)
        return (
            f" Try --images-per-pass {fewer} here; where that fits, set images_per_pass: {fewer} for training in "
            "slurm/config.yaml."
        )

    def _keep_times(self, result: Result) -> None:
        """Write a network's times where `date plan` reads them."""
        assert result.measured is not None
        from date.planning.calibration import image_size

        plain = resolve(result.training, self.tier, 0, None)
        dataset = load_dataset(self.tier.datasets[result.training.data])
        self.entries[result.training.name] = {
            **{key: round(value, 6) for key, value in asdict(result.measured).items()},
            "image_size": list(image_size(plain["train_dataloader"]["dataset"]["dataset"]["pipeline"], dataset)),
            "speed_sha256": speed_digest(plain),
        }
        content = {
            "schema_version": CALIBRATION_SCHEMA,
            "tier": self.tier.name,
            "date": utc(),
            "device": self.machine.device,
            "threads": self.machine.threads,
            "versions": self.machine.versions,
            "steps": steps_and_epochs(self.samples[result.training.data], self.tier.batch_size)[0],
            "trainings": self.entries,
        }
        replace_text(self.results / self.tier.name / CALIBRATION, json.dumps(content, indent=1) + "\n")

    # ------------------------------------------------------------------------------------------------- lines

    def line(self, result: Result, width: int) -> str:
        """Return a network's line."""
        name = f"{result.training.name:{width}}"
        if result.measured is None:
            return f"{name}  FAILED: {result.failure}"
        assert result.data_share is not None
        images = self.tier.batch_size / result.measured.seconds_per_step
        memory = f"{result.measured.memory_mb / 1024:.1f}"
        memory += " GiB" if self.machine.memory_mib is None else f" of {self.machine.memory_mib / 1024:.1f} GiB"
        text = f"{name}  {images:6.1f} images/s  {memory}  data {result.data_share:3.0f} %  ok"
        if result.data_share > FAST_ENOUGH and self.tier.workers:
            text += (
                f", but it waits for data: give its {self.tier.workers} loading processes a CPU each, or a faster disk"
            )
        return text

    def rest(self, done: Sequence[Result]) -> str | None:
        """Return the sentence on the networks that there was no time for; None where there are none."""
        left = len(self.trainings) - len(done)
        if not left:
            return None
        spent = time.monotonic() - self.began
        each = f" (about {max(1, round(spent / len(done) * left / 60))} minutes)" if done else ""
        return (
            f"no time for {left} of {len(self.trainings)} networks{each}: the same command again begins with them, "
            "or give more time by --minutes."
        )


def kinds_first(trainings: Sequence[Training]) -> list[Training]:
    """Return one training of each kind of network, and then those whose schedules have images of other sizes."""
    kinds, schedules = dict[Any, Training](), dict[Any, Training]()
    for training in trainings:
        kinds.setdefault(kind(training), training)
        schedules.setdefault((kind(training), training.schedule), training)
    others = [training for training in schedules.values() if training not in kinds.values()]
    return [*kinds.values(), *others]


def rehearse(rehearsal: Rehearsal, say: Callable[[str], None]) -> list[Result]:
    """Rehearse, say a line for each network, and return how they went."""
    lock = rehearsal.place.folder.with_name(f"{rehearsal.tier.name}.lock")
    with exclusive(lock, f"rehearsing {rehearsal.tier.name} here"), children.ended_politely():
        for line in rehearsal.prepare():
            say(line)
        width = max(len(training.name) for training in rehearsal.trainings)
        done = []
        for result in rehearsal.results_of_networks():
            done.append(result)
            say(rehearsal.line(result, width))
        if (rest := rehearsal.rest(done)) is not None:
            say(rest)
        if all(result.ok for result in done):
            shutil.rmtree(rehearsal.place.folder, ignore_errors=True)
    return done
