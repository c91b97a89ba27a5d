"""The catalogue as lists for people: plain columns, and the table of experiments of the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from date.catalogue.models import Catalogue, Evaluation, Training
from date.catalogue.publication import load_paper
from date.experiments.entries import Entry

KINDS = ("experiments", "trainings", "evaluations", "rows", "claims")

Listed = list[tuple[Entry, tuple[str, ...]]]


def listing(catalogue: Catalogue, what: str) -> Listed:
    """Return the entries of a kind, each with the cells of its line."""
    if what == "rows":
        rows = [row for table in catalogue.tables.values() for row in table.rows]
        numbers = [" ".join(f"{k} {v:g}" for k, v in row.paper.items()) for row in rows]
        sources = [row.evaluation or row.annotations or f"{row.network}/{row.phase}" for row in rows]
        return [(r, (r.id, r.label, s, n)) for r, s, n in zip(rows, sources, numbers, strict=True)]
    if what == "claims":
        return [(c, (c.name, c.predicate.kind, c.place or "own", c.sentence)) for c in catalogue.claims.values()]
    if what == "evaluations":
        evaluations: Listed = [
            (e, (e.name, _whose(e), catalogue.variants[e.variant].about)) for e in catalogue.evaluations.values()
        ]
        return evaluations + [
            (a, (a.name, "paper", f"NMS at IoU {a.iou:g} on annotations.")) for a in catalogue.annotations.values()
        ]
    if what == "experiments":
        return [(t, _experiment(catalogue, t)) for t in catalogue.trainings.values()]
    return [
        (t, (t.id or "own", t.name, t.source, f"{t.gpu_hours:g} GPU hours", t.why))
        for t in catalogue.trainings.values()
    ]


def _whose(evaluation: Evaluation) -> str:
    return "own" if evaluation.folder is not None else "extra" if evaluation.extra else "paper"


def appearances(catalogue: Catalogue, training: str) -> list[str]:
    """Return the tables and figures that show a training, a checkpoint of it or its network."""
    names = {e.name for e in catalogue.evaluations_of(training)}
    tables = [
        table.short
        for table in catalogue.tables.values()
        if names & set(table.evaluations) or training in {name for name, _ in table.networks}
    ]
    figures = [f.short for f in catalogue.figures.values() if training in f.trainings]
    pictured = any(training in sheet.trainings for sheet in catalogue.pictures.sheets.values())
    return tables + figures + ["Pictures"] * pictured


def main_score(catalogue: Catalogue, training: str) -> str:
    """Return what the paper prints of a training's first evaluation, e.g. ``AP 37.3``, or an em dash."""
    judged = catalogue.evaluations_of(training)[0].name
    for table in catalogue.tables.values():
        for row in table.rows:
            if row.evaluation == judged:
                metric = table.metrics[0]
                return f"{metric} {row.paper[metric]:.1f}" if metric in row.paper else "\N{EM DASH}"
    for figure in catalogue.figures.values():
        for curve in figure.curves:
            if curve.training == training and curve.end is not None:
                return f"AP {curve.end:.1f}"
    return "\N{EM DASH}"


HEADER = ("id", "training", "the paper", "shown in", "evaluations", "settings", "GPU hours")


def _experiment(catalogue: Catalogue, training: Training) -> tuple[str, ...]:
    variants = [e.variant for e in catalogue.evaluations_of(training.name)]
    shown = ", ".join(appearances(catalogue, training.name))
    score = main_score(catalogue, training.name)
    hours = f"{training.gpu_hours:g}"
    return (training.id or "own", training.name, score, shown, " ".join(variants), training.source, hours)


def experiments_markdown(catalogue: Catalogue) -> str:
    """Return the page of the documentation that lists all experiments."""
    own, catalogue = catalogue, catalogue.of_the_paper()
    trainings = [
        [f"`{c}`" if i == 1 else c for i, c in enumerate(cells)] for _, cells in listing(catalogue, "experiments")
    ]
    reasons = [[f"`{t.name}`", t.source, t.why] for t in catalogue.trainings.values()]
    variants = [
        [f"`{name}`", v.about, str(sum(e.variant == name for e in catalogue.evaluations.values()))]
        for name, v in catalogue.variants.items()
    ]
    annotations = [[f"`{a.name}`", f"{a.iou:g}", a.source, a.why] for a in catalogue.annotations.values()]
    networks = dict.fromkeys(pair for table in catalogue.tables.values() for pair in table.networks)
    counted = [
        [
            f"`{name}`",
            phase,
            ", ".join(t.short for t in catalogue.tables.values() if (name, phase) in t.networks),
        ]
        for name, phase in networks
    ]
    hours = sum(t.gpu_hours for t in catalogue.trainings.values())
    total = sum(not e.extra for e in catalogue.evaluations.values()) + len(annotations)
    blocks = [
        "# Experiments",
        "<!-- Generated from experiments/ by `python -m date list experiments --markdown`; edit the YAML files. -->",
        f"The paper's {len(trainings)} trainings and {total} evaluations. A training is trained once per seed, however "
        "many rows and curves use it; `snakemake ... NAME` trains one, and its evaluations are `NAME/VARIANT`. GPU "
        f"hours are those of one V100 at the `{load_paper().reference_tier}` tier, {hours:,.0f} in all for one seed.",
        "## Trainings",
        _markdown_table(HEADER, trainings),
        "## What the settings rest on",
        "*Official*: a released configuration states them; *inferred*: the paper's text and numbers imply them.",
        _markdown_table(("training", "settings", "why"), reasons),
        "## Evaluations",
        _markdown_table(("variant", "what is judged", "checkpoints"), variants),
        "Without a checkpoint:",
        _markdown_table(("evaluation", "IoU", "settings", "why"), annotations),
        "## Networks that are counted",
        "Parameters and operations, by `python -m date complexity`; no training is needed.",
        _markdown_table(("network", "phase", "shown in"), counted),
    ]
    if extra := [t for t in own.trainings.values() if t.folder is not None]:
        lines = [
            [f"`{t.name}`", t.folder or "", " ".join(e.variant for e in own.evaluations_of(t.name)), t.why]
            for t in extra
        ]
        blocks += [
            "## Own trainings",
            "Not of the paper.",
            _markdown_table(("training", "of", "evaluations", "why"), lines),
        ]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
