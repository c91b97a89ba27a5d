"""``python -m date data verify``: check datasets again and list what they contain and every problem."""

from __future__ import annotations

import json
import math
import operator
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from date.catalogue import Dataset, Tier, load, load_dataset
from date.catalogue.settings import dataset_name, load_settings
from date.datasets.content import annotation_bytes
from date.datasets.files import data_files
from date.datasets.lean import annotation_file
from date.datasets.normal import INFO
from date.datasets.prepare import examine, refusal, verify_weights
from date.datasets.protocols import IGNORED, protocol_notes
from date.datasets.sizes import FINEST_STRIDE, paper_scale, pixel_scale
from date.errors import UserError
from date.progress import progress_lines, step


def datasets_of(tier: Tier) -> list[Dataset]:
    """Return the datasets of the trainings that ``all`` trains at a tier, and raise a `UserError` as the DAG would."""
    trainings = load().chosen(tier, load_settings().trainings)
    return [load_dataset(name) for name in dict.fromkeys(dataset_name(t, tier) for t in trainings)]


def weights_problems(tier: Tier, root: Path) -> list[str]:
    """Return what is wrong with the pretrained weights of the trainings that ``all`` trains at a tier."""
    problems = []
    trainings = load().chosen(tier, load_settings().trainings)
    for name in dict.fromkeys(training.weights for training in trainings):
        try:
            verify_weights(tier, name, root)
        except UserError as error:
            problems.append(str(error))
    return problems


def verify(datasets: list[Dataset], root: Path, deep: bool) -> list[dict[str, Any]]:
    """Examine datasets, one after the other.

    Returns:
        Per dataset a record with ``dataset``, ``ok``, ``deep``, ``problems`` (sentences), ``seconds`` and ``manifest``
        (None where there are problems).
    """
    records = []
    for dataset in datasets:
        began = time.monotonic()
        title = f"verifying {dataset.name}"
        with step(title):
            found = examine(dataset, root, progress_lines(title), deep)
        records.append(
            {
                "dataset": dataset.name,
                "ok": not found.problems,
                "deep": deep,
                "problems": found.problems,
                "seconds": round(time.monotonic() - began, 1),
                "manifest": found.manifest,
            }
        )
    return records


def scaled_sizes(dataset: Dataset, tier: Tier, root: Path) -> str:
    """Return what becomes of images and boxes at a tier's resolution, its choice or that of the data.

    Args:
        dataset: a sound one.
        tier: at which it is trained on.
        root: the data root.
    """
    raw = annotation_bytes(data_files(dataset, root).train_annotations)
    found = annotation_file(raw)
    data: dict[str, Any] = (
        json.loads(raw) if found is None else {"images": found.images, "annotations": found.annotations}
    )
    part = next((part for part, name in tier.datasets.items() if load_dataset(name).name == dataset.name), "")
    scale = pixel_scale(tier, part)
    long, short = (side * scale for side in paper_scale())
    factors, sides = {}, []
    for image in data["images"]:
        smaller, larger = sorted((image.get("width"), image.get("height")))
        factors[image.get("id")] = min(short / smaller, long / larger)
        sides.append(smaller)
    sizes = ((a.get("image_id"), *a.get("bbox")[2:]) for a in data["annotations"])
    boxes = [factors[image_id] * math.sqrt(max(0, w * h)) for image_id, w, h in sizes]
    small = 100 * sum(side < FINEST_STRIDE for side in boxes) / max(1, len(boxes))
    chosen = ", chosen by the boxes" if tier.fit_pixels and tier.pixel_scale < 1 else ""
    before, after = statistics.median(sides), statistics.median(map(operator.mul, sides, factors.values()))
    return (
        f"  short sides of {before:.0f} px (median) become {after:.0f} px at this tier; {small:.0f} % of the training "
        f"boxes are then smaller than {FINEST_STRIDE} px, the finest stride (pixel_scale {scale:.3g}{chosen})"
    )


def describe(record: dict[str, Any], deep: bool) -> str:
    """Return what was found in a dataset, for a reader; only of records that are ``ok``.

    Args:
        record: of `verify`.
        deep: whether every image was decoded.
    """
    manifest = record["manifest"]
    lines = [f"{record['dataset']}: sound ({record['seconds']:.1f} s), manifest {manifest['digest'][:16]}"]
    for name, part in manifest["splits"].items():
        boxes = {k.replace("_", " "): n for k, n in part["boxes"].items() if n}
        uses = ", ".join(f"{n:,} {use}" for use, n in boxes.items())
        lines.append(f"  {name}: {part['images']:,} images, {part['annotations']:,} annotations ({uses})")
        if normal := part.get(INFO):
            changed = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in normal["changes"].items())
            lines.append(f"    used in normal form: {changed}")
        odd = {
            k.replace("_", " "): n
            for k, n in part.items()
            if k.startswith(("images_", "repeated_", "boxes_", "annotations_with")) and n
        }
        if odd:
            lines.append(f"    {', '.join(f'{n:,} {what}' for what, n in odd.items())}")
    total: Counter[str] = Counter()
    for part in manifest["splits"].values():
        total.update({what: n for what, n in part.items() if isinstance(n, int)} | {IGNORED: part["boxes"]["ignored"]})
    lines += [f"  {sentence}" for sentence in protocol_notes(total)]
    if not deep:
        lines.append(
            "  no image was opened; --deep decodes every image and compares its size and depth with its record"
        )
    return "\n".join(lines)


def report(
    records: list[dict[str, Any]], weights: list[str], datasets: list[Dataset], as_json: bool, deep: bool
) -> None:
    """Print what `verify` found.

    Raises:
        UserError: there are problems; the message has all of them.
    """
    if as_json:
        ok = not weights and all(record["ok"] for record in records)
        print(json.dumps({"ok": ok, "datasets": records, "weights": weights}, indent=1))
    else:
        for record in records:
            if record["ok"]:
                print(describe(record, deep))
    bad = [refusal(d, r["problems"]) for d, r in zip(datasets, records, strict=True) if not r["ok"]]
    if bad or weights:
        raise UserError("\n".join([*bad, *weights]))
