"""Read the folders of experiments and check every name, so that a typing error costs a sentence and no GPU hours."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from date.catalogue.checks import check_catalogue, check_paper
from date.catalogue.claims import Claim
from date.catalogue.models import Catalogue, Dataset, Evaluation, Tier, Training, Variant
from date.catalogue.paper import AnnotationEvaluation, Figure, Statement, Table
from date.catalogue.pictures import Pictures, Sheet
from date.catalogue.publication import Paper, read_paper
from date.errors import UserError, unknown_name
from date.experiments.entries import Entry, parse, read_entry, read_yaml, shown
from date.experiments.folders import clash, files, folders
from date.experiments.fragments import check_schedule, fragment_names
from date.families import models

E = TypeVar("E", bound=Entry)
PAPERS = "paper"
"""Folder of a paper's tables, figures and text; own experiments have theirs in ``tables`` and ``figures``."""
GIVEN = ("name", "folder")
"""Fields that no file states: they follow from where an entry stands."""


def no_such_branch(training: Training, variant: str, variants: dict[str, Variant], where: str = "") -> UserError:
    """Return the error for a variant that keeps a branch which the training does not have."""
    fit = [name for name, entry in variants.items() if entry.branch in training.branches]
    return UserError(
        f"{where}{training.name} has no branch {variants[variant].branch!r} for variant {variant!r}; "
        f"variants that it has: {', '.join(fit)}."
    )


def load(experiments: Path | None = None) -> Catalogue:
    """Read and cross-check the whole catalogue, by default of the folders in use (see `date.experiments.folders`).

    Raises:
        UserError: any invalid or inconsistent entry, naming file, key and the nearest valid name.
    """
    return _load(_places(experiments))


@functools.cache
def _load(places: tuple[Path, ...]) -> Catalogue:
    paper, reader = read_paper(places[0]), _Reader(places[0])
    for place in places:
        reader.read_trainings(place, paper)
    for place in places:
        reader.read_evaluations(place)
    for place in places:
        reader.read_shown(place)
    assert reader.pictures is not None
    catalogue = Catalogue(
        trainings=reader.trainings,
        variants=reader.variants,
        evaluations=reader.evaluations,
        annotations=reader.annotations,
        tables=reader.tables,
        figures=reader.figures,
        claims=reader.claims,
        statements=reader.statements,
        pictures=reader.pictures.model_copy(update={"sheets": reader.sheets}),
    )
    check_catalogue(catalogue, reader.files)
    check_paper(catalogue, paper, places[0], files("tiers", ".yaml", places))
    return catalogue


