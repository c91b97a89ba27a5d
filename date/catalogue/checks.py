"""Cross-checks of the catalogue: every name in an entry exists, and every request can be met."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from date.catalogue.models import Catalogue, Training
from date.catalogue.paper import METRICS, Figure, Table
from date.catalogue.pictures import View
from date.catalogue.publication import Paper
from date.errors import UserError, unknown_name
from date.experiments.entries import shown
from date.experiments.folders import PAPER

Files = Mapping[tuple[str, str], Path]
"""Where each entry stands, by kind and name."""


def known(kind: str, name: str | None, valid: Iterable[str], where: str) -> None:
    """Raise a `UserError` for a name that is not valid; the message has the nearest one."""
    if name is not None and name not in (names := list(valid)):
        raise unknown_name(kind, name, names, where)


def check_catalogue(catalogue: Catalogue, files: Files) -> None:
    """Check every name that trainings, tables, figures, claims and statements refer to."""
    for training in catalogue.trainings.values():
        _check_start(training, catalogue, f"{shown(files['training', training.name])}, {training.name}, init")
    for table in catalogue.tables.values():
        _check_table(table, catalogue, shown(files["table", table.name]))
    for figure in catalogue.figures.values():
        _check_figure(figure, catalogue, shown(files["figure", figure.name]))
    for sheet in catalogue.pictures.sheets.values():
        _check_views(catalogue, sheet.views, f"{shown(files['sheet', sheet.name])}, {sheet.name}")
    for claim in catalogue.claims.values():
        where = f"{shown(files['claim', claim.name])}, {claim.name}"
        for name in claim.evaluations:
            known("evaluation", name, [*catalogue.evaluations, *catalogue.annotations], where)
        for name in claim.trainings:
            known("training", name, catalogue.trainings, where)
    for statement in catalogue.statements.values():
        known(
            "table", statement.cites, catalogue.tables, f"{shown(files['statement', statement.name])}, {statement.name}"
        )


def _check_start(training: Training, catalogue: Catalogue, where: str) -> None:
    """Check what a training starts from."""
    if training.init is None:
        return
    known("training", training.init_training, catalogue.trainings, where)
    for name in filter(None, [training.name, training.init_training]):
        if not catalogue.trainings[name].network.towers:
            raise UserError(f"{where}: the network of {name} has no pair of towers to start from; leave it out.")
    first = catalogue.trainings.get(training.init_training or "")
    if first is not None and first.data != training.data:
        raise UserError(
            f"{where}: {training.name} has the data of {training.data!r} and {first.name} those of {first.data!r}, "
            "whose identity is another; name the file of its weights (runs/.../final.safetensors) instead."
        )


def _check_table(table: Table, catalogue: Catalogue, file: str) -> None:
    """Check the names in a table, and that of its file."""
    if (table.folder is None) != (table.number is not None):
        raise UserError(
            f"{file}: a table of the paper needs its 'number', a table of your own has none; correct the key."
        )
    if table.number is not None and table.name != f"table{table.number:02d}":
        raise UserError(
            f"{file}: table {table.number} of the paper belongs in table{table.number:02d}.yaml; rename the file."
        )
    for metric in table.metrics:
        known("column", metric, METRICS, file)
    for row in table.rows:
        where = f"{file}, {row.id}"
        for name in row.evaluations:
            known("evaluation", name, catalogue.evaluations, where)
        known("training", row.network, catalogue.trainings, where)
        known("evaluation of annotations", row.annotations, catalogue.annotations, where)
        for column in [*row.paper, *(row.bracket.paper if row.bracket else ())]:
            known("column", column, table.metrics, where)
        for setting in row.setting:
            known("column", setting, table.settings, where)
        known("row", row.bracket.difference_from if row.bracket else None, (r.id for r in table.rows), where)


def _check_figure(figure: Figure, catalogue: Catalogue, file: str) -> None:
    """Check the names in a figure, and that of its file."""
    if (figure.folder is None) != (figure.number is not None):
        raise UserError(
            f"{file}: a figure of the paper needs its 'number', a figure of your own has none; correct the key."
        )
    if figure.number is not None and figure.name != f"figure{figure.number}":
        raise UserError(
            f"{file}: figure {figure.number} of the paper belongs in figure{figure.number}.yaml; rename the file."
        )
    for curve in figure.curves:
        known("training", curve.training, catalogue.trainings, file)
    for name in figure.trade_off.evaluations if figure.trade_off else ():
        known("evaluation", name, catalogue.evaluations, file)
    if figure.trade_off is not None:
        for name in figure.trade_off.trainings:
            try:
                figure.trade_off.setting.format_map(catalogue.trainings[name].options.model_dump())
            except (KeyError, ValueError) as error:
                raise UserError(
                    f"{file}: 'setting' does not fit the options of {name} ({error}); correct it."
                ) from None
    _check_views(catalogue, figure.views, file)


def check_paper(catalogue: Catalogue, paper: Paper, experiments: Path, tiers: Iterable[str]) -> None:
    """Check every name that ``paper.yaml`` refers to, and what it says of the names in other files."""
    where, folder = shown(experiments / PAPER), shown(experiments)

    known("part", paper.defaults.data, paper.parts, f"{where}, defaults")
    for part in paper.noise:
        known("part", part, paper.parts, f"{where}, noise")
    for part in paper.bounds:
        known("part", part, paper.parts, f"{where}, bounds")
    for training in catalogue.trainings.values():
        known("part", training.data, paper.parts, f"{training.folder or folder}/trainings.yaml, {training.name}, data")
        _check_id(training, paper, where)
    for name, entry in catalogue.annotations.items():
        known("part", entry.data, paper.parts, f"{folder}/evaluations.yaml, {name}")
    for part in catalogue.pictures.choices:
        known("part", part, paper.parts, f"{folder}/pictures.yaml, choices")
    known("training", paper.probe.training, catalogue.trainings, f"{where}, probe")
    for alternative in paper.alternatives:
        known("training", alternative.training, catalogue.trainings, f"{where}, alternatives")
    for name in (paper.reference_tier, paper.probe.tier):
        known("tier", name, tiers, where)
    if paper.headline is not None:
        known("table", paper.headline.table, catalogue.tables, f"{where}, headline")
        schedules = {training.schedule for training in catalogue.trainings.values()}
        known("schedule", paper.headline.schedule, schedules, f"{where}, headline")


def _check_id(training: Training, paper: Paper, where: str) -> None:
    """Check that a training of the paper, and no other, has a number."""
    if training.folder is not None:
        if training.id is not None or training.source != "own":
            key = "id" if training.id is not None else "source"
            place = f"{training.folder}/trainings.yaml, {training.name}"
            raise UserError(f"{place}: {key!r} is only for the paper's trainings; leave it out.")
        return
    place = f"{where.removesuffix(PAPER)}trainings.yaml, {training.name}"
    if training.id is None:
        raise UserError(f"{place}: the key 'id' is missing; add it")
    if training.source == "own":
        raise UserError(
            f"{place}: 'source: own' is for your own experiments; the paper's are 'official' or 'inferred'."
        )
    if not re.search(paper.training_ids, training.id):
        raise UserError(f"{place}: the id {training.id!r} does not fit {paper.training_ids!r} of {where}.")


def _check_views(catalogue: Catalogue, views: Iterable[View], where: str) -> None:
    """Check that views name branches that there are, of one dataset, and scores that are recorded."""
    parts = set()
    for view in views:
        if view.training is None:
            continue
        if view.training not in catalogue.trainings:
            raise unknown_name("training", view.training, catalogue.trainings, where)
        training = catalogue.trainings[view.training]
        if view.branch not in training.branches:
            fit = ", ".join(sorted(training.branches))
            raise UserError(f"{where}: {training.name} has no branch {view.branch!r}; branches that it has: {fit}.")
        if view.shows == "positives" and not training.network.shows_positives:
            raise UserError(f"{where}: what {training.name} calls positive is not known to its head; show its boxes.")
        if not training.network.pictured:
            raise UserError(f"{where}: evaluations of {training.name} record no pictures; name another training.")
        if view.score is not None and view.score < catalogue.pictures.floor:
            floor = f"{catalogue.pictures.floor:g}"
            raise UserError(f"{where}: boxes from the score {view.score:g} on are not recorded; raise it to {floor}.")
        parts.add(training.data)
    if len(parts) > 1 or not parts <= catalogue.pictures.choices.keys():
        raise UserError(f"{where}: its trainings need one dataset with a rule in 'choices' of pictures.yaml; add it.")
