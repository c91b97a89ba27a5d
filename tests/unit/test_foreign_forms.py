"""The table of docs/formats.md: what other tools write, fed in, and what comes of it. The test writes the inputs itself.

``python -m tests.unit.test_foreign_forms`` writes the page anew.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import ROOT, Dataset, DatasetSplit
from date.datasets.normal import INFO
from date.datasets.prepare import examine
from date.datasets.protocols import protocol_notes
from date.errors import UserError
from date.evaluation.detections import READ
from date.evaluation.ground_truth import read_ground_truth
from date.evaluation.score import score
from date.imports.logs import read_training_log

PAGE = ROOT / "docs" / "formats.md"


@dataclass(frozen=True)
class Form:
    """What a tool writes."""

    tool: str
    writes: str
    make: Callable[[Path], Any]
    """Writes into a folder, or returns content of a file, or a change of plain annotations."""
    version: str = ""
    """Of the tool, whose output or source was looked at; none where there is no numbered one at hand."""


# ------------------------------------------------------------------------------------------------- annotations


def plain(first: int = 1) -> dict[str, Any]:
    """COCO annotations of two images with a box each."""
    images = [{"id": first + i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(2)]
    objects = [
        {"id": first + i, "image_id": first + i, "category_id": first + i, "bbox": [4.0, 5.0, 20.0, 30.0], "area": 600.0, "iscrowd": 0, "segmentation": []}
        for i in range(2)
    ]  # fmt: skip
    return {"info": {}, "licenses": [], "images": images, "annotations": objects, "categories": [{"id": first + i, "name": n} for i, n in enumerate(("cat", "dog"))]}  # fmt: skip


def changed(first: int = 1, **each: Any) -> Callable[[Path], dict[str, Any]]:
    """Annotations whose records of a kind have further or other keys; a function is given the record."""

    def make(folder: Path) -> dict[str, Any]:
        data = plain(first)
        for key, change in each.items():
            for record in data[key]:
                record |= change(record, folder) if callable(change) else change
                for name in [name for name, value in record.items() if value is ...]:
                    del record[name]
        return data

    return make


def with_images(change: Callable[[dict[str, Any], Path], dict[str, Any]], **each: Any) -> Callable[[Path], Any]:
    """Annotations whose images have other names, and lie where these say."""

    def make(folder: Path) -> dict[str, Any]:
        data = changed(images=change, **each)(folder)
        for record in data["images"]:
            name = record.get("file_name") or record["coco_url"].partition("org/")[2]
            (folder / "toy" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "toy" / "images" / name).write_bytes(b"x")
        return data

    return make


def many_boxes(box: Callable[[int], list[float]]) -> Callable[[Path], dict[str, Any]]:
    """Annotations of a dozen boxes in an image of 64 x 48 px."""
    first, second = plain()["annotations"]
    return lambda folder: (
        plain() | {"annotations": [first | {"id": k, "bbox": box(k)} for k in range(11)] + [second | {"id": 11}]}
    )


def content(value: Any) -> Callable[[Path], Any]:
    return lambda folder: value


def other_order(folder: Path) -> dict[str, Any]:
    return plain() | {"categories": plain()["categories"][::-1]}


ANNOTATIONS = [
    Form("supervision", "everything counted from 1", changed(images={"license": 1, "date_captured": ""}), "0.31.2"),
    Form(
        "supervision, older",
        "categories counted from 0",
        changed(
            annotations=lambda r, _: {"category_id": r["category_id"] - 1}, categories=lambda r, _: {"id": r["id"] - 1}
        ),
    ),
    Form(
        "datumaro, CVAT",
        "`attributes` with each box",
        changed(annotations={"attributes": {"occluded": False}}, images={"license": 0, "date_captured": 0}),
        "datumaro 1.13.12",
    ),
    Form("FiftyOne", "`supercategory: null`", changed(categories={"supercategory": None}), "1.22.1"),
    Form(
        "Label Studio",
        "everything counted from 0, `ignore: 0`",
        changed(0, annotations={"ignore": 0}),
        "label-studio-sdk 2.1.2",
    ),
    Form(
        "Roboflow",
        "everything counted from 0, `extra` with each image",
        changed(0, images={"extra": {"name": "x.jpg"}}),
    ),
    Form(
        "globox, pylabel, pycocowriter",
        "everything counted from 0",
        changed(0, annotations={"ignore": 0}),
        "2.9.0, 0.1.55, 0.5.6",
    ),
    Form("VIA", "`image_id` as a text", changed(annotations=lambda r, _: {"image_id": str(r["image_id"])})),
    Form(
        "labelme2coco, sahi",
        "absolute file names",
        changed(images=lambda r, folder: {"file_name": str(folder / "toy" / "images" / r["file_name"])}),
        "0.2.6, 0.12.8",
    ),
    Form("labelme2coco", "categories in another order in each split", other_order, "0.2.6"),
    Form(
        "labelme2coco",
        "negative sizes, of rectangles drawn from another corner",
        changed(annotations={"bbox": [24.0, 35.0, -20.0, -30.0]}),
        "0.2.6",
    ),
    Form(
        "darwin-py",
        "`extra` with each box, digests as ids of categories",
        changed(
            annotations=lambda r, _: {"extra": {}, "category_id": r["category_id"] + 2**31},
            categories=lambda r, _: {"id": r["id"] + 2**31},
        ),
        "3.6.3",
    ),
    Form("labelformat", "no annotation ids", changed(annotations={"id": ...}), "0.1.17"),
    Form(
        "CityPersons in COCO's form",
        "`ignore: 1` without `iscrowd`",
        changed(annotations=lambda r, _: {"ignore": r["id"] % 2}),
    ),
    Form("own scripts", "no `area`", changed(annotations={"area": ...})),
    Form(
        "pandas",
        "ids as 1.0, of columns with gaps",
        changed(annotations=lambda r, _: {"image_id": float(r["image_id"])}),
    ),
    Form(
        "COCO",
        "crowds as run lengths, `segmentation: null`",
        changed(
            annotations=lambda r, _: (
                {"segmentation": [None, {"counts": [9, 9], "size": [48, 64]}][r["id"] - 1]} | {"iscrowd": r["id"] - 1}
            )
        ),
    ),
    Form(
        "COCO, keypoints",
        "`keypoints` with each box, `skeleton` with each category",
        changed(annotations={"keypoints": [9, 9, 2], "num_keypoints": 1}, categories={"skeleton": [[1, 2]]}),
    ),
    Form(
        "COCO, panoptic",
        "`segments_info` in place of boxes",
        changed(annotations={"segments_info": [], **dict.fromkeys(("id", "bbox", "category_id", "area"), ...)}),
    ),
    Form(
        "COCO, captions",
        "`caption` in place of boxes, no categories",
        content({"images": plain()["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}),
    ),
    Form(
        "LVIS",
        "`coco_url` in place of `file_name`, no `iscrowd`, `neg_category_ids`",
        with_images(
            lambda r, _: {
                "file_name": ...,
                "coco_url": f"http://images.cocodataset.org/val2017/{r['file_name']}",
                "neg_category_ids": [],
            },
            annotations={"iscrowd": ...},
        ),
        "1.0",
    ),
    Form(
        "Objects365",
        "names with folders, `isfake`, `isreflected`",
        with_images(
            lambda r, _: {"file_name": f"images/v2/patch16/{r['file_name']}"},
            annotations={"isfake": 0, "isreflected": 0},
        ),
        "2",
    ),
    Form(
        "Open Images in COCO's form, FiftyOne",
        "`IsGroupOf`, `IsOccluded` with each box",
        changed(annotations=lambda r, _: {"IsGroupOf": r["id"] == 2, "IsOccluded": False}),
        "1.22.1",
    ),
    Form(
        "VOC in COCO's form, datumaro, CVAT",
        "`attributes.difficult`",
        changed(annotations=lambda r, _: {"attributes": {"difficult": r["id"] == 2, "truncated": False}}),
        "datumaro 1.13.12",
    ),
    Form(
        "CVAT, rotated rectangles",
        "upright boxes with `attributes.rotation`",
        changed(annotations=lambda r, _: {"attributes": {"occluded": False, "rotation": 30.0 * (r["id"] - 1)}}),
    ),
    Form("rotated boxes", "x, y, width, height, angle", changed(annotations={"bbox": [14.0, 20.0, 20.0, 30.0, 0.3]})),
    Form("own scripts", "x1, y1, x2, y2", many_boxes(lambda k: [20.0 + k, 15.0 + k, 44.0 + k, 33.0 + k])),
    Form("own scripts", "fractions of the image", many_boxes(lambda k: [0.05 * k, 0.1, 0.3, 0.4])),
    Form("own scripts", "`category_id` as a text", changed(annotations={"category_id": "1"})),
    Form(
        "tools on Windows",
        "`images\\0.jpg`",
        changed(images=lambda r, _: {"file_name": f"images\\{r['file_name']}"}),
    ),
    Form("Pascal VOC, CVAT", "XML", content(b"<annotation><object></object></annotation>")),
    Form("YOLO, ultralytics", "text files of class and box", content(b"0 0.5 0.5 0.25 0.25\n")),
    Form("Open Images", "CSV", content(b"ImageID,LabelName,XMin,XMax,YMin,YMax\n0,/m/01yrx,0,0.5,0,0.5\n")),
    Form("LabelMe", "JSON of one image", content({"version": "5.5", "shapes": [], "imagePath": "0.jpg"})),
    Form("VIA", "its project", content({"0.jpg9": {"filename": "0.jpg", "size": 9, "regions": []}})),
    Form("Label Studio", "its own JSON", content([{"id": 1, "annotations": [], "data": {"image": "0.jpg"}}])),
    Form("BDD100K", "JSON", content([{"name": "0.jpg", "labels": []}])),
    Form("CreateML", "JSON", content([{"image": "0.jpg", "annotations": []}])),
    Form("MMDetection", "its own form", content({"metainfo": {}, "data_list": []}), "3.3.0"),
    Form("YouTube-VIS, TAO", "`videos`", content({"videos": [], "annotations": [], "categories": []})),
    Form("Hugging Face, imagefolder", "`metadata.jsonl`", content(b'{"file_name": "0.jpg", "objects": {}}\n' * 2)),
    Form("Git LFS", "a pointer", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")),
]


def annotations_outcome(form: Form, folder: Path) -> str:
    """Verify a data set with a tool's file, and say what came of it."""
    (folder / "toy" / "images").mkdir(parents=True)
    for i in range(2):
        (folder / "toy" / "images" / f"{i}.jpg").write_bytes(b"x")
    put(folder / "toy" / "gt.json", form.make(folder))
    split = DatasetSplit(annotations="gt.json", images="images")
    found = examine(Dataset(name="toy", classes=["cat", "dog"], root="toy", train=split, val=split), folder)
    if found.manifest is None:
        return f"refused: {_sentence(found.problems[0], folder)}"
    part = found.manifest["splits"]["train"]
    counted = [what.replace("_", " ") for what in part.get(INFO, {"changes": {}})["changes"]]
    counted += [what.replace("_", " ") for what in part if what.startswith("annotations_with")]
    if part["boxes"]["ignored"]:
        counted.append(f"{part['boxes']['ignored']} box not trained on, an object for COCO's evaluation")
    truth = read_ground_truth(folder / "toy" / "gt.json")
    assert len(truth.bboxes) == part["annotations"] == 2
    noted = protocol_notes(part)
    assert all(note in truth.notes for note in noted), "`score` and `data verify` say the same"
    sentences = f"; noted: {' '.join(noted)}" if noted else ""
    return "read" + (f"; counted: {', '.join(counted)}" if counted else "") + sentences


