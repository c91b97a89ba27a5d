"""Evaluate a sealed run: one forward pass over the validation images serves every variant."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from date import stack
from date.catalogue import Compute, Dataset, Tier, Training, Variant, load, load_dataset, load_tier, no_such_branch
from date.catalogue.modules import import_modules
from date.catalogue.origin import tier_of, training_of
from date.catalogue.settings import data_root, dataset_name
from date.datasets.files import data_files
from date.datasets.prepare import prepare
from date.errors import UserError, unknown_name
from date.evaluation.coco import DETECTION_COLUMNS
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.resamples import resamples_head, stored_resamples
from date.evaluation.score import protocol_metrics
from date.families import family_of
from date.files import file_digest, replace_bytes, replace_text
from date.identity.config import resolve
from date.inference.pictures import PICTURES_SCHEMA, Photographer
from date.progress import progress_lines
from date.results import CONFIG, DETECTIONS, EVALUATION, PICTURES, WEIGHTS, seal
from date.training.run import read_provenance
from date.training.waiting import PATIENCE, LoadingFailed, all_batches

if TYPE_CHECKING:
    from date.models.branches import BranchOutput

EVALUATION_SCHEMA = 3
"""2 had no ``resamples``, neither of the record nor of its variants; such evaluations are still read."""


@dataclass(frozen=True)
class Selection:
    """How a variant chooses its detections from the candidates of a branch, of which a level gives at most so many."""

    branch: str
    score_thr: float
    """Class probability that a candidate exceeds (before FCOS's centre-ness)."""
    nms_pre: int
    """Candidates of a level of the feature pyramid, the best ones."""
    nms: float | None
    """IoU of class-wise NMS, or none."""
    max_per_img: int
    """Detections of an image, the best ones."""


ONE_TO_ONE = "o2o"
"""Name of the branch."""
SIDES = ("left", "top", "right", "bottom")


class ZeroSides:
    """Counts the points from which the one-to-one branch's boxes do not reach to a side.

    Its distances are ``relu(scale * conv) * stride``: where a side is 0, it gets no gradient.
    """

    def __init__(self) -> None:
        self.points, self.zeros = 0, np.zeros(len(SIDES), dtype=np.int64)

    def look(self, branch: str, output: BranchOutput) -> None:
        """Count what the one-to-one branch predicts for some images, at all points of the padded batch."""
        if branch != ONE_TO_ONE:
            return
        self.points += output.reg.shape[0] * output.reg.shape[2]
        self.zeros += (output.reg == 0).sum(dim=(0, 2)).cpu().numpy()

    def record(self) -> dict[str, float] | None:
        """Return the share of points by side, in percent; None where the branch was not observed."""
        if not self.points:
            return None
        return {side: round(100 * int(n) / self.points, 3) for side, n in zip(SIDES, self.zeros, strict=True)}


class Evaluated(NamedTuple):
    """The outcome of an evaluation, for `write_evaluation`."""

    record: dict[str, Any]
    """Per variant the metrics of the dataset's protocol in percent, some of them on common resamples of the images (see
    `date.evaluation.resamples`), and what was judged how; see `ZeroSides`, too."""
    detections: dict[str, NDArray[np.float64]]
    """Per variant (D, 7) arrays of `date.evaluation.coco.DETECTION_COLUMNS`."""
    pictures: dict[str, Any]
    """Some images with what the network makes of them, or why there are none; see `date.inference.pictures`."""


def evaluate(
    run: Path,
    variants: Sequence[str] | None = None,
    threads: int | None = None,
    tier_name: str | None = None,
    patience: float = PATIENCE,
) -> Evaluated:
    """Evaluate a sealed run on the validation images of its dataset.

    Args:
        run: the sealed folder.
        variants: names of the catalogue's variants; by default those of the run's training.
        threads: CPU threads; None lets PyTorch choose.
        tier_name: name or file of the run's tier; by default the name that the run recorded.
        patience: seconds without any image loaded after which to give up.

    Raises:
        UserError: not a sealed run, a variant that the network does not have, or data that differ from the training's.
    """
    provenance, training, tier, dataset, manifest = subject(run, tier_name)
    names = list(variants or [e.variant for e in load().evaluations_of(training.name)])
    chosen = {name: _variant(training, name) for name in names}
    root = data_root()
    files = data_files(dataset, root)
    ground_truth = read_ground_truth(files.val_annotations)
    loader = resolve(training, tier, provenance["seed"], root)["test_dataloader"]
    detections, selections, pictures, zero_sides = _detect(run, loader, chosen, threads, training, patience)
    record = {
        "schema_version": EVALUATION_SCHEMA,
        "training": training.name,
        "tier": tier.name,
        "seed": provenance["seed"],
        "run_digest": provenance["run_digest"],
        "weights_sha256": provenance["weights_sha256"],
        "data_digest": manifest["digest"],
        "images": manifest["splits"]["val"]["images"],
        "annotations_sha256": file_digest(files.val_annotations),
        "protocol": dataset.protocol,
        "area_thresholds": dataset.area_thresholds if dataset.protocol == "coco" else None,
        "zero_sides": zero_sides,
        "resamples": resamples_head(ground_truth.image_ids),
        "variants": {
            name: {
                "metrics": protocol_metrics(dataset.protocol, ground_truth, found, dataset.area_thresholds),
                "resamples": stored_resamples(dataset.protocol, ground_truth, found, dataset.area_thresholds),
                "detections": len(found),
                "selection": asdict(selections[name]),
            }
            for name, found in detections.items()
        },
    }
    return Evaluated(record, detections, pictures)


def subject(run: Path, tier_name: str | None) -> tuple[dict[str, Any], Training, Tier, Dataset, dict[str, Any]]:
    """Return a sealed run's provenance, training, tier and dataset, and the manifest of the data that are there.

    Args:
        run: the sealed folder.
        tier_name: see `evaluate`.

    Raises:
        UserError: it is no sealed run, or was trained on other data.
    """
    provenance = read_provenance(run)
    training = training_of(run, provenance)
    tier = tier_of(run, provenance) if tier_name is None else load_tier(tier_name)
    dataset = load_dataset(dataset_name(training, tier))
    manifest = prepare(dataset, data_root(), progress_lines(f"preparing {dataset.name}"))
    if manifest["digest"] != provenance["data"]["digest"]:
        raise UserError(f"the data of {dataset.name!r} are not those that {run.name} was trained on; train it again.")
    return provenance, training, tier, dataset, manifest


def _variant(training: Training, name: str) -> Variant:
    variants = load().variants
    if name not in variants:
        raise unknown_name("variant", name, variants)
    if variants[name].branch not in training.branches:
        raise no_such_branch(training, name, variants)
    return variants[name]


def _detect(
    run: Path,
    loader_config: dict[str, Any],
    variants: dict[str, Variant],
    threads: int | None,
    training: Training,
    patience: float,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Selection], dict[str, Any], dict[str, float] | None]:
    stack.load()
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from safetensors.torch import load_file

    import date.models
    import date.training.components  # noqa: F401 - both register what the config names

    import_modules(training.modules)
    if threads is not None:
        torch.set_num_threads(threads)
    init_default_scope("mmdet")
    from mmdet.registry import MODELS

    from date.inference.prepared import prepared
    from date.training.metric import category_ids
    from date.training.network import set_precision
    from date.training.sampling import build_loader

    model_config = Config.fromfile(str(run / CONFIG)).model
    model_config.backbone.pop("init_cfg", None)
    model = MODELS.build(model_config)
    model.load_state_dict(load_file(run / WEIGHTS))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_precision(Compute().model_dump())  # the paper's, whatever the training's
    model = prepared(model.to(device).eval())
    with contextlib.redirect_stdout(io.StringIO()):  # MMDetection's datasets print pycocotools' chatter
        loader = build_loader(Config(loader_config), device)
    ids = category_ids(Path(loader.dataset.ann_file))
    selections = {name: selection_of(model.bbox_head, variant) for name, variant in variants.items()}
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in variants}
    pictures = load().pictures
    photographer = Photographer(
        loader.dataset.dataset, load().picture_choice(training.name), pictures.floor, pictures.nms
    )
    sides, done = ZeroSides(), 0
    with torch.inference_mode():
        for batch in _batches(loader, run.name, patience):
            for name, rows in batch_detections(model, batch, selections, ids, sides).items():
                parts[name] += rows
            photographer.look(model, batch)
            done += len(batch["data_samples"])
            if done % (10 * loader.batch_size) == 0 or done == len(loader.dataset):
                print(f"{run.name}: {done}/{len(loader.dataset)} images", file=sys.stderr, flush=True)
    detections = {name: np.concatenate(rows) for name, rows in parts.items()}
    return detections, selections, photographer.record(), sides.record()


