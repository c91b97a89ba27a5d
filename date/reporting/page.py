"""The page of a report: everything on it that is neither a table nor a figure, and the template that sets it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from date.catalogue import METRICS, Catalogue, Tier
from date.catalogue.paper import own_mark
from date.catalogue.publication import load_paper
from date.formatting import format_duration
from date.inference.latency_table import HEADER, latency_rows
from date.reporting import style
from date.reporting.claims import DECIDED, VERDICTS, Outcome, about, p_value, summary
from date.reporting.crossed import PRIOR_WEIGHT
from date.reporting.dead_sides import dead_sides_note
from date.reporting.figures import Drawing
from date.reporting.imports import import_mark, import_warnings
from date.reporting.latency import ABOUT, where
from date.reporting.ledger import TUNING_RULES, LedgerEntry
from date.reporting.pictures import PictureDrawing
from date.reporting.scores import MISSING, number, signed
from date.reporting.seeds import SeedAudit
from date.reporting.tables import WORDS, FilledTable
from date.reporting.tradeoff import TradeOffDrawing
from date.results import PROVENANCE, SEAL, RunResult

NOTHING_WRONG = "No result repeats another, and each training with results has exactly the configured seeds."


@dataclass(frozen=True)
class RunLine:
    """A run in the page's list."""

    result: RunResult
    time: str
    device: str
    environment: str
    """Letter of the library versions."""
    provenance: str
    """Path of the provenance from the folder that holds the results folder."""

    @property
    def evaluated(self) -> str:
        """The variants that the run was judged by."""
        return ", ".join((self.result.evaluation or {}).get("variants", ())) or MISSING


@dataclass(frozen=True)
class RunLinks:
    """A training whose runs something on the page rests on, to be linked to their places in the ledger."""

    label: str
    training: str
    seeds: Sequence[int]


@dataclass(frozen=True)
class PageFigure:
    """A figure on the page."""

    drawing: Drawing | TradeOffDrawing | PictureDrawing
    svg: str | None
    """Inline SVG; None where nothing has results."""
    several_seeds: bool = False
    data: str = ""
    """JSON of the curves and where they lie, for the values that the page shows under a pointer."""
    notes: Sequence[str] = ()
    """Further sentences of the caption; without an SVG they say why."""
    values: tuple[list[str], list[list[str]]] | None = None
    """Header and lines of a table of all values, where they are few."""
    lines: Sequence[str] = ()
    """The training of each line of that table."""
    runs: Sequence[RunLinks] = ()
    """The runs that it shows."""


def page(
    catalogue: Catalogue,
    tier: Tier,
    results: Sequence[RunResult],
    results_dir: Path,
    tables: Sequence[FilledTable],
    figures: Sequence[PageFigure],
    outcomes: Sequence[Outcome],
    entries: Sequence[LedgerEntry],
    audit: SeedAudit,
    chosen: Sequence[str] = (),
    latency: dict[str, Any] | None = None,
) -> str:
    """Return the page as HTML that needs neither network nor other files."""
    seeds: dict[str, list[int]] = {}
    for run in results:
        seeds.setdefault(run.training, []).append(run.seed)
    of_paper = [outcome for outcome in outcomes if outcome.claim.folder is None]
    return _template().render(
        tier=tier,
        runs_of=lambda names: [RunLinks(name, name, seeds.get(name, ())) for name in names],
        tables=tables,
        latency=None if latency is None else [HEADER, *latency_rows(latency)],
        latency_notes=[] if latency is None else [ABOUT, where(latency)],
        outcomes=of_paper,
        own_outcomes=[outcome for outcome in outcomes if outcome.claim.folder is not None],
        own_mark=own_mark,
        verdicts={word: count for word in VERDICTS if (count := sum(o.verdict == word for o in of_paper))},
        paper=load_paper(),
        claims_summary=[text for text in (*summary(of_paper), about(of_paper, tier.reference)) if text],
        prior_weight=f"{PRIOR_WEIGHT:g}",
        decided=DECIDED,
        p_value=p_value,
        figures=figures,
        entries=entries,
        tuning_rules=TUNING_RULES,
        has_entry={entry.training.name for entry in entries},
        training_of={name: e.training for name, e in catalogue.evaluations.items()},
        colors=style.color_variables(),
        summary=_summary(catalogue, tier, results),
        missing=_missing(catalogue, tier, results, chosen),
        number_verdicts={w: n for w in WORDS if (n := sum(table.verdicts.get(w, 0) for table in tables))},
        script=(Path(__file__).parent / "page.js").read_text(encoding="utf-8"),
        warnings=[
            *dict.fromkeys(itertools.chain.from_iterable(audit.reused.values())),
            *dead_sides_note(results),
            *_warnings(results),
        ],
        seed_remarks=audit.sentences,
        nothing_wrong=NOTHING_WRONG,
        runs=_run_lines(results, results_dir),
        environments={letter: versions for versions, letter in _environments(results).items()},
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "signed": signed}
    environment.globals |= {"metrics": METRICS, "setting_labels": load_paper().setting_labels}
    return environment.get_template("page.html.j2")


