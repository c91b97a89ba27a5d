"""Check that the components of own trainings take their settings, before a job waits in a queue to find out."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from date.experiments.entries import ROOT

if TYPE_CHECKING:
    from date.catalogue import Tier, Training


def refused(trainings: list[Training], tier: Tier) -> Iterator[str]:
    """Yield a sentence for each own network or schedule whose components can't be built.

    ``date config`` builds them, in a process of its own: this one may be Snakemake's, which is to stay small.

    Args:
        trainings: of which those of the paper are left out; tests build them.
        tier: how large.
    """
    own = {(t.model, t.options, t.schedule): t.name for t in trainings if t.folder is not None}
    for name in own.values():
        words = [sys.executable, "-m", "date", "config", name, "--tier", *shlex.split(tier.option)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"{name} can't be built"]
            yield lines[-1].removeprefix("error: ")