def put(path: Path, value: Any) -> None:
    """Write bytes as they are, and anything else as JSON."""
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


# ------------------------------------------------------------------------------------------------- detections


def results(**change: Any) -> Callable[[Path], Any]:
    """COCO results that find both objects."""
    records = [
        {"image_id": 1 + i, "category_id": 1 + i, "bbox": [4.0, 5.0, 20.0, 30.0], "score": 0.9} for i in range(2)
    ]
    return lambda folder: [record | {k: v(record) for k, v in change.items()} for record in records]


def scored_annotations(folder: Path) -> dict[str, Any]:
    """Both objects found, in a file that numbers images and categories the other way round."""
    data = plain()
    for record in (*data["images"], *data["categories"]):
        record["id"] = 3 - record["id"]
    for record in data["annotations"]:
        record |= {"image_id": 3 - record["image_id"], "category_id": 3 - record["category_id"], "score": 0.9}
    return data


def scored_without_ids(folder: Path) -> dict[str, Any]:
    data = scored_annotations(folder)
    return data | {"annotations": [{k: v for k, v in r.items() if k != "id"} for r in data["annotations"]]}


DETECTIONS = [
    Form("MMDetection, CocoMetric (format_only)", "`results.bbox.json`", results(), "3.3.0"),
    Form(
        "MMDetection, CrowdHumanMetric (format_only)",
        "a list of odgt records",
        lambda folder: [{"ID": "0", "width": 64, "height": 48, "dtboxes": [{"box": [4, 5, 20, 30], "score": 0.9}]}],
        "3.3.0",
    ),
    Form(
        "ultralytics, save_json",
        "the number in the file's name as `image_id`, and `file_name`",
        results(image_id=lambda r: r["image_id"] - 1, file_name=lambda r: f"{r['image_id'] - 1}.jpg"),
        "8.4.190",
    ),
    Form(
        "ultralytics, other classes than COCO's",
        "labels from 0 in place of ids",
        results(category_id=lambda r: r["category_id"] - 1),
        "8.4.190",
    ),
    Form("torchmetrics, tm_to_coco", "COCO results with `area`", results(area=lambda r: 600.0), "1.9.0"),
    Form("sahi", "COCO results with `category_name`", results(category_name=lambda r: "cat"), "0.12.8"),
    Form("FiftyOne", "COCO annotations with `score`, with ids of their own", scored_annotations, "1.22.1"),
    Form("labelformat", "the same without annotation ids", scored_without_ids, "0.1.17"),
    Form("pandas, `to_json`", "`image_id` as 1.0", results(image_id=lambda r: float(r["image_id"]))),
    Form("own scripts", "x1, y1, x2, y2", results(bbox=lambda r: [30.0, 20.0, 60.0, 46.0])),
    Form("own scripts", "`image_id` as a text of digits", results(image_id=lambda r: str(r["image_id"]))),
    Form(
        "own scripts",
        "the same, each the id of one image and the name of another",
        lambda folder: results(image_id=lambda r: str(r["image_id"]))(folder)[:1],
    ),
    Form("detectron2", "`coco_instances_results.json`", results(segmentation=lambda r: {"counts": "", "size": [1, 1]})),
    Form("detectron2, DETR", "`instances_predictions.pth`, `eval.pth`", lambda folder: torch_file([{"image_id": 1}])),
    Form("MMDetection, `--out`", "`results.pkl`", content(pickle.dumps([{"img_id": 1}])), "3.3.0"),
    Form(
        "MMDetection, detectron2, masks",
        "results with `segmentation` alone",
        lambda folder: [{k: v for k, v in r.items() if k != "bbox"} | {"segmentation": {}} for r in results()(folder)],
    ),
    Form("YOLO, ultralytics", "text files of class, box, score", content(b"0 0.5 0.5 0.25 0.25 0.9\n")),
    Form("Open Images, Kaggle", "CSV", content(b"ImageId,PredictionString,Usage\n0,1 0.9 4 5 24 35,Public\n")),
    Form(
        "Hugging Face, pipeline",
        "a list for each image",
        content([[{"score": 0.9, "label": "cat", "box": {"xmin": 4, "ymin": 5, "xmax": 24, "ymax": 35}}]]),
    ),
]


