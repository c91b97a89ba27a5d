"""Detections and training logs from elsewhere become results that are scored, marked and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from date.catalogue import load_dataset, load_tier
from date.catalogue.settings import data_root
from date.cli import main
from date.datasets.files import data_files
from date.datasets.prepare import prepare
from date.errors import UserError
from date.evaluation.coco import METRICS, coco_metrics
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.resamples import resamples_head, stored_resamples
from date.imports.logs import read_training_log
from date.reporting.report import write_report
from date.results import load_results
from tests.support.examples import examples

TRAINING = "date_f-r50-coco-12e"


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The smoke tier's validation annotations in a data root of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATE_DATA_ROOT", str(tmp_path_factory.mktemp("data")))
        dataset = load_dataset(load_tier("smoke").datasets["coco"])
        prepare(dataset, data_root())
        yield data_files(dataset, data_root()).val_annotations


def detections(annotations: Path, path: Path, noise: float) -> Path:
    """The annotated boxes, moved a little, as somebody's COCO results."""
    rng = np.random.default_rng(0)
    records = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": [*(np.array(a["bbox"][:2]) + rng.normal(0, noise, 2)).tolist(), *a["bbox"][2:]],
            "score": float(rng.random()),
        }
        for a in json.loads(annotations.read_text())["annotations"]
    ]
    path.write_text(json.dumps(records))
    return path


