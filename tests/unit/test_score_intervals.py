"""`date score --interval` and `--against`: what is printed is what the resamples give, and differences are paired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from date.cli import main
from date.evaluation.ground_truth import GroundTruth, read_ground_truth
from date.evaluation.resamples import interval, resampled_metrics
from tests.unit.test_resamples import scene


def write(folder: Path, categories: int) -> tuple[Path, list[Path], GroundTruth, list[np.ndarray]]:
    """Write annotations and two files of detections: the second one is the first with every third box moved a little."""
    truth, rows = scene(40, 200, 900, 3)
    kinds = truth.category_ids % categories + 1
    data = {
        "images": [{"id": i, "width": 640, "height": 640} for i in truth.image_ids],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(categories)],
        "annotations": [
            {"id": k + 1, "image_id": truth.image_ids[i], "category_id": int(c), "bbox": b.tolist(), "iscrowd": int(x)}
            for k, (i, c, b, x) in enumerate(zip(truth.image, kinds, truth.bboxes, truth.ignored, strict=True))
        ],
    }
    (folder / "gt.json").write_text(json.dumps(data))
    rows[:, 6] = rows[:, 6] % categories + 1
    moved = rows.copy()
    moved[::3, 1] += 0.2 * moved[::3, 3]
    files = []
    for name, each in (("one", rows), ("other", moved)):
        records = [
            {"image_id": int(r[0]), "bbox": r[1:5].tolist(), "score": float(r[5]), "category_id": int(r[6])}
            for r in each
        ]
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(records))
    return folder / "gt.json", files, read_ground_truth(folder / "gt.json"), [rows, moved]


@pytest.mark.parametrize("protocol", ["coco", "crowdhuman"])
def test_intervals_and_paired_differences(protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, files, truth, rows = write(tmp_path, 5 if protocol == "coco" else 1)
    arguments = ["score", "--protocol", protocol, "--gt", str(annotations), "--detections", str(files[0])]
    assert main([*arguments, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--interval", "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    values = [resampled_metrics(protocol, truth, each, plain.keys()) for each in rows]
    for name, value in plain.items():
        expected = interval(value, values[0][name])
        assert (own[name] is None) == (expected is None)
        if expected is not None:
            assert own[name]["value"] == pytest.approx(value, abs=1e-9)
            assert (own[name]["low"], own[name]["high"]) == pytest.approx((expected.low, expected.high))
    assert main([*arguments, "--against", str(files[1]), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["metrics"] == own
    if protocol == "coco":  # an engine that is named is used
        assert main([*arguments, "--interval", "--json", "--engine", "pycocotools"]) == 0
        by_engine = json.loads(capsys.readouterr().out)
        assert main([*arguments, "--json", "--engine", "pycocotools"]) == 0
        assert {n: each and each["value"] for n, each in by_engine.items()} == json.loads(capsys.readouterr().out)
    found = answer["differences"]["AP"]
    assert found["value"] == pytest.approx(plain["AP"] - answer["against"]["AP"]) and found["value"] > 0
    assert found["sd"] == pytest.approx(np.std(values[0]["AP"] - values[1]["AP"], ddof=1))
    assert found["sd"] < own["AP"]["sd"], "what makes images hard is the same for both"
    assert main([*arguments, "--against", str(files[1])]) == 0
    about, first, *_ = capsys.readouterr().out.splitlines()
    assert about.startswith("in percent, with 95 % intervals for images like these; ") and " against " in about
    assert first.startswith("AP") and " to " in first and "difference  +" in first and "against" in first


def test_a_file_against_itself_differs_by_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, files, _, _ = write(tmp_path, 5)
    arguments = ["--gt", str(annotations), "--detections", str(files[0]), "--against", str(files[0]), "--json"]
    assert main(["score", "--protocol", "coco", *arguments]) == 0
    for found in json.loads(capsys.readouterr().out)["differences"].values():
        assert found is None or (found["value"], found["sd"]) == (0.0, 0.0)