def torch_file(value: Any) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def detections_outcome(form: Form, folder: Path) -> str:
    """Score a tool's file of detections, and say what came of it."""
    (folder / "gt.json").write_text(json.dumps(plain()))
    put(folder / "found.json", form.make(folder))
    try:
        scored = score("coco", folder / "gt.json", folder / "found.json")
    except UserError as error:
        return f"refused: {_sentence(str(error), folder)}"
    notes = [note for note in scored.notes if "have no detection" not in note and "matched by" not in note]
    value = scored.metrics["AP"]
    assert value is not None and (value == pytest.approx(100) or notes or "list of odgt" in form.writes)
    return "read" + (f"; noted: {' '.join(notes)}" if notes else "")


# ------------------------------------------------------------------------------------------------- logs


def lines(*records: dict[str, Any]) -> Callable[[Path], str]:
    return lambda folder: "".join(json.dumps(record) + "\n" for record in records)


STATS = [0.3, 0.5, 0.3, 0.1, 0.3, 0.4, 0.3, 0.4, 0.5, 0.2, 0.5, 0.6]
LOGS = [
    Form(
        "MMDetection 2 by epochs",
        "`*.log.json`",
        lines(
            {"mode": "train", "epoch": 1, "iter": 10, "lr": 0.1, "loss": 1.0},
            {"mode": "train", "epoch": 2, "iter": 10, "lr": 0.1, "loss": 1.0},
            {"mode": "val", "epoch": 2, "iter": 3, "bbox_mAP": 0.3},
        ),
    ),
    Form(
        "MMDetection 2 by iterations",
        "`*.log.json`",
        lines(
            {"mode": "train", "epoch": 1, "iter": 10, "lr": 0.1, "loss": 1.0},
            {"mode": "train", "epoch": 2, "iter": 20, "lr": 0.1, "loss": 1.0},
            {"mode": "val", "epoch": 3, "iter": 3, "bbox_mAP": 0.3},
        ),
    ),
    Form(
        "MMDetection 3 by epochs",
        "`vis_data/scalars.json`",
        lines({"lr": 0.1, "loss": 1.0, "epoch": 2, "iter": 20, "step": 20}, {"coco/bbox_mAP": 0.3, "step": 2}),
        "3.3.0",
    ),
    Form(
        "MMDetection 3 by iterations",
        "`vis_data/scalars.json`",
        lines({"lr": 0.1, "loss": 1.0, "iter": 20, "step": 20}, {"coco/bbox_mAP": 0.3, "step": 20}),
        "3.3.0",
    ),
    Form("MMDetection 3 with VOCMetric", "`pascal_voc/mAP`", lines({"pascal_voc/mAP": 0.8, "step": 2}), "3.3.0"),
    Form("detectron2", "`metrics.json`", lines({"iteration": 19, "lr": 0.1, "total_loss": 1.0, "bbox/AP": 30.0})),
    Form(
        "DETR, D-FINE",
        "`log.txt` with `test_coco_eval_bbox`",
        lines({"epoch": 1, "train_lr": 0.1, "train_loss": 1.0, "test_coco_eval_bbox": STATS}),
    ),
    Form(
        "ultralytics",
        "`results.csv`",
        lambda folder: "epoch,time,train/box_loss,metrics/mAP50-95(B)\n1,2,3,0.3\n",
        "8.4.190",
    ),
    Form(
        "Lightning with torchmetrics",
        "`metrics.csv` with `map`",
        lambda folder: "epoch,lr-SGD,step,train_loss,val_map,val_map_50\n,0.1,19,,,\n1,,19,1.0,,\n1,,19,,0.3,0.5\n",
        "2.6.6, torchmetrics 1.9.0",
    ),
    Form(
        "Hugging Face with torchmetrics",
        "`trainer_state.json` with `eval_map`",
        lambda folder: json.dumps({"log_history": [{"epoch": 2.0, "step": 20, "eval_map": 0.3}]}, indent=2),
        "transformers 5.24.0",
    ),
    Form(
        "MMDetection's text log",
        "`*.log`",
        lambda folder: "2026-01-01 00:00:00,000 - mmdet - INFO - Epoch [1][50/100]\n",
    ),
    Form("MMPretrain", "`scalars.json` without boxes", lines({"accuracy/top1": 70.0, "step": 2})),
    Form(
        "MMYOLO",
        "`vis_data/scalars.json`",
        lines(
            {"lr": 0.1, "base_lr": 0.1, "loss": 1.0, "loss_dfl": 1.0, "epoch": 2, "iter": 20, "step": 20},
            {"coco/bbox_mAP": 0.3, "data_time": 0.1, "step": 2},
        ),
    ),
    Form(
        "detrex",
        "`metrics.json`",
        lines({"iteration": 19, "lr": 0.1, "total_loss": 1.0, "loss_class_enc": 0.5, "bbox/AP": 30.0}),
    ),
    Form(
        "RT-DETR, DEIM",
        "`log.txt` with `test_coco_eval_bbox`",
        lines({"epoch": 1, "train_lr": 0.1, "train_loss": 1.0, "train_loss_mal": 0.5, "test_coco_eval_bbox": STATS}),
    ),
    Form(
        "RF-DETR",
        "`log.txt` with `test_results_json`",
        lines({"epoch": 1, "train_lr": 0.1, "train_loss": 1.0, "test_coco_eval_bbox": STATS, "test_results_json": {}}),
    ),
    Form(
        "RF-DETR with Lightning",
        "`metrics.csv` with `val/mAP_50_95`",
        lambda folder: (
            "epoch,step,train/loss,train/lr,val/mAP_50_95,val/ema_mAP_50_95\n1,19,1.0,0.1,,\n1,19,,,0.3,0.35\n"
        ),
    ),
    Form(
        "YOLOv5",
        "`results.csv`",
        lambda folder: "   epoch,  train/box_loss, metrics/mAP_0.5,metrics/mAP_0.5:0.95\n 0, 0.1, 0.3, 0.2\n",
    ),
    Form(
        "YOLOX",
        "`train_log.txt`",
        lambda folder: (
            "2026-01-01 00:00:00 | INFO | yolox.core.trainer:270 - epoch: 1/300, iter: 10/100, total_loss: 1.0\n"
        ),
    ),
    Form("TensorBoard", "`events.out.tfevents`", lambda folder: "\x04\0\0\0\0\0\0\0abcdefghabcd"),
    Form("MMDetection 3, masks", "`coco/segm_mAP` alone", lines({"coco/segm_mAP": 0.3, "step": 2}), "3.3.0"),
    Form("MMDetection 3, LVIS", "`lvis/bbox_AP`", lines({"lvis/bbox_AP": 0.3, "step": 2}), "3.3.0"),
    Form(
        "MMDetection 3, CrowdHuman, for COCO",
        "`crowd_human/mAP`",
        lines({"crowd_human/mAP": 0.8, "crowd_human/mMR": 0.5, "step": 2}),
        "3.3.0",
    ),
]


