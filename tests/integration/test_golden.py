"""The first steps of representative trainings give the committed losses: no change of the method goes unnoticed.

Renew them after a deliberate change with ``python -m tests.integration.test_golden`` and say why in the commit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from date.catalogue import ROOT, load, load_tier
from date.results import METRICS, read_metrics
from date.training.run import train
from tests.support.alone import alone

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
    """What decides the last bits: PyTorch's version, and the processor, by which its kernels are chosen."""
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "cache size")
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    facts = dict(map(str.strip, line.split(":", 1)) for line in lines)
    processor = "; ".join(facts.get(key, "") for key in wanted)
    return f"torch {torch.__version__}, processor {hashlib.sha256(processor.encode()).hexdigest()[:16]}"


def losses(name: str, folder: Path) -> list[dict[str, float]]:
    """Return every loss of a smoke training's first steps, at full precision, on one thread."""
    with alone(folder / "data"):
        run = train(load().training(name), load_tier("smoke"), 0, folder / "runs", threads=1)
    records = [record for record in read_metrics(run / METRICS) if record["kind"] == "train"][:STEPS]
    return [{k: v for k, v in record.items() if "loss" in k or k == "grad_norm"} for record in records]


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
