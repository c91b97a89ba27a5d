"""The training loop: every step a function of the state before it, so that any interruption can be undone exactly.

Nothing but the weights, the optimiser, the schedulers and the number of the step carries over from one step to the
next. The data order is a function of (seed, epoch), augmentation of (seed, epoch, image), and what a network draws at
random of (seed, step, process). A checkpoint holds the former; the latter need not be saved.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from date import results
from date.errors import NO_SPACE, UserError
from date.memory import ran_out
from date.models import normalisers
from date.models.matching import NonFiniteQualityError
from date.training import checkpoint
from date.training.interruption import SIGNALS, Interrupted, Interruption
from date.training.journal import Journal
from date.training.lease import Lease
from date.training.network import (
    build_network,
    build_optimizer,
    build_schedulers,
    compilations,
    set_precision,
    total_loss,
    trains_batch_statistics,
)
from date.training.options import Options
from date.training.processes import Processes
from date.training.recorder import NonFiniteLoss, Recorder
from date.training.sampling import LoadFailure, SeededDataset, build_dataset, build_loader
from date.training.waiting import Leave, LoadingFailed, end_processes, next_batch, open_batches
from date.training.weights import initialise_feature_extractor, load_checkpoint

LOADER_ATTEMPTS = 3
"""How often the loading processes are started anew for the same batch before their death ends the training."""
FEWER_IMAGES = "let fewer images through at a time with --images-per-pass"
LOWER_LR = "lower the tier's lr, or check the data"
REASONS = [*(number.name for number in SIGNALS), "time budget"]


class TrainingError(UserError):
    """The training can't go on; the message names cause, step, images and the last good checkpoint."""


