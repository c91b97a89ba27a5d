"""examples/after-date: its head does what it says, resumes exactly, and goes through training, evaluation and report."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from date.catalogue import ROOT, load, load_tier
from date.catalogue.modules import import_modules
from date.catalogue.settings import load_settings
from date.errors import UserError
from date.experiments.folders import VARIABLE
from date.identity.config import resolve
from date.identity.digests import config_digest
from date.inference.evaluate import evaluate, write_evaluation
from date.reporting.report import write_report
from date.results import export_run
from date.training.interruption import Interrupted
from date.training.loop import Trainer
from date.training.run import train

EXAMPLE = ROOT / "examples" / "after-date"
STOP, FALL, BOTH = (f"date_f_{name}-r50-coco-12e" for name in ("stop", "fall", "stop_fall"))
WEIGHTS = torch.linspace(0.8, 0.1, 12).tolist()


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(EXAMPLE))
        yield


def built(training: str) -> Any:
    init_default_scope("mmdet")
    entry = load().training(training)
    import_modules(entry.modules)
    torch.manual_seed(0)
    model = MODELS.build(resolve(entry, load_tier("smoke"), 0, Path())["model"])
    model.init_weights()
    return model.train()


def losses(model: Any) -> dict[str, Tensor]:
    """Return the losses of a batch of noise with one object an image."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    torch.manual_seed(1)
    meta = dict(
        img_shape=(64, 64), pad_shape=(64, 64), ori_shape=(64, 64), batch_input_shape=(64, 64), scale_factor=(1, 1)
    )
    samples = [DetDataSample(metainfo=meta) for _ in range(2)]
    for sample in samples:
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 30.0]]), labels=torch.tensor([0]))
    return model.loss(torch.randn(2, 3, 64, 64), samples)


@pytest.mark.parametrize("training", ["date_f-r50-coco-12e", STOP])
def test_the_one_to_one_branch_trains_the_towers_or_does_not(training: str) -> None:
    model = built(training)
    sum(value for name, value in losses(model).items() if name.startswith("o2o.")).backward()
    towers = [*model.bbox_head.cls_convs.parameters(), *model.bbox_head.reg_convs.parameters()]
    below = [*model.neck.parameters(), *(p for p in model.backbone.parameters() if p.requires_grad)]
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in [*towers, *below]]
    assert all(p.grad is not None for p in model.bbox_head.predictors[0].parameters())
    assert any(reached) == (training != STOP)


def test_the_one_to_many_branch_trains_the_towers_of_the_stopped_network_too() -> None:
    model = built(STOP)
    sum(value for name, value in losses(model).items() if name.startswith("o2m.")).backward()
    assert all(p.grad is not None for p in model.bbox_head.cls_convs.parameters())


def test_outputs_and_first_losses_are_dates_but_for_the_weight() -> None:
    """The ideas change gradients and weights alone: with the same parameters the networks say the same."""
    date, stop, fall = (built(name) for name in ("date_f-r50-coco-12e", STOP, FALL))
    expected, stopped, falling = losses(date), losses(stop), losses(fall)
    assert expected.keys() == stopped.keys() == falling.keys()
    for name, value in expected.items():
        assert torch.equal(stopped[name], value)
        assert torch.equal(falling[name], value * 0.8 if name.startswith("o2m.") else value)


def test_the_weight_falls_from_the_first_to_the_last_step() -> None:
    model = built(FALL)
    assert model.bbox_head.steps == 12
    plain = losses(built("date_f-r50-coco-12e"))["o2m.loss_cls"].item()
    found = [losses(model)["o2m.loss_cls"].item() / plain for _ in range(12)]
    assert found == pytest.approx(WEIGHTS, rel=1e-5)
    assert int(model.bbox_head.steps_done) == 12
    assert losses(model)["o2m.loss_cls"].item() / plain == pytest.approx(0.1), "never below the last"


def test_a_batch_in_passes_is_refused() -> None:
    model = built(FALL)
    with torch.no_grad(), pytest.raises(UserError, match="needs whole batches; leave --images-per-pass out"):
        losses(model)
    model.eval()
    with torch.no_grad():
        losses(model)
    assert int(model.bbox_head.steps_done) == 0


