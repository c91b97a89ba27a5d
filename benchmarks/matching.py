"""Time the exact matcher against SciPy on the full matrix, on qualities like those of a training step.

    python -m benchmarks.matching
    python -m benchmarks.matching --objects 20 100 --repeats 31 --json matching.json
    python -m benchmarks.matching --device cuda
    git show REVISION:date/models/matching.py > before.py; python -m benchmarks.matching --against before.py

Both matchers get the same tensor and give the same sum (checked). SciPy's time is that of ``linear_sum_assignment``
with the move to NumPy included (no copy on the CPU). Two storage layouts of the ``(N points, G objects)`` matrix are
timed, ``NG`` (row-major, as elementwise torch code over points leaves it) and ``GN`` (a transposed view); the ratio
against SciPy's better layout is given too.

Qualities:

- ``POTO``: score^0.2 * IoU^0.8 within 1.5 strides of the box centre and inside the box, 0 elsewhere;
- ``Hungarian``: minus the OneNet cost, 2 * focal + 5 * L1 (normalised cxcywh) - 2 * GIoU, dense.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from date.models.matching import match

HEIGHT, WIDTH = 800, 1344
STRIDES = (8, 16, 32, 64, 128)


def make_points() -> tuple[Tensor, Tensor]:
    """Return the FPN's points for a padded 800 x 1344 image, ``(22400, 2)`` in pixels, and their strides."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(math.ceil(HEIGHT / stride)), torch.arange(math.ceil(WIDTH / stride)), indexing="ij"
        )
        points.append((torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(points), torch.cat(strides)


def make_boxes(num_objects: int, scene: str, generator: torch.Generator) -> Tensor:
    """Return ``(G, 4)`` xyxy boxes in pixels: ``spread`` over the image, or ``clustered`` in crowds of about 25.

    The crowds are dense: nine pairs of boxes with IoU above 0.5 for every 23 objects.
    """
    size = 16 * 2 ** (4.5 * torch.rand(num_objects, 1, generator=generator))
    aspect = 2 ** torch.randn(num_objects, 1, generator=generator).mul(0.5)
    image = torch.tensor([WIDTH, HEIGHT])
    centre = torch.rand(num_objects, 2, generator=generator) * image
    if scene == "clustered":
        crowds = math.ceil(num_objects / 25)
        crowd = torch.arange(num_objects) % crowds
        height = 48 + 100 * torch.rand(crowds, 1, generator=generator)
        size = height[crowd] * 2 ** torch.randn(num_objects, 1, generator=generator).mul(0.2)
        aspect = torch.full_like(aspect, 0.6)
        middle = (0.15 + 0.7 * torch.rand(crowds, 2, generator=generator)) * image
        centre = middle[crowd] + height[crowd] * torch.randn(num_objects, 2, generator=generator).mul(0.8)
    half = torch.cat([size * aspect.sqrt(), size / aspect.sqrt()], dim=1) / 2
    low, high = centre - half, centre + half
    return torch.cat([low.minimum(image - 8).clamp(min=0), high.minimum(image).clamp(min=8)], dim=1)


def predict_boxes(points: Tensor, strides: Tensor, gt_bboxes: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``(N, 4)`` boxes as a half-trained FCOS gives them: a noisy copy of the smallest object at the point."""
    ltrb = torch.cat([points[:, None] - gt_bboxes[:, :2], gt_bboxes[:, 2:] - points[:, None]], dim=-1)
    area = (gt_bboxes[:, 2:] - gt_bboxes[:, :2]).prod(dim=1)
    inside = ltrb.amin(dim=-1) > 0
    smallest = torch.where(inside, area, torch.inf).argmin(dim=1)
    target = torch.where(
        inside.any(dim=1)[:, None], ltrb[torch.arange(len(points)), smallest], 4 * strides[:, None].expand(-1, 4)
    )
    target = target * 2 ** torch.randn(target.shape, generator=generator).mul(0.3)
    return torch.cat([points - target[:, :2], points + target[:, 2:]], dim=1)


def box_overlaps(boxes: Tensor, gt_bboxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ``(N, G)`` IoU and GIoU of xyxy boxes."""
    size, gt_size = boxes[:, 2:] - boxes[:, :2], gt_bboxes[:, 2:] - gt_bboxes[:, :2]
    low, high = boxes[:, None, :2].maximum(gt_bboxes[:, :2]), boxes[:, None, 2:].minimum(gt_bboxes[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=-1)
    union = size.prod(dim=-1)[:, None] + gt_size.prod(dim=-1) - overlap
    hull_low, hull_high = boxes[:, None, :2].minimum(gt_bboxes[:, :2]), boxes[:, None, 2:].maximum(gt_bboxes[:, 2:])
    hull = (hull_high - hull_low).prod(dim=-1)
    return overlap / union, overlap / union - (hull - union) / hull


def make_quality(kind: str, scene: str, num_points: int, num_objects: int, seed: int) -> Tensor:
    """Return a ``(N, G)`` float32 quality of the given kind and scene."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = (part[:num_points] for part in make_points())
    gt_bboxes = make_boxes(num_objects, scene, generator)
    boxes = predict_boxes(points, strides, gt_bboxes, generator)
    iou, giou = box_overlaps(boxes, gt_bboxes)
    # The classes of spread scenes differ as in COCO; crowds hold one class, as in CrowdHuman.
    classes = 80 if scene == "spread" else 1
    logits = torch.randn(len(points), classes, generator=generator) * 1.5 - 3
    score = logits.sigmoid()[:, torch.randint(classes, (num_objects,), generator=generator)]
    if kind == "POTO":
        centre = (gt_bboxes[:, :2] + gt_bboxes[:, 2:]) / 2
        near = (points[:, None] - centre).abs().amax(dim=-1) < 1.5 * strides[:, None]
        inside = ((points[:, None] > gt_bboxes[:, :2]) & (points[:, None] < gt_bboxes[:, 2:])).all(dim=-1)
        return score**0.2 * iou**0.8 * (near & inside)
    positive = -0.25 * (1 - score) ** 2 * (score + 1e-12).log()
    negative = -0.75 * score**2 * (1 - score + 1e-12).log()
    return -(2 * (positive - negative) + 5 * _l1(boxes, gt_bboxes) - 2 * giou)


def _l1(boxes: Tensor, gt_bboxes: Tensor) -> Tensor:
    """Return the ``(N, G)`` L1 distance of the boxes as cxcywh, normalised by the image size."""
    image = torch.tensor([WIDTH, HEIGHT])
    cxcywh = [
        torch.cat([(b[:, :2] + b[:, 2:]) / 2 / image, (b[:, 2:] - b[:, :2]) / image], 1) for b in (boxes, gt_bboxes)
    ]
    return torch.cdist(cxcywh[0], cxcywh[1], p=1)


def scipy_match(quality: Tensor) -> Tensor:
    """Match by SciPy on the full matrix, as the official code does; the result is on quality's device."""
    points, objects = linear_sum_assignment(quality.cpu().numpy(), maximize=True)
    matched = torch.full((quality.shape[1],), -1)
    matched[torch.from_numpy(objects)] = torch.from_numpy(points)
    return matched.to(quality.device)


def least_ms(function: Callable[[Tensor], Tensor], quality: Tensor, repeats: int) -> float:
    """Return the shortest time of a matcher in milliseconds, after one warm-up call.

    On the CPU it is processor time; of that, other programs disturb the shortest least. On a GPU it is wall time.
    """
    function(quality)
    times = []
    clock = time.perf_counter if quality.is_cuda else time.process_time
    for _ in range(repeats):
        if quality.is_cuda:
            torch.cuda.synchronize()
        start = clock()
        function(quality)
        if quality.is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - start)
    return 1e3 * min(times)


def load_matcher(path: Path) -> Callable[[Tensor], Tensor]:
    """Return ``match`` of another version of `date/models/matching.py`."""
    spec = importlib.util.spec_from_file_location("matching_before", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.match


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per kind, scene and number of objects; times are means over seeds."""
    rows = []
    before = load_matcher(args.against) if args.against else None
    cases = [(k, s, g) for k in ("POTO", "Hungarian") for s in ("spread", "clustered") for g in args.objects]
    for kind, scene, num_objects in cases:
        times: dict[str, list[float]] = {}
        contested = []
        for seed in range(args.seeds):
            row_major = make_quality(kind, scene, args.points, num_objects, seed).contiguous().to(args.device)
            contested.append(num_objects - len(row_major.argmax(dim=0).unique()))
            for layout, quality in {"NG": row_major, "GN": row_major.T.contiguous().T}.items():
                ours, theirs = (quality.double().gather(0, f(quality)[None]).sum() for f in (match, scipy_match))
                torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
                times.setdefault(f"match_{layout}", []).append(least_ms(match, quality, args.repeats))
                if before is not None:
                    torch.testing.assert_close(quality.double().gather(0, before(quality)[None]).sum(), theirs)
                    times.setdefault(f"before_{layout}", []).append(least_ms(before, quality, args.repeats))
                slow_repeats = max(3, args.repeats // 5)
                times.setdefault(f"scipy_{layout}", []).append(least_ms(scipy_match, quality, slow_repeats))
        ms = {name: statistics.mean(values) for name, values in times.items()}
        best_scipy = min(ms["scipy_NG"], ms["scipy_GN"])
        rows.append(
            {"kind": kind, "scene": scene, "objects": num_objects, "collisions": statistics.mean(contested)}
            | {f"{name}_ms": value for name, value in ms.items()}
            | {f"ratio_{layout}": ms[f"scipy_{layout}"] / ms[f"match_{layout}"] for layout in ("NG", "GN")}
            | {f"ratio_{layout}_to_best_scipy": best_scipy / ms[f"match_{layout}"] for layout in ("NG", "GN")}
        )
        print(_format(rows[-1]), flush=True)
    return rows


HEADER = """\
| kind | scene | G | collisions | SciPy NG ms | match NG ms | ratio | SciPy GN ms | match GN ms | ratio | GN / best |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def _format(row: dict[str, Any]) -> str:
    """Return a Markdown table row."""
    return (
        f"| {row['kind']} | {row['scene']} | {row['objects']} | {row['collisions']:.1f} "
        f"| {row['scipy_NG_ms']:.2f} | {row['match_NG_ms']:.3f} | {row['ratio_NG']:.1f} "
        f"| {row['scipy_GN_ms']:.2f} | {row['match_GN_ms']:.3f} | {row['ratio_GN']:.1f} "
        f"| {row['ratio_GN_to_best_scipy']:.1f} |"
        + (
            f" {row['before_GN_ms']:.3f} | {row['scipy_GN_ms'] / row['before_GN_ms']:.1f} |"
            if "before_GN_ms" in row
            else ""
        )
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=22400, help="use the first so many of the 22,400 points")
    parser.add_argument("--objects", type=int, nargs="+", default=[7, 20, 50, 100, 200, 400])
    parser.add_argument(
        "--repeats", type=int, default=15, help="calls of match() per case; SciPy takes a fifth of them"
    )
    parser.add_argument("--seeds", type=int, default=3, help="random images per case")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; NumPy and SciPy use one here")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--against", type=Path, metavar="FILE", help="another version of matching.py, timed in turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and the setting as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    first, second = HEADER.split("\n")
    more = (" match GN ms before | ratio before |", "--:|--:|") if args.against else ("", "")
    print(first + more[0], second + more[1], sep="\n", flush=True)
    rows = measure(args)
    if args.json:
        setting = {key: value for key, value in vars(args).items() if key not in {"json", "against"}}
        setting |= {"torch": torch.__version__, "scipy": scipy.__version__, "numpy": np.__version__}
        args.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
