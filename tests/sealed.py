"""Sealed results made up for tests: single runs with chosen numbers, or all of the paper's at once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from date.catalogue import METRICS, Choice, Training, load
from date.evaluation.resamples import RESAMPLES, STORED
from date.inference.pictures import BOX_COLUMNS, PICTURES_SCHEMA, POINT_COLUMNS
from date.results import PICTURES, seal


def add_run(
    results: Path,
    tier: str,
    training: str,
    seed: int,
    variants: dict[str, dict[str, float | None]] | None,
    curve: list[float] = [1.0, 2.0],  # noqa: B006 - never changed
    steps_per_epoch: int = 100,
    drops: tuple[int, ...] = (),
    code: str = "c0de" * 16,
    areas: tuple[float, float] = (8, 20),
    losses: dict[str, float] = {},  # noqa: B006 - never changed
    zero_sides: dict[str, float] | None = None,
    resamples: dict[str, dict[str, str]] | None = None,
    images: str = "1a6e" * 16,
) -> Path:
    """Write a run into a results folder: an evaluation per variant (None: not evaluated), and AP after each epoch.

    ``losses`` are named losses that fall as one over the epoch, from these values; for ``zero_sides`` see
    `date.inference.evaluate.ZeroSides`. ``resamples`` are stored values by variant and metric, of the images with the
    digest ``images``; see `date.evaluation.resamples`.
    """
    folder = results / tier / training / f"seed{seed}"
    folder.mkdir(parents=True)
    digest = f"{training}-{seed}"
    seconds = {"began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:40Z", "seconds": 100.0, "reason": "finished"}
    provenance = {
        "schema_version": 1,
        "training": training,
        "tier": tier,
        "seed": seed,
        "run_digest": digest,
        "code_sha256": code,
        "weights_sha256": hashlib.sha256(digest.encode()).hexdigest(),
        "data": {"dataset": "scenes", "digest": "da7a" * 16},
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "hardware": {"devices": ["cpu"], "processor": "x86_64", "threads": 1},
        "steps": steps_per_epoch * len(curve),
        "segments": [seconds],
    }
    records: list[dict[str, Any]] = [{"kind": "start", "schema_version": 1, "of": digest}]
    for epoch, value in enumerate(curve, 1):
        lr = 0.1 ** sum(epoch > drop for drop in drops)
        for quarter in (1, 2, 3):
            step = (epoch - 1) * steps_per_epoch + quarter * steps_per_epoch // 4
            records.append({"kind": "train", "step": step, "epoch": step / steps_per_epoch, "lr": lr, "loss": 1.0})
            records[-1] |= {name: first / epoch for name, first in losses.items()}
        records.append({"kind": "eval", "step": epoch * steps_per_epoch, "epoch": epoch, "AP": value})
    (folder / "provenance.json").write_text(seal(provenance))
    set_records(folder, records)
    if variants is not None:
        judged: dict[str, dict[str, Any]]
        judged = {name: {"metrics": metrics, "detections": 1} for name, metrics in variants.items()}
        evaluation = {"run_digest": digest, "area_thresholds": areas, "zero_sides": zero_sides, "variants": judged}
        if resamples is not None:
            evaluation["resamples"] = {"count": RESAMPLES, "images_sha256": images}
            for name, stored in resamples.items():
                judged[name]["resamples"] = stored
        (folder / "evaluation.json").write_text(seal(evaluation))
    return folder


OBJECTS = [[0.1, 0.1, 0.4, 0.5, 0], [0.5, 0.3, 0.9, 0.8, 1], [0.05, 0.6, 0.25, 0.95, 0]]
"""Of every picture, in fractions of its sides, with their classes."""


def jpeg(shade: int, size: tuple[int, int] = (100, 60), grain: int = 0) -> str:
    """Return a picture in one shade, with grain of so many steps in either direction, as it stands in a record."""
    rng = np.random.default_rng(shade)
    pixels = np.full((size[1], size[0], 3), (shade, 90, 120)) + rng.integers(-grain, grain + 1, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="JPEG", quality=88)
    return base64.b64encode(buffer.getvalue()).decode()


def add_pictures(
    folder: Path,
    branches: Iterable[str],
    shade: int = 0,
    size: tuple[int, int] = (100, 60),
    grain: int = 0,
    choice: Choice = Choice(images=3, objects=(3, 12)),  # noqa: B008 - never changed
) -> None:
    """Write the pictures of a run.

    Each has three objects, and of each branch four boxes with scores of 0.9, 0.4, 0.25 and 0.15, of which NMS leaves the
    first and the third, and four positive points, two of them in one place.
    """
    provenance = json.loads((folder / "provenance.json").read_text())
    width, height = size

    def placed(row: list[float]) -> list[float]:
        return [row[0] * width, row[1] * height, row[2] * width, row[3] * height, *row[4:]]

    first, second = OBJECTS[:2]
    boxes = [
        [*first[:4], 0.9, 0, 1],
        [0.11, *first[1:4], 0.4, 0, 0],
        [*second[:4], 0.25, 1, 1],
        [0.1, 0.1, 0.2, 0.2, 0.15, 1, 0],
    ]
    points = [[0.2, 0.2, 8, 0], [0.2, 0.2, 8, 0], [0.6, 0.5, 16, 1], [0.15, 0.75, 8, 2]]
    branch = {
        "boxes": [placed(box) for box in boxes],
        "positives": [[x * width, y * height, *rest] for x, y, *rest in points],
    }
    images = [
        {
            "id": i,
            "file": f"{i}.jpg",
            "width": width,
            "height": height,
            "jpeg": jpeg(shade + i, size, grain),
            "objects": [placed(box) for box in OBJECTS],
            "branches": dict.fromkeys(sorted(branches), branch),
        }
        for i in range(choice.images)
    ]
    record = {
        "schema_version": PICTURES_SCHEMA,
        **{key: provenance[key] for key in ("training", "tier", "seed", "run_digest", "weights_sha256")},
        "choice": choice.model_dump(mode="json"),
        "floor": 0.1,
        "nms": 0.5,
        "classes": ["a", "b"],
        "box_columns": BOX_COLUMNS,
        "point_columns": POINT_COLUMNS,
        "images": images,
        "none_because": None,
    }
    (folder / PICTURES).write_text(seal(record, indent=None))


def change(folder: Path, **changes: Any) -> None:
    """Give a run another provenance in some keys, as if it had been sealed with them."""
    path = folder / "provenance.json"
    path.write_text(seal(json.loads(path.read_text()) | changes))


def set_records(folder: Path, records: list[dict[str, Any]]) -> None:
    """Give a run other records, as if it had been sealed with them."""
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    change(folder, metrics_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def coco(ap: float | None, rest: float = 30.0) -> dict[str, float | None]:
    return {"AP": ap} | dict.fromkeys(("AP50", "AP75", "APs", "APm", "APl"), rest)


def paper_numbers(evaluation: str) -> dict[str, float]:
    """Return what the paper's tables print of an evaluation, in brackets too."""
    numbers: dict[str, float] = {}
    for table in load().tables.values():
        for row in table.rows:
            if row.evaluation == evaluation:
                numbers |= {name: v for name, v in row.paper.items() if METRICS[name].kind == "score"}
            if row.bracket is not None and row.bracket.evaluation == evaluation:
                numbers |= row.bracket.paper
    return numbers


