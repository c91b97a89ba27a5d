#!/bin/sh
# hotcoco 1.3.0 (against pycocotools 2.0.11): of two equal area ranges only the last one is evaluated.
#
# COCOeval.params.areaRng may hold the same range twice, e.g. where the threshold between "small" and "medium" is 0 and
# that between "medium" and "large" is the end of "all". One object, found exactly:
#
#     pycocotools  all 1.0  medium (equal to all) 1.0
#     hotcoco      all -1.0  medium (equal to all) 1.0
#
# No warning names it: the headline AP is -1, "no object in the range". Work-around: evaluate each different range once.
# Exits with a status other than 0 if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --only-binary :all: hotcoco==1.3.0 pycocotools==2.0.11 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PROGRAM'
import contextlib
import importlib
import io

RANGES = [[0, 1e10], [0, 0], [0, 1e10], [1e10, 1e10]]
found = {}
for name in ("pycocotools", "hotcoco"):
    coco = importlib.import_module("pycocotools.coco" if name == "pycocotools" else "hotcoco").COCO
    evaluator_class = importlib.import_module("pycocotools.cocoeval" if name == "pycocotools" else "hotcoco").COCOeval
    box = {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = {
            "images": [{"id": 1, "width": 20, "height": 20}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [box | {"id": 1, "area": 100.0, "iscrowd": 0}],
        }
        truth.createIndex()
        evaluator = evaluator_class(truth, truth.loadRes([box | {"score": 0.5}]), "bbox")
        evaluator.params.areaRng = RANGES
        evaluator.evaluate()
        evaluator.accumulate()
    recall = evaluator.eval["recall"][0, 0, :, -1]
    found[name] = (float(recall[0]), float(recall[2]))
    print(f"{name}: all {recall[0]}, medium, equal to all, {recall[2]}")
assert found == {"pycocotools": (1.0, 1.0), "hotcoco": (-1.0, 1.0)}, found
PROGRAM
