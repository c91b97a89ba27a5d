"""Crowd trainings are judged by CrowdHuman's protocol, all variants from one forward pass, and again offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

import date.data
import date.models  # noqa: F401 - registers the heads
from date.catalogue import Training, load, load_dataset, load_tier
from date.catalogue.settings import data_root
from date.cli import main
from date.datasets.files import data_files
from date.datasets.prepare import prepare
from date.evaluation.crowdhuman import METRICS
from date.evaluation.stored import read_resamples
from date.identity.config import resolve
from date.imports.checkpoint import import_checkpoint
from date.inference.evaluate import Selection, batch_detections, evaluate, write_evaluation
from date.reporting.report import write_report
from date.results import export_run
from date.training.run import train

pytestmark = pytest.mark.slow

SMOKE = load_tier("smoke")
NAMES = ["fcos-r50-crowdhuman-30k", "retinanet-r50-crowdhuman-30k", "date_f-r50-crowdhuman-30k"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("DATE_DATA_ROOT", str(folder))
        prepare(load_dataset(SMOKE.datasets["crowdhuman"]), folder)
        yield folder


def random_model(training: Training) -> Any:
    """A network of random heads whose logits, on the validation images, have mean -3 and deviation 1.5.

    Scores then lie on both sides of every threshold, whatever features the backbone hands over.
    """
    torch.manual_seed(1)
    config = resolve(training, SMOKE, 0, data_root())
    with DefaultScope.overwrite_default_scope("mmdet"), torch.no_grad():
        model = MODELS.build(ConfigDict(config["model"])).eval()
        model.init_weights()
        for parameter in model.bbox_head.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        layers = [layer for name, layer in model.bbox_head.named_modules() if re.search(r"(conv|retina)_cls$", name)]
        logits: dict[nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
        hooks = [layer.register_forward_hook(lambda layer, _, y: logits[layer].append(y.flatten())) for layer in layers]
        for batch in Runner.build_dataloader(config["test_dataloader"]):
            model.bbox_head(model.extract_feat(model.data_preprocessor(batch)["inputs"]))
        for hook in hooks:
            hook.remove()
        for layer in layers:
            seen = torch.cat(logits[layer])
            factor = 1.5 / seen.std()
            layer.weight.data *= factor
            layer.bias.data = (layer.bias - seen.mean()) * factor - 3.0
    return model


@pytest.fixture(scope="module", params=NAMES)
def judged(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A random network of a crowd training with the files of its evaluation."""
    training, folder = load().training(request.param), tmp_path_factory.mktemp("work")
    model = random_model(training)
    torch.save({"state_dict": model.state_dict()}, folder / "random.pth")
    run = import_checkpoint(folder / "random.pth", training, SMOKE, folder / "runs")
    results = folder / "results" / "smoke" / training.name / "seed0"
    export_run(run, results)
    record, detections, pictures = evaluate(run, threads=1)
    write_evaluation(record, detections, pictures, results)
    return SimpleNamespace(
        training=training, model=model, run=run, results=results, record=record, detections=detections
    )


def test_the_record_says_how_it_was_judged(judged: SimpleNamespace) -> None:
    record = json.loads((judged.results / "evaluation.json").read_text())
    assert record["protocol"] == "crowdhuman" and record["area_thresholds"] is None
    assert all(tuple(v["metrics"]) == METRICS for v in record["variants"].values())
    for variant in record["variants"].values():
        stored = read_resamples(variant["resamples"])
        assert all(len(stored[name]) == record["resamples"]["count"] for name in METRICS)
        mean, sd = np.mean(stored["Recall"]), np.std(stored["Recall"])
        assert abs(mean - variant["metrics"]["Recall"]) <= 4 * sd + 1e-3
    selections = {name: variant["selection"] for name, variant in record["variants"].items()}
    assert (record["zero_sides"] is not None) == (judged.training.model == "dual")
    if judged.training.model == "dual":
        assert list(selections) == ["o2o"]
        expected = {"branch": "o2o", "score_thr": 0.01, "nms_pre": 1000, "nms": None, "max_per_img": 500}
        assert selections["o2o"] == expected
        return
    common = {"branch": "head", "nms_pre": 1000}
    assert selections == {
        "head": common | {"score_thr": 0.05, "nms": 0.5, "max_per_img": 100},
        "head_500": common | {"score_thr": 0.01, "nms": 0.6, "max_per_img": 500},
    }
    counts = [variant["detections"] for variant in record["variants"].values()]
    assert 0 < counts[0] < counts[1], "the random network has scores on both sides of the thresholds"