def _batches(loader: Any, name: str, patience: float) -> Iterator[Any]:
    """Yield a loader's batches.

    Raises:
        UserError: an image can't be loaded, or a batch never comes.
    """
    from date.training.sampling import LoadFailure

    try:
        for batch in all_batches(loader, patience):
            if isinstance(batch, LoadFailure):
                raise UserError(f"{batch.image} can't be loaded ({batch.reason}); restore the file.")
            yield batch
    except LoadingFailed as failed:
        raise UserError(
            f"{name} can't be evaluated: {failed}; {failed.remedy}, then run the same command again."
        ) from failed


def selection_of(head: Any, variant: Variant) -> Selection:
    """Return a variant's settings, the network's own where it has none."""
    own = family_of(head).test_cfg(head, variant.branch)
    return Selection(
        branch=variant.branch,
        score_thr=own["score_thr"] if variant.score_thr is None else variant.score_thr,
        nms_pre=own["nms_pre"],
        nms=variant.nms,
        max_per_img=variant.max_per_img or own["max_per_img"],
    )


def batch_detections(
    model: Any, batch: Any, selections: dict[str, Selection], ids: list[int], sides: ZeroSides | None = None
) -> dict[str, list[NDArray[np.float64]]]:
    """Run the network once on a batch and return each variant's rows per image; ``sides`` is shown its boxes."""
    from date.models.head import final_selection
    from date.training.metric import detection_rows

    data = model.data_preprocessor(batch, training=False)
    samples = data["data_samples"]
    wanted = sorted({(chosen.branch, chosen.score_thr) for chosen in selections.values()})
    look = (lambda branch, output: None) if sides is None else sides.look
    found = family_of(model.bbox_head).candidates(model, data["inputs"], samples, wanted, look)
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in selections}
    for name, chosen in selections.items():
        for candidates, sample in zip(found[chosen.branch, chosen.score_thr], samples, strict=True):
            scale = candidates.bboxes.new_tensor(sample.metainfo["scale_factor"]).repeat(2)
            bboxes = candidates.bboxes / scale
            keep = final_selection(bboxes, candidates.scores, candidates.labels, chosen.nms, chosen.max_per_img)
            boxes, scores, labels = (t[keep].cpu().numpy() for t in (bboxes, candidates.scores, candidates.labels))
            rows[name].append(detection_rows(sample.metainfo["img_id"], boxes, scores, labels, ids))
    return rows


