"""What a trained network makes of some validation images, recorded for the report's pictures: ``pictures.json``.

Per image its pixels as a JPEG, the annotated objects, and of each branch the boxes before NMS, from the lowest score
that is drawn on, and the points that the branch's loss calls positive. Coordinates are pixels of the annotated image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from date.catalogue import Choice
from date.datasets.decoding import ImageError, decode
from date.errors import UserError
from date.evaluation.nms_recall import overlapping_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from date.models.branches import Branch, BranchOutput

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
    """Return rows with so many decimals in each column; whole numbers where there are none."""
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
    from date.models.head import DualAssignmentHead, final_selection

    if isinstance(head, DualAssignmentHead):
        outputs = head(feats)
        shapes = [tuple(sample.img_shape[:2]) for sample in samples]
        names = [head.branch_name(i) for i in outputs]
        candidates = {n: head.branch(i).candidates(o, shapes) for n, (i, o) in zip(names, outputs.items(), strict=True)}
        configs = {name: head.branch(i).test_cfg for name, i in zip(names, outputs, strict=True)}
    else:
        maps = head(feats)
        metas = [sample.metainfo for sample in samples]
        candidates = {"head": head.predict_by_feat(*maps, batch_img_metas=metas, rescale=False, with_nms=False)}
        configs = {"head": head.test_cfg}
    result = []
    for image, sample in enumerate(samples):
        scale = feats[0].new_tensor(sample.scale_factor).repeat(2)
        branches = {}
        for index, (name, per_image) in enumerate(candidates.items()):
            found, most = per_image[image], configs[name]["max_per_img"]
            bboxes, scores, labels = found.bboxes / scale, found.scores, found.labels
            limit = most if configs[name].get("nms") is None else len(scores)
            order = final_selection(bboxes, scores, labels, None, limit)
            bboxes, scores, labels = bboxes[order], scores[order], labels[order]
            left = scores.new_zeros(len(scores))
            left[final_selection(bboxes, scores, labels, nms, most)] = 1
            points = scores.new_zeros((0, len(POINT_COLUMNS)))
            if "gt_instances" in sample and len(sample.gt_instances):
                if name == "head":
                    centers, strides, objects = single_head_positives(head, maps, sample)
                else:
                    centers, strides, objects = positives(head.branch(index), _of_image(outputs[index], image), sample)
                points = _columns(centers / scale[:2], strides, objects)
            branches[name] = {"boxes": _columns(bboxes, scores, labels, left), "points": points}
        result.append({n: {k: v.double().cpu().numpy() for k, v in b.items()} for n, b in branches.items()})
    return result


def _columns(first: Tensor, *others: Tensor) -> Tensor:
    import torch

    return torch.cat([first.double(), *(column.double()[:, None] for column in others)], dim=1)


def _of_image(output: BranchOutput, image: int) -> BranchOutput:
    """Return a branch's output for one image of the batch."""
    extra = None if output.extra is None else output.extra[image : image + 1]
    return replace(output, cls=output.cls[image : image + 1], reg=output.reg[image : image + 1], extra=extra)


def positives(branch: Branch, output: BranchOutput, sample: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return which points a branch's loss calls positive on an image, by the branch's own assignment.

    Args:
        branch: of the dual-assignment head.
        output: of the branch, for this image alone.
        sample: MMDetection's, with ``gt_instances`` in pixels of the network's input.

    Returns:
        Centres (K, 2) in pixels of the network's input, strides (K,) and indices of the objects (K,). An anchor is
        where its centre is.
    """
    import torch

    from date.models.assigners import assign_fcos
    from date.models.branches import FCOSBranch, OneToOneBranch, RetinaBranch
    from date.models.head import objects_of

    objects = objects_of(sample)
    if isinstance(branch, RetinaBranch):
        anchors = branch.anchors(output)
        labels, index = branch.assign(output, anchors, objects)
        chosen = ((labels >= 0) & (labels < branch.num_classes)).nonzero(as_tuple=True)[0]
        strides = torch.cat(
            [anchors.new_full((n,), s) for n, s in zip(output.level_sizes, branch.strides, strict=True)]
        )
        return _anchor_centers(anchors[chosen]), strides[chosen], index[chosen]
    points = branch.points(output)
    if isinstance(branch, OneToOneBranch):
        (matched,) = branch.match(output, [objects])
        index = (matched >= 0).nonzero(as_tuple=True)[0]
        return points.centers[matched[index]], points.strides[matched[index]], index
    assert isinstance(branch, FCOSBranch)
    pairs = zip(branch.regress_ranges, output.level_sizes, strict=True)
    ranges = torch.cat([points.centers.new_tensor(pair).expand(size, 2) for pair, size in pairs])
    labels, ltrb = assign_fcos(points, ranges, objects, branch.num_classes)
    chosen = (labels < branch.num_classes).nonzero(as_tuple=True)[0]
    centers = points.centers[chosen]
    targets = torch.cat([centers - ltrb[chosen, :2], centers + ltrb[chosen, 2:]], dim=-1)
    return centers, points.strides[chosen], _nearest(targets, objects.bboxes)


def single_head_positives(head: Any, maps: Sequence[Sequence[Tensor]], sample: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same of MMDetection's RetinaNet or FCOS head, by the targets that its own loss computes.

    Args:
        head: MMDetection's.
        maps: its outputs, lists of maps by level.
        sample: see `positives`.
    """
    import torch
    from mmdet.models.dense_heads import AnchorHead

    sizes = [level.shape[-2:] for level in maps[0]]
    like = maps[1][0]
    if isinstance(head, AnchorHead):
        anchors, flags = head.get_anchors(sizes, [sample.metainfo], device=like.device)
        priors = anchors[0]
        labels, _, targets, *_ = head.get_targets(anchors, flags, [sample.gt_instances], [sample.metainfo])
        labels, targets = [level[0] for level in labels], [level[0] for level in targets]
    else:
        priors = head.prior_generator.grid_priors(sizes, dtype=like.dtype, device=like.device)
        labels, targets = head.get_targets(priors, [sample.gt_instances])
    # RetinaNet's strides are pairs.
    steps = [stride[0] for stride in head.prior_generator.strides]
    strides = torch.cat([like.new_full((len(level),), step) for level, step in zip(labels, steps, strict=True)])
    every, label = torch.cat(list(priors)), torch.cat(list(labels))
    chosen = ((label >= 0) & (label < head.num_classes)).nonzero(as_tuple=True)[0]
    boxes = head.bbox_coder.decode(every[chosen], torch.cat(list(targets))[chosen])
    centers = _anchor_centers(every[chosen]) if isinstance(head, AnchorHead) else every[chosen]
    return centers, strides[chosen], _nearest(boxes, sample.gt_instances.bboxes)


def _anchor_centers(anchors: Tensor) -> Tensor:
    return (anchors[:, :2] + anchors[:, 2:]) / 2


def _nearest(targets: Tensor, bboxes: Tensor) -> Tensor:
    """Return the object that each regression target is, up to rounding: (K,) indices into the (G, 4) boxes."""
    return (targets[:, None] - bboxes.to(targets.dtype)).abs().amax(-1).argmin(-1)
