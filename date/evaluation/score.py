"""Score a file of detections against a file of annotations: no network, no GPU, no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from date.catalogue import COCO_AREA_THRESHOLDS
from date.datasets.boxes import OPTION
from date.evaluation import coco, crowdhuman
from date.evaluation.coco import Engine, coco_metrics
from date.evaluation.crowdhuman import crowdhuman_metrics, ranked, ranked_metrics
from date.evaluation.detections import Categories, Detections, read_detections
from date.evaluation.ground_truth import GroundTruth, read_ground_truth
from date.evaluation.resamples import resampled_crowd, whole_and_resampled
from date.formatting import counted
from date.progress import step

Protocol = Literal["coco", "crowdhuman"]


@dataclass(frozen=True)
class Score:
    """The numbers of a file of detections."""

    metrics: dict[str, float | None]
    """In percent; None where undefined."""
    notes: list[str]
    """Sentences on odd but legal records that were handled as the protocol prescribes, with their numbers."""
    ground_truth: GroundTruth
    """What was judged against, with the sizes of images that the detections' file adds."""
    rows: NDArray[np.float64]
    """What was judged, (D, 7) with `date.evaluation.coco.DETECTION_COLUMNS`."""
    resampled: dict[str, NDArray[np.float64]] | None = None
    """Each metric on resamples of the images, (R,), NaN where undefined; None where nobody asked for them."""


def protocol_metrics(
    protocol: Protocol,
    ground_truth: GroundTruth | Path,
    detections: NDArray[np.float64],
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
    engine: Engine = "hotcoco",
) -> dict[str, float | None]:
    """Return a protocol's metrics in percent; see `coco_metrics` and `crowdhuman_metrics`."""
    if protocol == "crowdhuman":
        return crowdhuman_metrics(ground_truth, detections)
    return coco_metrics(ground_truth, detections, area_thresholds, engine)


def metric_names(protocol: Protocol) -> tuple[str, ...]:
    """Return the names of a protocol's metrics in their order."""
    return crowdhuman.METRICS if protocol == "crowdhuman" else coco.METRICS


def score(
    protocol: Protocol,
    ground_truth_file: Path,
    detections_file: Path,
    variant: str | None = None,
    area_thresholds: Sequence[float] = COCO_AREA_THRESHOLDS,
    engine: Engine | None = None,
    images: Path | None = None,
    categories: Categories = None,
    resamples: bool = False,
    boxes_as_written: bool = False,
) -> Score:
    """Score detections by a protocol.

    Args:
        protocol: COCO's twelve numbers, or CrowdHuman's AP, mMR and Recall.
        ground_truth_file: COCO's annotation format, or odgt.
        detections_file: see `date.evaluation.detections`.
        variant: which of a ``detections.npz``; the first by default.
        area_thresholds: of COCO's metrics, see `coco_metrics`.
        engine: of COCO's metrics, see `coco_metrics`; by default hotcoco, or with resamples their own matches, which
            give the same numbers.
        images: folder of the images, where neither file has their sizes and CrowdHuman's protocol needs them.
        categories: see `read_detections`.
        resamples: whether to return the metrics on resamples of the images, too.
        boxes_as_written: take annotated boxes for x, y, width, height in pixels, whatever they look like.

    Raises:
        UserError: a file is missing, damaged or does not fit the other; everything wrong with it is listed.
    """
    with step(f"reading {ground_truth_file}"):
        ground_truth = read_ground_truth(ground_truth_file, images, None if boxes_as_written else OPTION)
    with step(f"reading {detections_file}"):
        detections = read_detections(detections_file, ground_truth, variant, categories)
    with step(f"scoring {detections_file}"):
        return _scored(protocol, ground_truth, detections, area_thresholds, engine, resamples)


def _scored(
    protocol: Protocol,
    ground_truth: GroundTruth,
    detections: Detections,
    area_thresholds: Sequence[float],
    engine: Engine | None,
    resamples: bool,
) -> Score:
    """Score what was read, see `score`."""
    notes = [*ground_truth.notes, *detections.notes]
    if protocol == "crowdhuman":
        ground_truth, note = sized(ground_truth, detections)
        matched = ranked(ground_truth, detections.rows)
        metrics = ranked_metrics(ground_truth, matched)
        resampled = resampled_crowd(ground_truth, matched) if resamples else None
        return Score(metrics, [*notes, *note], ground_truth, detections.rows, resampled)
    if beyond := coco.beyond_limit(detections.rows, ground_truth):
        notes.append(
            f"{counted(beyond, 'detections', 'come')} after the best {coco.MAX_DETECTIONS} of their image and "
            f"category, which is all that COCO's metrics judge."
        )
    resampled = None
    if resamples:
        metrics, resampled = whole_and_resampled(ground_truth, detections.rows, area_thresholds)
    if engine or not resamples:
        metrics = coco_metrics(ground_truth, detections.rows, area_thresholds, engine or "hotcoco")
    return Score(metrics, notes, ground_truth, detections.rows, resampled)


def sized(ground_truth: GroundTruth, detections: Detections) -> tuple[GroundTruth, list[str]]:
    """Return annotations with the images' sizes that a file of detections adds, and a note where some stay unknown.

    CrowdHuman's protocol clips boxes to their images; where there is nothing to clip, no size is missed.
    """
    ground_truth = _with_sizes(ground_truth, detections.sizes)
    used = np.zeros(len(ground_truth.image_ids), dtype=bool)
    used[ground_truth.image_of(detections.rows[:, 0])] = True
    used[ground_truth.image] = True
    unknown = int((np.isnan(ground_truth.sizes[:, 0]) & used).sum())
    if not unknown:
        return ground_truth, []
    return ground_truth, [
        f"the size of {unknown} of {len(ground_truth.image_ids)} images is in neither file, so their boxes are not "
        f"clipped to the image as the protocol asks; name the folder of the images by --images."
    ]


def _with_sizes(ground_truth: GroundTruth, sizes: dict[int, tuple[float, float]]) -> GroundTruth:
    """Return the annotations with unknown sizes of images, by index, filled in."""
    filled = ground_truth.sizes.copy()
    for index, size in sizes.items():
        if np.isnan(filled[index, 0]):
            filled[index] = size
    return replace(ground_truth, sizes=filled)