def add_paper(
    results: Path, tier: str, seeds: Iterable[int] = (0,), noise: float = 0.2, resampled: bool = False, **pictures: Any
) -> None:
    """Write all of the paper's trainings, evaluations, counted networks and annotations: its own numbers and noise.

    ``resampled`` evaluations store their metrics on resamples of the images; ``pictures`` go to `add_pictures`.
    """
    catalogue = load()
    for training in catalogue.trainings.values():
        for seed in seeds:
            rng = random.Random(f"{training.name}/{seed}")
            variants = {
                e.variant: _metrics(training, paper_numbers(e.name), rng, noise)
                for e in catalogue.evaluations_of(training.name)
            }
            final = next(iter(next(iter(variants.values())).values()))
            curve = [final * (1 - 0.6 / epoch**1.5) for epoch in range(1, 13)]
            losses = {f"o2o.loss_{kind}": rng.uniform(0.9, 1.1) for kind in ("cls", "reg", "iou")}
            areas = (32.0, 96.0)
            stored = made_resamples(training, seed, variants) if resampled else None
            folder = add_run(
                results, tier, training.name, seed, variants, curve, 7330, (8, 11), areas=areas, losses=losses,
                resamples=stored, images=training.data,
            )  # fmt: skip
            if choice := catalogue.picture_choice(training.name):
                add_pictures(folder, training.branches, choice=choice, **pictures)
    add_complexity(results)
    folder = results / tier / "annotations"
    folder.mkdir()
    recalls = {"recall": {"0.5": 91.2, "0.6": 95.14, "0.7": 97.9}}
    for name in catalogue.annotations:
        (folder / f"{name}.json").write_text(json.dumps(recalls))


