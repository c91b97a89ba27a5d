"""Somebody's own data set by the five lines of the documentation: every command works on it, and nothing is inherited."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from date.catalogue import ROOT, load, load_dataset, load_tier
from date.datasets.boxes import KEY
from date.datasets.lengths import count_trained_images, steps_per_epoch
from date.datasets.verify import scaled_sizes
from date.errors import UserError
from date.identity.config import resolve
from tests.support.command import date, date_process

CLASSES = ("cat", "dog")


def split(folder: Path, name: str, images: int, seed: int) -> None:
    """Write images of two kinds of rectangles, and their annotations; some images have none."""
    rng = np.random.default_rng(seed)
    records, objects = [], []
    for number in range(images):
        pixels = rng.integers(0, 90, (48, 64, 3), dtype=np.uint8)
        records.append({"id": number, "file_name": f"{name}{number}.png", "width": 64, "height": 48})
        for _ in range(number % 3):
            (w, h), kind = rng.integers(10, 25, 2).tolist(), int(rng.integers(2))
            x, y = int(rng.integers(64 - w)), int(rng.integers(48 - h))
            cv2.rectangle(pixels, (x, y), (x + w, y + h), (255, 60, 60) if kind else (60, 255, 255), -1)
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": kind + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})  # fmt: skip
        cv2.imwrite(str(folder / "images" / f"{name}{number}.png"), pixels)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    (folder / f"{name}.json").write_text(
        json.dumps({"images": records, "annotations": objects, "categories": categories})
    )


def documented() -> tuple[str, str]:
    """Return the dataset's and the tier's file as the documentation has them."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)
    (dataset,) = [block for block in blocks if "root: pets" in block]
    (tier,) = [block for block in blocks if "datasets: {coco: pets}" in block]
    return dataset, tier


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of the documentation with data: 37 training images, of which 24 have objects."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "data" / "pets" / "images").mkdir(parents=True)
    split(folder / "data" / "pets", "train", 37, 0)
    split(folder / "data" / "pets", "val", 12, 1)
    dataset, tier = documented()
    (folder / "pets_data.yaml").write_text(dataset)
    (folder / "pets.yaml").write_text(tier.replace("{coco: pets}", f"{{coco: {folder / 'pets_data.yaml'}}}"))
    (folder / "small.yaml").write_text(f"extends: smoke\ndatasets: {{coco: {folder / 'pets_data.yaml'}}}\n")
    return folder


