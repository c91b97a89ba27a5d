"""Steps and evaluations of networks at the paper's size on the stand-in: ``python -m tests.cuda.measure CASES``.

CASES is a JSON list of objects: ``training``, ``batch``, ``compute`` (fields of `date.catalogue.Compute`), ``size``
(height and width), ``positives`` (of counts read from the device), ``evaluate`` (also judge a batch). One JSON object is printed for each, on a line: the peak of the
memory in MiB, and for a step's parts and altogether launches, convolutions, copies and waits.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.cuda.standin import Watch

WATCH = Watch()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from torch import nn  # noqa: E402

import date.models  # noqa: E402
import date.training.components  # noqa: E402, F401 - both register what configs name
from date.catalogue import Compute, load, load_tier  # noqa: E402
from date.identity.config import resolve  # noqa: E402
from date.models import matching  # noqa: E402
from date.planning.calibration import _prepared, random_batch  # noqa: E402
from date.training.network import build_network, build_optimizer, set_precision, total_loss  # noqa: E402
from date.training.processes import Processes  # noqa: E402
from date.training.recorder import Recorder  # noqa: E402

OBJECTS = {"coco": 7, "crowdhuman": 23}
"""Mean number of objects in an image."""
POSITIVES = 1000
"""What counts read from the device are said to be, e.g. the positives of FCOS's assignment."""
MIB = 2**20


class _Answer:
    """A matching that the host has solved: object g gets point g."""

    finite = True

    def __init__(self, objects: int) -> None:
        self.objects = objects

    def solve(self) -> Any:
        return np.arange(self.objects)


def answer_matching() -> None:
    """Let matching do all it does on the device and with it, and answer with points of its own."""
    fetch = matching._fetch

    def answered(qualities: Any) -> Any:
        fetch(qualities)
        return [_Answer(quality.shape[1]) for quality in qualities]

    matching._fetch = answered


def without_drawing() -> None:
    """Leave weights as they are allocated: drawing 30 million numbers on the CPU takes longer than all the rest."""
    for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_"):
        setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def build(case: dict[str, Any], device: torch.device) -> tuple[Config, Any, Any, Any]:
    """Return config, network, optimiser and clipping of a case."""
    training = load().training(case["training"])
    config = Config(resolve(training, load_tier("paper"), 0, Path("/data")))
    config.model.backbone.pop("init_cfg", None)
    config.compute = Compute(**case.get("compute", {})).model_dump()
    torch.use_deterministic_algorithms(False)
    set_precision(config.compute)
    model = build_network(config, device)
    return config, model, *build_optimizer(config, model)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Return what a step, and an evaluation, of a case take."""
    device = torch.device("cuda", 0)
    config, model, optimizer, clip = build(case, device)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    part = "crowdhuman" if "crowdhuman" in case["training"] else "coco"
    height, width = case.get("size", (800, 1333))
    batch = random_batch(height, width, case["batch"], model.bbox_head.num_classes, OBJECTS[part])
    batch["inputs"] = [image.pin_memory() for image in batch["inputs"]]
    recorder = Recorder(Path("unused"), 50, 1000, 100, Processes(0, 1, device))
    recorder.begin()
    marks: list[tuple[str, dict[str, int]]] = []

    def step() -> None:
        marks.append(("", WATCH.counts()))
        data = _prepared(model, config, batch, training=True)
        marks.append(("preprocessing", WATCH.counts()))
        total, losses = total_loss(model(**data, mode="loss"))
        marks.append(("forward and losses", WATCH.counts()))
        total.backward()
        marks.append(("backward", WATCH.counts()))
        if clip is not None:
            losses["grad_norm"] = nn.utils.clip_grad_norm_(trained, **clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recorder.add(1, 0.01, losses, [])
        marks.append(("update and record", WATCH.counts()))

    WATCH.set_count(case.get("positives", POSITIVES))
    step()  # which makes points, anchors and the optimiser's state
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    marks.clear()
    resting = torch.cuda.memory_allocated() // MIB
    step()
    parts = {name: {k: after[k] - before[k] for k in after} for (_, before), (name, after) in itertools.pairwise(marks)}
    found = {
        "resting_mib": resting,
        "memory_mib": torch.cuda.max_memory_allocated() // MIB,
        "step": marks[-1][1],
        "parts": parts,
    }
    found["step"] = {k: marks[-1][1][k] - marks[0][1][k] for k in marks[0][1]}
    if case.get("evaluate"):
        found["evaluation_mib"] = judge(model, config, batch)
    return found


def judge(model: Any, config: Any, batch: dict[str, Any]) -> int:
    """Judge a batch and return the peak of the memory in MiB."""
    WATCH.set_count(0)  # no candidates: what follows them is done on the few that there are
    torch.cuda.reset_peak_memory_stats()
    model.eval()
    with torch.no_grad():
        model(**_prepared(model, config, batch, training=False), mode="predict")
    return torch.cuda.max_memory_allocated() // MIB


def main() -> None:
    """Measure the cases of the command line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    MMLogger.get_instance("mmengine", log_level="ERROR")
    init_default_scope("mmdet")
    answer_matching()
    without_drawing()
    for case in json.loads(sys.argv[1]):
        print(json.dumps(case | measure(case)), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