def logs_outcome(form: Form, folder: Path) -> str:
    """Read a log, and say what came of it."""
    (folder / "log").write_text(form.make(folder))
    try:
        log = read_training_log(folder / "log", 10)
    except UserError as error:
        return f"refused: {_sentence(str(error), folder)}"
    if log.notes:
        return f"read without metrics: {log.notes[0]}"
    (evaluation,) = [record for record in log.records if record["kind"] == "eval"]
    assert (evaluation["step"], evaluation["AP"]) == (20, 30.0), "AP 30 after 20 steps, whichever way it is told"
    return "read"


# ------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(content: Callable[[], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import torch

        torch.save(content(), folder / "file.pth")

    return make


def tensors() -> dict[str, Any]:
    import torch

    return {"backbone.conv1.weight": torch.ones(2)}


def safetensors_file(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors(), folder / "file.safetensors")


CHECKPOINTS = [
    Form(
        "MMDetection 2 and 3, the authors' code",
        "`.pth` with `state_dict` and `meta`",
        checkpoint(lambda: {"meta": {"epoch": 12}, "state_dict": tensors()}),
    ),
    Form("PyTorch", "a plain state dict", checkpoint(tensors)),
    Form("safetensors", "`.safetensors`", safetensors_file),
    Form("ultralytics", "a pickled network", checkpoint(lambda: {"model": Path("x")})),
    Form(
        "detectron2, DETR",
        "`model` in place of `state_dict`",
        checkpoint(lambda: {"model": tensors()}),
    ),
    Form("a failed download", "a page in HTML", lambda f: (f / "file.pth").write_text("<html>Not found</html>")),
]