@pytest.fixture(autouse=True)
def root(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATE_DATA_ROOT", str(own / "data"))


def test_the_documented_example_is_one_of_five_lines() -> None:
    dataset, _ = documented()
    needed = [line for line in dataset.splitlines() if "optional" not in line]
    assert len(needed) <= 5 and set(yaml.safe_load("\n".join(needed))) == {"classes", "root", "train", "val"}


@pytest.mark.parametrize("command", ["plan", "doctor", "status", "data verify"])
def test_every_command_works_and_names_what_is_left_out(command: str, own: Path, tmp_path: Path) -> None:
    places = {
        "plan": ["--results", tmp_path, "--runs", tmp_path],
        "status": ["--results", tmp_path, "--runs", tmp_path],
    }
    done = date(*command.split(), "--tier", own / "pets.yaml", *places.get(command, []), data=own / "data")
    left_out = "left out, since the tier 'pets' has no data in the part of 'crowdhuman': retinanet-r50-crowdhuman-30k"
    assert left_out in done.stderr
    expected = {
        "plan": "would run: 35 trainings, 35 evaluations",
        "doctor": "ok       epoch           6 steps in the part of 'coco'",
        "status": "date_f-r50-coco-12e",
        "data verify": "48 px (median) become 128 px at this tier; 0 % of the training boxes are then smaller than 8 px, the finest stride (pixel_scale 0.16, chosen by the boxes)",
    }
    assert expected[command] in done.stdout
    assert ("  no image was opened; --deep decodes every image" in done.stdout) == (command == "data verify")


def test_short_sides_are_those_of_each_image(own: Path) -> None:
    """A wide image is scaled by its long side, to 213 px, and the others by their short one, to 128 px."""
    data = json.loads((own / "data" / "pets" / "train.json").read_text())
    for record, size in zip(data["images"], [(480, 640), (900, 300), (640, 480), (900, 300), (500, 480)], strict=False):
        record["width"], record["height"] = size
    data["images"] = data["images"][:5]
    data["annotations"] = [o for o in data["annotations"] if o["image_id"] < 5]
    (own / "data" / "pets" / "mixed.json").write_text(json.dumps(data))
    text = (own / "pets_data.yaml").read_text().replace("train.json", "mixed.json")
    (own / "mixed_data.yaml").write_text(text)
    said = scaled_sizes(load_dataset(str(own / "mixed_data.yaml")), load_tier(str(own / "pets.yaml")), own / "data")
    assert "short sides of 480 px (median) become 128 px at this tier" in said


def dry_run(own: Path, target: str) -> str:
    command = [sys.executable, "-m", "snakemake", "-n", target, "--config", f"tier={own / 'pets.yaml'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_target_is_planned(own: Path) -> None:
    assert re.search(r"^train +6$", dry_run(own, "table05"), re.MULTILINE)


def test_the_dag_is_planned(own: Path) -> None:
    said = dry_run(own, "all")
    assert "left out, since the tier 'pets' has no data" in said
    assert re.search(r"^train +35$", said, re.MULTILINE)


def test_steps_and_warm_up_follow_from_the_data(own: Path) -> None:
    tier = load_tier(str(own / "pets.yaml"))
    assert (tier.steps_per_epoch, steps_per_epoch(tier, "coco")) == ({}, 6), "24 images with objects in batches of 4"
    config = resolve(load().training("date_f-r50-coco-12e"), tier, 0, None)
    assert config["param_scheduler"][0]["end"] == round(0.25 * 12 * 6)
    by_iterations = resolve(load().training("date_f_init-r50-coco-30k"), tier, 0, None)["train_cfg"]
    assert load_dataset(str(own / "pets_data.yaml")).area_thresholds == (32, 96), "COCO's, not those of mini's scenes"
    assert by_iterations["max_iters"] == 6 * round(30000 * 6 / 7330 / 6), "as many epochs as the paper's"


def test_what_is_said_of_the_tier_is_of_its_data(own: Path) -> None:
    tier = load_tier(str(own / "pets.yaml"))
    assert tier.watermark == "pets tier: pets_data, by the settings of mini; not comparable with the paper's absolute numbers"  # fmt: skip
    assert tier.summary == "pets_data, by the settings of the tier mini."
    (own / "large.yaml").write_text(f"extends: paper\ndatasets: {{coco: {own / 'pets_data.yaml'}}}\n")
    assert not load_tier(str(own / "large.yaml")).reference, "other data than the paper's"


def test_a_wrong_number_of_steps_is_refused(own: Path) -> None:
    (own / "wrong.yaml").write_text((own / "small.yaml").read_text() + "steps_per_epoch: {coco: 124}\n")
    done = date("train", "fcos-r50-coco-12e", "--tier", own / "wrong.yaml", data=own / "data", check=False)
    assert done.returncode == 2
    sentence = (
        "tier 'wrong' says 124 in 'steps_per_epoch' for 'coco', but the 24 images with objects of 'pets_data' make 6 steps "
        "in batches of 4; write 6, or leave it out."
    )
    assert sentence in done.stderr
    assert sentence in date("doctor", "--tier", own / "wrong.yaml", data=own / "data", check=False).stdout


def test_a_tier_of_the_name_of_another_is_refused(own: Path, tmp_path: Path) -> None:
    shutil.copy(own / "pets.yaml", tmp_path / "mini.yaml")
    with pytest.raises(UserError, match="has the name of a tier of experiments/tiers, whose runs and results it would"):
        load_tier(str(tmp_path / "mini.yaml"))


def test_without_its_data_the_remedy_names_the_path(own: Path, tmp_path: Path) -> None:
    done = date("plan", "--tier", own / "pets.yaml", data=tmp_path, check=False)
    assert done.returncode == 2
    assert f"make or find them by `python -m date data verify --tier {own / 'pets.yaml'}`" in done.stderr


def test_boxes_that_look_like_corners_are_what_the_entry_says(own: Path, tmp_path: Path) -> None:
    """Detections are imported, and data are verified, where the dataset's entry says that the boxes are as written."""
    data = json.loads((own / "data" / "pets" / "val.json").read_text())
    for record in data["annotations"]:
        record["bbox"] = [40, 30, 62, 46]
    assert len(data["annotations"]) >= 10
    (own / "data" / "pets" / "beyond.json").write_text(json.dumps(data))
    found = [{k: r[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5} for r in data["annotations"]]
    (tmp_path / "found.json").write_text(json.dumps(found))
    entry, tier = tmp_path / "entry.yaml", tmp_path / "beyond.yaml"
    tier.write_text((own / "pets.yaml").read_text().replace(str(own / "pets_data.yaml"), str(entry)))
    imported = ["import-detections", tmp_path / "found.json", "--training", "fcos-r50-coco-12e", "--results", tmp_path]
    for line in ("", "boxes_as_written: true\n"):
        entry.write_text((own / "pets_data.yaml").read_text().replace("val.json", "beyond.json") + line)
        for command in (imported, ["data", "verify"]):
            done = date(*command, "--tier", tier, data=own / "data", check=False)
            assert done.returncode == (0 if line else 2), done.stderr
            assert line or f"or, if they are that, {KEY}." in done.stderr
    (result,) = tmp_path.glob("beyond/*/seed0/evaluation.json")
    (variant,) = json.loads(result.read_text())["variants"].values()
    assert variant["detections"] == len(data["annotations"])


def test_an_explicit_training_without_data_is_a_mistake(own: Path) -> None:
    tier, name = load_tier(str(own / "pets.yaml")), "fcos-r50-crowdhuman-30k"
    assert [t.name for t in load().chosen(tier, [name, "onenet-r50-coco-12e"])] == ["onenet-r50-coco-12e", name]
    with pytest.raises(UserError, match="has data for none of the chosen trainings, which need crowdhuman"):
        load().chosen(tier, ["*-crowdhuman-*"])


@pytest.mark.slow
def test_a_training_a_report_and_every_number_of_them(own: Path, tmp_path: Path) -> None:
    tier, name = own / "small.yaml", "fcos-r50-coco-12e"
    run = date_process("train", name, "--tier", tier, "--runs", tmp_path / "runs", "--threads", 1, data=own / "data")
    folder = tmp_path / "results" / "small" / name / "seed0"
    places = ["--runs", tmp_path / "runs", "--results"]
    date("train", name, "--tier", tier, *places, folder, data=own / "data")
    date("evaluate", name, "--tier", tier, *places, folder, data=own / "data")
    records = [json.loads(line) for line in (Path(run.stdout.split()[-1]) / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["steps"] == 2 * 6, "two epochs of 24 images in batches of 4"
    reports = ["--results", tmp_path / "results", "--reports", tmp_path / "reports"]
    page = Path(date("report", "--tier", tier, *reports, data=tmp_path / "nowhere").stdout.split()[-1])
    assert "small tier: pets_data, by the settings of smoke" in page.read_text()
    assert "generated scenes" not in page.read_text()


@pytest.mark.parametrize(("side", "images"), [(1, 3), (32, 2), (64, 1)])
def test_images_are_counted_as_mmdetection_keeps_them(side: int, images: int, tmp_path: Path) -> None:
    sizes = [(64, 64), (32, 200), (31, 31), (500, 500)]
    records = [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    objects: list[Any] = [
        {"id": i + 1, "image_id": i % 3, "category_id": 7, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": i % 2} for i in range(6)
    ]  # fmt: skip
    data = {"images": records, "annotations": objects, "categories": [{"id": 7, "name": "a"}]}
    assert count_trained_images(data, side) == images
    (tmp_path / "a.json").write_text(json.dumps(data))
    from date.training.sampling import SeededDataset

    source = dict(
        type="CocoDataset", ann_file=str(tmp_path / "a.json"), metainfo=dict(classes=("a",)), pipeline=[], data_prefix=dict(img=""),
        filter_cfg=dict(filter_empty_gt=True, min_size=side),
    )  # fmt: skip
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        assert len(SeededDataset(source, 0)) == images


@pytest.mark.parametrize(("name", "part"), [("smoke", "coco"), ("smoke", "crowdhuman")])
def test_the_numbers_of_the_tiers_are_those_of_their_data(name: str, part: str, folder: Path) -> None:
    from date.datasets.lengths import check_steps
    from date.datasets.prepare import prepare

    tier = load_tier(name)
    prepare(load_dataset(tier.datasets[part]), folder / "data")
    check_steps(tier, part, folder / "data")
