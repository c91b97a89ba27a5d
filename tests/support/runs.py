"""Runs in a runs folder, made by what makes them in earnest, but for the training itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from date.catalogue import load, load_tier
from date.identity.config import resolve
from date.identity.digests import run_digest, run_name
from date.training import run as module
from date.training.interruption import Interruption
from date.training.journal import Journal
from date.training.options import Options
from date.training.processes import Processes
from date.training.recorder import Recorder
from date.training.run import Plan

MANIFEST = "d" * 64
ONE = Processes(0, 1, torch.device("cpu"))
STEPS = 20


def plan(runs: Path, training: str = "fcos-r50-coco-12e", seed: int = 0, manifest: str = MANIFEST) -> Plan:
    """Return what is known of a run at the tier `smoke` before it is trained."""
    entry, tier = load().training(training), load_tier("smoke")
    digest = run_digest(entry, tier, seed, manifest)
    config = resolve(entry, tier, seed, runs)
    sealed = runs / run_name(entry, tier, seed, digest)
    return Plan(entry, tier, seed, digest, config, {"digest": manifest}, sealed, None)


@contextmanager
def training(planned: Plan, journal: Journal, until: int = STEPS, first: int = 0) -> Iterator[Recorder]:
    """Take steps like the trainer, with an evaluation after every 10th."""
    recorder = Recorder(planned.work / "metrics.jsonl", 5, STEPS, 10, ONE)
    recorder.open(first, None)
    journal.begin(STEPS, first)
    for step in range(first + 1, until + 1):
        recorder.add(step, 0.1, {"loss": torch.tensor(1.0)}, [step])
        journal.show(step, "training", "loss 1.000")
        if step % 10 == 0:
            journal.show(step, "evaluating")
            recorder.evaluated(step, {"AP": 10.0 + step / 10}, 0.1)
            journal.show(step, "training", ap=10.0 + step / 10)
    try:
        yield recorder
    finally:
        recorder.close()


def carry_out(planned: Plan, then: Callable[[Any], None] = lambda lease: None, until: int = STEPS) -> None:
    """Train and seal a run as `date train` does, but for the network.

    Args:
        planned: the run.
        then: is called with the lease when the steps are taken, and may raise.
        until: the last step that is taken.
    """

    def run(
        plan: Plan, interruption: Any, processes: Any, options: Any, lease: Any, journal: Journal
    ) -> dict[str, Any]:
        with training(plan, journal, until):
            (plan.work / "checkpoints").mkdir(exist_ok=True)
            (plan.work / "checkpoints" / f"step-{until // 5 * 5:08d}-{'0' * 16}.ckpt").touch()  # of its last record
            then(lease)
        return {"weight": torch.ones(2)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_run", run)
        module._train(planned, Interruption(), ONE, Options())
