"""Training logs of other libraries: what each form writes, what is read of it, and where it is placed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from date.errors import UserError
from date.imports.log_lines import FORMS
from date.imports.logs import check_length, read_training_log


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def reading(lines: list[Any] | str, per_epoch: int = 10, protocol: Any = "coco") -> Any:
        text = lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "log").write_text(text)
        return read_training_log(tmp_path / "log", per_epoch, protocol)

    return reading


def evaluations(log: Any) -> list[tuple[int, float]]:
    return [(record["step"], record["AP"]) for record in log.records if record["kind"] == "eval"]


def train2(iteration: int, epoch: int, **more: Any) -> dict[str, Any]:
    """MMDetection 2's line."""
    return {"mode": "train", "epoch": epoch, "iter": iteration, "lr": 0.1, "loss": 9.0} | more


def train3(step: int, epoch: int | None = None, **more: Any) -> dict[str, Any]:
    """MMEngine's line."""
    return {"lr": 0.1, "loss": 9.0, "iter": step, "step": step} | ({} if epoch is None else {"epoch": epoch}) | more


# ------------------------------------------------------------------------------------------------- VOC's mAP


@pytest.mark.parametrize(
    "voc",
    [
        {"pascal_voc/mAP": 0.8035, "pascal_voc/AP50": 0.804, "step": 1},
        {"mode": "val", "epoch": 1, "iter": 40, "mAP": 0.8035, "AP50": 0.804},
    ],
    ids=["MMEngine", "mmcv"],
)
def test_the_map_of_voc_is_not_cocos_ap(voc: dict[str, Any], read: Any) -> None:
    log = read([train3(5, 1), voc])
    assert evaluations(log) == []
    assert "1 line has VOC's mAP, at one IoU, which is not COCO's AP; left out." in log.notes
    with pytest.raises(UserError, match="no losses and no metrics.*VOC's mAP, at one IoU"):
        read([voc])


@pytest.mark.parametrize("order", [1, -1])
def test_with_both_metrics_cocos_counts(order: int, read: Any) -> None:
    both = [{"coco/bbox_mAP": 0.4, "step": 1}, {"pascal_voc/mAP": 0.8, "step": 1}][::order]
    assert evaluations(read([train3(10, 1), *both])) == [(10, 40.0)]
    together = {"coco/bbox_mAP": 0.4, "pascal_voc/mAP": 0.8, "pascal_voc/AP50": 0.9, "step": 1}
    assert evaluations(read([train3(10, 1), together])) == [(10, 40.0)]


def test_a_bare_map_counts_under_crowdhumans_protocol_alone(read: Any) -> None:
    lines = [train3(10, 1), {"crowd_human/mAP": 0.8, "crowd_human/mMR": 0.5, "step": 1}]
    assert read(lines, protocol="crowdhuman").last_metrics == {"AP": 80.0, "mMR": 50.0}
    assert evaluations(read(lines)) == []
    assert evaluations(read([train3(10, 1), {"pascal_voc/mAP": 0.8, "step": 1}], protocol="crowdhuman")) == []


# ------------------------------------------------------------------------------------------------- where it belongs


def test_mmdetection_2_by_iterations(read: Any) -> None:
    """An evaluation's iter is the number of validation batches, its epoch counts up."""
    val = {"mode": "val", "iter": 40, "lr": 0.1}
    lines = [train2(10, 1), val | {"epoch": 2, "bbox_mAP": 0.1}, train2(20, 2), val | {"epoch": 3, "bbox_mAP": 0.2}]
    assert evaluations(read(lines, per_epoch=15)) == [(10, 10.0), (20, 20.0)]


