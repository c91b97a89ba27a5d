"""Measure how long a trained network takes for an image, by stage, in PyTorch and on onnxruntime.

Networks take turns, image after image, so that whatever disturbs the machine disturbs all of them alike; the times of a
round can be compared with each other.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from date.datasets.decoding import decode
from date.formatting import counted
from date.inference.deploy import Deployable
from date.inference.detect import Pipeline
from date.inference.evaluate import Selection
from date.inference.exported import network_input
from date.inference.exporting import kept_network
from date.inference.network import Network
from date.inference.onnx_format import OnnxRunner, write_onnx
from date.inference.prepared import prepared
from date.results import utc

LATENCY_SCHEMA = 1
STAGES = ("preprocessing", "network", "decoding", "nms")
"""From a decoded image to the network's input; backbone, neck and head; the best candidates as boxes; and the final
choice of detections, by NMS where there is any."""
LARGE = (800, 1333)
"""Height and width of the paper's images."""
WARM_UP = 3
"""Rounds that are not counted."""
IMAGES = 20
"""Of the validation set, in turn."""
PASSES = {"tier": 10}
"""Images of one network in a round, of which the median counts; one of them where a size is not named. A small image
takes about as long as a scheduler leaves a processor to somebody else."""


@dataclass(frozen=True)
class Subject:
    """A network that is measured."""

    name: str
    """Its evaluation in the catalogue, or its run."""
    network: Network
    selection: Selection
    images: list[NDArray[np.uint8]]
    """Decoded, BGR."""


@dataclass(frozen=True)
class Plan:
    """The sizes, runtimes, threads and rounds to measure."""

    sizes: tuple[str, ...] = ("tier", "800x1333")
    """``tier``: images as they are, resized as the tier does; ``800x1333``: stretched to the paper's size."""
    runtimes: tuple[str, ...] = ("pytorch", "onnxruntime")
    threads: tuple[int, ...] = (1,)
    rounds: int = 30


Timed = Callable[[NDArray[np.uint8]], tuple[dict[str, float], int]]
"""Takes an image, returns the seconds of each stage and the number of detections."""


