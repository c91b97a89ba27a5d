"""The real command line on tiny real cases: a training from start to numbers, and every mistake a sentence."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from date.catalogue import ROOT, load
from date.evaluation.coco import METRICS
from date.evaluation.detections import read_detections
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.resamples import resamples_head, stored_resamples
from tests.support.command import date, date_process

TRAINING = "date_f-r50-coco-12e"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A smoke training of DATE-F with seed 3, in folders with spaces in their names."""
    data, runs = tmp_path_factory.mktemp("some data"), tmp_path_factory.mktemp("some runs")
    done = date_process("train", TRAINING, "--tier", "smoke", "--seed", 3, "--runs", runs, data=data)
    return {"data": data, "runs": runs, "done": done, "run": Path(done.stdout.splitlines()[-1])}


@pytest.mark.slow
def test_the_last_line_is_a_sealed_run(trained: dict[str, Any]) -> None:
    run = trained["run"]
    assert trained["done"].stdout == f"{run}\n", "nothing else on standard output"
    assert run.parent == trained["runs"]
    assert {p.name for p in run.iterdir()} == {
        "config.py",
        "final.safetensors",
        "metrics.jsonl",
        "provenance.json",
        "train.log",
    }
    provenance = json.loads((run / "provenance.json").read_text())
    assert (provenance["training"], provenance["tier"], provenance["seed"]) == (TRAINING, "smoke", 3)
    assert run.name == f"smoke-{TRAINING}-s3-{provenance['run_digest'][:10]}"
    assert provenance["versions"]["mmdet"] == "3.3.0"
    weights = load_file(run / "final.safetensors")
    assert any(name.startswith("bbox_head.predictors.1.conv_ctr") for name in weights)
    assert "epoch 2  AP" in trained["done"].stderr, "progress shows"