def test_crowdhumans_30000_iterations(read: Any) -> None:
    lines: list[Any] = []
    for step in range(50, 30001, 50):
        lines.append(train2(step, -(-step // 938)))
        if step % 5000 == 0:
            lines.append(
                {"mode": "val", "epoch": -(-step // 938), "iter": 4370, "lr": 0.1, "mAP": step / 1e5, "mMR": 0.5}
            )
    found = evaluations(read(lines, per_epoch=938, protocol="crowdhuman"))
    assert found == [(step, pytest.approx(step / 1e3)) for step in range(5000, 30001, 5000)]


def test_mmengine_by_iterations_with_evaluations_at_step_0(read: Any) -> None:
    lines = [train3(5000), {"coco/bbox_mAP": 0.1, "step": 0}, train3(10000), {"coco/bbox_mAP": 0.2, "step": 0}]
    assert evaluations(read(lines, per_epoch=938)) == [(5000, 10.0), (10000, 20.0)]


def test_validation_losses_of_a_workflow_are_no_training(read: Any) -> None:
    lines = [train2(5, 1), train2(10, 1), {"mode": "val", "epoch": 1, "iter": 40, "lr": 0.1, "loss": 9}, train2(5, 2)]
    log = read(lines)
    assert [record["step"] for record in log.records] == [5, 10, 15]
    assert "1 line is of validation, without the protocol's metrics; left out." in log.notes


def test_one_epoch_alone_as_after_a_resume(read: Any) -> None:
    lines = [train2(50, 25), train2(100, 25), {"mode": "val", "epoch": 25, "iter": 40, "bbox_mAP": 0.3}]
    log = read(lines, per_epoch=300)
    assert [record["step"] for record in log.records] == [24 * 300 + 50, 24 * 300 + 100, 25 * 300]
    assert log.epochs == 25


def test_the_newest_of_two_trainings_in_one_file(read: Any) -> None:
    def run(epochs: int, ap: float) -> list[Any]:
        return [
            line
            for epoch in range(1, epochs + 1)
            for line in (train3(10 * epoch, epoch), {"coco/bbox_mAP": ap, "step": epoch})
        ]

    log = read([*run(3, 0.3), *run(1, 0.1)])
    assert evaluations(log) == [(10, 10.0)]
    assert "6 records are of steps that later lines tell again, by a resumed or another training." in log.notes


def test_a_resumed_training_goes_on(read: Any) -> None:
    lines = [train3(10, 1), {"coco/bbox_mAP": 0.1, "step": 1}, train3(15, 2), train3(20, 2), train3(15, 2, loss=1.0)]
    assert [(r["step"], r.get("loss")) for r in read(lines).records] == [(10, 9.0), (10, None), (15, 1.0)]


# ------------------------------------------------------------------------------------------------- what is wrong with it


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([train3(10, 1, loss=float("nan"))], r"no losses and no metrics .*\(1 line has losses that are not finite"),
        ([train3(10, 1, lr={"backbone": 1e-5})], r"\(1 line has a learning rate that is an object\); the logs that"),
        ([train3(10, 1, lr=None)], r"\(1 line has a learning rate that is missing\)"),
        ("2023-01-01 10:00:00,000 - mmdet - INFO - Epoch [1][50/7330]\n", "has none of the known forms; the logs that"),
        ("epoch,time,metrics/mAP50-95(B)\n1,2,0.3\n", "is of ultralytics, whose mAP50-95 is its own evaluation"),
        ('{"best_metric": 1}\n', r"has no losses and no metrics that could be read \(1 line has neither"),
        ('{\n "best_metric": 1\n}\n', "is a JSON object without a list 'log_history'"),
        ([{"accuracy/top1": 71.2, "step": 1}], r"\(1 line has other metrics \('accuracy/top1'\)\)"),
        ([{"coco/segm_mAP": 0.3, "step": 1}], r"\(1 line has other metrics \('coco/segm_mAP'\)\)"),
        (
            [{"crowd_human/mAP": 0.8, "crowd_human/mMR": 0.5, "step": 1}],
            r"\(1 line has CrowdHuman's metrics, and not COCO's\)",
        ),
        ("epoch,step,train/loss,val/mAP_50_95\n1,9,1.0,0.3\n", "is of RF-DETR, whose AP counts up to 500 detections"),
        ("epoch,metrics/mAP_0.5,metrics/mAP_0.5:0.95\n1,2,0.3\n", "is of ultralytics, whose mAP50-95"),
    ],
)
def test_refused_in_words(lines: Any, sentence: str, read: Any) -> None:
    with pytest.raises(UserError, match=sentence):
        read(lines)


def test_the_heads_learning_rate_counts(read: Any) -> None:
    (record,) = read([train3(10, 1, lr=0.01, base_lr=0.1)]).records
    assert record["lr"] == 0.1


@pytest.mark.parametrize(
    ("epochs", "sentence"),
    [
        (12, None),
        (5, "ends after 5 of the 12 epochs of fcos"),
        (25, "goes on for 25 epochs of 10 steps, but fcos has 12"),
    ],
)
def test_a_log_of_another_length_is_refused(epochs: int, sentence: str | None, read: Any, tmp_path: Path) -> None:
    log = read([train3(10 * epoch, epoch) for epoch in range(1, epochs + 1)])
    if sentence is None:
        check_length(tmp_path / "log", log, 12.0, "fcos")
    else:
        with pytest.raises(UserError, match=sentence):
            check_length(tmp_path / "log", log, 12.0, "fcos")


# ------------------------------------------------------------------------------------------------- other libraries


def test_detectron2(read: Any) -> None:
    lines = [
        {"iteration": 9, "lr": 0.02, "total_loss": 1.5, "loss_cls": 1.0, "data_time": 0.1},
        {"iteration": 19, "lr": 0.02, "total_loss": 1.2, "loss_cls": 0.8, "bbox/AP": 37.5, "bbox/AP50": 56.25, "bbox/APl": 50.0, "bbox/AP-person": 1.0},
    ]  # fmt: skip
    log = read(lines)
    assert [(r["kind"], r["step"]) for r in log.records] == [("train", 10), ("train", 20), ("eval", 20)]
    assert log.records[0] == {"kind": "train", "step": 10, "epoch": 1.0, "lr": 0.02, "loss": 1.5, "loss_cls": 1.0}
    assert log.last_metrics == {"AP": 37.5, "AP50": 56.25, "APl": 50.0}


def test_detr_and_d_fine(read: Any) -> None:
    stats = [0.375, 0.5625, 0.4, 0.2, 0.4, 0.5, 0.3, 0.5, 0.55, 0.3, 0.6, -1]
    lines = [
        {"train_lr": 1e-4, "train_loss": 9.0 - e, "train_loss_ce": 1.0, "test_coco_eval_bbox": stats, "epoch": e, "n_parameters": 7}
        for e in range(2)
    ]  # fmt: skip
    log = read(lines)
    assert [(r["kind"], r["step"], r["epoch"]) for r in log.records] == [
        ("train", 10, 1), ("eval", 10, 1), ("train", 20, 2), ("eval", 20, 2),
    ]  # fmt: skip
    assert log.records[2]["loss"] == 8.0 and log.records[2]["loss_ce"] == 1.0
    assert log.last_metrics["AP"] == 37.5 and log.last_metrics["ARl"] is None and len(log.last_metrics) == 12


def test_lightning_with_torchmetrics(read: Any) -> None:
    text = (
        "epoch,lr-AdamW,step,train_loss,val/map,val/map_50,val/map_per_class\n"
        "0,,4,1.5,,,\n0,0.001,9,,,,\n0,,9,,0.25,0.5,\n1,,19,1.0,,,\n1,,19,,0.375,-1,-1\n"
    )
    log = read(text)
    assert evaluations(log) == [(10, 25.0), (20, 37.5)]
    assert log.last_metrics == {"AP": 37.5, "AP50": None}


def test_lightnings_learning_rate_has_rows_of_its_own(read: Any) -> None:
    """As LearningRateMonitor writes it: without an epoch, before the losses that it holds for."""
    text = (
        "epoch,lr-SGD/pg1,lr-SGD/pg2,step,train_loss,train_loss_epoch,val_map\n"
        "0,,,4,1.5,,\n,0.01,0.1,9,,,\n0,,,9,1.25,,\n0,,,9,,,0.25\n0,,,9,,1.4,\n1,,,14,1.0,,\n,0.001,0.01,19,,,\n1,,,19,0.5,,\n"
    )
    log = read(text)
    assert [(r["step"], r["loss"], r["lr"]) for r in log.records if r["kind"] == "train"] == [
        (10, 1.25, 0.1), (15, 1.0, 0.1), (20, 0.5, 0.01),
    ]  # fmt: skip
    assert [note for note in log.notes if "learning rate that is missing" in note and "1 " in note]
    assert evaluations(log) == [(10, 25.0)]


def test_hugging_face(read: Any) -> None:
    history = [
        {"epoch": 0.5, "loss": 2.0, "learning_rate": 5e-5, "grad_norm": 1.0, "step": 5},
        {"epoch": 1.0, "eval_loss": 1.0, "eval_map": 0.25, "eval_map_50": 0.5, "eval_mar_100": 0.6, "eval_runtime": 3, "step": 10},
        {"epoch": 1.0, "step": 10, "total_flos": 1.0, "train_loss": 2.0, "train_runtime": 9.0},
    ]  # fmt: skip
    for indent in (2, None):
        log = read(json.dumps({"best_metric": None, "log_history": history}, indent=indent))
        assert [(r["kind"], r["step"], r["epoch"]) for r in log.records] == [("train", 5, 0.5), ("eval", 10, 1.0)]
        assert log.last_metrics == {"AP": 25.0, "AP50": 50.0, "AR100": 60.0}


def test_every_form_is_named() -> None:
    for name in ("*.log.json", "scalars.json", "metrics.json", "log.txt", "metrics.csv", "trainer_state.json"):
        assert name in FORMS