def measure(subjects: Sequence[Subject], plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure networks in turn.

    Args:
        subjects: the networks.
        plan: what of them.
        say: gets a line on what is measured.

    Returns:
        A record: of every subject, size, runtime and number of threads, the milliseconds of each round by stage; of
        each size, the ``passes`` of a round; and the bytes of the ONNX files with the seconds that each export took.
    """
    records, exports = [], {}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        if "onnxruntime" in plan.runtimes:
            for i, subject in enumerate(subjects):
                say(f"exporting {subject.name}")
                began = time.perf_counter()
                files[subject.name] = _exported(subject, Path(folder) / f"{i}.onnx")
                seconds = round(time.perf_counter() - began, 2)
                exports[subject.name] = {"bytes": files[subject.name].stat().st_size, "seconds": seconds}
        before = cv2.getNumThreads()
        try:
            for size, runtime, threads in itertools.product(plan.sizes, plan.runtimes, plan.threads):
                say(f"measuring {runtime}, {counted(threads, 'threads')}, {size}")
                cv2.setNumThreads(threads)
                timed = {s.name: _timed(s, files.get(s.name), runtime, threads, size) for s in subjects}
                for name, times in _rounds(subjects, timed, plan.rounds, size).items():
                    records.append({"name": name, "size": size, "runtime": runtime, "threads": threads, **times})
        finally:
            cv2.setNumThreads(before)
    passes = {size: PASSES.get(size, 1) for size in plan.sizes}
    return {
        "schema_version": LATENCY_SCHEMA, "made": utc(), "stages": STAGES, "passes": passes, "records": records,
        "exports": exports,
    }  # fmt: skip


def _rounds(subjects: Sequence[Subject], timed: dict[str, Timed], rounds: int, size: str) -> dict[str, dict[str, Any]]:
    """Return each network's milliseconds by stage, a number for each round, and its detections."""
    seconds: dict[str, dict[str, list[float]]] = {s.name: defaultdict(list) for s in subjects}
    detections: dict[str, list[int]] = {s.name: [] for s in subjects}
    images = {s.name: [_at_size(image, size) for image in s.images] for s in subjects}
    for turn in range(-WARM_UP, rounds):
        order = [*subjects[turn % len(subjects) :], *subjects[: turn % len(subjects)]]  # nobody is always the first
        for subject in order:
            passes = PASSES.get(size, 1)
            which = [(turn * passes + i) % len(subject.images) for i in range(passes)]
            measured = [timed[subject.name](images[subject.name][i]) for i in which]
            if turn >= 0:
                detections[subject.name].extend(found for _, found in measured)
                for stage in STAGES:
                    seconds[subject.name][stage].append(float(np.median([stages[stage] for stages, _ in measured])))
    return {
        name: {
            "ms": {stage: [round(1000 * s, 4) for s in values] for stage, values in stages.items()},
            "detections": round(float(np.mean(detections[name])), 2),
        }
        for name, stages in seconds.items()
    }


def _at_size(image: NDArray[np.uint8], size: str) -> NDArray[np.uint8]:
    if size == "tier":
        return image
    height, width = map(int, size.split("x"))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _exported(subject: Subject, path: Path) -> Path:
    model, _ = kept_network(subject.network, subject.selection.branch)
    module = Deployable(model, subject.selection, for_onnx=True).eval()
    write_onnx(module, subject.network.config.model.data_preprocessor.pad_size_divisor, {}, path)
    return path


def _timed(subject: Subject, file: Path | None, runtime: str, threads: int, size: str) -> Timed:
    steps = subject.network.pipeline
    if size != "tier":
        height, width = map(int, size.split("x"))
        scale = (max(height, width), min(height, width))
        steps = [step | ({"scale": scale} if step["type"] == "Resize" else {}) for step in steps]
    divisor = subject.network.config.model.data_preprocessor.pad_size_divisor
    pipeline = Pipeline(steps)

    def as_input(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return network_input([pipeline(image, "", 0)], divisor)

    if runtime == "pytorch":
        return _in_pytorch(subject, as_input, threads)
    assert file is not None
    return _on_onnxruntime(file, as_input, threads)


def clock(threads: int) -> Callable[[], float]:
    """Return a clock in seconds: for one thread its own processor time, which other work on the machine leaves alone.

    Not the process's: the idle threads of a pool wait in a loop for some milliseconds, and would be counted.
    """
    return time.thread_time if threads == 1 else time.perf_counter


def _in_pytorch(subject: Subject, as_input: Callable[..., Any], threads: int) -> Timed:
    model, _ = kept_network(subject.network, subject.selection.branch)
    module = Deployable(prepared(model), subject.selection, for_onnx=True).eval()

    now = clock(threads)

    @torch.inference_mode()
    def run(image: NDArray[np.uint8]) -> tuple[dict[str, float], int]:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        at = [now()]
        arrays = as_input(image)
        images, sizes = (torch.from_numpy(array) for array in arrays)
        at.append(now())
        found = module.predict(module.features(images, sizes))
        at.append(now())
        resized, before = sizes[:, [1, 0]].float(), sizes[:, [3, 2]].float()
        boxes, scores, labels = module.candidates(found, resized.repeat(1, 2)[:, None])
        boxes = boxes / (resized / before).repeat(1, 2)[:, None]
        at.append(now())
        _, scores, _ = module.final(boxes, scores, labels)
        at.append(now())
        return dict(zip(STAGES, np.diff(at).tolist(), strict=True)), int((scores >= 0).sum())

    return run


def _on_onnxruntime(file: Path, as_input: Callable[..., Any], threads: int) -> Timed:
    """Time the whole of a session's run; its stages are divided as a profile of some runs divides them."""
    runner = OnnxRunner(file, threads)
    now = clock(threads)
    shares: dict[tuple[int, ...], dict[str, float]] = {}

    def run(image: NDArray[np.uint8]) -> tuple[dict[str, float], int]:
        began = now()
        images, sizes = as_input(image)
        middle = now()
        scores = runner(images, sizes)[1]
        took = now() - middle
        if images.shape not in shares:
            shares[images.shape] = profiled_shares(file, images, sizes, threads)
        stages = {stage: share * took for stage, share in shares[images.shape].items()}
        return {"preprocessing": middle - began} | stages, int((scores >= 0).sum())

    return run


def profiled_shares(
    file: Path, images: NDArray[np.float32], sizes: NDArray[np.int64], threads: int, runs: int = 5
) -> dict[str, float]:
    """Return the shares of a network's nodes on onnxruntime that belong to network, decoding and NMS; they sum to 1.

    The network ends with its last convolution and what directly follows; NMS is the node of that name.
    """
    with tempfile.TemporaryDirectory() as folder:
        runner = OnnxRunner(file, threads, profile=Path(folder) / "profile")
        for _ in range(runs):
            runner(images, sizes)
        events = json.loads(Path(runner.session.end_profiling()).read_text(encoding="utf-8"))
    nodes = sorted(
        (e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")), key=lambda e: e["ts"]
    )
    last = max(i for i, e in enumerate(nodes[: len(nodes) // runs]) if "Conv" in e["args"]["op_name"])
    spent = dict.fromkeys(STAGES[1:], 0.0)
    each = len(nodes) // runs
    for i, event in enumerate(nodes):
        after = i % each > last
        nms = event["args"]["op_name"] == "NonMaxSuppression"
        spent["nms" if nms else "decoding" if after else "network"] += event["dur"]
    total = sum(spent.values())
    return {stage: value / total for stage, value in spent.items()}


def read_images(folder: Path, names: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Return the first images of a list, decoded."""
    return [decode((folder / name).read_bytes()) for name in names[:IMAGES]]


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
