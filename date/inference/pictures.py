"""Record a trained network's outputs on some validation images for the report's pictures: ``pictures.json``.

Per image its pixels as a JPEG, the annotated objects, and of each branch the boxes before NMS, from the lowest score
that is drawn on, and the points that the branch's loss calls positive. Coordinates are pixels of the annotated image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from date.catalogue import Choice
from date.datasets.decoding import ImageError, decode
from date.errors import UserError
from date.evaluation.nms_recall import overlapping_pairs
from date.families import family_of

if TYPE_CHECKING:
    from torch import Tensor

PICTURES_SCHEMA = 1
LONG_SIDE, JPEG_QUALITY = 640, 88
"""Of the recorded image: pixels at most, and Pillow's quality."""
OVERLAP = 0.5
"""IoU over which two objects of a class count as overlapping."""
BOX_COLUMNS = ("x1", "y1", "x2", "y2", "score", "class", "left_by_nms")
POINT_COLUMNS = ("x", "y", "stride", "object")
"""The stride is in pixels of the network's input; ``object`` and ``class`` are indices into the record's lists."""


def objects_in(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of an image of MMDetection's dataset that training assigns points to."""
    return [instance for instance in info["instances"] if not instance["ignore_flag"]]


def choose(infos: Sequence[dict[str, Any]], choice: Choice) -> list[dict[str, Any]]:
    """Return the images that a rule chooses, of MMDetection's records of all images in the annotations' order."""
    low, high = choice.objects
    fitting = [info for info in infos if low <= len(objects_in(info)) <= high]
    if choice.prefer == "overlapping":
        fitting.sort(key=_overlapping_pairs, reverse=True)  # stable: equal ones stay in order
    return fitting[: choice.images]


def _overlapping_pairs(info: dict[str, Any]) -> int:
    """Return how many pairs of an image's objects of one class have an IoU over `OVERLAP`."""
    objects = objects_in(info)
    labels = np.array([o["bbox_label"] for o in objects])
    first, second, _ = overlapping_pairs(np.array([o["bbox"] for o in objects], dtype=float), OVERLAP)
    return int((labels[first] == labels[second]).sum())


def no_pictures(why: str) -> dict[str, Any]:
    """Return the part of a record that has no pictures, and says why."""
    return {"images": [], "none_because": why}


class Photographer:
    """Records what a network makes of the chosen images while the evaluation goes over all of them.

    Args:
        dataset: MMDetection's, of the validation images.
        choice: by which rule images are chosen; None where the training is not pictured.
        floor: lowest score of a recorded box.
        nms: IoU of the class-wise NMS whose survivors are marked.
    """

    def __init__(self, dataset: Any, choice: Choice | None, floor: float, nms: float) -> None:
        self.choice, self.floor, self.nms = choice, floor, nms
        self.classes = list(dataset.metainfo["classes"])
        infos = [] if choice is None else choose([dataset.get_data_info(i) for i in range(len(dataset))], choice)
        self._chosen: dict[int, dict[str, Any]] = {info["img_id"]: info for info in infos}
        self._images: dict[int, dict[str, Any]] = {}

    def look(self, model: Any, batch: Any) -> None:
        """Record the chosen images of a batch, which the network sees as in the evaluation."""
        if not any(sample.img_id in self._chosen for sample in batch["data_samples"]):
            return
        data = model.data_preprocessor(batch, training=False)
        samples = data["data_samples"]
        for sample in samples:
            if info := self._chosen.get(sample.img_id):
                sample.gt_instances = _network_objects(info, sample, data["inputs"])
        found = branch_pictures(model.bbox_head, model.extract_feat(data["inputs"]), samples, self.nms)
        for sample, branches in zip(samples, found, strict=True):
            if info := self._chosen.get(sample.img_id):
                self._images[sample.img_id] = _image_record(info) | {
                    "branches": {name: self._branch_record(branch) for name, branch in branches.items()}
                }

    def _branch_record(self, branch: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
        boxes = branch["boxes"][branch["boxes"][:, 4] >= self.floor]
        return {"boxes": _rounded(boxes, (2, 2, 2, 2, 4, 0, 0)), "positives": _rounded(branch["points"], (2, 2, 0, 0))}

    def record(self) -> dict[str, Any]:
        """Return what was recorded, as far as it depends on no run."""
        if self.choice is None:
            return no_pictures("no figure of the catalogue shows pictures of this training")
        head = {"choice": self.choice.model_dump(mode="json"), "floor": self.floor, "nms": self.nms}
        head |= {"classes": self.classes, "box_columns": BOX_COLUMNS, "point_columns": POINT_COLUMNS}
        if not self._chosen:
            low, high = self.choice.objects
            return head | no_pictures(f"no validation image has {low} to {high} objects")
        return head | {"images": [self._images[image] for image in self._chosen], "none_because": None}


def _rounded(rows: NDArray[np.float64], digits: Sequence[int]) -> list[list[float]]:
    """Return rows rounded to a number of decimals for each column; whole numbers where it is 0."""
    return [[round(float(v), d) if d else int(v) for v, d in zip(row, digits, strict=True)] for row in rows]


def _image_record(info: dict[str, Any]) -> dict[str, Any]:
    objects = [[*(round(float(v), 2) for v in o["bbox"]), int(o["bbox_label"])] for o in objects_in(info)]
    return {
        "id": info["img_id"],
        "file": Path(info["img_path"]).name,
        "width": info["width"],
        "height": info["height"],
        "jpeg": base64.b64encode(small_jpeg(Path(info["img_path"]))).decode("ascii"),
        "objects": objects,
    }


def small_jpeg(path: Path) -> bytes:
    """Return an image, as training decodes it, as a JPEG of at most `LONG_SIDE` pixels; the same bytes every time.

    Raises:
        UserError: the file can't be decoded.
    """
    from PIL import Image

    try:
        decoded = decode(path.read_bytes())
    except (OSError, ImageError) as error:
        raise UserError(f"{path} can't be loaded ({error}); restore the file.") from None
    image = Image.fromarray(np.ascontiguousarray(decoded[..., ::-1]))
    image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)  # never enlarges
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _network_objects(info: dict[str, Any], sample: Any, like: Tensor) -> Any:
    """Return an image's objects as training has them: in pixels of the network's input, clipped to the image."""
    from mmengine.structures import InstanceData

    objects = objects_in(info)
    bboxes = like.new_tensor([o["bbox"] for o in objects]) * like.new_tensor(sample.scale_factor).repeat(2)
    height, width = sample.img_shape[:2]
    bboxes = bboxes.clamp(min=0).minimum(like.new_tensor([width, height, width, height]))
    labels = like.new_tensor([o["bbox_label"] for o in objects]).long()
    return InstanceData(bboxes=bboxes, labels=labels)


def branch_pictures(
    head: Any, feats: Sequence[Tensor], samples: Sequence[Any], nms: float
) -> list[dict[str, dict[str, NDArray[np.float64]]]]:
    """Return, per image and branch, the boxes before NMS and the positive points of images that have objects.

    Args:
        head: of the network.
        feats: the neck's levels for the batch.
        samples: MMDetection's, with ``gt_instances`` in pixels of the network's input where points are wanted.
        nms: IoU of the class-wise NMS whose survivors are marked.

    Returns:
        ``boxes``, rows of `BOX_COLUMNS`, best first, and ``points``, rows of `POINT_COLUMNS`; both in pixels of the
        image as annotated. A branch that has no NMS of its own gives the boxes that it detects, at most as many.
    """
    from date.models.head import final_selection

    views = family_of(head).views(head, feats, samples)
    result = []
    for image, sample in enumerate(samples):
        scale = feats[0].new_tensor(sample.scale_factor).repeat(2)
        branches = {}
        for name, view in views.items():
            found, most = view.candidates[image], view.test_cfg["max_per_img"]
            bboxes, scores, labels = found.bboxes / scale, found.scores, found.labels
            limit = most if view.test_cfg.get("nms") is None else len(scores)
            order = final_selection(bboxes, scores, labels, None, limit)
            bboxes, scores, labels = bboxes[order], scores[order], labels[order]
            left = scores.new_zeros(len(scores))
            left[final_selection(bboxes, scores, labels, nms, most)] = 1
            points = scores.new_zeros((0, len(POINT_COLUMNS)))
            if view.positives is not None and "gt_instances" in sample and len(sample.gt_instances):
                centers, strides, objects = view.positives(image, sample)
                points = _columns(centers / scale[:2], strides, objects)
            branches[name] = {"boxes": _columns(bboxes, scores, labels, left), "points": points}
        result.append({n: {k: v.double().cpu().numpy() for k, v in b.items()} for n, b in branches.items()})
    return result


def _columns(first: Tensor, *others: Tensor) -> Tensor:
    import torch

    return torch.cat([first.double(), *(column.double()[:, None] for column in others)], dim=1)
