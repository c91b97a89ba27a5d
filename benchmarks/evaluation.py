"""Time and peak memory of the evaluations, from files to numbers, each in a process of its own on one core.

COCO: generated annotations with the counts of val2017 (5,000 images, 36,781 objects of 80 classes, about 41 % small,
34 % medium and 24 % large, 1 % crowd regions) and 100 detections an image: moved copies of the image's objects and
boxes anywhere. Both engines score the same files by the same function and have to give the same twelve numbers.

CrowdHuman: 4,370 images with 99,481 valid and 10,000 ignored boxes and 500 detections an image. On the first images the
three numbers have to equal those of the protocol in plain loops (``tests/unit/literal_crowdhuman.py``).

From JSON: the same detections as a list of COCO's results, read by type as by `date score`, and record by record as
every file was read before and odd files still are. The numbers have to be those of the npz file, whose boxes are the
same single-precision numbers.

With names: the same list, where each detection has the name of its category in ``category``, too, as `date detect`
writes it. ``--names`` measures these files alone.

With intervals: metrics and their intervals over 200 resamples of the images, as `date score --interval` prints them.
``--intervals`` compares whole commands instead, `date score` without and with ``--interval``, in turns.

NMS on annotations: the five thresholds on CrowdHuman's boxes.

Run from the project's folder: ``python -m benchmarks.evaluation``, ``python -m benchmarks.evaluation --intervals``.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import date.evaluation.detections
import date.evaluation.ground_truth
from date.evaluation.coco import DETECTION_COLUMNS
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.score import score

COCO_IMAGES, COCO_OBJECTS, COCO_CLASSES, COCO_DETECTIONS = 5000, 36_781, 80, 100
CROWD_IMAGES, CROWD_OBJECTS, CROWD_IGNORED, CROWD_DETECTIONS = 4370, 99_481, 10_000, 500
LITERAL_IMAGES = 40
LITERAL = Path(__file__).resolve().parent.parent / "tests" / "unit" / "literal_crowdhuman.py"


def write_data(folder: Path, name: str, boxes: np.ndarray, images: np.ndarray, labels: np.ndarray, crowd: np.ndarray,
               counts: tuple[int, int, int], size: tuple[int, int], noise: float) -> None:  # fmt: skip
    """Write ``<name>.json`` and ``<name>.npz``: annotations, and detections that are half moved objects, half random.

    Args:
        folder: that gets the files.
        name: of the files.
        boxes: (N, 4) x, y, width, height.
        images: (N,) index of each box's image, ascending.
        labels: (N,) class of each box from 1.
        crowd: (N,) whether it is a region to be ignored.
        counts: images, classes, detections an image.
        size: width and height of the images.
        noise: standard deviation of the moved boxes' corners and sizes, in sizes of the box.
    """
    rng = np.random.default_rng(1)
    num_images, num_classes, per_image = counts
    annotations = [
        {"id": i, "image_id": int(image) + 1, "category_id": int(label), "bbox": np.round(box, 2).tolist(),
         "iscrowd": int(c), "area": float(box[2] * box[3])}
        for i, (box, image, label, c) in enumerate(zip(boxes, images, labels, crowd, strict=True), 1)
    ]  # fmt: skip
    coco = {
        "images": [{"id": i + 1, "width": size[0], "height": size[1]} for i in range(num_images)],
        "categories": [{"id": i + 1, "name": f"class {i + 1}"} for i in range(num_classes)],
        "annotations": annotations,
    }
    (folder / f"{name}.json").write_text(json.dumps(coco))
    image = np.repeat(np.arange(num_images), per_image)
    first, objects = np.searchsorted(images, np.arange(num_images)), np.bincount(images, minlength=num_images)
    chosen = np.minimum(first[image] + (rng.random(len(image)) * objects[image]).astype(int), len(boxes) - 1)
    moved = boxes[chosen] + rng.normal(0, noise, (len(image), 4)) * boxes[chosen][:, [2, 3, 2, 3]]
    free = np.concatenate([rng.uniform(0, size, (len(image), 2)), rng.uniform(8, 200, (len(image), 2))], axis=1)
    hit = (rng.random(len(image)) < 0.5) & (objects[image] > 0)
    rows = np.empty((len(image), len(DETECTION_COLUMNS)))
    rows[:, 0] = image + 1
    rows[:, 1:5] = np.where(hit[:, None], moved, free)
    rows[:, 3:5] = np.maximum(rows[:, 3:5], 1)
    rows[:, 5] = np.where(hit, rng.beta(2, 2, len(image)), rng.beta(1, 4, len(image)))
    rows[:, 6] = np.where(hit, labels[chosen], rng.integers(1, num_classes + 1, len(image)))
    rows = rows.astype(np.float32)
    np.savez_compressed(folder / f"{name}.npz", columns=np.array(DETECTION_COLUMNS), all=rows)
    text = '{"image_id": %d, "category_id": %d, "bbox": [%r, %r, %r, %r], "score": %r}'
    write_results(folder / f"{name}-results.json", rows, text)
    if name == "coco":
        write_results(folder / f"{name}-results with names.json", rows, text[:-1] + ', "category": "class %d"}', [6])


def write_results(path: Path, rows: np.ndarray, text: str, more: Sequence[int] = ()) -> None:
    """Write a list of COCO's results: ``text`` with the numbers of each row, and some of its columns again."""
    with path.open("w") as stream:
        for start in range(0, len(rows), 50_000):
            part = rows[start : start + 50_000].astype(np.float64)[:, [0, 6, 1, 2, 3, 4, 5, *more]].tolist()
            stream.write(("[" if start == 0 else ", ") + ", ".join(text % tuple(row) for row in part))
        stream.write("]")


