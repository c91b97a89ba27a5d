"""Objects of images, as assignment takes them, written down by hand."""

from __future__ import annotations

from mmengine.structures import InstanceData
from torch import Tensor

from date.models.objects import BatchObjects, pack


def objects_in(
    *images: tuple[Tensor, Tensor], img_shape: tuple[int, int] = (48, 60), pad_shape: tuple[int, int] = (48, 64)
) -> BatchObjects:
    """Return the objects of images, each with boxes (G, 4) xyxy and labels (G,), all of one size."""
    instances = [InstanceData(bboxes=bboxes, labels=labels) for bboxes, labels in images]
    return pack(instances, [dict(img_shape=img_shape, pad_shape=pad_shape)] * len(images))