class _Reader:
    """Collects the entries of all folders, the paper's first.

    Args:
        paper: the paper's folder.
    """

    def __init__(self, paper: Path) -> None:
        self.paper = paper
        self.files: dict[tuple[str, str], Path] = {}
        """Where each entry stands, by kind and name."""
        self.trainings: dict[str, Training] = {}
        self.variants: dict[str, Variant] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self.annotations: dict[str, AnnotationEvaluation] = {}
        self.tables: dict[str, Table] = {}
        self.figures: dict[str, Figure] = {}
        self.claims: dict[str, Claim] = {}
        self.statements: dict[str, Statement] = {}
        self.sheets: dict[str, Sheet] = {}
        self.pictures: Pictures | None = None

    def folder(self, place: Path) -> str | None:
        """Return what entries of a folder are marked with: nothing for the paper's."""
        return None if place == self.paper else shown(place)

    def content(self, path: Path) -> dict[str, Any]:
        """Return the content of a file, which has to be there in the paper's folder; an absent one has none."""
        if self.paper not in path.parents and not path.exists():
            return {}
        found = read_yaml(path)
        if not isinstance(found or {}, dict):
            raise UserError(f"{shown(path)} has to map names to entries; see the files of {shown(self.paper)}.")
        return found or {}

    def add(self, kind: str, entries: dict[str, E], model: type[E], name: str, data: Any, path: Path) -> None:
        """Read an entry and add it to those of its kind."""
        where = f"{shown(path)}, {name}" if path.stem != name else shown(path)
        folder = self.folder(_place(path, self.paper))
        entries[name] = parse(
            model, self.named(kind, name, data, path) | _given(model, name, folder, data, where), where
        )

    def named(self, kind: str, name: str, data: Any, path: Path) -> dict[str, Any]:
        """Claim a name for an entry and return its content.

        Raises:
            UserError: the name is taken, or the entry is no mapping.
        """
        if (known := self.files.get((kind, name))) is not None:
            raise clash(kind, name, known, path)
        if not isinstance(data, dict):
            raise UserError(f"{shown(path)}: {name} has to be a mapping of keys to values, not {data!r}.")
        self.files[kind, name] = path
        return data

    def read_trainings(self, place: Path, paper: Paper) -> None:
        """Read ``trainings.yaml``."""
        path = place / "trainings.yaml"
        for name, data in self.content(path).items():
            where = f"{shown(path)}, {name}"
            entry = self.named("training", name, data, path) | _given(Training, name, self.folder(place), data, where)
            entry = {**paper.defaults.model_dump(), **entry}
            if place == self.paper:
                self.trainings[name] = _training(entry, where)
                continue
            training = _training({"source": "own", "gpu_hours": 1.0, **entry}, where)
            if "gpu_hours" not in entry:
                training = training.model_copy(update={"gpu_hours": _like(training, self.trainings, where)})
            self.trainings[name] = training

    def read_evaluations(self, place: Path) -> None:
        """Read ``evaluations.yaml``: variants, which training is judged by which, evaluations of annotations."""
        path = place / "evaluations.yaml"
        data = self.content(path)
        if unknown := data.keys() - {"variants", "evaluations", "extra", "annotations"}:
            raise unknown_name("key", min(unknown), ("variants", "evaluations", "extra", "annotations"), shown(path))
        for name, variant in (data.get("variants") or {}).items():
            self.add("variant", self.variants, Variant, name, variant, path)
        own = place != self.paper
        listed = [(own, data.get("evaluations") or {}), (True, data.get("extra") or {})]
        for extra, training, names in [(extra, *item) for extra, part in listed for item in part.items()]:
            if training not in self.trainings:
                raise unknown_name("training", training, self.trainings, shown(path))
            for variant in names:
                self._judge(training, variant, extra, place, path)
        for name, entry in (data.get("annotations") or {}).items():
            self.add("evaluation of annotations", self.annotations, AnnotationEvaluation, name, entry, path)

    def _judge(self, training: str, variant: str, extra: bool, place: Path, path: Path) -> None:
        if variant not in self.variants:
            raise unknown_name("variant", variant, self.variants, f"{shown(path)}, {training}")
        if self.variants[variant].branch not in self.trainings[training].branches:
            raise no_such_branch(self.trainings[training], variant, self.variants, f"{shown(path)}: ")
        evaluation = Evaluation(training=training, variant=variant, extra=extra, folder=self.folder(place))
        if (known := self.files.get(("evaluation", evaluation.name))) == path:
            raise UserError(f"{shown(path)}: {evaluation.name} is listed twice; list it once.")
        if known is not None:
            raise clash("evaluation", evaluation.name, known, path)
        self.files["evaluation", evaluation.name] = path
        self.evaluations[evaluation.name] = evaluation

    def read_shown(self, place: Path) -> None:
        """Read tables, figures, claims, text and pictures."""
        own = place != self.paper
        for kind, folder, start in (("table", "tables", ""), ("figure", "figures", ""), ("table", PAPERS, "table"),
                                    ("figure", PAPERS, "figure")):  # fmt: skip
            for path in sorted((place / folder).glob(f"{start}*.yaml")) if own == (folder != PAPERS) else ():
                data = self.content(path)
                if kind == "table":
                    self.add(kind, self.tables, Table, path.stem, _with_rows(data, path) if own else data, path)
                else:
                    self.add(kind, self.figures, Figure, path.stem, data, path)
        for name, claim in self.content(place / "claims.yaml").items():
            self.add("claim", self.claims, Claim, name, claim, place / "claims.yaml")
        if not own:
            text = place / PAPERS / "text.yaml"
            for name, statement in self.content(text).items():
                self.add("statement", self.statements, Statement, name, statement, text)
        self._read_pictures(place / "pictures.yaml", own)

    def _read_pictures(self, path: Path, own: bool) -> None:
        data = self.content(path)
        sheets = data.pop("sheets", None) or {}
        if own and data:
            raise UserError(f"{shown(path)}: your own pictures.yaml takes only 'sheets'; leave the other keys out.")
        if not own:
            self.pictures = parse(Pictures, data | {"sheets": {}}, shown(path))
        for name, sheet in sheets.items():
            self.add("sheet", self.sheets, Sheet, name, sheet, path)


def _place(path: Path, paper: Path) -> Path:
    """Return the folder of experiments that a file is of."""
    if paper in path.parents:
        return paper
    return path.parent.parent if path.parent.name in ("tables", "figures") else path.parent


def _given(model: type[Entry], name: str, folder: str | None, data: Any, where: str) -> dict[str, Any]:
    """Return the fields that follow from where an entry stands.

    Raises:
        UserError: the entry states one of them.
    """
    if stated := [key for key in GIVEN if isinstance(data, Mapping) and key in data]:
        raise unknown_name("key", stated[0], [key for key in model.model_fields if key not in GIVEN], where)
    given = {"name": name, "folder": folder}
    return {key: given[key] for key in GIVEN if key in model.model_fields}


