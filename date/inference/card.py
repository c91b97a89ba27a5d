"""The model card of an exported network, made from its run's records."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from date.catalogue import METRICS as METRIC_NAMES
from date.catalogue import Dataset, Tier, load, load_dataset
from date.catalogue.origin import tier_of, training_of
from date.catalogue.settings import dataset_name
from date.errors import UserError
from date.evaluation.resamples import LEVEL, interval
from date.evaluation.stored import read_resamples
from date.inference.metadata import Metadata
from date.inference.network import Network
from date.results import EVALUATION, METRICS, last_evaluation

UNKNOWN = "not recorded"
UNSTATED = "not stated in the catalogue; ask whoever made them"


def find_evaluation(results: Path, provenance: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the evaluation of a run among the results of the DAG; None where it has none."""
    if provenance is None:
        return None
    folder = results / provenance["tier"] / provenance["training"] / f"seed{provenance['seed']}"
    try:
        record = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("weights_sha256") == provenance["weights_sha256"] else None


def card(network: Network, metadata: Metadata, form: str, evaluation: dict[str, Any] | None) -> str:
    """Return a model card in Markdown.

    Args:
        network: that was exported.
        metadata: of the export.
        form: its format.
        evaluation: of the run, see `find_evaluation`.
    """
    tier, dataset = _tier(network), None
    if tier is not None:
        dataset = load_dataset(dataset_name(load().training(network.training), tier))
    blocks = [
        f"# {metadata.name}",
        _summary(metadata, form, tier),
        "## What it is for",
        _uses(tier, dataset),
        "## How good it is",
        _last_validation(network) if evaluation is None else _scores(metadata, evaluation),
        "## What it was made of",
        _table(_made_of(network, tier, dataset)),
        "## How to use it",
        _usage(metadata),
    ]
    return "\n\n".join(blocks) + "\n"


def _tier(network: Network) -> Tier | None:
    if network.provenance is None:
        return None
    try:
        training_of(Path(network.name), network.provenance)
        return tier_of(Path(network.name), network.provenance)
    except UserError:  # of experiments, or a tier's file, that are gone
        return None


def _summary(metadata: Metadata, form: str, tier: Tier | None) -> str:
    selection = metadata.selection
    nms = "without NMS" if selection.nms is None else f"with NMS at IoU {selection.nms:g}"
    size = "" if tier is None else f" Tier: {tier.summary}"
    return (
        f"An object detector, `{metadata.training}`, exported as {form}: branch `{selection.branch}`, {nms}, at most "
        f"{selection.max_per_img} detections an image. It detects: {', '.join(metadata.classes)}.{size}"
    )


def _uses(tier: Tier | None, dataset: Dataset | None) -> str:
    lines = ["For research on object detection, and for comparison with other detectors on the same data."]
    if dataset is None:
        lines.append(f"**What it must not be used for: {UNKNOWN}, since its data are not known.**")
    else:
        what = (
            dataset.not_for
            or "anything that its data were not made for; the dataset's file in the catalogue names no more"
        )
        lines.append(f"**It must not be used for {what}.**")
    if tier is not None and tier.watermark:
        lines.append(f"Of its size: {tier.watermark}.")
    return "\n\n".join(lines)


def _last_validation(network: Network) -> str:
    """Return the metrics of the last validation while the network was trained, which `date status` reads, too."""
    remedy = (
        "`python -m date evaluate RUN --results DIR` evaluates it with intervals; export it again after that, with the "
        "same `--results`."
    )
    found = None if network.run is None else last_evaluation(network.run / METRICS)
    if found is None:
        return f"Not evaluated, or the results are not here: {remedy}"
    rows = [(key, f"{value:.1f}") for key, value in found.items() if key in METRIC_NAMES and value is not None]
    return (
        f"By the last validation of its training, after step {found['step']:,}, with the branch "
        f"`{network.validated_branch}`. No evaluation of it is in the folder of results: {remedy}\n\n"
        + _table(rows, ("metric", "%"))
    )


