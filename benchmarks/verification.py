"""Verification of a dataset of COCO's size: 118,287 + 5,000 images, 860,001 + 36,781 annotations.

The annotation files have random boxes and polygons of 25 points, about the size of COCO's own; the image files are a
byte each, since images are listed and not decoded. Timed are a look at everything (``date data verify``) and what every
training and evaluation pays afterwards (`date.datasets.prepare.prepare`, which recalls the verification). Files are in
the page cache. Needs 1 GB of disk and of memory.

    python -m benchmarks.verification [--folder DIR] [--scale S] [--training] [--json FILE]

``--folder`` keeps the dataset for another time; ``--scale 0.01`` makes a hundredth of it. ``--training`` reads the
annotations as the first process of a training does instead, by MMDetection's dataset, and prints the peak of its memory
before and after. Needs some 5 GB of memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from date.catalogue import Dataset, load_dataset
from date.datasets.prepare import examine, prepare

T = TypeVar("T")
SIZES = {"train": (118_287, 860_001), "val": (5_000, 36_781)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or Path(temporary)
        dataset = scaled(args.scale)
        if not (root / "coco").exists():
            write(root / "coco", dataset, args.scale)
        if args.training:
            read_as_training(root / "coco", dataset)
            return
        size = sum(path.stat().st_size for path in (root / "coco" / "annotations").iterdir())
        result: dict[str, Any] = {"annotation_bytes": size}
        result["anew_seconds"], result["anew_cpu_seconds"], found = timed(lambda: examine(dataset, root))
        assert found.problems == [], found.problems
        result["peak_memory_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result["recalled_seconds"], result["recalled_cpu_seconds"], manifest = timed(lambda: prepare(dataset, root))
        assert manifest == found.manifest
    anew, recalled = (f"{result[f'{what}_cpu_seconds']:.2f} CPU seconds" for what in ("anew", "recalled"))
    print(f"{size / 1e6:.0f} MB of annotations: {result['anew_seconds']:.1f} s and {anew} anew", end=", ")
    peak = f"{result['peak_memory_bytes'] / 2**30:.1f} GiB"
    print(f"{result['recalled_seconds']:.2f} s and {recalled} recalled, peak memory {peak}")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def read_as_training(folder: Path, dataset: Dataset) -> None:
    """Build MMDetection's dataset of the training images, and print the peak of this process's memory."""
    importlib.import_module("date.models")  # lets MMDetection be imported without compiled operators
    from mmdet.datasets import CocoDataset

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2

    before = peak()
    images = CocoDataset(
        ann_file=str(folder / "annotations" / "instances_train2017.json"),
        data_prefix={"img": str(folder / "train2017")},
        metainfo={"classes": tuple(dataset.classes)},
        pipeline=[],
        filter_cfg={"filter_empty_gt": True, "min_size": 1},
    )
    print(f"{len(images)} images to train on: peak memory {before:.2f} GiB before, {peak():.2f} GiB after")


def scaled(scale: float) -> Dataset:
    data = load_dataset("coco2017").model_dump()
    for split, (images, _) in SIZES.items():
        data[split]["count"] = round(images * scale)
    return Dataset.model_validate(data)


def write(folder: Path, dataset: Dataset, scale: float) -> None:
    (folder / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, sizes in SIZES.items():
        images, annotations = (round(size * scale) for size in sizes)
        (folder / f"{split}2017").mkdir()
        ids = rng.choice(600_000, images, replace=False).tolist()
        for i in ids:
            (folder / f"{split}2017" / f"{i:012d}.jpg").write_bytes(b"x")
        with (folder / "annotations" / f"instances_{split}2017.json").open("w") as stream:
            records = ",".join(json.dumps(image(i)) for i in ids)
            categories = json.dumps([{"id": i, "name": name} for i, name in enumerate(dataset.classes, 1)])
            stream.write(f'{{"info": {{}}, "images": [{records}], "categories": {categories}, "annotations": [')
            for number in range(1, annotations + 1):
                stream.write(f"{json.dumps(annotation(rng, number, ids))}{',' if number < annotations else ''}\n")
            stream.write("]}")


def image(number: int) -> dict[str, Any]:
    url = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
    return {"license": 4, "file_name": f"{number:012d}.jpg", "coco_url": url, "height": 480, "width": 640, "id": number}


def annotation(rng: np.random.Generator, number: int, ids: list[int]) -> dict[str, Any]:
    x, y, w, h = (rng.random(4) * [400, 300, 230, 170] + [0, 0, 2, 2]).round(2).tolist()
    return {
        "segmentation": [(rng.random(50) * 480).round(2).tolist()],
        "area": round(0.6 * w * h, 4),
        "iscrowd": int(rng.random() < 0.01),
        "image_id": ids[int(rng.integers(len(ids)))],
        "bbox": [x, y, w, h],
        "category_id": int(rng.integers(1, 81)),
        "id": number,
    }


def timed(function: Callable[[], T]) -> tuple[float, float, T]:
    """Return wall and processor time in seconds, and the result, of a function."""
    began, used = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - began, time.process_time() - used, result


if __name__ == "__main__":
    main()
