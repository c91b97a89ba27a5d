"""Reading ``experiments/``: every name is checked, so that a typing error costs a sentence and not GPU hours."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from date.catalogue.claims import Claim
from date.catalogue.entries import Entry, parse, read_yaml, shown
from date.catalogue.folders import PAPER, folders
from date.catalogue.fragments import fragment_names
from date.catalogue.models import Catalogue, Dataset, Evaluation, Tier, Training, Variant
from date.catalogue.paper import METRICS, AnnotationEvaluation, Figure, Statement, Table
from date.catalogue.pictures import Pictures, View
from date.catalogue.publication import Paper, read_paper
from date.errors import UserError, unknown_name

E = TypeVar("E", bound=Entry)


def no_such_branch(training: Training, variant: str, variants: dict[str, Variant], where: str = "") -> UserError:
    """Return the error for a variant that keeps a branch which the training does not have."""
    fit = [name for name, entry in variants.items() if entry.branch in training.branches]
    return UserError(
        f"{where}{training.name} has no branch {variants[variant].branch!r} for variant {variant!r}; "
        f"variants that it has: {', '.join(fit)}."
    )


def load(experiments: Path | None = None) -> Catalogue:
    """Read and cross-check the whole catalogue, by default of the folders in use (see `date.catalogue.folders`).

    Raises:
        UserError: any invalid or inconsistent entry, naming file, key and the nearest valid name.
    """
    return _load(experiments or folders()[0])


@functools.cache
def _load(experiments: Path) -> Catalogue:
    paper = read_paper(experiments)
    trainings = {}
    path = experiments / "trainings.yaml"
    for name, entry in read_yaml(path).items():
        trainings[name] = _training(name, entry, paper, f"{shown(path)}, {name}")
    for training in trainings.values():
        if training.init is None:
            continue
        where = f"{shown(path)}, {training.name}, init"
        if training.init_training is not None and training.init_training not in trainings:
            raise unknown_name("training", training.init, trainings, where)
        for name in [training.name, *([] if training.init_file else [training.init])]:
            if not trainings[name].network.towers:
                raise UserError(f"{where}: the network of {name} has no pair of towers to start from; leave it out.")

    path = experiments / "evaluations.yaml"
    data = read_yaml(path)
    variants = {name: parse(Variant, v, f"{shown(path)}, {name}") for name, v in data["variants"].items()}
    evaluations = {}
    listed = [(False, data["evaluations"]), (True, data.get("extra") or {})]
    for extra, training, names in [(extra, *item) for extra, part in listed for item in part.items()]:
        if training not in trainings:
            raise unknown_name("training", training, trainings, shown(path))
        for variant in names:
            if variant not in variants:
                raise unknown_name("variant", variant, variants, f"{shown(path)}, {training}")
            if variants[variant].branch not in trainings[training].branches:
                raise no_such_branch(trainings[training], variant, variants, f"{shown(path)}: ")
            evaluation = Evaluation(training=training, variant=variant, extra=extra)
            if evaluation.name in evaluations:
                raise UserError(f"{shown(path)}: {evaluation.name} is listed twice; list it once.")
            evaluations[evaluation.name] = evaluation

    annotations = {
        name: parse(AnnotationEvaluation, {"name": name, **entry}, f"{shown(path)}, {name}")
        for name, entry in data["annotations"].items()
    }
    folder = experiments / "paper"
    tables = [parse(Table, read_yaml(path), shown(path)) for path in sorted(folder.glob("table*.yaml"))]
    figures = [parse(Figure, read_yaml(path), shown(path)) for path in sorted(folder.glob("figure*.yaml"))]
    catalogue = Catalogue(
        trainings=trainings,
        variants=variants,
        evaluations=evaluations,
        annotations=annotations,
        tables={table.name: table for table in tables},
        figures={figure.name: figure for figure in figures},
        claims=_named(Claim, experiments / "claims.yaml"),
        statements=_named(Statement, folder / "text.yaml"),
        pictures=_pictures(experiments / "pictures.yaml"),
    )
    _check(catalogue, experiments)
    _check_paper(catalogue, paper, experiments)
    return catalogue


def _training(name: str, entry: dict[str, Any], paper: Paper, where: str) -> Training:
    """Return a training, whose options are checked by the family of its model."""
    from date.families import models

    families, data = models(), {**paper.defaults.model_dump(), "name": name, **entry}
    options: Any = data.get("options") or {}
    if isinstance(model := data.get("model"), str):
        if model not in families:
            raise unknown_name("model", model, families, where)
        options = parse(families[model].Options, options, f"{where}, options")
    training = parse(Training, data | {"options": options}, where)
    if training.schedule not in (schedules := fragment_names("schedules")):
        raise unknown_name("schedule", training.schedule, schedules, where)
    try:
        training.network.check()
    except UserError as error:
        raise UserError(f"{where}, options: {error}") from None
    return training


def _named(model: type[E], path: Path) -> dict[str, E]:
    """Return the entries of a file that maps names to them."""
    return {
        name: parse(model, {"name": name, **entry}, f"{shown(path)}, {name}") for name, entry in read_yaml(path).items()
    }


def _pictures(path: Path) -> Pictures:
    data = read_yaml(path)
    sheets = {name: {"name": name, **sheet} for name, sheet in data.get("sheets", {}).items()}
    return parse(Pictures, data | {"sheets": sheets}, shown(path))


def _check(catalogue: Catalogue, experiments: Path) -> None:
    """Check every name that tables, figures and claims refer to."""

    def known(kind: str, name: str | None, valid: Iterable[str], where: str) -> None:
        if name is not None and name not in (names := list(valid)):
            raise unknown_name(kind, name, names, where)

    for table in catalogue.tables.values():
        file = shown(experiments / "paper" / f"{table.name}.yaml")
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
    for figure in catalogue.figures.values():
        for curve in figure.curves:
            known("training", curve.training, catalogue.trainings, shown(experiments / "paper" / f"{figure.name}.yaml"))
        for name in figure.trade_off.evaluations if figure.trade_off else ():
            known("evaluation", name, catalogue.evaluations, shown(experiments / "paper" / f"{figure.name}.yaml"))
        _check_views(catalogue, figure.views, shown(experiments / "paper" / f"{figure.name}.yaml"))
    for sheet in catalogue.pictures.sheets.values():
        _check_views(catalogue, sheet.views, f"{shown(experiments / 'pictures.yaml')}, {sheet.name}")
    for claim in catalogue.claims.values():
        where = f"{shown(experiments / 'claims.yaml')}, {claim.name}"
        for name in claim.evaluations:
            known("evaluation", name, [*catalogue.evaluations, *catalogue.annotations], where)
        for name in claim.trainings:
            known("training", name, catalogue.trainings, where)
    for statement in catalogue.statements.values():
        known(
            "table",
            statement.cites,
            catalogue.tables,
            f"{shown(experiments / 'paper' / 'text.yaml')}, {statement.name}",
        )


def _check_paper(catalogue: Catalogue, paper: Paper, experiments: Path) -> None:
    """Check every name that ``paper.yaml`` refers to, and what it says of the names in other files."""
    where, folder = shown(experiments / PAPER), shown(experiments)

    def known(kind: str, name: str, valid: Iterable[str], where: str) -> None:
        if name not in (names := list(valid)):
            raise unknown_name(kind, name, names, where)

    known("part", paper.defaults.data, paper.parts, f"{where}, defaults")
    for part in paper.noise:
        known("part", part, paper.parts, f"{where}, noise")
    for training in catalogue.trainings.values():
        known("part", training.data, paper.parts, f"{folder}/trainings.yaml, {training.name}, data")
        if not re.search(paper.training_ids, training.id):
            place = f"{folder}/trainings.yaml, {training.name}"
            raise UserError(f"{place}: the id {training.id!r} does not fit {paper.training_ids!r} of {where}.")
    for name, entry in catalogue.annotations.items():
        known("part", entry.data, paper.parts, f"{folder}/evaluations.yaml, {name}")
    for part in catalogue.pictures.choices:
        known("part", part, paper.parts, f"{folder}/pictures.yaml, choices")
    known("training", paper.probe.training, catalogue.trainings, f"{where}, probe")
    for alternative in paper.alternatives:
        known("training", alternative.training, catalogue.trainings, f"{where}, alternatives")
    for name in (paper.reference_tier, paper.probe.tier):
        known("tier", name, _names(experiments / "tiers"), where)
    if paper.headline is not None:
        known("table", paper.headline.table, catalogue.tables, f"{where}, headline")
        schedules = {training.schedule for training in catalogue.trainings.values()}
        known("schedule", paper.headline.schedule, schedules, f"{where}, headline")


def _names(folder: Path) -> list[str]:
    """Return the names of the YAML files of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


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
            raise UserError(f"{where}: what {training.name} calls positive can't be asked of its head; show its boxes.")
        if not training.network.pictured:
            raise UserError(f"{where}: evaluations of {training.name} record no pictures; name another training.")
        if view.score is not None and view.score < catalogue.pictures.floor:
            floor = f"{catalogue.pictures.floor:g}"
            raise UserError(f"{where}: boxes from the score {view.score:g} on are not recorded; raise it to {floor}.")
        parts.add(training.data)
    if len(parts) > 1 or not parts <= catalogue.pictures.choices.keys():
        raise UserError(f"{where}: its trainings need one dataset with a rule in 'choices' of pictures.yaml; add it.")


