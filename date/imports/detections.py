"""Import detections, or a training log, of a network trained elsewhere as the results of one of our trainings.

They are scored here against the tier's validation annotations and appear in tables, figures and the report, marked as
imported. No checkpoint is needed, nor images: the annotations are enough.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from date.catalogue import Dataset, Tier, Training, Variant, load, load_dataset, no_such_branch
from date.catalogue.settings import data_root, dataset_name
from date.datasets.boxes import KEY
from date.datasets.files import data_files
from date.datasets.lengths import steps_per_epoch
from date.datasets.prepare import prepare
from date.errors import UserError, unknown_name
from date.evaluation.detections import Categories, Detections, is_archive, read_detections
from date.evaluation.ground_truth import GroundTruth, read_ground_truth
from date.evaluation.resamples import resamples_head, stored_resamples
from date.evaluation.score import metric_names, protocol_metrics, sized
from date.files import file_digest, replace_text
from date.identity.length import length
from date.imports.checkpoint import imported_provenance
from date.imports.logs import TOLERANCE, TrainingLog, check_length, read_training_log
from date.inference.evaluate import EVALUATION_SCHEMA, write_evaluation
from date.inference.pictures import no_pictures
from date.progress import progress_lines
from date.results import DETECTIONS, EVALUATION, METRICS, PICTURES, PROVENANCE, seal

NO_CHECKPOINT = "detections made elsewhere and imported have no checkpoint"
"""Why such results have no pictures."""
KIND = "detections"
"""``imported.kind`` in the provenance."""


@dataclass
class _Results:
    """The imports in a results folder, to which more can be added."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name and digest of the detections' file, and notes on it, by variant."""
    log: dict[str, Any] | None = None
    """The same of the training log."""
    source: str | None = None
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of ``evaluation.json``."""
    detections: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    """Of ``metrics.jsonl``, without its first."""
    annotations: str | None = None
    """Digest of the annotations that they were judged against."""

    def identity(self) -> tuple[Any, ...]:
        """Return a value that differs between states of the folder."""
        return dict(self.files), self.log, self.source, self.annotations


def import_detections(
    training: Training,
    tier: Tier,
    results: Path,
    *,
    file: Path | None = None,
    log: Path | None = None,
    variant: str | None = None,
    seed: int = 0,
    source: str | None = None,
    replace: bool = False,
    categories: Categories = None,
) -> Path:
    """Score detections, read a training log, or both, and write them as results; return the results' folder.

    Importing the same again changes nothing. Several variants, and a log, add up in the same folder.

    Args:
        training: whose detections they are said to be.
        tier: at which size.
        results: the folder of all results; ``<tier>/<training>/seed<N>/`` below it is written.
        file: of the detections, see `date.evaluation.detections`.
        log: of the training, see `date.imports.logs`. Where there are no detections of the variant, the metrics of
            its last evaluation stand in the tables, marked as reported by the log and not scored by us.
        variant: how the detections were selected; the training's first by default.
        seed: the place among the training's seeds in tables; what the network was really seeded with is not known.
        source: where the files come from, for the provenance.
        replace: replace results that are there already.
        categories: see `date.evaluation.detections.read_detections`.

    Raises:
        UserError: bad names or files; or the folder holds other results, and ``replace`` is not set.
    """
    if file is None and log is None:
        raise UserError("nothing to import: name a file of detections, or a training log by --log.")
    name = _variant_name(training, variant)
    dataset = load_dataset(dataset_name(training, tier))
    ground_truth = None if file is None and not _annotated(dataset) else _ground_truth(dataset)
    annotations = None if ground_truth is None else file_digest(ground_truth.path)
    folder = results / tier.name / training.name / f"seed{seed}"
    state, before = _to_add_to(folder, ground_truth, annotations, replace)
    state.annotations, state.source = annotations or state.annotations, source or state.source
    if log is not None:
        entry, reported = _entry(log), _read_log(log, training, tier, dataset)
        _refuse_other("a training log", state.log, entry, folder, replace)
        state.log, state.records = entry | {"notes": reported.notes}, reported.records
        if file is None and name not in state.files:
            state.variants[name] = _as_reported(log, reported)
    if file is not None:
        assert ground_truth is not None
        entry = _entry(file)
        _refuse_other(f"detections of {name!r}", state.files.get(name), entry, folder, replace)
        read = read_detections(file, ground_truth, name if is_archive(file) else None, categories)
        ground_truth, state.variants[name], notes = _scored(read, ground_truth, dataset)
        state.files[name], state.detections[name] = entry | {"notes": notes}, read.rows
    if state.identity() == before and (folder / PICTURES).exists():
        print(f"everything is already imported into {folder}", file=sys.stderr)
    else:
        _write(folder, state, training, tier, seed, dataset, ground_truth)
    return folder


def _to_add_to(
    folder: Path, ground_truth: GroundTruth | None, annotations: str | None, replace: bool
) -> tuple[_Results, tuple[Any, ...]]:
    """Return the results that the import adds to, and the identity of those that the folder holds.

    Raises:
        UserError: the folder's were judged against other annotations, and they are not to be replaced.
    """
    state = _present(folder, replace)
    before = state.identity()
    if ground_truth is None or state.annotations in (None, annotations):
        return state, before
    if not replace:
        raise UserError(f"{folder} was judged against other annotations than {ground_truth.path}; {ALTERNATIVE}")
    return _Results(), before


def _read_log(log: Path, training: Training, tier: Tier, dataset: Dataset) -> TrainingLog:
    """Read a training log, and see that it is as long as the training."""
    per_epoch = steps_per_epoch(tier, training.data)
    reported = read_training_log(log, per_epoch, dataset.protocol)
    check_length(log, reported, length(training, tier).steps / per_epoch, training.name)
    return reported


def _scored(
    read: Detections, ground_truth: GroundTruth, dataset: Dataset
) -> tuple[GroundTruth, dict[str, Any], list[str]]:
    """Return the annotations, with the images' sizes for CrowdHuman, the variant's entry and notes on the file."""
    notes = read.notes
    if dataset.protocol == "crowdhuman":
        ground_truth, note = sized(ground_truth, read)
        notes = [*notes, *note]
    protocol, rows, areas = dataset.protocol, read.rows, dataset.area_thresholds
    entry = {
        "metrics": protocol_metrics(protocol, ground_truth, rows, areas),
        "resamples": stored_resamples(protocol, ground_truth, rows, areas),
        "detections": len(rows),
        "selection": None,
    }
    return ground_truth, entry, notes


ALTERNATIVE = "choose another --seed or --results, or replace it by --replace."


def _variant_name(training: Training, name: str | None) -> str:
    catalogue = load()
    variants: dict[str, Variant] = catalogue.variants
    if name is None:
        return catalogue.evaluations_of(training.name)[0].variant
    if name not in variants:
        raise unknown_name("variant", name, variants)
    if variants[name].branch not in training.branches:
        raise no_such_branch(training, name, variants)
    return name


def _annotated(dataset: Dataset) -> bool:
    """Return whether a dataset's validation annotations exist or can be made; a log alone needs none."""
    return dataset.scenes is not None or _annotations(dataset).is_file()


