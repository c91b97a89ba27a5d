"""Find what would stop jobs on Slurm before the first one is submitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from date.catalogue import Tier

UNFIT = "%$`\"'\\\n"
"""Characters that Slurm, or the shell that starts a job, takes for something else in the path of a clone."""
ON_GPUS = ("train", "evaluate")


def obstacles(clone: Path, tier: Tier, jobs: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield what would stop the jobs, each in a sentence with its remedy.

    Args:
        clone: the project's folder.
        tier: of the run.
        jobs: the rule and the resources of each job that is to be submitted.
    """
    if sentence := unfit_path(clone):
        yield sentence
    without = sorted({rule for rule, resources in jobs if rule in ON_GPUS and not asks_for_gpu(resources)})
    if without and tier.reference:
        yield (
            f"jobs of {' and '.join(without)} ask for no GPU, and tier {tier.name!r} can't be trained without; set "
            "gpu: 1 (or gres) below set-resources in slurm/config.yaml. A --set-resources on the command line takes "
            "the place of all of the profile's: repeat them there, or change slurm/config.yaml instead."
        )


def unfit_path(clone: Path) -> str | None:
    """Return why jobs can't work in a folder, in a sentence; None where they can."""
    found = sorted({character for character in str(clone) if character in UNFIT})
    if not found:
        return None
    names = " and ".join("a line break" if character == "\n" else character for character in found)
    return (
        f"{clone} has {names} in its path, which Slurm or the shell of a job takes for something else; move the clone "
        "to a folder without any of " + " ".join(UNFIT.strip()) + "."
    )


def asks_for_gpu(resources: Any) -> bool:
    """Return whether a job's resources hold a GPU, in either of the plugin's two ways."""
    return bool(resources.get("gpu")) or "gpu" in str(resources.get("gres") or "")