def load_tier(name: str, experiments: Path | None = None) -> Tier:
    """Return a tier by name, or from the path of a YAML file; a tier with ``extends`` changes keys of another.

    What it changes is no longer what the other one tuned, and a watermark of its own makes it another size than the
    paper's.

    Raises:
        UserError: unknown tier, unknown or missing key.
    """
    experiments = experiments or folders()[0]
    path = Path(name) if name.endswith((".yaml", ".yml")) else experiments / "tiers" / f"{name}.yaml"
    if not path.exists():
        raise unknown_name("tier", name, _names(experiments / "tiers"))
    data = dict(read_yaml(path))
    base = data.pop("extends", None)
    if path.parent != experiments / "tiers" and path.stem in (taken := _names(experiments / "tiers")):
        raise UserError(
            f"{path} has the name of a tier of {shown(experiments / 'tiers')}, whose runs and results it would share; "
            f"rename it to something else than {', '.join(taken)}."
        )
    if base is not None:
        inherited = load_tier(base, experiments).model_dump()
        _follow_the_data(data, inherited, path.stem, base, experiments)
        inherited["tuned"] = {key: on for key, on in inherited["tuned"].items() if key not in data}
        inherited["reference"] &= not data.get("watermark")
        data = inherited | data
    tier = parse(Tier, data | {"name": path.stem}, shown(path))
    parts = read_paper(experiments).parts
    for part in [*tier.datasets, *tier.steps_per_epoch]:
        if part not in parts:
            raise unknown_name("part", part, parts, shown(path))
    tier._given = name
    return tier