def _annotations(dataset: Dataset) -> Path:
    """Return the validation annotations: CrowdHuman's own where they were not converted, which takes their images."""
    files = data_files(dataset, data_root())
    own = files.odgt is not None and files.odgt[1].is_file() and not files.val_annotations.is_file()
    return files.odgt[1] if own and files.odgt is not None else files.val_annotations


def _ground_truth(dataset: Dataset) -> GroundTruth:
    root = data_root()
    if dataset.scenes is not None:
        prepare(dataset, root, progress_lines(f"preparing {dataset.name}"))
    path = _annotations(dataset)
    if not path.is_file():
        obtain = f" Get it from: {dataset.obtain}" if dataset.obtain else ""
        raise UserError(
            f"the annotations {_source(dataset)} that the detections are scored against are missing; put them there, "
            f"or set data_root in experiments/config.yaml or DATE_DATA_ROOT.{obtain}"
        )
    images = data_files(dataset, root).val_images
    if dataset.format == "crowdhuman":
        return read_ground_truth(path, images if images.is_dir() else None)
    ground_truth = read_ground_truth(path, accept=None if dataset.boxes_as_written or dataset.scenes else KEY)
    for note in ground_truth.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    return ground_truth


def _source(dataset: Dataset) -> Path:
    """Return the validation annotations as a user obtains them."""
    files = data_files(dataset, data_root())
    return files.val_annotations if files.odgt is None else files.odgt[1]


