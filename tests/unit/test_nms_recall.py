"""NMS on annotations against a plain loop and torchvision's NMS, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from date.cli import main
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.nms_recall import THRESHOLDS, nms_recall, nms_survivors
from tests.support.examples import examples

THRESHOLD_LISTS = st.sampled_from([[0.5], [0.3, 0.5, 0.7], list(THRESHOLDS)])
coordinate, extent = st.integers(0, 12).map(float), st.integers(0, 8).map(float)
boxes_strategy = st.lists(
    st.tuples(coordinate, coordinate, extent, extent, st.integers(0, 1), st.integers(0, 2)), max_size=25
)


def iou(a: Any, b: Any) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


@settings(max_examples=examples(200))
@given(boxes_strategy, THRESHOLD_LISTS)
def test_equal_to_a_plain_loop(boxes: list[Any], thresholds: list[float]) -> None:
    table = np.array(boxes, dtype=float).reshape(-1, 6)
    corners = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    images, categories = table[:, 4].astype(int), table[:, 5].astype(int)
    for threshold, kept in zip(thresholds, nms_survivors(corners, images, categories, thresholds), strict=True):
        survivors: list[int] = []
        for i in range(len(table)):
            rivals = [j for j in survivors if images[j] == images[i] and categories[j] == categories[i]]
            if all(iou(corners[i], corners[j]) <= threshold for j in rivals):
                survivors.append(i)
        assert np.nonzero(kept)[0].tolist() == survivors


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_torchvision(seed: int) -> None:
    """Scores that fall by a trifle from box to box give torchvision the annotations' order."""
    rng = np.random.default_rng(seed)
    n = 3000  # several blocks of rows in each group
    corners = rng.uniform(0, 300, (n, 2)).repeat(2, axis=0).reshape(n, 4)
    corners[:, 2:] += rng.uniform(10, 60, (n, 2))
    images, categories = rng.integers(0, 3, n), rng.integers(0, 2, n)
    for threshold, kept in zip(THRESHOLDS, nms_survivors(corners, images, categories, THRESHOLDS), strict=True):
        scores, groups = torch.linspace(1, 0, n, dtype=torch.float64), torch.tensor(2 * images + categories)
        expected = batched_nms(torch.tensor(corners), scores, groups, threshold)
        assert sorted(expected.tolist()) == np.nonzero(kept)[0].tolist()


def test_by_hand_from_both_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second box overlaps the first by 0.6, the third the second by 0.6 and the first by a third, the fourth is apart.

    At 0.5 the second goes, and with it what would have removed the third.
    """
    boxes = [[0, 0, 100, 10], [25, 0, 100, 10], [50, 0, 100, 10], [0, 100, 100, 10]]
    region = [0, 0, 100, 10]
    records = [{"tag": "person", "fbox": b, "extra": {}} for b in boxes] + [
        {"tag": "mask", "fbox": region, "extra": {"ignore": 1}}
    ]
    (tmp_path / "crowd.odgt").write_text(json.dumps({"ID": "a", "gtboxes": records}) + "\n")
    annotations = [{"image_id": 7, "category_id": 3, "bbox": b} for b in boxes]
    annotations += [
        {"image_id": 7, "category_id": 3, "bbox": region, "iscrowd": 1},
        {"image_id": 7, "category_id": 4, "bbox": boxes[0]},
    ]
    coco = {
        "images": [{"id": 7, "width": 60, "height": 200}],
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}, {"id": 5, "name": "c"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco | {"annotations": annotations}))

    def run(*options: str) -> dict[str, Any]:
        assert main(["data", "nms-recall", *options, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    one = run("--gt", str(tmp_path / "crowd.odgt"), "--iou", "0.5", "0.6")
    assert one["recall"] == {"0.5": 75.0, "0.6": 100.0} and one["objects"] == 4 and one["clipped"] is False
    several = run("--gt", str(tmp_path / "coco.json"))
    assert list(several["recall"]) == ["0.5", "0.55", "0.6", "0.65", "0.7"]
    assert several["recall"]["0.5"] == 80.0 and several["objects"] == 5
    assert several["classes"]["a"]["recall"]["0.5"] == 75.0
    assert several["classes"]["b"] == {"objects": 1, "recall": dict.fromkeys(several["recall"], 100.0)}
    assert several["classes"]["c"] == {"objects": 0, "recall": dict.fromkeys(several["recall"])}
    # Clipped to 60 pixels, the first two share 35 of 60 and the last two 10 of 35.
    assert run("--gt", str(tmp_path / "coco.json"), "--iou", "0.58", "--clip")["recall"] == {"0.58": 80.0}
    assert run("--gt", str(tmp_path / "coco.json"), "--iou", "0.59", "--clip")["recall"] == {"0.59": 100.0}
    assert main(["data", "nms-recall", "--gt", str(tmp_path / "crowd.odgt"), "--clip"]) == 2
    assert "lacks the size of 1 images" in capsys.readouterr().err
    assert main(["data", "nms-recall", "--gt", str(tmp_path / "coco.json")]) == 0
    assert "boxes as annotated, not clipped" in capsys.readouterr().out


@pytest.mark.shared
def test_the_genuine_record(shared_data: Path) -> None:
    ground_truth = read_ground_truth(shared_data / "crowdhuman_format" / "mmdet_real_sample.odgt")
    found = nms_recall(ground_truth)
    assert found["objects"] == 6, "six persons, and a region that is ignored"
    assert found["recall"] == dict.fromkeys(found["recall"], 100.0)