class Trainer:
    """Trains one network.

    Args:
        config: resolved, in MMEngine's terms.
        folder: for checkpoints and records; the same one resumes the training.
        run_digest: identity of the run, which its checkpoints have to share.
        seed: of the run.
        initial: file and SHA-256 of the weights that backbone, neck and towers start from, if any.
        options: see `Options`.
        processes: that train together.
        interruption: tells when to leave.
        lease: on the folder; None in all processes but the first.
        journal: tells what goes on.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        run_digest: str,
        seed: int,
        initial: tuple[Path, str] | None,
        options: Options,
        processes: Processes,
        interruption: Interruption,
        lease: Lease | None,
        journal: Journal,
    ) -> None:
        self.config, self.run_digest, self.seed, self.options = config, run_digest, seed, options
        self.processes, self.interruption, self.lease, self.journal = processes, interruption, lease, journal
        self.checkpoints = folder / results.CHECKPOINTS
        set_precision(config.compute)
        self.train_set = build_dataset(config.train_dataloader, processes)
        self.val_set = build_dataset(config.val_dataloader, processes)
        self._open_loader()
        self.epoch_steps = len(self.sampler)
        loop = config.train_cfg
        by_epoch = loop.type == "EpochBasedTrainLoop"
        self.steps = loop.max_epochs * self.epoch_steps if by_epoch else loop.max_iters
        self.val_steps = loop.val_interval * self.epoch_steps if by_epoch else loop.val_interval
        self._open_val_loader()
        self.metric = METRICS.build(config.val_evaluator)
        self.metric.dataset_meta = self.val_loader.dataset.metainfo

        set_random_seed(seed)
        self.model: Any = build_network(config, processes.device)
        if initial is not None:
            initialise_feature_extractor(self.model, load_checkpoint(*initial), str(initial[0]))
        self.optimizer, self.clip = build_optimizer(config, self.model)
        self.schedulers = build_schedulers(config, self.optimizer)
        self.network: Any = self.model
        if processes.count > 1:
            self.network = DistributedDataParallel(self.model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.passes = self._count_passes()
        self.recorder = Recorder(
            folder / results.METRICS, config.metrics_interval, self.steps, self.epoch_steps, processes
        )
        self.saving_seconds = self.longest_step = 0.0
        self.compilations = compilations()

    def _open_loader(self) -> None:
        self.loader = self._loader(self.config.train_dataloader, self.train_set)
        self.sampler: Any = self.loader.batch_sampler
        self.batches: Iterator[Any] | None = None

    def _open_val_loader(self) -> None:
        self.val_loader = self._loader(self.config.val_dataloader, self.val_set)
        self.val_batches: Iterator[Any] | None = None

    def _loader(self, config: Any, dataset: SeededDataset) -> Any:
        return build_loader(config, self.processes.device, self.processes.start_of_workers, dataset)

    def _count_passes(self) -> int:
        share = self.sampler.batch_size // self.processes.count
        passes = -(-share // (self.options.images_per_pass or share))
        if passes > 1 and trains_batch_statistics(self.model):
            raise UserError(
                "this network normalises by batch statistics, which several passes can't share; leave "
                "--images-per-pass out, or freeze its batch normalisation in the tier's 'backbones'."
            )
        return passes

    def run(self) -> dict[str, Tensor]:
        """Train from the last checkpoint, or from the beginning, to the end, and return the weights on the CPU.

        Raises:
            Interrupted: a signal or the end of the time budget; the state is saved.
            UserError: what the training can't go on with.
        """
        step = first = self._restore()
        self.journal.begin(self.steps, step)
        self.saved_step, self.saved_at = step if step else -1, time.monotonic()
        try:
            while True:
                self._leave_if_interrupted(step)
                if step and (step % self.val_steps == 0 or step == self.steps):
                    self._save(step)
                    self._evaluate(step)
                if step == self.steps:
                    break
                began = time.monotonic()
                self._step(step)
                step += 1
                if step > first + 1:  # which a compiler may take long for
                    self.longest_step = max(self.longest_step, time.monotonic() - began)
                if step % self.epoch_steps == 0 or self._checkpoint_is_due():
                    self._leave_if_interrupted(step)
                    self._save(step)
        except OSError as error:  # what goes wrong with an image is a `LoadFailure`
            if error.filename is None and error.errno not in NO_SPACE:
                raise
            cause = f"{error.filename or self.checkpoints.parent} can't be written ({error.strerror})"
            raise self._stopped(cause, step, [], "make room or mend the file system") from error
        finally:
            self.recorder.close()
            for batches in (self.batches, self.val_batches):
                end_processes(batches)
        return {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}

    # ------------------------------------------------------------------------------------------------- a step

    def _step(self, step: int) -> None:
        """Take the step after ``step`` steps."""
        batch = self._next_batch(step)
        images = [sample.metainfo["img_id"] for sample in batch["data_samples"]]
        words = np.random.SeedSequence([self.seed, step, self.processes.rank]).generate_state(1)
        torch.manual_seed(int(words[0]))
        lr = self.optimizer.param_groups[-1]["lr"]
        try:
            losses = self._backward(batch)
            if self.clip is not None:
                trained = [p for group in self.optimizer.param_groups for p in group["params"]]
                losses["grad_norm"] = nn.utils.clip_grad_norm_(trained, **self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        except NonFiniteQualityError as error:  # before the loss, which would be found not finite, too
            cause = f"the predictions are not finite ({error})"
            raise self._stopped(cause, step, images, LOWER_LR) from error
        except (MemoryError, OSError, RuntimeError) as error:
            if not ran_out(error):
                raise
            raise self._stopped("memory ran out", step, images, FEWER_IMAGES) from error
        self._say_compilations(step + 1)
        self._schedule(step + 1)
        means = self._recorded(step, lr, losses, images)
        note = None if means is None else f"epoch {self.recorder.epoch(step + 1):.1f}  loss {means['loss']:.3f}"
        self.journal.show(step + 1, "training", note, epoch=self.recorder.epoch(step + 1))

    def _say_compilations(self, step: int) -> None:
        """Say when the compiler was at work: a network that is compiled again and again is slow without a word."""
        if (graphs := compilations()) != self.compilations:
            self.compilations = graphs
            self.journal.say(f"step {step}: {graphs} graphs compiled so far")

    def _recorded(self, step: int, lr: float, losses: dict[str, Tensor], images: list[int]) -> dict[str, float] | None:
        with self._ended_if_not_finite():
            return self.recorder.add(step + 1, lr, losses, images)

    @contextlib.contextmanager
    def _ended_if_not_finite(self) -> Iterator[None]:
        """End the training with a sentence if the recorder finds a loss that is not finite."""
        try:
            yield
        except NonFiniteLoss as found:
            raise self._stopped(f"the loss is not finite{found.parts}", found.step, found.images, LOWER_LR) from found

    def _backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Add the batch's gradients and return its losses by name; in several passes, the passes' sums."""
        data = self._prepare(batch, training=True)
        if self.passes == 1:
            total, losses = total_loss(self.network(**data, mode="loss"))
            total.backward()
            return losses
        parts = list(_divided(data, self.passes))
        recorded = []
        for part in parts:
            with normalisers.recording() as asked, torch.no_grad():
                self.model(**part, mode="loss")
            recorded.append(asked)
        answers = normalisers.reduced(recorded)
        summed: dict[str, Tensor] = {}
        for number, part in enumerate(parts, 1):
            last = number == len(parts) or self.processes.count == 1
            alone = contextlib.nullcontext() if last else self.network.no_sync()
            with alone:
                with normalisers.replaying(answers):
                    total, losses = total_loss(self.network(**part, mode="loss"))
                total.backward()
            for name, value in losses.items():
                summed[name] = summed.get(name, 0) + value.detach()
        return summed

    def _prepare(self, batch: Any, training: bool) -> dict[str, Any]:
        data = self.model.data_preprocessor(batch, training)
        if self.config.compute.precision == "fp64":
            data["inputs"] = data["inputs"].double()
            for sample in data["data_samples"]:
                sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
        if self.config.compute.channels_last:
            data["inputs"] = data["inputs"].contiguous(memory_format=torch.channels_last)
        return data

    def _schedule(self, step: int) -> None:
        for scheduler in self.schedulers:
            if not scheduler.by_epoch or step % self.epoch_steps == 0:
                scheduler.step()

    # ------------------------------------------------------------------------------------------------- data

    def _next_batch(self, step: int) -> Any:
        """Return this process's part of the batch after ``step`` steps."""
        epoch, index = divmod(step, self.epoch_steps)
        for attempt in range(1, LOADER_ATTEMPTS + 1):
            try:
                if self.batches is None or index == 0:
                    self.sampler.start_at(epoch, index)
                    self.batches = open_batches(self.loader)
                batch = self._waited_for(self.batches, step)
                break
            except LoadingFailed as failed:
                end_processes(self.batches)
                self._start_anew_or_stop(failed, attempt, step, self._image_ids(epoch, index))
                self._open_loader()
        if isinstance(batch, LoadFailure):
            raise self._unreadable(batch, step, self._image_ids(epoch, index))
        return batch

    def _waited_for(self, batches: Iterator[Any], step: int) -> Any:
        """Return the next of some batches; leave if interrupted meanwhile, which several processes do between steps."""
        margin = 2 * (self.longest_step + self.saving_seconds)
        alone = self.processes.count == 1
        try:
            return next_batch(
                batches, self.options.batch_timeout, lambda: alone and self.interruption.reason(margin) is not None
            )
        except Leave:
            self._leave_if_interrupted(step)
            raise

    def _start_anew_or_stop(self, failed: LoadingFailed, attempt: int, step: int, images: list[int]) -> None:
        """Return where new loading processes may do better; else raise what ends the training."""
        if self.processes.count == 1:
            self._leave_if_interrupted(step)
        elif reason := self.interruption.reason():  # the others wait for this process and can't be asked
            raise Interrupted(reason, max(self.saved_step, 0)) from failed
        if not failed.again or attempt == LOADER_ATTEMPTS:
            raise self._stopped(str(failed), step, images, failed.remedy) from failed
        self.journal.say(f"{failed}; starting them anew at step {step}")

    def _image_ids(self, epoch: int, index: int) -> list[int]:
        self.sampler.start_at(epoch, index)
        return [self.sampler.sampler.dataset.image_id(number) for number in next(iter(self.sampler))]

    def _validation_batches(self, step: int) -> Iterator[Any]:
        """Yield the validation images' batches, each once, whatever happens to the loading processes."""
        done, attempt = 0, 1
        while True:
            try:
                self.val_batches = open_batches(self.val_loader)
                for number in itertools.count():
                    try:
                        batch = self._waited_for(self.val_batches, step)
                    except StopIteration:
                        return
                    if number >= done:
                        done += 1
                        yield batch
            except LoadingFailed as failed:
                end_processes(self.val_batches)
                self._start_anew_or_stop(failed, attempt, step - 1, [])
                attempt += 1
                self._open_val_loader()

    # ------------------------------------------------------------------------------------------------- evaluation

    def _evaluate(self, step: int) -> None:
        """Judge the network on the validation images by its default inference."""
        began = time.monotonic()
        self.journal.show(step, "evaluating")
        self.model.eval()
        try:
            self._detect(step)
            values = self.processes.share(self._judge())
        except (MemoryError, OSError, RuntimeError) as error:
            if not ran_out(error):
                raise
            raise self._stopped("memory ran out in the evaluation", step - 1, [], FEWER_IMAGES) from error
        self._say_compilations(step)
        self.model.train()
        metrics = {name: value if np.isfinite(value) else None for name, value in values.items()}
        seconds = time.monotonic() - began
        if self.processes.first:
            self.recorder.evaluated(step, metrics, seconds)
            self.journal.say(f"epoch {self.recorder.epoch(step):g}  AP {metrics['AP'] or 0:.1f}  ({seconds:.1f} s)")
        self.recorder.begin()
        self.journal.show(step, "training", ap=metrics.get("AP"))

    def _detect(self, step: int) -> None:
        """Hand this process's part of the validation images, with what the network finds in them, to the metric."""
        most = self.options.images_per_pass
        with torch.no_grad():
            for batch in self._validation_batches(step):
                self._leave_if_interrupted(step)
                if isinstance(batch, LoadFailure):
                    raise self._unreadable(batch, step - 1, [])
                data = self._prepare(batch, training=False)
                count = len(data["data_samples"])
                for part in _divided(data, -(-count // (most or count))):
                    samples = self.model(**part, mode="predict")
                    self.metric.process(batch, [sample.to_dict() for sample in samples])

    def _judge(self) -> dict[str, float] | None:
        """Return the metrics of all processes' images in the first one; None in the others.

        The processes took turns at the images, the last ones some of them twice.
        """
        found = self.processes.gather(self.metric.results)
        values = None
        if found is not None:
            rows = [row for turn in itertools.zip_longest(*found) for row in turn if row is not None]
            values = self.metric.compute_metrics(rows[: len(self.val_loader.dataset)])
        self.metric.results.clear()
        return values

    # ------------------------------------------------------------------------------------------------- state

    def _restore(self) -> int:
        """Load the newest good checkpoint, where there is one, and return the steps that are done."""
        found = checkpoint.latest(self.checkpoints, self.run_digest, self.journal.say) if self.processes.first else None
        # The others take the first one's: a file server may show them another folder at the same moment.
        path = self.processes.share(None if found is None else found[0])
        if path is None:
            self.recorder.open(0, None)
            return 0
        state = checkpoint.load(path, self.run_digest) if found is None else found[1]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        self.recorder.open(state["step"], state["recorder"])
        self.journal.say(f"resuming after step {state['step']} of {self.steps}")
        return state["step"]

    def _save(self, step: int) -> None:
        """Let the first process write a checkpoint, unless this step's is written."""
        if self.saved_step == step:
            return
        began = time.monotonic()
        self.saved_step, self.saved_at = step, began
        record = self.recorder.state()
        if not self.processes.first:
            return
        assert self.lease is not None
        self.lease.check()
        with self._ended_if_not_finite():
            self.recorder.raise_if_bad()
        self.recorder.sync()
        weights = self.model.state_dict()
        if not checkpoint.finite(weights):
            raise self._stopped("the weights are not finite", step - 1, [], LOWER_LR)
        state = {
            "run_digest": self.run_digest,
            "model": weights,
            "optimizer": self.optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "recorder": record,
        }
        self._write(step, state)
        self.saving_seconds = max(self.saving_seconds, time.monotonic() - began)

    def _write(self, step: int, state: dict[str, Any]) -> None:
        try:
            checkpoint.save(self.checkpoints, step, state)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            checkpoint.free_space(self.checkpoints, step)  # before the log, for which there is no space either
            self.journal.say(f"no space for the checkpoint of step {step}; removed all but the newest one")
            checkpoint.save(self.checkpoints, step, state)

    def _checkpoint_is_due(self) -> bool:
        due = time.monotonic() - self.saved_at >= self.options.checkpoint_interval
        return self.processes.agree("due" if due else None, ["due"]) is not None

    def _leave_if_interrupted(self, step: int) -> None:
        """Save and leave when a signal came or the time budget is used up, in all processes at the same step."""
        margin = 2 * (self.longest_step + self.saving_seconds)
        reason = self.processes.agree(self.interruption.reason(margin), REASONS)
        if reason is not None:
            self._save(step)
            self.processes.agree(reason, REASONS)  # torchrun ends the others when one leaves: not before all is saved
            raise Interrupted(reason, step)

    def _unreadable(self, failure: LoadFailure, step: int, images: list[int]) -> TrainingError:
        remedy = f"restore the file (`{self.options.verify}` looks for others)"
        return self._stopped(f"{failure.image} can't be loaded ({failure.reason})", step, images, remedy)

    def _stopped(self, cause: str, step: int, images: list[int], remedy: str) -> TrainingError:
        """Return the error that ends the training in the step after ``step`` steps."""
        found = checkpoint.steps(self.checkpoints)
        last = f"the last checkpoint is of step {found[0][0]}" if found else "there is no checkpoint yet"
        batch = f" (images {', '.join(map(str, images))})" if images else ""
        return TrainingError(f"{cause} at step {step + 1}{batch}; {last}; {remedy}, then run the same command again.")


def _divided(data: dict[str, Any], passes: int) -> Iterator[dict[str, Any]]:
    """Divide a preprocessed batch into almost equal parts."""
    count = len(data["data_samples"])
    bounds = [round(i * count / passes) for i in range(passes + 1)]
    for begin, end in itertools.pairwise(bounds):
        yield {"inputs": data["inputs"][begin:end], "data_samples": data["data_samples"][begin:end]}
