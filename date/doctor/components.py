"""Check that the components of own trainings take their settings, before a job waits in a queue to find out."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from date.experiments.entries import ROOT
from date.progress import step

if TYPE_CHECKING:
    from date.catalogue import Tier, Training


def refused(trainings: list[Training], tier: Tier) -> list[str]:
    """Return a sentence for each own network or schedule whose components can't be built.

    ``date config`` builds those that use the same modules in one process, which is not this one: this may be
    Snakemake's, which is to stay small, and modules of different networks may register components of one name.

    Args:
        trainings: of which those of the paper are left out; tests build them.
        tier: how large.
    """
    own = {(t.model, t.options, t.schedule): t for t in trainings if t.folder is not None}
    groups: dict[tuple[str, ...], list[str]] = {}
    for training in own.values():
        groups.setdefault(training.modules, []).append(training.name)
    with step("building the components of own networks"):
        return [sentence for names in groups.values() for sentence in _refused(names, tier)]


def _refused(names: list[str], tier: Tier) -> list[str]:
    words = [sys.executable, "-m", "date", "config", *names, "--tier", *shlex.split(tier.option)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return []
    lines = done.stderr.strip().splitlines() or [f"{', '.join(names)} can't be built"]
    ours = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    return [lines[ours[-1]].removeprefix("error: "), *lines[ours[-1] + 1 :]] if ours else lines[-1:]
