"""Every option of precision and speed trains, is recorded, and makes another run; none of them changes the method."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.utils

from date.catalogue import load, load_tier
from date.errors import UserError
from date.training.run import train

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp64": {"precision": "fp64"},
    "channels last": {"channels_last": True},
    "fused optimiser": {"fused_optimizer": True},
    "deterministic": {"deterministic": True},
    "bf16 with all of it": {
        "precision": "bf16", "channels_last": True, "fused_optimizer": True, "deterministic": True, "compile": True,
    },
}  # fmt: skip


def go(folder: Path, name: str, training: str = "date_f-r50-coco-12e") -> Path:
    tier = folder / "tier.yaml"
    tier.write_text(f"extends: smoke\ncompute: {json.dumps(OPTIONS[name])}\n")
    try:
        return train(load().training(training), load_tier(str(tier)), 0, folder / "runs", 1)
    finally:
        torch.use_deterministic_algorithms(False)


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == "train"]


@pytest.fixture(scope="module")
def default(folder: Path) -> list[float]:
    return losses(go(folder, "default"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "default"])
def test_an_option_trains(name: str, folder: Path, default: list[float]) -> None:
    if OPTIONS[name].get("compile") and shutil.which("g++") is None:
        pytest.skip("compiling for the CPU needs g++, which is not here")
    run = go(folder, name)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["compute"] == load_tier("smoke").compute.model_dump() | OPTIONS[name]
    assert provenance["precision"] == OPTIONS[name].get("precision", "fp32")
    mine = losses(run)
    # Before the first update the network is the same, to the precision that it is computed in.
    precise = OPTIONS[name].get("precision") != "bf16"
    assert mine[0] == pytest.approx(default[0], rel=1e-5 if precise else 2e-2)
    if name != "channels last":  # that layout has kernels of its own, which round otherwise
        assert (mine[0] == default[0]) == (precise and name != "fp64")
    if OPTIONS[name].get("compile"):
        assert graphs > 0
    assert mine[-1] < 0.9 * mine[0], "it learns"


@pytest.mark.slow
def test_baselines_train_in_bfloat16(folder: Path) -> None:
    for training in ("fcos-r50-coco-12e", "retinanet-r50-coco-12e", "date_f_3dmf-r50-coco-12e"):
        mine = losses(go(folder, "bf16", training))
        assert mine[-1] < mine[0]


def test_every_option_is_another_run(folder: Path) -> None:
    from date.identity.digests import run_digest

    digests = set()
    for options in OPTIONS.values():
        (folder / "tier.yaml").write_text(f"extends: smoke\ncompute: {json.dumps(options)}\n")
        digests.add(run_digest(load().training("date_f-r50-coco-12e"), load_tier(str(folder / "tier.yaml")), 0, ""))
    assert len(digests) == len(OPTIONS)
    (folder / "tier.yaml").write_text("extends: smoke\nworkers: 3\n")
    assert run_digest(load().training("date_f-r50-coco-12e"), load_tier(str(folder / "tier.yaml")), 0, "") in digests


def test_compiling_without_a_compiler_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler.*set 'compile: false' in the tier's 'compute'"):
        go(folder, "bf16 with all of it", "onenet-r50-coco-12e")


def test_so_it_is_for_a_gpu_before_it_is_touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"for a GPU needs a C compiler \(CC names no-such-compiler\); install gcc"):
        go(folder, "bf16 with all of it", "onenet-r50-coco-12e")