def _missing(catalogue: Catalogue, tier: Tier, results: Sequence[RunResult], chosen: Sequence[str]) -> list[str]:
    """Return the trainings of a tier, and those that the settings choose, that have no evaluated run."""
    judged = {run.training for run in results if run.evaluation is not None}
    wanted = {training.name for training in catalogue.chosen(tier)} | set(chosen)
    return [name for name in catalogue.trainings if name in wanted - judged]


def _summary(catalogue: Catalogue, tier: Tier, results: Sequence[RunResult]) -> dict[str, str]:
    wanted = [training.name for training in catalogue.chosen(tier)]
    judged = {run.training for run in results if run.evaluation is not None}
    datasets = sorted({run.provenance["data"]["dataset"] for run in results})
    seeds = sorted({run.seed for run in results})
    seconds = sum(_seconds(run.provenance) for run in results)
    trained = sum("imported" not in run.provenance for run in results)
    return {
        "Data": ", ".join(datasets),
        "Trainings": f"{len(judged & set(wanted))} of {len(wanted)} trained and evaluated",
        "Seeds": ", ".join(map(str, seeds)),
        "Training time": f"{format_duration(seconds)} in {trained} run{'s' * (trained != 1)}",
    }


def _warnings(results: Sequence[RunResult]) -> list[str]:
    """Say where results of different code or data stand together."""
    codes = {run.provenance["code_sha256"] for run in results if "imported" not in run.provenance}
    warnings = import_warnings(results)
    if len(codes) > 1:
        warnings.append(f"These runs were trained with {len(codes)} different versions of the training code; see Runs.")
    by_dataset: dict[str, set[str]] = {}
    for run in results:
        if run.provenance["data"]["digest"] is not None:  # None where a network was trained on unknown data
            by_dataset.setdefault(run.provenance["data"]["dataset"], set()).add(run.provenance["data"]["digest"])
    for name, digests in sorted(by_dataset.items()):
        if len(digests) > 1:
            warnings.append(f"These runs were trained on {len(digests)} different versions of the dataset {name}.")
    unsealed = [
        f"{run.training} (seed {run.seed})"
        for run in results
        if any(record is not None and SEAL not in record for record in (run.provenance, run.evaluation))
    ]
    if unsealed:
        warnings.append(
            f"These results have no digest, so a change in them could not be noticed: {', '.join(unsealed)}."
        )
    return warnings


def _run_lines(results: Sequence[RunResult], results_dir: Path) -> list[RunLine]:
    environments = _environments(results)
    lines = []
    shown = results_dir.name if results_dir.is_absolute() else results_dir
    for run in results:
        place = Path(shown, run.provenance["tier"], run.training, f"seed{run.seed}", PROVENANCE)
        if "imported" in run.provenance:
            lines.append(RunLine(run, import_mark(run), MISSING, MISSING, place.as_posix()))
            continue
        resumed = len(run.provenance["segments"]) - 1
        time = format_duration(_seconds(run.provenance)) + (f", resumed {resumed}x" if resumed else "")
        letter = environments[_versions(run.provenance)]
        lines.append(RunLine(run, time, _device(run.provenance["hardware"]), letter, place.as_posix()))
    return lines


def _environments(results: Sequence[RunResult]) -> dict[str, str]:
    """Return a letter (or later a number) for each set of library versions, in order of appearance."""
    found = dict.fromkeys(_versions(run.provenance) for run in results if "imported" not in run.provenance)
    return {versions: chr(ord("A") + i) if i < 26 else str(i + 1) for i, versions in enumerate(found)}


def _versions(provenance: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())


def _device(hardware: dict[str, Any]) -> str:
    counts = Counter(hardware["devices"])
    names = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())
    if set(counts) == {"cpu"}:
        threads = hardware["threads"]
        return f"CPU {hardware['processor']}, {threads} thread{'s' * (threads > 1)}"
    return names


def _seconds(provenance: dict[str, Any]) -> float:
    return sum(segment["seconds"] for segment in provenance["segments"])