def run(results: Path, *arguments: object, code: int = 0) -> None:
    options = ["--tier", "smoke", "--results", str(results), "--training", TRAINING]
    assert main(["import-detections", *map(str, arguments), *options]) == code


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_detections_are_scored_marked_and_shown(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, file = tmp_path / "results", detections(annotations, tmp_path / "theirs.json", 2.0)
    run(results, file, "--source", "a colleague's MMDetection run")
    out = capsys.readouterr().out.splitlines()
    folder = results / "smoke" / TRAINING / "seed0"
    assert out[-1] == str(folder)
    (result,) = load_results(results, "smoke")
    rows = [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in json.loads(file.read_text())]
    expected = coco_metrics(annotations, np.array(rows), load_dataset("scenes-smoke").area_thresholds)
    assert result.evaluation is not None and list(result.evaluation["variants"]) == ["o2o"], "the training's first"
    assert result.evaluation["variants"]["o2o"]["metrics"] == expected
    assert result.evaluation["variants"]["o2o"]["detections"] == len(rows)
    stored, truth = result.evaluation["variants"]["o2o"]["resamples"], read_ground_truth(annotations)
    areas = load_dataset("scenes-smoke").area_thresholds
    assert stored == stored_resamples("coco", truth, np.array(rows, dtype=np.float64), areas)
    assert result.evaluation["resamples"] == resamples_head(truth.image_ids)
    imported = result.provenance["imported"]
    assert imported["detections"]["o2o"]["file"] == "theirs.json"
    assert imported["source"] == "a colleague's MMDetection run"
    assert imported["kind"] == "detections" and result.provenance["weights_sha256"] is None
    # The file of results holds what was scored: scoring it again gives the same.
    arguments = ["--protocol", "coco", "--gt", str(annotations), "--detections", str(folder / "detections.npz")]
    assert main(["score", *arguments, "--json", "--area-thresholds", "8", "16"]) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(expected, abs=1e-9)

    page = write_report("smoke", results, tmp_path / "reports")
    assert f"Imported detections, made elsewhere and scored here: {TRAINING}/o2o (seed 0)." in page.read_text()
    assert "<td>imported detections</td>" in page.read_text()
    table = (tmp_path / "reports" / "smoke" / "tables" / "table01.md").read_text()
    assert f"Imported detections, made elsewhere, scored here: DATE-F (Ours) ({TRAINING}/o2o)" in table
    assert f"{expected['AP']:.1f}" in table


def test_importing_twice_changes_nothing_and_variants_add_up(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, file = tmp_path / "results", detections(annotations, tmp_path / "theirs.json", 2.0)
    folder = results / "smoke" / TRAINING / "seed0"
    run(results, file)
    once = content(folder)
    run(results, file)
    assert "everything is already imported" in capsys.readouterr().err
    assert content(folder) == once
    run(results, detections(annotations, tmp_path / "o2m.json", 5.0), "--variant", "o2m")
    (result,) = load_results(results, "smoke")
    assert result.evaluation is not None
    before = json.loads(once["evaluation.json"])["variants"]["o2o"]
    assert result.evaluation["variants"]["o2o"] == before
    assert result.evaluation["variants"]["o2m"]["metrics"]["AP"] < before["metrics"]["AP"]
    assert sorted(np.load(folder / "detections.npz").files) == ["columns", "o2m", "o2o"]


def test_other_results_are_refused_or_replaced(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, file = tmp_path / "results", detections(annotations, tmp_path / "theirs.json", 2.0)
    folder = results / "smoke" / TRAINING / "seed0"
    run(results, file)
    once = content(folder)
    other = detections(annotations, tmp_path / "other.json", 5.0)
    run(results, other, code=2)
    assert "already holds detections of 'o2o' from theirs.json; choose another --seed" in capsys.readouterr().err
    assert content(folder) == once
    run(results, other, "--seed", "1")
    run(results, other, "--replace")
    assert json.loads((folder / "provenance.json").read_text())["imported"]["detections"]["o2o"]["file"] == "other.json"
    assert len(load_results(results, "smoke")) == 2

    own = json.loads((folder / "provenance.json").read_text())
    del own["imported"]
    (folder / "provenance.json").write_text(json.dumps(own))
    run(results, file, code=2)
    assert "holds the results of a training of our own; choose another --seed" in capsys.readouterr().err
    run(results, file, "--replace")
    assert content(folder) == once
    (folder / "evaluation.json").write_text("{")
    run(results, file, code=2)
    assert "are damaged" in capsys.readouterr().err
    run(results, file, "--replace")
    assert content(folder) == once


def test_mistakes_are_sentences_and_write_nothing(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, file = tmp_path / "results", detections(annotations, tmp_path / "theirs.json", 2.0)
    (tmp_path / "bad.json").write_text("[")
    (tmp_path / "bad.log").write_text('{"mode": "val"}\n[]\n')
    (tmp_path / "no.log").write_text('{"mode": "val"}\n')
    for arguments, sentence in [
        ([], "nothing to import: name a file of detections, or a training log by --log"),
        ([tmp_path / "gone.json"], "gone.json is not a file"),
        ([tmp_path / "bad.json"], "is not valid JSON"),
        ([file, "--variant", "o2x"], "unknown variant 'o2x'"),
        ([file, "--variant", "head"], "has no branch 'head'"),
        (["--log", tmp_path / "bad.log"], "line 2 of .* is not a JSON object"),
        (
            ["--log", tmp_path / "no.log"],
            "has no losses and no metrics that could be read .1 line has neither.*; the logs that are read are MMDetection 2's",
        ),
        (["--log", file], "has none of the known forms; the logs that are read are"),
    ]:
        run(results, *arguments, code=2)
        err = capsys.readouterr().err
        assert re.search(sentence, err), err
    assert not results.exists()
    assert main(["import-detections", str(file), "--training", TRAINING]) == 2, (
        "the paper tier's annotations are absent"
    )
    assert "that the detections are scored against are missing; put them there" in capsys.readouterr().err


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def mmdet2_log(path: Path, per_epoch: int, interval: int, epochs: int) -> Path:
    """As MMDetection 2's TextLoggerHook writes it: steps within the epoch, none at its end."""
    records: list[Any] = [{"env_info": "...", "seed": None, "exp_name": "date_f.py"}]
    for epoch in range(1, epochs + 1):
        for step in range(interval, per_epoch, interval):
            lr = 4e-4 if epoch < epochs else 4e-5
            losses = {"loss_cls": 1.0, "loss_bbox": 0.5, "loss": 1.5 / epoch}
            records.append(
                {"mode": "train", "epoch": epoch, "iter": step, "lr": lr, "memory": 9, "time": 0.3, **losses}
            )
        metrics = {"bbox_mAP": 0.1 * epoch, "bbox_mAP_50": 0.2 * epoch, "bbox_mAP_s": -1.0}
        records.append({"mode": "val", "epoch": epoch, "iter": 625, "lr": 4e-4, **metrics, "bbox_mAP_copypaste": "..."})
    return write_lines(path, records)


def mmengine_log(path: Path, per_epoch: int, interval: int, epochs: int) -> Path:
    """As MMEngine's LocalVisBackend writes it: steps of the training, evaluations by the number of the epoch."""
    records: list[Any] = []
    step = 0
    for epoch in range(1, epochs + 1):
        for _ in range(per_epoch):
            step += 1
            if step % interval == 0:
                records.append(
                    {"lr": 4e-4, "data_time": 0.1, "loss": 1.0, "loss_cls": 0.6, "time": 0.3, "epoch": epoch, "iter": step, "memory": 9, "step": step}
                )  # fmt: skip
        records.append(
            {"coco/bbox_mAP": 0.1 * epoch, "coco/bbox_mAP_75": 0.1, "data_time": 0.1, "time": 0.2, "step": epoch}
        )
    return write_lines(path, records)


@pytest.mark.parametrize("write", [mmdet2_log, mmengine_log])
def test_logs_of_both_generations(tmp_path: Path, write: Any) -> None:
    log = read_training_log(write(tmp_path / "log.json", 73, 10, 3), steps_per_epoch=73)
    assert (log.steps, log.epochs) == (219, 3)
    train = [r for r in log.records if r["kind"] == "train"]
    evaluations = [r for r in log.records if r["kind"] == "eval"]
    assert [(r["step"], r["epoch"], r["AP"]) for r in evaluations] == [(73, 1, 10.0), (146, 2, 20.0), (219, 3, 30.0)]
    if write is mmdet2_log:
        assert [r["step"] for r in train] == [e * 73 + s for e in range(3) for s in range(10, 73, 10)]
        assert evaluations[0] == {"kind": "eval", "step": 73, "epoch": 1, "AP": 10.0, "AP50": 20.0, "APs": None}
        assert log.notes == ["1 line has neither losses nor metrics; left out."]
    else:
        assert [r["step"] for r in train] == list(range(10, 220, 10)) and log.notes == []
        assert train[0] == {
            "kind": "train", "step": 10, "epoch": round(10 / 73, 4), "lr": 4e-4, "loss": 1.0, "loss_cls": 0.6,
            "seconds_per_step": 0.3,
        }  # fmt: skip
    assert [r["step"] for r in log.records] == sorted(r["step"] for r in log.records)


def test_a_log_that_does_not_follow_the_recipe_is_reported(tmp_path: Path) -> None:
    for write in (mmdet2_log, mmengine_log):
        log = read_training_log(write(tmp_path / "log.json", 73, 10, 3), steps_per_epoch=7330)
        assert any("not the recipe's 7330" in note for note in log.notes)
        evaluations = [r for r in log.records if r["kind"] == "eval"]
        assert [r["AP"] for r in evaluations] == [10.0, 20.0, 30.0]
        assert all(abs(r["step"] - 73 * (i + 1)) <= 10 for i, r in enumerate(evaluations))


def test_logs_by_iteration_cut_off_resumed_and_diverged(tmp_path: Path) -> None:
    records = [{"lr": 1e-3, "loss": 2.0, "iter": s, "step": s} for s in (50, 100)]
    records += [{"coco/bbox_mAP": 0.2, "step": 100}, {"lr": 1e-3, "loss": 1.0, "step": 150}]
    records += [{"lr": 1e-3, "loss": 3.0, "step": 100}, {"lr": 1e-3, "loss": float("nan"), "step": 150}]
    path = write_lines(tmp_path / "scalars.json", records)
    path.write_text(path.read_text() + '{"lr": 1e-3, "lo')
    log = read_training_log(path, steps_per_epoch=100)
    assert [(r["kind"], r["step"], r.get("loss")) for r in log.records] == [
        ("train", 50, 2.0), ("train", 100, 3.0),
    ]  # fmt: skip
    assert log.notes == [
        "the last line was cut off; it is left out.",
        "1 line has losses that are not finite numbers; left out.",
        "3 records are of steps that later lines tell again, by a resumed or another training.",
    ]
    crowd = read_training_log(
        write_lines(tmp_path / "crowd.json", [{"lr": 1, "loss": 1, "step": 5}, {"crowd_human/mAP": 0.8, "crowd_human/mMR": 0.5, "step": 5}]), 5, "crowdhuman"
    )  # fmt: skip
    assert crowd.last_metrics == {"AP": 80.0, "mMR": 50.0}


def test_a_log_gives_curve_and_last_ap_until_detections_are_there(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, log = tmp_path / "results", mmengine_log(tmp_path / "scalars.json", 6, 1, 2)
    run(results, "--log", log)
    assert "AP 20.0" in (out := capsys.readouterr().out) and "(as reported by the log, not scored by us)" in out
    (result,) = load_results(results, "smoke")
    assert result.curve("AP") == [(6, 10.0), (12, 20.0)]
    assert result.evaluation is not None
    assert result.evaluation["variants"]["o2o"]["metrics"] == dict.fromkeys(METRICS) | {"AP": 20.0, "AP75": 10.0}
    page = write_report("smoke", results, tmp_path / "reports").read_text()
    mark = "As reported by an imported training log, not scored by us"
    assert f"{mark}: {TRAINING}/o2o (seed 0)." in page and "<td>imported training log</td>" in page
    assert f"{mark}: DATE-F" in (tmp_path / "reports" / "smoke" / "tables" / "table01.md").read_text()

    run(results, detections(annotations, tmp_path / "theirs.json", 2.0))
    (result,) = load_results(results, "smoke")
    assert result.evaluation is not None and result.evaluation["variants"]["o2o"]["detections"] > 0
    assert result.evaluation["variants"]["o2o"]["metrics"]["AP"] != 20.0, "ours in place of the log's"
    assert len(result.curve("AP")) == 2, "the curve stays"
    page = write_report("smoke", results, tmp_path / "reports").read_text()
    assert mark not in page and "<td>imported detections and training log</td>" in page
    other = mmdet2_log(tmp_path / "other.log.json", 6, 1, 2)
    run(results, "--log", other, code=2)
    assert "already holds a training log from scalars.json" in capsys.readouterr().err


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_fuzzed_logs(tmp_path: Path, data: st.DataObject) -> None:
    """Values exchanged for junk, lines cut off: a log is read or refused, and lines left out are counted."""
    write = data.draw(st.sampled_from([mmdet2_log, mmengine_log]))
    records = [json.loads(line) for line in write(tmp_path / "log.json", 7, 2, 3).read_text().splitlines()]
    junk = st.sampled_from([None, True, "x", -1, 0, 2.5, 10**400, float("nan"), [1], {"a": 1}])
    for _ in range(data.draw(st.integers(0, 4))):
        record = data.draw(st.sampled_from(records))
        record[data.draw(st.sampled_from(sorted(record)))] = data.draw(junk)
    text = write_lines(tmp_path / "log.json", records).read_text()
    (tmp_path / "log.json").write_text(text[: len(text) - data.draw(st.integers(0, 200))])
    try:
        log = read_training_log(tmp_path / "log.json", 7)
    except UserError:
        return
    numbered = (re.match(r"(\d+) (?:lines?|records?)|the last line", note) for note in log.notes)
    left_out = sum(int(match[1] or 1) for match in numbered if match is not None)
    lines = [line for line in (tmp_path / "log.json").read_text().split("\n") if line]
    assert len(log.records) + left_out == len(lines)
    assert all(record["step"] >= 0 and record["epoch"] >= 0 for record in log.records)


def test_crowdhumans_detections_need_the_odgt_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No images, no conversion: boxes are clipped to the sizes that MMDetection's dump has."""
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    boxes = [[5, 5, 30, 60], [-10, 5, 30, 60], [70, 60, 30, 60]]
    truth = [{"ID": str(n), "gtboxes": [{"tag": "person", "fbox": box, "extra": {}}]} for n, box in enumerate(boxes)]
    (tmp_path / "crowdhuman").mkdir()
    (tmp_path / "crowdhuman" / "annotation_val.odgt").write_text("\n".join(map(json.dumps, truth)))
    clipped = [[5, 5, 30, 60], [0, 5, 20, 60], [70, 60, 20, 20]]
    found = [
        {"ID": str(n), "width": 90, "height": 80, "dtboxes": [{"box": box, "score": 0.9}]}
        for n, box in enumerate(clipped)
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    name, results = "date_f-r50-crowdhuman-30k", tmp_path / "results"
    assert main(["import-detections", str(tmp_path / "found.json"), "--training", name, "--results", str(results)]) == 0
    (result,) = load_results(results, "paper")
    assert result.evaluation is not None and result.evaluation["variants"]["o2o"]["metrics"]["Recall"] == 100
    (tmp_path / "crowdhuman" / "annotation_val.odgt").unlink()
    assert main(["import-detections", str(tmp_path / "found.json"), "--training", name, "--results", str(results)]) == 2


def test_a_log_alone_needs_no_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATE_DATA_ROOT", str(tmp_path))
    lines: list[Any] = []
    for epoch in range(1, 13):
        step = 7330 * epoch
        lines += [
            {"lr": 0.1, "loss": 1.0, "epoch": epoch, "iter": step, "step": step},
            {"coco/bbox_mAP": 0.37, "step": epoch},
        ]
    log, results = write_lines(tmp_path / "scalars.json", lines), tmp_path / "results"
    assert main(["import-detections", "--log", str(log), "--training", TRAINING, "--results", str(results)]) == 0
    (result,) = load_results(results, "paper")
    assert result.evaluation is not None and result.evaluation["variants"]["o2o"]["metrics"]["AP"] == 37
