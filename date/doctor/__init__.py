"""``python -m date doctor``: check everything a run needs, one line per check, before hours are spent.

`first` is what the DAG itself checks before its first job: what can be known in seconds without PyTorch in its process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from date.errors import UserError

if TYPE_CHECKING:
    from date.catalogue import Dataset, Tier, Training

MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at, e.g. ``"gpus"``.
        status: ``error`` would stop the work; ``warning`` would not, or not surely.
        text: what is the case.
        remedy: what to do about it; empty where all is well.
    """

    check: str
    status: Literal["ok", "warning", "error"]
    text: str
    remedy: str = ""

    def line(self) -> str:
        """Return the finding for a reader."""
        text = self.text.replace("\n", "\n" + 25 * " ")
        return f"{MARKS[self.status]}  {self.check:<14}  {text}" + (f" -> {self.remedy}" if self.remedy else "")


def examine(tier: Tier, trainings: list[Training], runs_of: dict[str, int], profiles: list[Path]) -> Iterator[Finding]:
    """Yield what every check finds, cheap ones first.

    Args:
        tier: that is to be worked at.
        trainings: that are to be trained.
        runs_of: how many seeds each of them has, by name.
        profiles: folders of Snakemake profiles in the order of its ``--profile`` options.
    """
    from date.catalogue import ROOT, load_dataset
    from date.catalogue.settings import data_root, dataset_name
    from date.doctor import components, data, environment, memory, slurm, storage
    from date.doctor.profile import read_profiles
    from date.experiments.folders import of_paper

    profile = read_profiles(profiles)
    on_slurm = profile.get("executor") == "slurm"
    yield environment.python()
    yield from environment.packages()
    yield from environment.stack()
    yield from environment.gpus(tier, on_slurm)
    yield from environment.compiler(tier, on_slurm)
    yield from _with_mistakes("gpu memory", memory.gpu_memory(tier, trainings, profile, environment.gpu_sizes()))
    datasets = [load_dataset(name) for name in dict.fromkeys(dataset_name(t, tier) for t in trainings)]
    yield from data.datasets(datasets, data_root())
    yield from data.steps(trainings, tier, data_root())
    yield from data.weights(trainings, tier, data_root())
    yield from (Finding("components", "error", sentence) for sentence in components.refused(trainings, tier))
    yield from storage.writable({"the clone": ROOT, "the home folder": Path.home()})
    runs, results = of_paper(ROOT / "runs"), of_paper(ROOT / "results")
    yield from storage.file_system(runs)
    yield from _with_mistakes("disk", storage.space(runs, results, tier, trainings, runs_of, profile))
    yield from _with_mistakes("loading", _loading(tier, trainings, sum(runs_of.values()), profile))
    if on_slurm:
        yield from slurm.examine(profile, tier, trainings)
    elif profiles:
        yield Finding("slurm", "ok", f"not used: {', '.join(map(str, profiles))} works on this machine")


def _loading(tier: Tier, trainings: list[Training], runs: int, profile: dict[str, Any]) -> Iterator[Finding]:
    """Check what loading processes need where the trainings run: here, or one training on each node."""
    from date.doctor.loading import loading
    from date.doctor.profile import trainings_at_a_time

    on_slurm = profile.get("executor") == "slurm"
    jobs = 1 if on_slurm else trainings_at_a_time(profile, tier, max(1, runs))
    yield from loading(tier, trainings, jobs, on_slurm)


def _with_mistakes(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings; a mistake that keeps a check from its end is one more, and the checks after it go on."""
    try:
        yield from findings
    except UserError as error:
        yield Finding(check, "error", str(error))


def first(datasets: list[Dataset], trainings: list[Training], tier: Tier) -> list[str]:
    """Return what would stop a run of the DAG and can be known at once, each a sentence with its remedy.

    Args:
        datasets: that the run reads.
        trainings: that it trains.
        tier: of the run.
    """
    from date.catalogue import ROOT
    from date.catalogue.settings import data_root
    from date.doctor import components, data, storage
    from date.experiments.folders import of_paper

    root = data_root()
    problems = [problem for problem in (data.absent(dataset, root) for dataset in datasets) if problem]
    problems += [] if problems else components.refused(trainings, tier)
    found: Iterable[Finding] = [*data.weights(trainings, tier, root), *storage.file_system(of_paper(ROOT / "runs"))]
    return problems + [": ".join(filter(None, (f.text, f.remedy))) for f in found if f.status == "error"]


def to_json(findings: list[Finding]) -> str:
    """Return all findings as one JSON object."""
    ok = all(finding.status != "error" for finding in findings)
    return json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=1)
