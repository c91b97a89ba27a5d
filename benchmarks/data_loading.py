"""Data loading with the 36-epoch augmentation at the paper's size: images a second and core, and where the time goes.

Real COCO photographs go through the training pipeline of the catalogue (``date_f-r50-coco-36e`` at the paper tier), on
one core, OpenCV on one thread. Each image is loaded ``--repeats`` times, augmented with the seeds of as many epochs.
Every transform, also those inside of random choices, is timed by a wrapper around it; what it spends in another one is
the other one's. Times are processor time, which other processes disturb less than the clock's; with one thread
and files in the page cache the two are the same on a quiet machine. What a disk or a network adds is not measured.

    python -m benchmarks.data_loading [--images FOLDER] [--repeats N] [--json FILE] [--compare]

``--images`` is a folder with COCO's layout; by default the shared sample of COCO 2017 (``DATE_SHARED_DATA``), and
generated noise in place of photographs, which the output says, where that is absent. ``--compare`` also measures
settings that leave the pixels as they are, each in turns with the default, and checks that the pixels are equal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from date import compat
from date.catalogue import ROOT, load, load_tier
from date.identity.config import resolve

TRAINING = "date_f-r50-coco-36e"
APPETITES = (100, 200, 300)
GROUPS = {
    "LoadImageFromFile": "decode",
    "LoadRecordedImage": "decode",
    "Resize": "resize",
    "RandomCrop": "crop",
    "RandomFlip": "flip",
    "PackDetInputs": "pack",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--compare", action="store_true")
    args = parser.parse_args()
    compat.activate()
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = args.images or shared_sample() or noise(Path(folder))
        dataset = build(root)
        measure(dataset, 1)  # warm: files into the page cache, code paths imported
        result = {"images": len(dataset), **measure(dataset, args.repeats)}
        show(result)
        if args.compare:
            result["variants"] = compare(dataset, args.repeats)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def shared_sample() -> Path | None:
    folder = Path(os.environ.get("DATE_SHARED_DATA", ROOT.parent / "shared" / "data")) / "coco_sample"
    return folder if folder.is_dir() else None


def noise(folder: Path) -> Path:
    """Write 30 images of 640x480 of smooth noise with 7 boxes each, for machines without photographs."""
    import cv2

    print("no COCO images found: generated noise in their place, whose decoding is not a photograph's", file=sys.stderr)
    rng = np.random.default_rng(0)
    (folder / "train2017").mkdir()
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for i in range(1, 31):
        coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        cv2.imwrite(
            str(folder / "train2017" / f"{i}.jpg"), cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        )
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480})
        for _ in range(7):
            box = [float(v) for v in rng.integers(10, 200, 4)]
            record = {
                "id": len(annotations) + 1,
                "image_id": i,
                "category_id": 1,
                "bbox": box,
                "area": 1.0,
                "iscrowd": 0,
            }
            annotations.append(record)
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(data))
    return folder


def build(root: Path) -> Any:
    """Build the training dataset of the catalogue on COCO's layout below a folder."""
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    import date.training.components  # noqa: F401 - registers what the config names

    source = resolve(load().training(TRAINING), load_tier("paper"), 0, None)["train_dataloader"]["dataset"]
    source["dataset"]["ann_file"] = str(root / "annotations" / "instances_train2017.json")
    source["dataset"]["data_prefix"] = dict(img=str(root / "train2017"))
    with contextlib.redirect_stdout(io.StringIO()):
        return DATASETS.build(source)