def made_resamples(
    training: Training, seed: int, variants: dict[str, dict[str, float | None]]
) -> dict[str, dict[str, str]]:
    """Return values on resamples: those of a variant move with the images, alike in all runs, and by themselves."""
    names = STORED["crowdhuman" if training.data == "crowdhuman" else "coco"]
    stored: dict[str, dict[str, str]] = {}
    for variant, metrics in variants.items():
        stored[variant] = {}
        for name in names:
            alike = np.random.default_rng(zlib.crc32(f"{training.data} {name}".encode())).standard_normal(RESAMPLES)
            mine = np.random.default_rng(zlib.crc32(f"{training.name} {name}".encode())).standard_normal(RESAMPLES)
            alone = np.random.default_rng(zlib.crc32(f"{training.name} {seed} {variant} {name}".encode()))
            values = (metrics[name] or 0.0) + alike + 0.3 * mine + 0.2 * alone.standard_normal(RESAMPLES)
            stored[variant][name] = " ".join(f"{value:.3f}" for value in values.tolist())
    return stored


def _metrics(training: Training, paper: dict[str, float], rng: random.Random, noise: float) -> dict[str, float | None]:
    names = ("AP50", "mMR", "Recall") if training.data == "crowdhuman" else ("AP", "AP50", "AP75", "APs", "APm", "APl")
    numbers: dict[str, float | None] = {name: paper.get(name, 36.0) + rng.gauss(0, noise) for name in names}
    if training.data == "crowdhuman":
        numbers["AP"] = numbers.pop("AP50")  # as the evaluation by CrowdHuman's protocol calls it
    return numbers


COUNTED = {
    # label, phase, trainings, trainable parameters in M, operations in G: the true counts, see test_complexity.py
    "RetinaNet": ("both", ["retinanet-r50-coco-12e"], 33.564404, 233.49217284),
    "FCOS": ("both", ["fcos-r50-coco-12e", "fcos-r50-coco-36e"], 32.019802, 200.54570553),
    "OneNet": ("both", ["onenet-r50-coco-12e", "onenet-r50-coco-36e"], 32.017497, 200.49653988),
    "DATE-F": ("infer", ["date_f-r50-coco-12e", "date_f-r50-coco-36e"], 32.017497, 200.49653988),
    "DATE-F, train": ("train", ["date_f-r50-coco-12e"], 32.213422, 204.67562013),
    "DATE-R, train": ("train", ["date_r-r50-coco-12e"], 33.760077, 237.66577128),
    "DATE-R": ("infer", ["date_r-r50-coco-12e"], 32.017497, 200.49653988),
    "own towers, train": ("train", ["date_r_unshared-r50-coco-12e"], 38.482765, 338.44439016),
    "own towers": ("infer", ["date_r_unshared-r50-coco-12e"], 32.017497, 200.49653988),
}


def complexity_json() -> dict[str, Any]:
    """Return what ``python -m date complexity --json`` prints, as far as readers look at it."""
    networks = [
        {"label": label, "phase": phase, "trainings": trainings, "params_m": params, "gflops": gflops}
        for label, (phase, trainings, params, gflops) in COUNTED.items()
    ]
    return {"networks": networks}


def add_complexity(results: Path) -> None:
    """Write the counted networks."""
    (results / "complexity.json").write_text(json.dumps(complexity_json()))
