"""The division of a batch, among processes or into passes, changes nothing but the last bits.

Where several processes train, PyTorch's launcher starts them: as ``torchrun`` does, or as forks, which spares their imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from date.catalogue import ROOT
from date.training.sampling import EpochSampler
from tests.support.command import date
from tests.support.forking import run_together

TRAININGS = ("date_f-r50-coco-12e", "date_r-r50-coco-12e", "retinanet-r50-coco-12e", "defcn-r50-coco-1x")
TIER = """
extends: smoke
epoch_scale: 0.85       # 10 epochs of 6 steps
compute: {precision: fp64}
"""
WATCHED = """
import os, sys
from date.cli import main
from date.training.loop import Trainer
from mmdet.datasets import CocoDataset
from date.training.processes import Processes

def memory(dataset):
    # The number of the file in memory that holds a dataset's annotations.
    address = dataset.dataset.data_bytes.content.data_ptr()
    for line in open("/proc/self/maps"):
        ends, _, _, _, number, *_ = line.split()
        first, last = (int(end, 16) for end in ends.split("-"))
        if first <= address < last:
            return number

def watched(trainer, run=Trainer.run):
    with open("memory", "w") as stream:
        print(memory(trainer.train_set), memory(trainer.val_set), file=stream)
    return run(trainer)

def load(dataset, load=CocoDataset.load_data_list):
    with open("read", "a") as stream:
        print(dataset.ann_file, file=stream)
    return load(dataset)

if __name__ == "__main__":
    Trainer.run, CocoDataset.load_data_list = watched, load
    os.chdir(sys.argv.pop(1) + " " + os.environ["RANK"])
    Processes.start_of_workers = START
    sys.exit(main())
"""
"""A clone's start: it enters a folder and notes which annotation files it reads, and where they lie in memory."""
STATISTICS = """
extends: smoke
weights: {}
backbones:
  r50: {depth: 18, base_channels: 8, stage_channels: [8, 16, 32, 64], frozen_stages: -1, norm_eval: false,
    norm_cfg: {type: BN, requires_grad: true}, style: pytorch}
"""


def words(folder: Path, training: str, name: str, *more: object) -> list[object]:
    """Return the words of a training's command; later options override."""
    options = ("--tier", folder / "frozen.yaml", "--runs", folder / name, "--threads", 1, *more)
    return ["train", training, *options]


