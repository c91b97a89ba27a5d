"""Options that change how a training is carried out, but not its result."""

from __future__ import annotations

from dataclasses import dataclass

from date.training.waiting import PATIENCE

KEPT_CHECKPOINTS = 2
"""Of a training at work."""


@dataclass(frozen=True)
class Options:
    """The options that adapt a training to a machine; none changes the mathematics of a run."""

    checkpoint_interval: float = 600.0
    """Seconds between two checkpoints; there is one at every epoch's end besides."""
    images_per_pass: int | None = None
    """Images that go through the network at a time in each process; None for its whole part of the batch."""
    batch_timeout: float = PATIENCE
    """Seconds without any sample loaded after which the training stops waiting for a batch."""
    verify: str = "python -m date data verify --deep"
    """Command that decodes every image of the tier, for messages."""