def _scores(metadata: Metadata, evaluation: dict[str, Any]) -> str:
    rows = []
    for name, judged in evaluation["variants"].items():
        chosen = {key: judged["selection"][key] for key in ("branch", "nms")}
        own = chosen == {"branch": metadata.selection.branch, "nms": metadata.selection.nms}
        resampled = read_resamples(judged.get("resamples") or {})
        for metric in judged["metrics"]:
            if metric not in resampled and metric not in ("AP", "AP50", "AP75"):
                continue
            value = judged["metrics"][metric]
            found = interval(value, resampled[metric]) if metric in resampled else None
            shown = "-" if value is None else f"{value:.1f}"
            span = "-" if found is None else f"{found.low:.1f} to {found.high:.1f}"
            rows.append((f"{name}{' (this export)' if own else ''}", metric, shown, span))
    head = ("variant", "metric", "%", f"{LEVEL:.0%} interval")
    return (
        f"On {evaluation['images']:,} validation images, by the protocol {evaluation['protocol']}. Intervals are for "
        "other images like these, of one training: another seed would add its own noise.\n\n" + _table(rows, head)
    )


def _made_of(network: Network, tier: Tier | None, dataset: Dataset | None) -> list[tuple[str, str]]:
    provenance = network.provenance or {}
    data = provenance.get("data") or {}
    splits = ", ".join(f"{part['images']:,} {name}" for name, part in (data.get("splits") or {}).items())
    versions = provenance.get("versions") or {}
    hardware = provenance.get("hardware") or {}
    return [
        ("run", f"{provenance.get('run', UNKNOWN)} (`{provenance.get('run_digest', UNKNOWN)}`)"),
        ("data", f"{data.get('dataset', UNKNOWN)}: {splits or UNKNOWN} images (`{data.get('digest', UNKNOWN)}`)"),
        ("licence of the data", (dataset.licence or UNSTATED) if dataset else UNKNOWN),
        ("started from", _start(network, tier)),
        ("steps, batch, seed", ", ".join(str(provenance.get(k, UNKNOWN)) for k in ("steps", "batch_size", "seed"))),
        ("precision", str(provenance.get("precision", UNKNOWN))),
        ("commit", str(provenance.get("commit") or UNKNOWN)),
        ("software", ", ".join(f"{k} {v}" for k, v in versions.items()) or UNKNOWN),
        ("hardware", ", ".join(hardware.get("devices") or [UNKNOWN])),
        ("imported from", json.dumps(provenance["imported"])) if provenance.get("imported") else ("imported", "no"),
    ]


def _start(network: Network, tier: Tier | None) -> str:
    """Return what weights the training started from, and their licence."""
    provenance = network.provenance or {}
    if provenance.get("imported"):
        return "unknown: the weights were imported; ask where they come from for their licence"
    started = []
    training = load().trainings.get(network.training)
    weights = None if tier is None or training is None else tier.weights.get(training.weights)
    if weights is not None:
        source = weights.package or weights.file
        started.append(f"backbone: {source} (SHA-256 {weights.sha256[:16]}), licence: {_licence(weights)}")
    if initial := provenance.get("initialised_from"):
        started.append(
            f"backbone, neck and towers: {initial['weights']} (SHA-256 {initial['weights_sha256'][:16]}), whose "
            "licence holds for this network, too"
        )
    if not started:
        return UNKNOWN if tier is None else "random weights"
    return "; ".join(started)


def _licence(weights: Any) -> str:
    if weights.licence or weights.package is None:
        return weights.licence or UNSTATED
    try:
        about: Any = importlib.metadata.metadata(weights.package.split("==")[0])
    except importlib.metadata.PackageNotFoundError:
        return f"that of the package {weights.package}"
    return about.get("License-Expression") or about.get("License") or f"that of the package {weights.package}"


def _usage(metadata: Metadata) -> str:
    prepare = metadata.preprocessing
    return (
        f"`python -m date detect` takes it as it is. Its input is {prepare.channels}, {prepare.range[0]} to "
        f"{prepare.range[1]}, resized bilinearly in proportion to at most {prepare.long_side} x {prepare.short_side} "
        f"pixels and padded to multiples of {prepare.multiple}. docs/use.md of the project says more."
    )


def _table(rows: list[Any], head: tuple[str, ...] = ("", "")) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
