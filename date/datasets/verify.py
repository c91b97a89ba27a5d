"""``python -m date data verify``: check datasets again and list what they contain and every problem."""

from __future__ import annotations

import functools
import json
import math
import operator
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from date.catalogue import Dataset, Tier, load, load_dataset
from date.catalogue.settings import dataset_name, load_settings
from date.datasets.kept_numbers import number_of
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


@functools.cache
def _scaling(scale: float) -> Callable[[dict[str, Any]], list[float]]:
    """Return `sides_and_percentage` at a scale, one and the same function for each."""
    return functools.partial(sides_and_percentage, scale=scale)


def sides_and_percentage(data: dict[str, Any], scale: float) -> list[float]:
    """Return the median short side (px) of images before and after they are resized, and how many boxes are small.

    Args:
        data: content of a COCO file.
        scale: what multiplies the paper's sides.

    Returns:
        Both sides, and the percentage of the boxes that are then smaller than the finest stride.
    """
    long, short = (side * scale for side in paper_scale())
    factors, sides = {}, []
    for image in data["images"]:
        smaller, larger = sorted((image["width"], image["height"]))
        factors[image["id"]] = min(short / smaller, long / larger)
        sides.append(smaller)
    boxes = [factors[box["image_id"]] * math.sqrt(max(0, math.prod(box["bbox"][2:]))) for box in data["annotations"]]
    small = 100 * sum(side < FINEST_STRIDE for side in boxes) / max(1, len(boxes))
    return [statistics.median(sides), statistics.median(map(operator.mul, sides, factors.values())), small]


def scaled_sizes(dataset: Dataset, tier: Tier, root: Path) -> str:
    """Return what becomes of images and boxes at a tier's resolution, its choice or that of the data.

    Args:
        dataset: a sound one.
        tier: at which it is trained on.
        root: the data root.

    Raises:
        UserError: the annotations were removed or changed meanwhile.
    """
    part = next((part for part, name in tier.datasets.items() if load_dataset(name).name == dataset.name), "")
    scale = pixel_scale(tier, part)
    kept = f"scaled-{'x'.join(f'{side * scale:g}' for side in paper_scale())}-{FINEST_STRIDE}"
    found = number_of(dataset, root, kept, "sides_and_percentage", _scaling(scale))
    if found is None:
        raise UserError(f"the training annotations of {dataset.name!r} can't be read any more; verify them again.")
    before, after, small = found
    chosen = ", chosen by the boxes" if tier.fit_pixels and tier.pixel_scale < 1 else ""
    return (
        f"  short sides of {before:.0f} px (median) become {after:.0f} px at this tier; {small:.0f} % of the "
        f"training boxes are then smaller than {FINEST_STRIDE} px, the finest stride (pixel_scale {scale:.3g}{chosen})"
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
