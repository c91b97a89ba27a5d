"""How a training is carried out, apart from what it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How a training is carried out on the machine at hand; none of it changes the mathematics of a run."""

    checkpoint_interval: float = 600.0
    """Seconds between two checkpoints; there is one at every epoch's end besides."""
    images_per_pass: int | None = None
    """Images that go through the network at a time in each process; None for its whole part of the batch."""