def checkpoints_outcome(form: Form, folder: Path) -> str:
    """Read a file of weights, and say what came of it."""
    from date.training.weights import load_checkpoint

    form.make(folder)
    (file,) = folder.iterdir()
    try:
        assert list(load_checkpoint(file)) == ["backbone.conv1.weight"]
    except UserError as error:
        return f"refused: {_sentence(str(error), folder)}"
    return "read"


# ------------------------------------------------------------------------------------------------- the page

PARTS = {
    "Annotations": (ANNOTATIONS, annotations_outcome),
    "Detections": (DETECTIONS, detections_outcome),
    "Training logs": (LOGS, logs_outcome),
    "Checkpoints": (CHECKPOINTS, checkpoints_outcome),
}
HEAD = """# What other tools write

This page lists what other tools write and how this project reads it. A test writes the inputs, feeds them in and makes the rows
([`tests/unit/test_foreign_forms.py`](../tests/unit/test_foreign_forms.py)); FILE stands for a path. `version` is the release
whose output or source the inputs follow; it is empty for services and for releases without a number.
What `data verify` reads, training, evaluation, `score` and imports read in the same way
([normal form](data.md#used-in-normal-form)).
"""


def _sentence(text: str, folder: Path) -> str:
    return re.sub(rf"{re.escape(str(folder))}[\w./-]*", "FILE", text)


