"""CrowdHuman's protocol word for word in plain loops: slow, without arrays, for comparison with the real one."""

from __future__ import annotations

import math
from typing import Any

REFERENCES = [0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.000]


def clip(box: list[float], size: tuple[float, float] | None) -> list[float]:
    x1, y1, x2, y2 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if size is None:
        return [x1, y1, x2, y2]
    width, height = size
    return [
        min(max(x1, 0), width - 1),
        min(max(y1, 0), height - 1),
        max(min(x2, width), 0),
        max(min(y2, height), 0),
    ]


def area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(box: list[float], other: list[float]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0, width) * max(0, height)


def judge_image(
    objects: list[tuple[list[float], bool]], found: list[tuple[list[float], float]]
) -> list[tuple[float, bool]]:
    """Objects are (corners, ignored), detections (corners, score); returns (score, found an object) of those that count."""
    detections = sorted(found, key=lambda d: d[1], reverse=True)  # stable, also in reverse
    ordered = sorted(objects, key=lambda o: o[1])  # valid ones first
    taken = [False] * len(ordered)
    result = []
    for box, score in detections:
        best, best_overlap = -1, 0.5
        for j, (other, ignored) in enumerate(ordered):
            if taken[j]:
                continue
            shared = overlap(box, other)
            if not ignored:
                iou = shared / (area(box) + area(other) - shared + 1e-6)
                if iou > best_overlap:
                    best, best_overlap = j, iou
            elif best >= 0:
                break
            elif shared / (area(box) + 1e-6) > 0.5:
                best = j
                break
        if best < 0:
            result.append((score, False))
        elif not ordered[best][1]:
            taken[best] = True
            result.append((score, True))
    return result


def literal_metrics(images: list[dict[str, Any]]) -> dict[str, float | None]:
    """Each image is {size, objects: [(x, y, width, height box, ignored)], found: [(box, score)]}; results in percent."""
    pooled: list[tuple[float, bool]] = []
    valid = 0
    for image in images:
        objects = [(clip(box, image["size"]), ignored) for box, ignored in image["objects"]]
        found = [(clip(box, image["size"]), score) for box, score in image["found"]]
        valid += sum(not ignored for _, ignored in objects)
        pooled += judge_image(objects, found)
    if valid == 0:
        return {"AP": None, "mMR": None, "Recall": None}
    pooled.sort(key=lambda p: p[0], reverse=True)
    recalls, precisions, fppis = [], [], []
    true = false = 0
    for _, hit in pooled:
        true, false = true + hit, false + (not hit)
        recalls.append(true / valid)
        precisions.append(true / (true + false))
        fppis.append(false / len(images))
    if not pooled:
        return {"AP": 0.0, "mMR": 100.0, "Recall": 0.0}
    ap = 0.0
    for i in range(1, len(pooled)):
        ap += (recalls[i] - recalls[i - 1]) * (precisions[i] + precisions[i - 1]) / 2
    logs = []
    for reference in REFERENCES:
        place = len(pooled) - 1
        for i, fppi in enumerate(fppis):
            if fppi >= reference:
                place = i
                break
        miss_rate = 1 - recalls[place]
        logs.append(math.log(miss_rate) if miss_rate > 0 else -math.inf)
    return {"AP": 100 * ap, "mMR": 100 * math.exp(sum(logs) / len(logs)), "Recall": 100 * recalls[-1]}