def write_coco(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = np.sort(rng.integers(0, COCO_IMAGES, COCO_OBJECTS))
    kind = rng.choice(3, COCO_OBJECTS, p=[0.41, 0.34, 0.25])
    sides = np.exp(rng.uniform(np.log([6, 32, 96])[kind], np.log([32, 96, 400])[kind]))[:, None]
    aspect = np.exp(rng.normal(0, 0.3, (COCO_OBJECTS, 1)))
    sizes = np.concatenate([sides * aspect, sides / aspect], axis=1)
    boxes = np.concatenate([rng.uniform(0, [640, 480], (COCO_OBJECTS, 2)), sizes], axis=1)
    labels = np.minimum(rng.zipf(1.5, COCO_OBJECTS), COCO_CLASSES)
    crowd = rng.random(COCO_OBJECTS) < 0.01
    write_data(
        folder, "coco", boxes, images, labels, crowd, (COCO_IMAGES, COCO_CLASSES, COCO_DETECTIONS), (640, 480), 0.1
    )


def write_crowd(folder: Path) -> None:
    rng = np.random.default_rng(0)
    number = CROWD_OBJECTS + CROWD_IGNORED
    images = np.sort(np.concatenate([np.arange(CROWD_IMAGES), rng.integers(0, CROWD_IMAGES, number - CROWD_IMAGES)]))
    height = np.exp(rng.uniform(np.log(40), np.log(500), number))
    sizes = np.stack([0.4 * height, height], axis=1)
    boxes = np.concatenate([rng.uniform(-40, [1600, 700], (number, 2)), sizes], axis=1)
    crowd = np.zeros(number, dtype=bool)
    crowd[rng.choice(number, CROWD_IGNORED, replace=False)] = True
    write_data(
        folder,
        "crowd",
        boxes,
        images,
        np.ones(number, int),
        crowd,
        (CROWD_IMAGES, 1, CROWD_DETECTIONS),
        (1600, 900),
        0.12,
    )


def child(what: str, folder: Path) -> None:
    """Do one measurement in this process and print it as JSON."""
    import resource

    import hotcoco  # noqa: F401 - imports are not timed
    import pycocotools.cocoeval  # noqa: F401

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def peak_mib() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, began, began_cpu = peak_mib(), time.perf_counter(), time.process_time()
    if what in WRITE:  # in a process of its own, since a process inherits its parent's peak
        write_coco(folder)
        if what == WRITE[1]:
            write_crowd(folder)
        numbers: Any = None
    elif what == "nms":
        from date.evaluation.nms_recall import nms_recall

        numbers = nms_recall(read_ground_truth(folder / "crowd.json"))["recall"]
    elif what.endswith("with intervals"):
        from date.evaluation.intervals import score_intervals

        name, protocol = ("coco", "coco") if what.startswith("COCO") else ("crowd", "crowdhuman")
        scored = score(protocol, folder / f"{name}.json", folder / f"{name}.npz", resamples=True)  # type: ignore[arg-type]
        score_intervals(scored)
        numbers = scored.metrics
    elif what == "crowdhuman":
        numbers = score("crowdhuman", folder / "crowd.json", folder / "crowd.npz").metrics
    elif "results" in what:
        if what.endswith("by record"):
            date.evaluation.ground_truth.coco_annotations = lambda *_: None  # type: ignore[assignment]
            date.evaluation.detections._typed = lambda *_: None  # type: ignore[assignment]
        name, protocol = ("coco", "coco") if what.startswith("COCO") else ("crowd", "crowdhuman")
        file = "results with names" if "with names" in what else "results"
        numbers = score(protocol, folder / f"{name}.json", folder / f"{name}-{file}.json").metrics  # type: ignore[arg-type]
    else:
        numbers = score("coco", folder / "coco.json", folder / "coco.npz", engine=what).metrics  # type: ignore[arg-type]
    times = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}
    print(json.dumps(times | {"peak_mib": peak_mib(), "before_mib": before, "numbers": numbers}))