def _follow_the_data(data: dict[str, Any], inherited: dict[str, Any], name: str, base: str, experiments: Path) -> None:
    """Let a tier with datasets of its own inherit nothing that was said of the other tier's; both dicts are changed."""
    datasets = data.get("datasets")
    if not isinstance(datasets, dict):
        return
    changed = {part: str(used) for part, used in datasets.items() if used != inherited["datasets"].get(part)}
    if not changed:
        return
    steps = inherited["steps_per_epoch"]
    inherited["steps_per_epoch"] = {p: n for p, n in steps.items() if p in datasets and p not in changed}
    used = ", ".join(dict.fromkeys(load_dataset(dataset, experiments).name for dataset in changed.values()))
    size = Path(base).stem
    data.setdefault("summary", f"{used}, by the settings of the tier {size}.")
    data.setdefault(
        "watermark",
        f"{name} tier: {used}, by the settings of {size}; not comparable with the paper's absolute numbers",
    )


def load_dataset(name: str, experiments: Path | None = None) -> Dataset:
    """Return a dataset by name, or from the path of a YAML file.

    Raises:
        UserError: unknown dataset, unknown or missing key.
    """
    experiments = experiments or folders()[0]
    path = Path(name) if name.endswith((".yaml", ".yml")) else experiments / "datasets" / f"{name}.yaml"
    if not path.exists():
        raise unknown_name("dataset", name, _names(experiments / "datasets"))
    return parse(Dataset, {"name": path.stem} | read_yaml(path), shown(path))
