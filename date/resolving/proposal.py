"""``python -m date plan --resolve``: the seeds that resolve the most open claims per hour, as a table and a
configfile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from date.catalogue import Catalogue, Tier, load
from date.catalogue.settings import Settings
from date.errors import UserError
from date.files import replace_text
from date.planning.durations import Durations
from date.reporting.claims import MISSING, UNRESOLVED, judge_all
from date.reporting.scores import load_scores
from date.reporting.seeds import audit_seeds
from date.resolving.chances import OpenClaim
from date.resolving.choice import Choice, Work, choose
from date.results import RunResult, load_results

ALL_HOURS = 24.0
"""Of every device, where no hours are given."""


@dataclass(frozen=True)
class Proposal:
    """The seeds to train next, and the chance that each claim is resolved."""

    tier: str
    choice: Choice
    seeds: dict[str, list[int]]
    """Of the trainings that get more, those that are there and the new ones."""
    new: dict[str, list[int]]
    hours: dict[str, float]
    """Of a run of each, with its evaluations."""
    budget: float
    gpus: int

    @property
    def config(self) -> dict[str, Any]:
        """The content of the file for Snakemake's ``--configfile``."""
        return {"tier": self.tier, "trainings": list(self.seeds), "seeds_of": self.seeds}


def open_claims(results: list[RunResult], results_dir: Path, tier: Tier) -> list[OpenClaim]:
    """Return the claims over seeds that a tier's results leave UNRESOLVED or MISSING and its data can resolve."""
    catalogue = load()
    audit = audit_seeds(results, results_dir, tier.name)
    scores = load_scores(audit.kept, results_dir, tier.name, catalogue)
    outcomes = judge_all(scores, audit.kept, tier, catalogue, audit)
    return [
        OpenClaim(outcome, tier.reference, groups(outcome.trainings, catalogue, tier))
        for outcome in outcomes
        if outcome.verdict in (UNRESOLVED, MISSING)
        and outcome.parts
        and all(catalogue.training(name).data in tier.datasets for name in outcome.trainings)
        and all(catalogue.training(name).backbone in tier.backbones for name in outcome.trainings)
    ]


def groups(trainings: Iterable[str], catalogue: Catalogue, tier: Tier) -> tuple[tuple[str, ...], ...]:
    """Return, of each data and schedule that trainings are of, all trainings that the tier can train."""
    kinds = dict.fromkeys((catalogue.training(n).data, catalogue.training(n).schedule) for n in trainings)
    possible = [
        t for t in catalogue.trainings.values() if t.data in tier.datasets and t.backbone in tier.backbones
    ]  # fmt: skip
    return tuple(tuple(t.name for t in possible if (t.data, t.schedule) == kind) for kind in kinds)


def propose(
    tier: Tier, settings: Settings, results_dir: Path, runs_dir: Path, hours: float | None, gpus: int
) -> Proposal:
    """Choose what to train next.

    Args:
        tier: whose results are there.
        settings: whose trainings may be trained: by default the tier's.
        results_dir: the folder of all results.
        runs_dir: the folder of all runs, whose hours count where their results are not here.
        hours: for every device; None for a day.
        gpus: how many runs there may be at a time.

    Raises:
        UserError: no claim is open, or the hours of runs are not known at the tier.
    """
    catalogue = load()
    known = {training.name for training in catalogue.chosen(tier, settings.trainings)}
    results = [run for run in load_results(results_dir, tier.name) if run.training in catalogue.trainings]
    claims = [claim for claim in open_claims(results, results_dir, tier) if set(claim.trainings) <= known]
    if not claims:
        raise UserError(f"no claim of tier {tier.name!r} is open; there is nothing to resolve.")
    durations = Durations(tier, results_dir, runs_dir)
    trainings = dict.fromkeys(name for claim in claims for name in claim.trainings)
    unknown = [name for name in trainings if not durations.training(catalogue.training(name)).known]
    if unknown:
        raise UserError(
            f"how long a run of {unknown[0]} takes at tier {tier.name!r} is not known; "
            f"time it by: python -m date calibrate --tier {tier.option}"
        )

    def cost(name: str) -> float:
        training = catalogue.training(name)
        return durations.training(training).hours + durations.evaluation(training).hours

    seeds = {name: sorted({run.seed for run in results if run.training == name and run.evaluation}) for name in known}
    started = {t.name: t.init_training for t in catalogue.trainings.values() if t.init_training}
    work = Work(cost, {name: start for name, start in started.items() if start is not None})
    present = {name: len(found) for name, found in seeds.items()}
    budget = (ALL_HOURS if hours is None else hours) * gpus
    choice = choose(claims, present, work, budget, budget / gpus)
    taken = {name: {run.seed for run in results if run.training == name} for name in known}
    new = {name: _fresh(taken[name], count) for name, count in choice.added.items()}
    seeds_of = {name: sorted([*seeds[name], *new[name]]) for name in new}
    return Proposal(tier.option, choice, seeds_of, new, {name: cost(name) for name in new}, budget, gpus)


def _fresh(taken: Iterable[int], count: int) -> list[int]:
    """Return the smallest seeds that are not taken."""
    used = set(taken)
    found: list[int] = []
    seed = 0
    while len(found) < count:
        if seed not in used:
            found.append(seed)
        seed += 1
    return found


def proposal_text(proposal: Proposal, path: Path) -> str:
    """Return the proposal for a reader."""
    choice = proposal.choice
    if not choice.added:
        return (
            f"No seeds within {proposal.budget:.1f} hours of one device resolve an open claim with a chance worth "
            f"naming; give more by --hours or --gpus.\n"
        )
    lines = [f"Seeds to train next at tier {proposal.tier}, the most useful first:", ""]
    width = max(map(len, proposal.new))
    for name, seeds in proposal.new.items():
        hours = proposal.hours[name] * len(seeds)
        lines.append(f"  {name:<{width}}  seeds {', '.join(map(str, seeds)):<20} {hours:8.2f} h")
    share = f"{choice.hours:.2f} hours of one device, {choice.hours / proposal.gpus:.2f} on {proposal.gpus} at a time"
    lines += ["", f"{share}, of {proposal.budget:.2f}.", ""]
    lines.append(f"{choice.expected:.1f} of {len(choice.after)} open claims are resolved by this on average:")
    lines.append("")
    ordered = sorted(choice.after.items(), key=lambda item: -item[1])
    width = max(len(name) for name, _ in ordered)
    lines += [f"  {name:<{width}}  {100 * chance:4.0f} %" for name, chance in ordered if chance >= 0.005]
    rest = sum(chance < 0.005 for _, chance in ordered)
    lines += [f"  {rest} others: below 1 %"] if rest else []
    lines += ["", f"These seeds are now in the settings file {path}."]
    lines += [f"Run them by: snakemake --profile workflow/profiles/local --configfile {path} -- all", ""]
    return "\n".join(lines)


def write_config(proposal: Proposal, path: Path) -> None:
    """Write the configfile."""
    text = "# Written by `python -m date plan --resolve`: the seeds that are there, and those to train next.\n"
    replace_text(path, text + yaml.safe_dump(proposal.config, sort_keys=False, default_flow_style=None, width=120))