def page() -> str:
    parts = [HEAD]
    for title, (forms, outcome) in PARTS.items():
        rows = []
        for form in forms:
            with tempfile.TemporaryDirectory() as name:
                came = outcome(form, Path(name)).replace("|", "/")
                rows.append(f"| {form.tool} | {form.version} | {form.writes} | {came} |")
        parts.append(
            "\n".join(
                [
                    f"\n## {title}\n",
                    "| tool | version | what it writes | what comes of it |",
                    "|---|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )
    return "".join(parts)


def test_the_page_says_what_happens() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.unit.test_foreign_forms"


@pytest.mark.parametrize("form", DETECTIONS, ids=lambda form: f"{form.tool}, {form.writes}")
def test_a_refusal_of_detections_names_the_forms_that_are_read_or_what_to_write(form: Form, tmp_path: Path) -> None:
    came = detections_outcome(form, tmp_path)
    assert not came.startswith("refused") or READ in came or "say --categories labels" in came or "write ids as" in came


def test_the_page_has_the_tools_that_people_use() -> None:
    text = PAGE.read_text()
    for tool in (
        "supervision", "datumaro", "FiftyOne", "Label Studio", "Roboflow", "CVAT", "VIA", "labelme2coco", "sahi", "globox", "pylabel",
        "darwin", "MMDetection 2 by epochs", "MMDetection 2 by iterations", "MMDetection 3 by epochs", "MMDetection 3 by iterations",
        "detectron2", "DETR", "D-FINE", "ultralytics", "Lightning", "Hugging Face", "CrowdHumanMetric", "torchmetrics",
    ):  # fmt: skip
        assert tool in text


if __name__ == "__main__":
    PAGE.write_text(page())