def test_a_dead_side_of_the_boxes_is_recorded(data: Path, tmp_path: Path) -> None:
    training = load().training("date_f-r50-crowdhuman-30k")
    model = random_model(training)
    model.bbox_head.branch(0).conv_reg.bias.data[2] = -1e6
    torch.save({"state_dict": model.state_dict()}, tmp_path / "dead.pth")
    shares = evaluate(import_checkpoint(tmp_path / "dead.pth", training, SMOKE, tmp_path), threads=1).record[
        "zero_sides"
    ]
    assert list(shares) == ["left", "top", "right", "bottom"] and shares.pop("right") == 100
    assert all(0 < share < 100 for share in shares.values())


def test_every_variant_equals_a_run_of_its_own(judged: SimpleNamespace) -> None:
    for name, rows in judged.detections.items():
        _, alone, _ = evaluate(judged.run, [name], threads=1)
        np.testing.assert_array_equal(alone[name], rows)


def test_every_variant_equals_mmdetections_own_inference(judged: SimpleNamespace) -> None:
    """With the variant's threshold, NMS and limit set in the network's ``test_cfg``."""
    if judged.training.model == "dual":
        pytest.skip("covered by the test of imported checkpoints")
    for name, rows in judged.detections.items():
        chosen = judged.record["variants"][name]["selection"]
        judged.model.bbox_head.test_cfg.update(
            score_thr=chosen["score_thr"],
            nms=dict(type="nms", iou_threshold=chosen["nms"]),
            max_per_img=chosen["max_per_img"],
        )
        loader = resolve(judged.training, SMOKE, 0, data_root())["test_dataloader"]
        with DefaultScope.overwrite_default_scope("mmdet"), torch.no_grad():
            samples = [s for batch in Runner.build_dataloader(loader) for s in judged.model.test_step(batch)]
        found = [(s.img_id, s.pred_instances) for s in samples]
        image_ids = np.concatenate([np.full(len(f), i) for i, f in found])
        xyxy = torch.cat([f.bboxes for _, f in found]).numpy()
        np.testing.assert_array_equal(rows[:, 0], image_ids)
        np.testing.assert_allclose(rows[:, 1:3], xyxy[:, :2], atol=1e-3)
        np.testing.assert_allclose(rows[:, 1:3] + rows[:, 3:5], xyxy[:, 2:], atol=1e-3)
        np.testing.assert_allclose(rows[:, 5], torch.cat([f.scores for _, f in found]).numpy(), rtol=1e-5)


def test_variants_of_a_dual_head_differ_as_their_settings_say(data: Path) -> None:
    """Several thresholds, limits and branches in one pass: each as alone, and the higher threshold a part of the lower."""
    training = load().training("date_f-r50-crowdhuman-30k")
    model = random_model(training)
    loader = resolve(training, SMOKE, 0, data_root())["test_dataloader"]
    with DefaultScope.overwrite_default_scope("mmdet"):
        batch = next(iter(Runner.build_dataloader(loader)))
    selections = {
        "low": Selection("o2o", 0.01, 1000, None, 10_000),
        "high": Selection("o2o", 0.3, 1000, None, 10_000),
        "few": Selection("o2o", 0.3, 1000, None, 4),
        "nms": Selection("o2o", 0.01, 1000, 0.6, 500),
        "o2m": Selection("o2m", 0.05, 1000, 0.5, 100),
    }
    with torch.inference_mode():
        together = batch_detections(model, batch, selections, [1])
        for name, selection in selections.items():
            (alone,) = batch_detections(model, batch, {name: selection}, [1]).values()
            for mine, theirs in zip(together[name], alone, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    for low, high, few, nms in zip(*(together[n] for n in ("low", "high", "few", "nms")), strict=True):
        np.testing.assert_array_equal(high, low[low[:, 5] > 0.3])
        np.testing.assert_array_equal(few, high[:4])
        assert 4 < len(high) < len(low) and len(nms) <= len(low)


def test_scored_again_offline_the_numbers_are_the_same(
    judged: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """From ``detections.npz`` and the annotations alone."""
    dataset = load_dataset(SMOKE.datasets["crowdhuman"])
    annotations = data_files(dataset, data_root()).val_annotations
    for name, variant in judged.record["variants"].items():
        options = ["--gt", str(annotations), "--detections", str(judged.results / "detections.npz")]
        assert main(["score", "--protocol", "crowdhuman", *options, "--variant", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == variant["metrics"]


def test_the_report_takes_it(judged: SimpleNamespace) -> None:
    results = judged.results.parents[2]
    page = write_report("smoke", results, results.parent / "reports")
    assert judged.training.name in page.read_text()


def test_a_training_records_the_protocols_metrics(data: Path, tmp_path: Path) -> None:
    training = load().training("onenet-r50-crowdhuman-30k")
    run = train(training, SMOKE, 0, tmp_path, threads=1)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [r for r in records if r["kind"] == "eval"]
    assert evaluations and all(set(METRICS) <= set(r) and "AP50" not in r for r in evaluations)
    record, _, _ = evaluate(run, threads=1)
    for name, value in record["variants"]["o2o"]["metrics"].items():
        assert value == pytest.approx(evaluations[-1][name], abs=1e-4), name
