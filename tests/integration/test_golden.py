"""The first steps of representative trainings give the committed losses: no change of the method goes unnoticed.

Renew them after a deliberate change with ``python -m tests.integration.test_golden`` and say why in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

import date.models
import date.training.components  # noqa: F401 - both register what the configs name
from date.catalogue import ROOT, load, load_dataset, load_tier
from date.config import resolve
from date.data.coco import prepare

GOLDEN = ROOT / "tests" / "golden" / "losses.json"
STEPS = 4
TRAININGS = (
    "retinanet-r50-coco-12e",
    "fcos-r50-coco-12e",
    "onenet-r50-coco-12e",
    "date_r-r50-coco-12e",
    "date_f_3dmf-r50-coco-36e",
    "defcn-r50-coco-1x",
)


def platform() -> str:
    """What decides the last bits: PyTorch's version and the instructions that its CPU kernels use."""
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def losses(name: str, root: Path) -> list[dict[str, float]]:
    """Return every loss of a smoke training's first steps, at full precision, on one thread."""
    tier = load_tier("smoke")
    prepare(load_dataset(tier.datasets["coco"]), root)
    init_default_scope("mmdet")
    config = Config(resolve(load().training(name), tier, 0, root))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        set_random_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        model.train()
        optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
        for group in optim_wrapper.param_groups:
            group["lr"] *= 0.1  # there are no schedulers here, hence no warm-up
        batches = iter(Runner.build_dataloader(config.train_dataloader))
        steps = [model.train_step(next(batches), optim_wrapper) for _ in range(STEPS)]
    finally:
        torch.set_num_threads(threads)
    return [{k: v.item() for k, v in step.items()} for step in steps]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_first_losses(name: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    mine, expected = losses(name, tmp_path), golden["losses"][name]
    if platform() == golden["platform"]:
        assert mine == expected
    else:
        for step, reference in zip(mine, expected, strict=True):
            assert step == pytest.approx(reference, rel=1e-3)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = {"platform": platform(), "losses": {name: losses(name, Path(folder)) for name in TRAININGS}}
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n")