@contextlib.contextmanager
def timed(dataset: Any, seconds: dict[str, float]) -> Iterator[None]:
    """Add up the seconds that each class of transforms takes, its inner transforms' left out, while the block runs."""
    from mmcv.transforms import BaseTransform

    inner = [0.0]

    def wrap(cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            began = time.process_time()
            try:
                return original(self, *args, **kwargs)
            finally:
                took = time.process_time() - began
                seconds[type(self).__name__] += took - inner.pop()
                inner[-1] += took

        return call

    classes = {cls for cls in subclasses(BaseTransform) if "transform" in vars(cls)}
    originals = {cls: cls.transform for cls in classes}
    try:
        for cls, original in originals.items():
            cls.transform = wrap(cls, original)  # type: ignore[method-assign]
        yield
    finally:
        for cls, original in originals.items():
            cls.transform = original  # type: ignore[method-assign]


def subclasses(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def measure(dataset: Any, repeats: int) -> dict[str, Any]:
    """Load every image ``repeats`` times; whole passes are timed, then, in another pass each, the parts."""
    passes = [one_pass(dataset, epoch) for epoch in range(repeats)]
    seconds: dict[str, float] = defaultdict(float)
    with timed(dataset, seconds):
        total = sum(one_pass(dataset, epoch) for epoch in range(repeats))
    shares: dict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        shares[GROUPS.get(name, "rest")] += value / total
    shares["rest"] += 1 - sum(shares.values())
    per_second = len(dataset) / statistics.median(passes)
    return {"images_per_second": per_second, "spread": (min(passes), max(passes)), "shares": dict(shares)}


def one_pass(dataset: Any, epoch: int) -> float:
    began = time.process_time()
    for index in range(len(dataset)):
        dataset[epoch * len(dataset) + index]
    return time.process_time() - began


def show(result: dict[str, Any]) -> None:
    print(f"{result['images']} images: {result['images_per_second']:.1f} images/s on one core")
    for name, share in sorted(result["shares"].items(), key=lambda item: -item[1]):
        print(f"  {name:8} {100 * share:5.1f} %")
    for appetite in APPETITES:
        print(f"  {appetite} images/s take {appetite / result['images_per_second']:.1f} cores")


def compare(dataset: Any, repeats: int) -> dict[str, float]:
    """Measure settings in turns with the default; return each one's speed over the default's, and check its pixels."""
    import cv2
    import torch
    from mmdet.datasets.transforms import PackDetInputs

    fork_rng, packing = torch.random.fork_rng, PackDetInputs.transform

    def two_threads(on: bool) -> None:
        cv2.setNumThreads(2 if on else 1)

    def split_by_opencv(on: bool) -> None:
        PackDetInputs.transform = planar_packing if on else packing  # type: ignore[method-assign]

    def planar_packing(self: Any, results: dict[str, Any]) -> Any:
        image = results["img"]
        planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
        cv2.split(np.ascontiguousarray(image), list(planes))
        return packing(self, results | dict(img=planes.transpose(1, 2, 0)))

    def no_torch_state(on: bool) -> None:
        torch.random.fork_rng = (lambda **_: contextlib.nullcontext()) if on else fork_rng  # type: ignore[assignment]

    switches = {
        "two OpenCV threads": two_threads,
        "channels parted by OpenCV": split_by_opencv,
        "PyTorch's random state not kept": no_torch_state,
    }
    return {name: ratio(dataset, name, switch, repeats) for name, switch in switches.items()}


def ratio(dataset: Any, name: str, switch: Callable[[bool], None], repeats: int) -> float:
    """Return the median, over pairs of passes, of the speed with a setting over the speed without it."""
    few = range(min(8, len(dataset)))
    before = [dataset[i]["inputs"].numpy().copy() for i in few]
    switch(True)
    same = all(np.array_equal(dataset[i]["inputs"].numpy(), b) for i, b in zip(few, before, strict=True))
    switch(False)
    pairs = []
    for epoch in range(repeats):
        switch(True)
        with_it = one_pass(dataset, epoch)
        switch(False)
        pairs.append(one_pass(dataset, epoch) / with_it)
    print(f"  {name}: {statistics.median(pairs):.3f} times as fast, pixels {'equal' if same else 'DIFFER'}")
    return statistics.median(pairs)


if __name__ == "__main__":
    main()