def alone(folder: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Train in one process, which is this one."""
    return date(*words(folder, *arguments), data=folder / "data", check=check)


def together(
    folder: Path, arguments: list[object], processes: int = 2, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Train in several processes, which are forks."""
    done = run_together(arguments, processes, folder / "data")
    assert not check or done.returncode == 0, done.stderr
    return done


def launcher(arguments: list[object]) -> list[str]:
    """Return the command of a training on two processes."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    return list(map(str, [sys.executable, *start, "-m", "date", *arguments]))


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "DATE_DATA_ROOT": str(folder / "data"), "OMP_NUM_THREADS": "1"}


def run(folder: Path, command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=600)
    assert not check or done.returncode == 0, done.stderr
    return done


def stopped_after(folder: Path, command: list[str], lines: int, name: str) -> str:
    """Start a training, send SIGTERM to its launcher after some lines of the record, and return what it said."""
    log = folder / f"{name}.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(command, cwd=ROOT, env=environment(folder), stdout=stream, stderr=stream) as process,
    ):
        deadline = time.monotonic() + 600
        while sum(p.read_bytes().count(b"\n") for p in (folder / name).glob(".work/*/metrics.jsonl")) < lines:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        process.terminate()
        assert process.wait(timeout=300) != 0, log.read_text()
    return log.read_text()


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    (path,) = (folder / name).glob("frozen-*/metrics.jsonl")
    return [r for line in path.read_text().splitlines() if (r := json.loads(line))["kind"] == "train"]


def assert_same(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], least: int = 50) -> None:
    assert len(mine) == len(theirs) >= least
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if "loss" in name or name in ("grad_norm", "lr"):
                assert a[name] == pytest.approx(b[name], rel=1e-8, abs=1e-300), (a["step"], name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("divided runs")
    (folder / "frozen.yaml").write_text(TIER)
    (folder / "statistics.yaml").write_text(STATISTICS)
    (folder / "frozen-spans.yaml").write_text(TIER + "log_interval: 7\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS)
def test_two_processes_and_several_passes_give_the_losses_of_one(training: str, folder: Path) -> None:
    whole, shared, passes = (f"{training} {kind}" for kind in ("whole", "shared", "passes"))
    alone(folder, training, whole)
    done = together(folder, words(folder, training, shared))
    (sealed,) = (folder / shared).glob("frozen-*")
    assert done.stdout.splitlines() == [str(sealed)], "one line, of the first process"
    assert json.loads((sealed / "provenance.json").read_text())["processes"] == 2
    assert_same(records(folder, shared), records(folder, whole))
    alone(folder, training, passes, "--images-per-pass", 3)
    assert_same(records(folder, passes), records(folder, whole))


@pytest.mark.slow
def test_a_process_without_objects_breaks_nothing(folder: Path) -> None:
    """What once died: two processes, one of which has images with nothing but an ignored region.

    MMDetection's IoU of no boxes had no graph: FCOS's regression got no gradient in one of the processes, which then
    waited for the other one's with another number of bytes.
    """
    tier = folder / "frozen-pairs.yaml"
    datasets = json.dumps({"coco": str(partly_empty(folder / "partly empty"))})
    tier.write_text(TIER + f"steps_per_epoch: {{}}\ndatasets: {datasets}\n")
    alone(folder, TRAININGS[0], "pairs whole", "--tier", tier)
    together(folder, words(folder, TRAININGS[0], "pairs shared", "--tier", tier))
    assert_same(records(folder, "pairs shared"), records(folder, "pairs whole"), least=20)
    order, parts = EpochSampler(range(IMAGES), 0), list[list[int]]()
    for epoch in range(10):
        order.set_epoch(epoch)
        numbers = [number % IMAGES for number in order]
        parts += [numbers[n : n + 2] for n in range(0, IMAGES, 2)]  # each process's two images of a batch
    assert any(set(part) == EMPTY for part in parts)


IMAGES, EMPTY = 8, {2, 5}
"""Of a small dataset; a whole batch, of four, always has objects."""


def partly_empty(folder: Path) -> Path:
    """Make a dataset of images, some of which have nothing but an ignored region, and return its entry."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 64} for n in range(IMAGES)]
    for image in images:
        cv2.imwrite(str(folder / image["file_name"]), pixels)
    regions = [
        {"image_id": n, "category_id": 1, "bbox": [8 + 20 * k, 4 * n, 16, 20], "area": 320, "iscrowd": int(n in EMPTY)}
        for n in range(IMAGES)
        for k in range(1 if n in EMPTY else 2)
    ]
    regions = [{"id": number} | region for number, region in enumerate(regions, 1)]
    content = {"images": images, "annotations": regions, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "all.json").write_text(json.dumps(content))
    split = {"annotations": "all.json", "images": "."}
    entry = folder / "partly-empty.yaml"
    entry.write_text(json.dumps({"classes": ["thing"], "root": str(folder), "train": split, "val": split}))
    return entry


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_evaluation_is_collected_without_a_common_working_directory(start: str, folder: Path) -> None:
    """As on two nodes whose clones share runs and data alone; and whichever way the loading processes start.

    Each annotation file is read by one process alone, and the other one has the same memory.
    """
    training = TRAININGS[0]
    alone(folder, training, "single", "--images-per-pass", 2)
    places = [folder / f"{start} clone {rank}" for rank in range(2)]
    for place in places:
        place.mkdir(exist_ok=True)
        (place / "start.py").write_text(WATCHED.replace("START", repr(start)))
    tier = folder / f"loading-{start}.yaml"
    tier.write_text(TIER + "workers: 2\n")
    command = words(folder, training, f"collected {start}", "--tier", tier)
    start_up = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, places[0] / "start.py"]
    run(folder, list(map(str, [sys.executable, *start_up, folder / f"{start} clone", *command])))
    assert precisions(folder, f"collected {start}") == pytest.approx(precisions(folder, "single"), abs=1e-6)
    first, second = ({path.name: path.read_text() for path in place.iterdir()} for place in places)
    assert set(first) == {"start.py", "memory", "read"} and set(second) == {"start.py", "memory"}
    assert len(first["read"].splitlines()) == 2, "those of training and of validation, once"
    assert first["memory"] == second["memory"] and "0" not in first["memory"].split()


def precisions(folder: Path, name: str) -> list[float]:
    """Return AP after every epoch."""
    (path,) = (folder / name).glob("*/metrics.jsonl")
    return [r["AP"] for line in path.read_text().splitlines() if (r := json.loads(line))["kind"] == "eval"]


@pytest.mark.slow
def test_another_number_of_processes_keeps_the_data_order(folder: Path) -> None:
    training = TRAININGS[0]
    spans = ("--tier", folder / "frozen-spans.yaml")  # lines of the record span the interruption
    said = stopped_after(folder, launcher(words(folder, training, "moved", *spans)), 2, "moved")
    assert "the same command resumes it" in said
    alone(folder, training, "moved", *spans, "--images-per-pass", 2)
    alone(folder, training, "unmoved", *spans)
    assert_same(records(folder, "moved"), records(folder, "unmoved"), 8)
    (provenance,) = (folder / "moved").glob("frozen-*/provenance.json")
    segments = json.loads(provenance.read_text())["segments"]
    assert [s["processes"] for s in segments] == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "processes", "sentence"),
    [
        (("--tier", "statistics.yaml"), 2, "normalises by batch statistics, which several processes can share on GPUs alone"),
        (("--tier", "statistics.yaml", "--images-per-pass", 2), 1, "normalises by batch statistics, which several passes can't share"),
        ((), 3, "3 processes can't share batches of 4 images equally"),
    ],
)  # fmt: skip
def test_what_can_not_be_divided_is_said(more: tuple[Any, ...], processes: int, sentence: str, folder: Path) -> None:
    more = tuple(folder / word if str(word).endswith(".yaml") else word for word in more)
    if processes == 1:
        done = alone(folder, TRAININGS[0], "never", *more, check=False)
    else:
        done = together(folder, words(folder, TRAININGS[0], "never", *more), processes, check=False)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "error: " in done.stderr
