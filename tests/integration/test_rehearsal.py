"""`date rehearse`: the real command line at small sizes, and what it does where something is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from date.catalogue import load, load_tier
from date.planning.durations import Durations
from tests.support.command import date_process

LINE = re.compile(r"(?P<name>\S+) +(?P<speed>[\d.]+) images/s  (?P<memory>[\d.]+) GiB  data +(?P<data>\d+) %  ok")
NAMES = ["retinanet-r50-coco-12e", "date_f-r50-coco-12e"]


def rehearse(folder: Path, *words: object, check: bool = True) -> Any:
    places = ("--runs", folder / "runs", "--results", folder / "results", "--threads", 1)
    return date_process("rehearse", *words, *places, data=folder / "data", check=check)


@pytest.mark.slow
def test_every_network_is_trained_killed_resumed_judged_and_timed(tmp_path: Path) -> None:
    done = rehearse(tmp_path, *NAMES, "--tier", "smoke")
    machine, data, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"CPU, 1 thread, \d+ CPUs", machine)
    assert data.startswith("scenes-smoke: 24 + 8 images are there")
    found = [LINE.fullmatch(line) for line in lines]
    assert [match["name"] for match in found] == NAMES, done.stdout
    assert all(float(match["speed"]) > 0 and 0 <= int(match["data"]) <= 100 for match in found)

    times = json.loads((tmp_path / "results/smoke/calibration.json").read_text())["trainings"]
    for match in found:
        assert float(match["speed"]) == pytest.approx(4 / times[match["name"]]["seconds_per_step"], abs=0.06)
    durations = Durations(load_tier("smoke"), tmp_path / "results", tmp_path / "runs")
    assert {durations.training(load().training(name)).basis for name in NAMES} == {"calibrated"}
    assert [path.name for path in tmp_path.glob("runs/*/*")] == ["smoke.lock"], "nothing else is left"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in COCO's layout of which one image is damaged, and a tier that uses it."""
    folder = tmp_path_factory.mktemp("photographs")
    images = folder / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    for split, number in (("train", 8), ("val", 4)):
        records = []
        for image in range(number):
            name = f"{split}{image}.jpg"
            cv2.imwrite(str(images / name), pixels)
            records.append({"id": image + 1, "file_name": name, "width": 80, "height": 60})
        boxes = [
            {"id": r["id"], "image_id": r["id"], "category_id": 1, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": 0}
            for r in records
        ]
        content = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))
    damaged = images / "train5.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    splits = {s: {"annotations": f"{s}.json", "images": "images"} for s in ("train", "val")}
    dataset = {"classes": ["thing"], "root": str(folder), **splits}
    (folder / "photographs.yaml").write_text(yaml.safe_dump(dataset))
    tier = {"extends": "smoke", "datasets": {"coco": str(folder / "photographs.yaml")}, "trainings": NAMES}
    (folder / "ours.yaml").write_text(yaml.safe_dump(tier))
    return folder


@pytest.mark.slow
def test_what_fails_is_said_with_its_remedy_and_the_log_is_kept(photographs: Path, tmp_path: Path) -> None:
    done = rehearse(tmp_path, NAMES[0], "--tier", photographs / "ours.yaml", check=False)
    assert done.returncode == 2
    line = done.stdout.splitlines()[-1]
    assert line.startswith(f"{NAMES[0]}  FAILED: ") and "train5.jpg can't be loaded" in line and "restore" in line
    assert not (tmp_path / "results").exists()


def test_a_gpu_is_asked_for_at_the_papers_size(tmp_path: Path) -> None:
    done = rehearse(tmp_path, "--tier", "paper", check=False)
    assert done.returncode == 2
    assert "there is no GPU here" in done.stderr and "docs/cluster.md" in done.stderr
