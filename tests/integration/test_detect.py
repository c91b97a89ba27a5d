"""What was trained, for use: `detect` gives the evaluation's detections, on whatever images, and says what it can't read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.inference.detect import Job, _batches, _Failure, _prepared
from date.inference.sources import Source, find_images
from tests.integration.conftest import Place
from tests.support.alone import alone
from tests.support.command import date

DATE_F, FCOS = "date_f-r50-coco-12e", "fcos-r50-coco-12e"
pytestmark = pytest.mark.slow


def judged(place: Place, training: str, variant: str) -> list[list[float]]:
    truth = read_ground_truth(place.annotations)
    return read_detections(place.root / training / "detections.npz", truth, variant).rows.tolist()


def rows(path: Path) -> list[list[float]]:
    keys = ("image_id", "bbox", "score", "category_id")
    entries = json.loads(path.read_text())
    return [[e[keys[0]], *e[keys[1]], e[keys[2]], e[keys[3]]] for e in entries]


@pytest.mark.parametrize(
    ("training", "variant", "options"),
    [
        (DATE_F, "o2o", []),
        (DATE_F, "o2o_nms50", ["--nms", "0.5"]),
        (DATE_F, "o2m", ["--branch", "o2m"]),
        (FCOS, "head", []),
    ],
)
def test_detections_are_the_evaluations_bit_by_bit(
    place: Place, tmp_path: Path, training: str, variant: str, options: list[str]
) -> None:
    wanted = judged(place, training, variant)
    assert len(wanted) > 10
    run, file = place.runs[training], tmp_path / "results.json"
    date("detect", run, place.annotations, "--images", place.images, "--json", file, *options, data=place.data)
    assert rows(file) == wanted
    # The same images as files: the batches are the same, as all are of one size, and so are the ids here.
    date("detect", run, place.images, "--json", file, *options, data=place.data)
    assert rows(file) == wanted
    assert {(e["file_name"], e["category"]) for e in json.loads(file.read_text())} <= {
        (f"{i:06d}.png", name) for i in range(1, 9) for name in ("disc", "square", "triangle", "cross", "ring", "star")
    }


def test_an_image_alone_gets_the_same_but_for_rounding(place: Place, tmp_path: Path) -> None:
    third = [row for row in judged(place, DATE_F, "o2o") if row[0] == 3]
    done = date(
        "detect", place.runs[DATE_F], place.images / "000003.png", "--json", tmp_path / "one.json",
        "--out", tmp_path, "--score", 0, data=place.data,
    )  # fmt: skip
    alone = rows(tmp_path / "one.json")
    np.testing.assert_allclose(np.array(alone)[:, 1:], np.array(third)[:, 1:], atol=1e-4)
    assert {row[0] for row in alone} == {1}, "its place among the images"
    with Image.open(tmp_path / "000003.png") as drawn:
        assert max(drawn.size) == 512, "a small image is enlarged, so that names can be read"
    assert f"{len(alone)} detections of 1 image in " in done.stdout


def test_a_score_leaves_detections_out(place: Place, tmp_path: Path) -> None:
    wanted = judged(place, DATE_F, "o2o")
    middle = float(np.median([row[5] for row in wanted]))
    run = place.runs[DATE_F]
    date("detect", run, place.images, "--json", tmp_path / "a.json", "--score", middle, data=place.data)
    assert rows(tmp_path / "a.json") == [row for row in wanted if row[5] >= middle]


def test_a_run_in_training_a_weights_file_and_a_bare_checkpoint(place: Place, tmp_path: Path) -> None:
    run = place.runs[DATE_F]
    wanted = judged(place, DATE_F, "o2o")

    def detected(*network: object) -> list[list[float]]:
        date("detect", *network, place.images, "--json", tmp_path / "x.json", data=place.data)
        return rows(tmp_path / "x.json")

    assert detected(run / "final.safetensors") == wanted
    bare = tmp_path / "bare.pth"
    from safetensors.torch import load_file

    state = load_file(run / "final.safetensors")
    torch.save({"state_dict": state}, bare)
    done = date("detect", bare, place.images, "--json", tmp_path / "x.json", data=place.data, check=False)
    assert done.returncode == 2 and "name it by --training and --tier" in done.stderr
    done = date(
        "detect", bare, place.images, "--training", DATE_F, "--tier", "smoke", "--json", tmp_path / "x.json",
        data=place.data,
    )  # fmt: skip
    assert rows(tmp_path / "x.json") == wanted
    assert "category ids are 1 to 6 in the order of the network's classes" in done.stderr

    from date.training import checkpoint

    work = tmp_path / ".work" / run.name
    digest = json.loads((run / "provenance.json").read_text())["run_digest"]
    saved = checkpoint.save(work / "checkpoints", 12, {"run_digest": digest, "model": state})
    assert detected(work) == wanted
    assert detected(saved) == wanted
    saved.write_bytes(saved.read_bytes()[:-1])
    done = date("detect", saved, place.images, "--json", tmp_path / "x.json", data=place.data, check=False)
    assert done.returncode == 2 and "is damaged" in done.stderr


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images as people have them, and files that are none."""
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)
    upright = Image.fromarray(pixels)
    upright.save(folder / "plain.png")
    upright.convert("L").save(folder / "grey.png")
    upright.convert("CMYK").save(folder / "cmyk.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.save(folder / "turned.jpg", exif=turned)
    upright.convert("RGBA").save(folder / "transparent.png")
    Image.fromarray(pixels[:1, :1]).save(folder / "pixel.png")
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (48, 80, 3)).astype(np.uint16))
    Image.fromarray(np.zeros((1, 3000, 3), dtype=np.uint8)).save(folder / "line.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpeg").write_text("no image")
    (folder / "half.png").write_bytes((folder / "plain.png").read_bytes()[:40])
    return folder