def _entry(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is not a file; correct the name.")
    return {"file": path.name, "sha256": file_digest(path)}


def _refuse_other(
    what: str, present: dict[str, Any] | None, entry: dict[str, Any], folder: Path, replace: bool
) -> None:
    if present is not None and present["sha256"] != entry["sha256"] and not replace:
        raise UserError(f"{folder} already holds {what} from {present['file']}; {ALTERNATIVE}")


def _present(folder: Path, replace: bool) -> _Results:
    """Return what earlier imports left in the folder.

    Raises:
        UserError: the folder holds results of a run, and they are not to be replaced.
    """
    if not (folder / PROVENANCE).exists():
        return _Results()
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        imported = provenance.get("imported", {})
        if imported.get("kind") != KIND:
            if replace:
                return _Results()
            kind = "an imported checkpoint" if imported else "a training of our own"
            raise UserError(f"{folder} holds the results of {kind}; {ALTERNATIVE}")
        evaluation = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        with np.load(folder / DETECTIONS, allow_pickle=False) as archive:
            detections = {name: archive[name].astype(np.float64) for name in archive.files if name != "columns"}
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        return _Results(
            files=imported["detections"],
            log=imported["log"],
            source=imported["source"],
            variants=evaluation["variants"],
            detections=detections,
            records=[json.loads(line) for line in lines[1:]],
            annotations=evaluation["annotations_sha256"],
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if replace:
            return _Results()
        raise UserError(f"the results in {folder} are damaged ({error}); replace them by --replace.") from None


def _as_reported(file: Path, log: TrainingLog) -> dict[str, Any]:
    """Return the numbers of a log's last evaluation, which has to be one of the finished network.

    Raises:
        UserError: the log has none.
    """
    if log.evaluated_until < log.epochs - TOLERANCE:
        when = f"Its last is after {log.evaluated_until:.4g} of {log.epochs:.4g} epochs"
        when = when if log.evaluated_until else "It has none at all"
        notes = f" ({' '.join(log.notes)})" if log.notes else ""
        raise UserError(
            f"{file} has no evaluation of the finished network by the metrics of its dataset. {when}{notes}. "
            f"Give the network's detections as a file, too."
        )
    metrics = {name: log.last_metrics.get(name) for name in metric_names(log.protocol)}
    return {"metrics": metrics, "detections": None, "selection": None, "reported_by_log": True}


def _write(
    folder: Path,
    state: _Results,
    training: Training,
    tier: Tier,
    seed: int,
    dataset: Dataset,
    ground_truth: GroundTruth | None,
) -> None:
    from date.training.recorder import METRICS_SCHEMA

    imported = {"kind": KIND, "detections": state.files, "log": state.log, "source": state.source}
    parts = (training.name, tier.name, seed, imported, state.annotations)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    last = state.records[-1] if state.records else {"step": 0, "epoch": 0}
    start = {"kind": "start", "schema_version": METRICS_SCHEMA, "imported": True}
    start |= {"steps": last["step"], "epochs": last["epoch"]}
    images = None if ground_truth is None else len(ground_truth.image_ids)
    split = {"annotations_sha256": state.annotations, "images": images}
    # What the network was trained on is not known, hence no digest of a manifest.
    data = {"dataset": dataset.name, "digest": None, "splits": {"val": split}}
    evaluation = {
        "schema_version": EVALUATION_SCHEMA,
        "training": training.name,
        "tier": tier.name,
        "seed": seed,
        "run_digest": digest,
        "weights_sha256": None,
        "data_digest": None,
        "images": images,
        "annotations_sha256": state.annotations,
        "protocol": dataset.protocol,
        "area_thresholds": dataset.area_thresholds if dataset.protocol == "coco" else None,
        "variants": state.variants,
    }
    if ground_truth is not None:
        evaluation["resamples"] = resamples_head(ground_truth.image_ids)
    # The provenance last: where it is of another state than the evaluation, reading them says so.
    write_evaluation(evaluation, state.detections, no_pictures(NO_CHECKPOINT), folder)
    replace_text(folder / METRICS, "".join(json.dumps(record) + "\n" for record in [start, *state.records]))
    provenance = imported_provenance(training, tier, seed, digest, data, imported) | {
        "metrics_sha256": file_digest(folder / METRICS),
        "steps": last["step"],
    }
    replace_text(folder / PROVENANCE, seal(provenance))
