# ruff: noqa: E402 - MMDetection is imported by `stack`
"""Open what a user names as a network for `date.inference.detect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from date import stack

stack.load()

import torch

from date.errors import UserError
from date.inference.detect import Detects, Job, Named, categories
from date.inference.exported import is_exported, open_exported
from date.inference.network import Choice, Detector, open_network
from date.inference.sources import Sources

READERS = 4
"""Threads that read images, at most: more gain nothing beside a network that computes."""


@dataclass(frozen=True)
class Opened:
    """A network that is ready to detect."""

    detector: Detects
    job: Job
    named: Named
    notes: list[str]
    """Sentences that the user should read."""


def open_detector(
    path: Path,
    sources: Sources,
    choice: Choice,
    training: str | None = None,
    tier: str | None = None,
    threads: int | None = None,
) -> Opened:
    """Open a network for some images.

    Args:
        path: a sealed run's folder, a checkpoint, or an exported network.
        sources: the images.
        choice: of branch and NMS; an exported network has made its own.
        training: what a bare file of weights is of.
        tier: and at which size.
        threads: of the CPU; None lets PyTorch and onnxruntime choose.

    Raises:
        UserError: see `date.inference.network.open_network`, `date.inference.exported.open_exported` and
            `date.inference.detect.categories`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    readers = min(READERS, threads or torch.get_num_threads())
    annotated = sources.category_ids is not None
    if path.exists() and training is None and is_exported(path):
        if choice != Choice():
            raise UserError(f"{path} was exported with one branch and NMS of its own; leave --branch and --nms out.")
        metadata, detector = open_exported(path, threads)
        named, notes = categories(metadata.classes, metadata.category_ids, sources)
        job = Job(metadata.pipeline, metadata.batch_size, not annotated, readers)
        return Opened(detector(named.ids), job, named, notes)
    network = open_network(path, training, tier)
    named, notes = categories(network.classes, network.category_ids(), sources)
    job = Job(network.pipeline, network.batch_size, not annotated, readers)
    return Opened(Detector(network, network.selection(choice), named.ids), job, named, notes)