def measure(what: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.evaluation", "--child", what, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if what not in WRITE:
        times = f"{found['seconds']:.1f} | {found['cpu_seconds']:.1f}"
        print(f"| {what} | {times} | {found['peak_mib']:.0f} | {found['before_mib']:.0f} |", flush=True)
    return found


def compare_with_literal(folder: Path) -> dict[str, Any]:
    """Score the first images of the crowd both ways; the numbers have to be the same."""
    data = json.loads((folder / "crowd.json").read_text())
    data["images"] = data["images"][:LITERAL_IMAGES]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] <= LITERAL_IMAGES]
    (folder / "few.json").write_text(json.dumps(data))
    with np.load(folder / "crowd.npz") as archive:
        rows = archive["all"][: LITERAL_IMAGES * CROWD_DETECTIONS]
    np.savez_compressed(folder / "few.npz", columns=np.array(DETECTION_COLUMNS), all=rows)
    ours = score("crowdhuman", folder / "few.json", folder / "few.npz").metrics
    ground_truth = read_ground_truth(folder / "few.json")
    found = read_detections(folder / "few.npz", ground_truth).rows
    images: list[dict[str, Any]] = [
        {"size": tuple(size), "objects": [], "found": []} for size in ground_truth.sizes.tolist()
    ]
    for image, box, ignored in zip(ground_truth.image, ground_truth.bboxes, ground_truth.ignored, strict=True):
        images[image]["objects"].append((box.tolist(), bool(ignored)))
    for row in found.tolist():
        images[int(row[0]) - 1]["found"].append((row[1:5], row[5]))
    literal = runpy.run_path(str(LITERAL))["literal_metrics"](images)
    for name, value in literal.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-9)
    print(f"\nequal to the protocol in plain loops on {LITERAL_IMAGES} images: {ours}")
    return {"images": LITERAL_IMAGES, "ours": ours, "literal": literal}