def test_odd_images_are_what_they_are_in_training(place: Place, odd_images: Path, tmp_path: Path) -> None:
    """The evaluation's own loader, and with it training's decoder, gives the same pixels, or can't load them either."""
    from date.training.sampling import LoadFailure, build_loader

    names = sorted(p.name for p in odd_images.iterdir())
    sizes = {"turned.jpg": (48, 80), "pixel.png": (1, 1), "line.png": (3000, 1)}
    images = [
        {"id": i, "file_name": name, "width": sizes.get(name, (80, 48))[0], "height": sizes.get(name, (80, 48))[1]}
        for i, name in enumerate(names, 1)
    ]
    config = Config.fromfile(str(place.runs[DATE_F] / "config.py"))
    loader = config.test_dataloader
    classes = loader.dataset.dataset.metainfo.classes
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    (tmp_path / "odd.json").write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    loader.dataset.dataset.update(ann_file=str(tmp_path / "odd.json"), data_prefix=dict(img=str(odd_images)))
    loader.batch_size = 1
    with alone(place.data):
        theirs = list(build_loader(loader, torch.device("cpu")))
    pipeline = [s for s in loader.dataset.dataset.pipeline if s["type"] not in ("LoadImageFromFile", "LoadAnnotations")]
    sources = find_images([tmp_path / "odd.json"], odd_images)
    mine = dict(_prepared(sources.images, Job(pipeline, 1, False)))
    unreadable = set()
    for source, batch in zip(sources.images, theirs, strict=True):
        if isinstance(batch, LoadFailure):
            unreadable.add(source.name)
            assert isinstance(mine[source], _Failure)
            continue
        sample = mine[source]
        assert torch.equal(sample["inputs"], batch["inputs"][0])
        for key in ("img_shape", "ori_shape", "scale_factor", "img_id"):
            assert sample["data_samples"].metainfo[key] == batch["data_samples"][0].metainfo[key]
    assert unreadable == {"deep.png", "empty.jpg", "half.png", "line.png", "text.jpeg"}