@pytest.mark.slow
def test_metrics_have_every_loss_and_every_evaluation(trained: dict[str, Any]) -> None:
    records = [json.loads(line) for line in (trained["run"] / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["kind"] == "start" and records[0]["schema_version"] == 2
    train = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in train] == list(range(1, records[0]["steps"] + 1)), "the interval is one step at smoke"
    losses = ["o2o.loss_cls", "o2o.loss_reg", "o2o.loss_iou", "o2m.loss_cls", "o2m.loss_iou", "o2m.loss_ctr"]
    for record in train:
        assert record["loss"] == pytest.approx(sum(record[name] for name in losses), rel=1e-5)
    assert train[0]["lr"] < train[2]["lr"] > train[-1]["lr"], "warm-up, then a step down"
    evaluations = [r for r in records if r["kind"] == "eval"]
    assert [r["epoch"] for r in evaluations] == [1, 2]
    assert all(set(METRICS) <= set(r) for r in evaluations)


@pytest.mark.slow
def test_a_finished_run_is_found_and_not_trained_again(trained: dict[str, Any]) -> None:
    before = (trained["run"] / "final.safetensors").stat().st_mtime_ns
    done = date("train", TRAINING, "--tier", "smoke", "--seed", 3, "--runs", trained["runs"], data=trained["data"])
    assert done.stdout == f"{trained['run']}\n"
    assert "is trained already" in done.stderr
    assert (trained["run"] / "final.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(trained: dict[str, Any], tmp_path: Path) -> None:
    done = date("train", TRAINING, "--tier", "smoke", "--seed", 3, "--runs", tmp_path, data=trained["data"])
    first, again = (load_file(Path(run) / "final.safetensors") for run in (trained["run"], done.stdout.strip()))
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.slow
def test_evaluation_by_name_equals_evaluation_by_folder_and_the_trainings_last(
    trained: dict[str, Any], tmp_path: Path
) -> None:
    options = ("--tier", "smoke", "--seed", 3, "--runs", trained["runs"], "--results", tmp_path)
    by_name = date("evaluate", TRAINING, *options, data=trained["data"])
    by_folder = date_process("evaluate", trained["run"], data=trained["data"])
    assert by_name.stdout == by_folder.stdout
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(record["variants"]) == [e.variant for e in load().evaluations_of(TRAINING)]
    last = json.loads((trained["run"] / "metrics.jsonl").read_text().splitlines()[-1])
    for name, value in record["variants"]["o2o"]["metrics"].items():
        assert value == pytest.approx(last[name], abs=1e-4), name
    detections = np.load(tmp_path / "detections.npz")
    for name, variant in record["variants"].items():
        assert detections[name].shape == (variant["detections"], len(detections["columns"]))
    assert len(detections["o2o_nms50"]) <= len(detections["o2o"])
    (annotations,) = trained["data"].glob("scenes-smoke-*/annotations/instances_val.json")
    files, truth = ("--gt", annotations, "--detections", tmp_path / "detections.npz"), read_ground_truth(annotations)
    for name, variant in record["variants"].items():
        options = ("--protocol", "coco", "--variant", name, "--area-thresholds", *record["area_thresholds"], "--json")
        scored = date("score", *options, *files, data=tmp_path)
        assert json.loads(scored.stdout) == variant["metrics"], "offline, from the files alone"
        found = read_detections(tmp_path / "detections.npz", truth, name)
        assert variant["resamples"] == stored_resamples("coco", truth, found.rows, record["area_thresholds"])
    assert record["resamples"] == resamples_head(truth.image_ids)


@pytest.mark.slow
def test_mmdetection_reads_the_runs_config(trained: dict[str, Any]) -> None:
    code = (
        "import sys; from mmengine.config import Config; import date.models; from mmdet.registry import MODELS;"
        "from mmengine.registry import init_default_scope; init_default_scope('mmdet');"
        "print(type(MODELS.build(Config.fromfile(sys.argv[1]).model)).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, trained["run"] / "config.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["FCOS"], done.stderr


@pytest.mark.slow
def test_a_training_starts_from_a_trained_fcos(trained: dict[str, Any], tmp_path: Path) -> None:
    options = ("--tier", "smoke", "--seed", 3, "--runs", tmp_path)
    early = date("train", "date_f_init-r50-coco-30k", *options, data=trained["data"], check=False)
    assert early.returncode == 2
    assert "run: python -m date train fcos-r50-coco-12e --tier smoke --seed 3" in early.stderr
    fcos = Path(date("train", "fcos-r50-coco-12e", *options, data=trained["data"]).stdout.strip())
    run = Path(date("train", "date_f_init-r50-coco-30k", *options, data=trained["data"]).stdout.strip())
    provenance = json.loads((run / "provenance.json").read_text())
    fcos_weights = json.loads((fcos / "provenance.json").read_text())["weights_sha256"]
    assert provenance["initialised_from"] == {"weights": fcos.name, "weights_sha256": fcos_weights}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [r["step"] for r in records if r["kind"] == "eval"]
    assert len(evaluations) == 6 and evaluations[-1] == records[0]["steps"], "a schedule in iterations"


@pytest.mark.slow
def test_a_changed_run_is_refused(trained: dict[str, Any], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained["run"], tmp_path / trained["run"].name))
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("\n")
    done = date("evaluate", run, data=trained["data"], check=False)
    assert done.returncode == 2
    assert "has changed since it was sealed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "onenet", "--tier", "smoke"), "unknown training 'onenet'; did you mean 'onenet-r50-coco-12e'?"),
        (("train", TRAINING, "--tier", "smokey"), "unknown tier 'smokey'; did you mean 'smoke'?"),
        (("train", TRAINING, "--tier", "paper"), "dataset 'coco2017' is not complete below"),
        (("train", TRAINING, "--tier", "bccd"), "dataset 'bccd' is not complete below"),
        (("evaluate", TRAINING, "--tier", "smoke", "--runs", "/nonexistent"), "has not been trained with the present settings; run: python -m date train"),
        (("evaluate", "/tmp"), "/tmp is not a sealed run"),
        (("data", "verify", "coco"), "unknown dataset 'coco'; did you mean"),
        (("data", "verify", "crowdhuman"), "dataset 'crowdhuman' is not complete below"),
        (("data", "verify", "--output", "x.json"), "--output writes the manifest of one dataset; name one dataset."),
        (("data", "samples", "bccd", "--output", "x.jpg"), "dataset 'bccd' is not generated; name one whose file has the key 'scenes'."),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = date(*arguments, data=tmp_path, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert sentence in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_a_mistake_is_the_processs_status(tmp_path: Path) -> None:
    done = date_process("train", "onenet", "--tier", "smoke", data=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown training 'onenet'; did you mean 'onenet-r50-coco-12e'?\n"


def test_config_prints_the_config_and_nothing_else(tmp_path: Path) -> None:
    """MMEngine tells on standard output of every parameter that is frozen."""
    done = date_process("config", "date_f-r50-coco-12e", "--tier", "mini", data=tmp_path)
    names = [target.id for node in ast.parse(done.stdout).body for target in node.targets]  # type: ignore[attr-defined]
    assert {"model", "optim_wrapper", "train_cfg"} <= set(names)


def test_bad_annotations_stop_before_training(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "train.json").write_text('{"images": [')
    (folder / "val.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "gone.png", "width": 9, "height": 9}],
                "annotations": [],
                "categories": [{"id": 1, "name": "a"}],
            }
        )
    )
    dataset, tier = tmp_path / "mine.yaml", tmp_path / "tier.yaml"
    dataset.write_text(
        "classes: [a]\nroot: mine\ntrain: {annotations: train.json, images: images}\nval: {annotations: val.json, images: images}\n"
    )
    tier.write_text(f"extends: smoke\ndatasets: {{coco: {dataset}}}\n")
    done = date("train", TRAINING, "--tier", tier, "--runs", tmp_path / "runs", data=tmp_path, check=False)
    assert done.returncode == 2
    assert "train.json is not valid JSON" in done.stderr
    assert "refers to images that are not in" in done.stderr and "gone.png" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_verification_prints_what_is_there(tmp_path: Path) -> None:
    plain = date("data", "verify", "--tier", "smoke", data=tmp_path)
    assert (
        plain.stdout.startswith("scenes-smoke: sound")
        and "val: 8 images, 42 annotations (42 trained on)" in plain.stdout
    )
    done = date("data", "verify", "scenes-smoke", "--deep", "--json", "--output", tmp_path / "m.json", data=tmp_path)
    found = json.loads(done.stdout)
    (record,) = found["datasets"]
    assert found["ok"] and record["problems"] == [] and record["manifest"]["splits"]["train"]["images"] == 24
    assert json.loads((tmp_path / "m.json").read_text()) == record["manifest"]


def test_verification_lists_all_that_is_wrong(tmp_path: Path) -> None:
    date("data", "verify", "scenes-smoke", "crowd-smoke", data=tmp_path)
    scenes, crowd = (next(tmp_path.glob(f"{kind}-smoke-*")) for kind in ("scenes", "crowd"))
    (scenes / "train" / "000003.png").unlink()
    (scenes / "val" / "000002.png").write_bytes(b"no image")
    (crowd / "annotations" / "instances_val.json").write_text("{")
    done = date("data", "verify", "scenes-smoke", "crowd-smoke", "--deep", "--json", data=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert not found["ok"]
    for text in (done.stderr, " ".join(p for record in found["datasets"] for p in record["problems"])):
        assert "000003.png" in text
        assert "000002.png (cannot identify" in text
        assert "instances_val.json is not valid JSON" in text


@pytest.mark.parametrize("what", ["experiments", "trainings", "evaluations", "rows", "claims"])
def test_the_catalogue_is_listed(what: str, tmp_path: Path) -> None:
    plain = date("list", what, data=tmp_path).stdout.splitlines()
    entries = json.loads(date("list", what, "--json", data=tmp_path).stdout)
    assert len(plain) == len(entries) > 5
    key = "id" if what == "rows" else "name"
    assert all(any(entry[key] in line for line in plain) for entry in entries)


@pytest.mark.parametrize("command", ["list rows --json", "list claims", "identity", "plan --tier smoke"])
def test_a_reader_that_stops_early_ends_a_command_quietly(command: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATE_DATA_ROOT": str(tmp_path)}
    pipes: dict[str, Any] = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-m", "date", *command.split()], cwd=ROOT, env=environment, **pipes)
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(600) == 141 and process.stderr.read() == ""  # type: ignore[union-attr]


def test_help_needs_no_torch() -> None:
    code = "import sys, date.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.shared
def test_the_coco_layout_trains(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Genuine COCO records: 80 classes, ids with gaps, crowd regions, images of many shapes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tier = tmp_path / "one-epoch.yaml"
    tier.write_text("extends: coco-sample\nepoch_scale: 0.05\npixel_scale: 0.08\n")
    done = date("train", TRAINING, "--tier", tier, "--runs", tmp_path / "runs", "--threads", 1, data=shared_data)
    run = Path(done.stdout.strip())
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["data"]["splits"]["val"]["boxes"]["iscrowd"] > 0
    evaluated = date("evaluate", run, "--tier", tier, "--threads", 1, data=shared_data)
    assert evaluated.stdout.startswith(f"{TRAINING}/o2o: AP ")


def test_a_place_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = date(
        "train", "fcos-r50-coco-12e", "--tier", "smoke", "--runs", tmp_path / "runs", data=tmp_path, check=False
    )
    assert done.returncode == 2 and re.search(
        r"error: .*runs.* can't be used: .*; name a place that can be", done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "x", "--threads", "0"], "'0' is not a positive integer"),
        (["train", "x", "--threads", "-3"], "'-3' is not a positive integer"),
        (["train", "x", "--seed", "4294967296"], "is not a seed; give an integer from 0 to 4294967295"),
        (["train", "x", "--time-budget", "-5"], "'-5' is not a time; give seconds, MM:SS, HH:MM:SS or D-HH:MM:SS"),
        (["train", "x", "--checkpoint-interval", "-1"], "'-1' is not a time"),
        (["train", "x", "--batch-timeout", "0"], "0 is too short"),
        (["config", "x", "--seed", "-3"], "'-3' is not a seed"),
        (["calibrate", "--steps", "0"], "'0' is not a positive integer"),
        (["data", "samples", "x", "--output", "y", "--count", "0"], "'0' is not a positive integer"),
    ],
)
def test_options_are_refused_in_their_own_words(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = date(*arguments, data=tmp_path, check=False)
    assert done.returncode == 2 and sentence in done.stderr


def test_another_working_folder_of_snakemake_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "-s",
        str(ROOT / "Snakefile"),
        "--directory",
        str(tmp_path),
        "table05",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and f"leave --directory out, or name {ROOT}" in done.stdout + done.stderr