def _with_rows(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return an own table whose rows have ids: the table's name and a number."""
    groups = data.get("groups")
    if not (
        isinstance(groups, list) and all(isinstance(g, list) and all(isinstance(r, dict) for r in g) for g in groups)
    ):
        raise UserError(
            f"{shown(path)}: 'groups' has to be a list of lists of rows; each row has a label and a source."
        )
    numbers = iter(range(1, 1 + sum(map(len, groups))))
    return data | {"groups": [[{"id": f"{path.stem}.{next(numbers)}"} | row for row in group] for group in groups]}


def _like(own: Training, trainings: Mapping[str, Training], where: str) -> float:
    """Return the GPU hours of an own training that states none: the median of the paper's of its length.

    Raises:
        UserError: the paper has no training with its schedule and backbone.
    """
    wanted = ("schedule", "backbone")
    papers = [training for training in trainings.values() if training.folder is None]
    hours = [t.gpu_hours for t in papers if all(getattr(t, key) == getattr(own, key) for key in wanted)]
    if not hours:
        what = " and ".join(f"{key} {getattr(own, key)!r}" for key in wanted)
        raise UserError(f"{where}: no training has {what}, to take 'gpu_hours' from; state them.")
    return statistics.median(hours)


def _training(data: dict[str, Any], where: str) -> Training:
    """Return a training, whose options are checked by the family of its model."""
    families, options = models(), data.get("options") or {}
    if isinstance(model := data.get("model"), str):
        if model not in families:
            raise unknown_name("model", model, families, where)
        options = parse(families[model].Options, options, f"{where}, options")
    training = parse(Training, data | {"options": options}, where)
    if training.schedule not in (schedules := fragment_names("schedules")):
        raise unknown_name("schedule", training.schedule, schedules, where)
    check_schedule(training.schedule)
    try:
        training.network.check()
    except UserError as error:
        raise UserError(f"{where}, options: {error}") from None
    _ = training.modules  # a name that does not exist is an error
    return training


def load_tier(name: str, experiments: Path | None = None, _seen: tuple[Path, ...] = ()) -> Tier:
    """Return a tier by name, or from the path of a YAML file; a tier with ``extends`` changes keys of another.

    What it changes is no longer what the other one tuned, and a watermark of its own makes it another size than the
    paper's.

    Raises:
        UserError: unknown tier, unknown or missing key.
    """
    path, known = _find("tier", name, experiments)
    data = read_entry(path)
    base = data.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise UserError(f"{shown(path)}: 'extends' is {base!r} and not the name or path of a tier; correct it.")
    if path in _seen:
        raise UserError(f"{shown(path)} extends itself; name another tier in 'extends'.")
    if path.stem in known and path.resolve() != known[path.stem].resolve():
        where = shown(known[path.stem].parent)
        raise UserError(
            f"{path} has the name of a tier of {where}, whose runs and results it would share; "
            f"rename it to something else than {', '.join(known)}."
        )
    if base is not None:
        inherited = load_tier(base, experiments, (*_seen, path)).model_dump()
        _follow_the_data(data, inherited, path.stem, base, experiments)
        inherited["tuned"] = {key: on for key, on in inherited["tuned"].items() if key not in data}
        inherited["reference"] &= not data.get("watermark")
        data = inherited | data
    tier = parse(Tier, data | {"name": path.stem}, shown(path))
    paper = read_paper(_places(experiments)[0])
    for part in [*tier.datasets, *tier.steps_per_epoch]:
        if part not in paper.parts:
            raise unknown_name("part", part, paper.parts, shown(path))
    for key, network in [(key, network) for key, networks in tier.tuned.items() for network in networks]:
        if network not in paper.tuned_on:
            raise unknown_name("network", network, paper.tuned_on, f"{shown(path)}, tuned, {key}")
    tier._given = name
    return tier


def _follow_the_data(
    data: dict[str, Any], inherited: dict[str, Any], name: str, base: str, experiments: Path | None
) -> None:
    """Drop what a tier inherits about the data if it has datasets of its own; both dicts are changed."""
    if "pixel_scale" in data:
        inherited["fit_pixels"] = False
    datasets = data.get("datasets")
    if not isinstance(datasets, dict):
        return
    changed = {part: str(used) for part, used in datasets.items() if used != inherited["datasets"].get(part)}
    if not changed:
        return
    inherited["fit_pixels"] = "pixel_scale" not in data
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
    path, _ = _find("dataset", name, experiments)
    return parse(Dataset, {"name": path.stem} | read_entry(path), shown(path))


def _find(kind: str, name: str, experiments: Path | None) -> tuple[Path, dict[str, Path]]:
    """Return the file of a tier or dataset, given by its name or by the file's path, and all files of the kind by name.

    Raises:
        UserError: there is no such file.
    """
    known = files(f"{kind}s", ".yaml", _places(experiments))
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None or "\0" in name or not path.is_file():
        raise unknown_name(kind, name, known)
    return path, known


def _places(experiments: Path | None) -> tuple[Path, ...]:
    """Return the folders of experiments to read: the given one, or else those in use."""
    return folders() if experiments is None else (experiments,)
