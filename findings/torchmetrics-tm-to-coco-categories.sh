#!/bin/sh
# torchmetrics 1.9.0: MeanAveragePrecision.tm_to_coco writes ground truth that lists only the category 0, whatever the
# labels are, so that COCO's own tools find no object in it.
#
# Two objects with the labels 1 and 2, both found exactly:
#
#     the metric itself                          map 1.0
#     written_target.json                        categories [0], category_id of the annotations [1, 2]
#     pycocotools 2.0.11 on the files written    AP -1.0, "no object"
#
# No warning names it. Work-around: write the list of categories into the file anew.
# Seen on x86-64 Linux, Python 3.11, 2026-12-01. Exits with a status other than 0 if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --only-binary :all: \
    torch==2.14.1 torchvision==0.29.1 torchmetrics==1.9.0 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PROGRAM'
import contextlib
import io
import json

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

boxes, labels = torch.tensor([[10.0, 10, 60, 60], [100, 100, 180, 150]]), torch.tensor([1, 2])
metric = MeanAveragePrecision()
metric.update(
    [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": labels}], [{"boxes": boxes, "labels": labels}]
)
own = float(metric.compute()["map"])
metric.tm_to_coco("written")
with open("written_target.json") as stream:
    target = json.load(stream)
listed = [category["id"] for category in target["categories"]]
used = [annotation["category_id"] for annotation in target["annotations"]]
with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO("written_target.json")
    evaluator = COCOeval(truth, truth.loadRes("written_preds.json"), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
print(f"the metric: map {own}; categories {listed}, annotations of {used}; pycocotools: AP {evaluator.stats[0]}")
assert (own, listed, used, float(evaluator.stats[0])) == (1.0, [0], [1, 2], -1.0)
PROGRAM