def test_a_weight_that_falls_resumes_exactly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, tier = load().training(BOTH), load_tier("smoke")
    undisturbed = train(entry, tier, 0, folder / "undisturbed", 1)
    original, done = Trainer._step, []

    def interrupted(trainer: Trainer, step: int) -> None:
        original(trainer, step)
        if step == 7 and not done:
            done.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(Interrupted):
        train(entry, tier, 0, folder / "resumed", 1)
    resumed = train(entry, tier, 0, folder / "resumed", 1)
    assert done and len(json.loads((resumed / "provenance.json").read_text())["segments"]) == 2
    assert (resumed / "final.safetensors").read_bytes() == (undisturbed / "final.safetensors").read_bytes()
    assert resumed.name == undisturbed.name


def test_from_training_to_the_table_and_the_claims(folder: Path) -> None:
    """DATE-F and the three ideas at smoke, beside a OneNet that nobody trained."""
    tier, results = load_tier("smoke"), folder / "results"
    for name in ("date_f-r50-coco-12e", STOP, FALL, BOTH):
        run = train(load().training(name), tier, 0, folder / "undisturbed", 1)
        place = results / "smoke" / name / "seed0"
        export_run(run, place)
        write_evaluation(*evaluate(run, threads=1), place)
        provenance = json.loads((place / "provenance.json").read_text())
        assert list(provenance.get("modules", {})) == ([] if name.startswith("date_f-") else ["after_date"])
    page = write_report("smoke", results, folder / "reports").read_text()
    table = (folder / "reports" / "smoke" / "tables" / "after_date.md").read_text()
    assert "> **Own experiments of examples/after-date, not of the paper.**" in table
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if line[0] in ("OneNet", "DATE-F")]
    assert [row[0] for row in rows] == ["OneNet", *["DATE-F"] * 4]
    assert [row[4] for row in rows] == ["\N{EM DASH}", "1", "1", "1", "1"], "seeds"
    assert [row[5] for row in rows] == ["35.4", "**37.3**", *["\N{EM DASH}"] * 3], (
        "the paper's numbers, of its networks"
    )
    claims = (folder / "reports" / "smoke" / "claims.md").read_text()
    paper, own = claims.split("# Own claims")
    assert "stopped_gradient_helps" in own and "stopped_gradient_helps" not in paper
    assert own.count("**UNRESOLVED**") == 2 and own.count("**MISSING**") == 1
    assert '<h2 id="own-claims">Own claims</h2>' in page and "34 comparative sentences of the paper" in page
    assert (folder / "reports" / "smoke" / "tables" / "table01.md").read_text().count("not of the paper") == 0


@pytest.mark.slow
def test_the_page_has_what_the_committed_results_give(tmp_path: Path) -> None:
    for place in (ROOT / "reports" / "mini", EXAMPLE):
        with tarfile.open(place / "results.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
    settings = load_settings(json.loads((EXAMPLE / "settings.json").read_text()))
    write_report("mini", tmp_path / "results", tmp_path, settings=settings)
    page = (EXAMPLE / "README.md").read_text()
    lines = (tmp_path / "mini" / "tables" / "after_date.md").read_text().splitlines()
    assert "\n".join(line for line in lines if line.startswith("|")) in page, "put the table in"
    own = (tmp_path / "mini" / "claims.md").read_text().split("# Own claims")[1].splitlines()
    verdicts = [line for line in own if line.startswith(("- SUPPORTED: ", "- CONTRADICTED: ", "- UNRESOLVED: "))]
    assert len(verdicts) == 3 and all(line in page for line in verdicts), "put the verdicts in"
    for name in (STOP, FALL, BOTH):
        for seed in settings.seeds:
            provenance = json.loads(
                (tmp_path / "results" / "mini" / name / f"seed{seed}" / "provenance.json").read_text()
            )
            config = resolve(load().training(name), load_tier("mini"), seed, None)
            assert provenance["config_sha256"] == config_digest(config), "the results are of earlier settings"