def compare_commands(folder: Path, turns: int = 3) -> dict[str, dict[str, float]]:
    """Print the shortest processor time of whole commands without and with intervals, and its ratio."""
    found: dict[str, dict[str, float]] = {}
    print("| | plain, CPU seconds | with intervals | ratio |\n|---|--:|--:|--:|")
    for protocol, name in (("coco", "coco"), ("crowdhuman", "crowd")):
        files = ["--gt", str(folder / f"{name}.json"), "--detections", str(folder / f"{name}.npz")]
        command = [sys.executable, "-m", "date", "score", "--protocol", protocol, *files]
        times = [(processor_time(command), processor_time([*command, "--interval"])) for _ in range(turns)]
        plain, intervals = (min(each) for each in zip(*times, strict=True))
        found[protocol] = {"plain": plain, "intervals": intervals}
        print(f"| {protocol} | {plain:.2f} | {intervals:.2f} | {intervals / plain:.2f} |", flush=True)
    return found


def processor_time(command: list[str]) -> float:
    """Run a command on one thread and return its seconds of processor time."""
    import resource

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return spent() - before


WHAT = (
    "hotcoco", "COCO with intervals", "pycocotools", "COCO results", "COCO results by record",
    "COCO results with names", "COCO results with names by record", "crowdhuman", "crowd with intervals",
    "crowd results", "crowd results by record", "nms",
)  # fmt: skip


WRITE = ("write COCO", "write all")
COSTS = ("time", "CPU time", "peak memory")


NAMES = ("COCO results", "COCO results with names", "COCO results with names by record")


def compare_costs(found: dict[str, dict[str, Any]], pairs: list[tuple[str, str]], npz: str) -> None:
    """Print the shares of the costs in each pair; the numbers have to be those of the npz file."""
    for fast, slow in pairs:
        ratios = [found[slow][key] / found[fast][key] for key in ("seconds", "cpu_seconds", "peak_mib")]
        shares = [f"{100 / ratio:.0f} % of its {what}" for ratio, what in zip(ratios, COSTS, strict=True)]
        print(f"{fast} against {slow}: {', '.join(shares)}")
        for other in (fast, slow):
            for metric, value in found[npz]["numbers"].items():
                np.testing.assert_allclose(found[other]["numbers"][metric], value, rtol=0, atol=1e-10)


def compare(found: dict[str, dict[str, Any]]) -> None:
    """Print how much faster what is in use is than what it took the place of; their numbers have to be equal."""
    for protocol, npz in (("COCO", "hotcoco"), ("crowd", "crowdhuman")):
        pairs = [(f"{protocol} results", f"{protocol} results by record")]
        pairs += [(NAMES[1], NAMES[2])] if protocol == "COCO" else []
        pairs += [("hotcoco", "pycocotools")] if protocol == "COCO" and "pycocotools" in found else []
        compare_costs(found, pairs, npz)
        intervals = found[f"{protocol} with intervals"]["cpu_seconds"] / found[npz]["cpu_seconds"]
        print(f"{protocol} with intervals: {intervals:.1f} times the CPU time without")
        print(json.dumps(found[npz]["numbers"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number as JSON")
    parser.add_argument("--quick", action="store_true", help="without pycocotools, which takes longest")
    parser.add_argument(
        "--intervals", action="store_true", help="only compare whole commands without and with intervals"
    )
    parser.add_argument("--names", action="store_true", help="only compare results with names of categories")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(WRITE[0] if args.names else WRITE[1], folder)
        if args.intervals:
            save(args.json, compare_commands(folder))
            return
        chosen = NAMES if args.names else [what for what in WHAT if not (args.quick and what == "pycocotools")]
        print("| | seconds | CPU seconds | peak MiB | before MiB |\n|---|--:|--:|--:|--:|", flush=True)
        found = {what: measure(what, folder) for what in chosen}
        if args.names:
            compare_costs(found, [(NAMES[1], NAMES[2]), (NAMES[0], NAMES[1])], NAMES[0])
            save(args.json, found)
            return
        compare(found)
        print(f"CrowdHuman: {found['crowdhuman']['numbers']}\nNMS on annotations: {found['nms']['numbers']}")
        found["literal"] = compare_with_literal(folder)
    save(args.json, found)


def save(path: Path | None, found: dict[str, Any]) -> None:
    """Write what was measured as JSON, if a file is named."""
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