def test_what_cant_be_read_is_named_at_the_end_with_status_2(place: Place, odd_images: Path, tmp_path: Path) -> None:
    done = date(
        "detect", place.runs[DATE_F], odd_images, place.images / "000001.png", "--json", tmp_path / "x.json",
        "--out", tmp_path / "drawn", "--score", 0, data=place.data, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 5
    assert f"{odd_images / 'deep.png'} can't be read and was skipped (its channels are uint16; convert it" in lines[0]
    assert f"{odd_images / 'empty.jpg'} can't be read and was skipped (it is empty)" in lines[1]
    drawn = {p.name for p in (tmp_path / "drawn").iterdir()}
    assert drawn == {"cmyk.png", "grey.png", "pixel.png", "plain.png", "transparent.png", "turned.png", "000001.png"}
    with Image.open(tmp_path / "drawn" / "turned.png") as turned:
        assert turned.height > turned.width, "as the EXIF orientation says"
    found = json.loads((tmp_path / "x.json").read_text())
    assert {e["file_name"] for e in found} == {f"{n}" for n in (
        "cmyk.jpg", "grey.png", "pixel.png", "plain.png", "transparent.png", "turned.jpg", "000001.png"
    )}  # fmt: skip
    for entry in found:
        if entry["file_name"] == "pixel.png":
            x, y, width, height = entry["bbox"]
            assert 0 <= x <= x + width <= 1 + 1e-6 and 0 <= y <= y + height <= 1 + 1e-6


def test_images_of_one_size_share_a_batch_and_no_others() -> None:
    def sample(width: int) -> Any:
        return {"inputs": torch.zeros(3, 8, width)}

    def batches(samples: list[Any], same_size: bool) -> list[list[int]]:
        images = [(Source(Path(f"{i}"), i, f"{i}"), s) for i, s in enumerate(samples)]
        return [[s.image_id for s, _ in b] for b in _batches(images, Job([], 2, same_size))]

    bad = _Failure("no image")
    assert batches([sample(8)] * 5, True) == [[0, 1], [2, 3], [4]]
    assert batches([sample(8), sample(9), sample(9), sample(8)], True) == [[0], [1, 2], [3]]
    assert batches([sample(8), bad, sample(9)], True) == [[0, 1], [2]]
    assert batches([sample(8), sample(9), sample(9), sample(8)], False) == [[0, 1], [2, 3]]
    assert batches([sample(8), bad, sample(9), sample(8)], False) == [[0, 1], [2, 3]], "the evaluation's division"
    assert batches([bad, bad, bad], True)[0][0] == 0


MISTAKES = {
    "no run": (lambda p, t: [t, p.images], "is not a sealed run (it has no provenance.json)"),
    "folder of runs": (lambda p, t: [p.runs[FCOS].parent, p.images], "runs in it, such as "),
    "no checkpoint": (lambda p, t: [p.annotations, p.images], "is damaged, incomplete or no checkpoint"),
    "nothing": (
        lambda p, t: [t / "none", p.images],
        "name a sealed run's folder, a checkpoint or an exported network",
    ),
    "no image": (lambda p, t: [p.runs[FCOS], t / "none.png"], "name image files, folders or a COCO annotation file"),
    "empty folder": (lambda p, t: [p.runs[FCOS], t], "has no images (files that end in .jpg"),
    "branch": (
        lambda p, t: [p.runs[FCOS], p.images, "--branch", "o2m"],
        "has one head and no branch 'o2m'; leave --branch out.",
    ),
    "images elsewhere": (
        lambda p, t: [p.runs[FCOS], p.annotations],
        "is in",
    ),
    "images without annotations": (
        lambda p, t: [p.runs[FCOS], p.images, "--images", t],
        "--images is the folder of an annotation file's images; leave it out",
    ),
    "annotations and more": (
        lambda p, t: [p.runs[FCOS], p.annotations, p.images],
        "names its images itself; name it alone",
    ),
    "out is a file": (
        lambda p, t: [p.runs[FCOS], p.images, "--out", p.annotations],
        "is a file and not a folder; name another place.",
    ),
    "not a network": (
        lambda p, t: [p.annotations, p.images, "--training", FCOS, "--tier", "smoke"],
        "instances_val.json",
    ),
    "score": (
        lambda p, t: [p.runs[FCOS], p.images, "--score", "2"],
        "'2' is not a score; give a number from 0 to 1",
    ),
    "iou": (lambda p, t: [p.runs[FCOS], p.images, "--nms", "0"], "'0' is not an IoU"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_gets_a_sentence(place: Place, tmp_path: Path, name: str) -> None:
    arguments, said = MISTAKES[name]
    done = date("detect", *arguments(place, tmp_path), data=place.data, check=False)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_run_of_another_version_is_reported_as_one(place: Place, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.runs[DATE_F], run)

    def said(network: Path = run) -> str:
        done = date("detect", network, place.images, data=place.data, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        return done.stderr

    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps(provenance | {"schema_version": 99}))
    assert "is of another version of this project (its provenance has schema 99, this version reads" in said()
    (run / "provenance.json").write_text(json.dumps(provenance))
    config = (run / "config.py").read_text()
    (run / "config.py").write_text(config.replace("stacked_convs=4", "stacked_convs=3"))
    assert "is of another version of this project, or its weights are of another network (" in said()
    (run / "config.py").write_text(config.replace("score_thr", "new_option=1,\n score_thr", 1))
    said_or_detected = date("detect", run, place.images, "--json", tmp_path / "x", data=place.data, check=False)
    assert "Traceback" not in said_or_detected.stderr
    (run / "config.py").write_text("model = dict(")
    assert "config.py can't be read (" in said()
    (run / "config.py").unlink()
    assert "has no config.py" in said()
    (run / "config.py").write_text(config)
    with (run / "final.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    assert "has changed since it was sealed" in said()


def test_an_annotation_file_of_other_classes(place: Place, tmp_path: Path) -> None:
    content = json.loads(place.annotations.read_text())
    content["categories"] = [c for c in content["categories"] if c["name"] != "disc"]
    (tmp_path / "other.json").write_text(json.dumps(content))
    done = date(
        "detect", place.runs[FCOS], tmp_path / "other.json", "--images", place.images, data=place.data,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "has no category 'disc', which the network detects" in done.stderr