IDENTITY = ("training", "tier", "seed", "run_digest", "weights_sha256", "data_digest", "annotations_sha256")
"""What ``pictures.json`` has in common with ``evaluation.json``."""


def write_evaluation(
    record: dict[str, Any], detections: dict[str, NDArray[np.float64]], pictures: dict[str, Any], folder: Path
) -> None:
    """Write ``evaluation.json``, the compressed ``detections.npz`` and ``pictures.json``, each complete or not at all.

    Args:
        record: see `Evaluated`.
        detections: see `Evaluated`.
        pictures: see `Evaluated`.
        folder: that gets the files; it is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: _compact(rows) for name, rows in detections.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, columns=np.array(DETECTION_COLUMNS), **arrays)  # type: ignore[arg-type]
    replace_bytes(folder / DETECTIONS, buffer.getvalue())
    head = {"schema_version": PICTURES_SCHEMA} | {key: record[key] for key in IDENTITY}
    replace_text(folder / PICTURES, seal(head | pictures, indent=None))
    replace_text(folder / EVALUATION, seal(record))


def _compact(rows: NDArray[np.float64]) -> NDArray[np.floating]:
    """Return the rows in single precision where nothing is lost, which is so for ids below 2**24."""
    single = rows.astype(np.float32)
    return single if np.array_equal(single, rows) else rows
