"""The annotated objects of a batch in a few tensors, whatever their number in each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor


class BatchObjects(NamedTuple):
    """The T objects of B images, image after image, on the device of the predictions."""

    bboxes: Tensor
    """(T, 4) xyxy in pixels of the network's input."""
    labels: Tensor
    """(T,) class indices."""
    image: Tensor
    """(T,) index of each object's image."""
    extents: Tensor
    """(B, 4) width, height, width, height of the images before padding."""
    counts: tuple[int, ...]
    """Number of objects of each image; they sum to T."""
    pad_shapes: tuple[tuple[int, int], ...]
    """Height and width of each image padded by itself; a batch may be larger."""

    def labels_of(self, taken: Tensor, background: int) -> Tensor:
        """Return the labels of objects by their index in [0, T); of T, the background, its label."""
        return torch.cat([self.labels, self.labels.new_full((1,), background)])[taken]


def pack(instances: Sequence[InstanceData], metas: Sequence[dict[str, Any]]) -> BatchObjects:
    """Return the objects of a batch of images; nothing waits for a device.

    Args:
        instances: of each image, with ``bboxes`` (G, 4) xyxy and ``labels`` (G,), all on one device.
        metas: of each image, with ``img_shape`` and, where the image is padded, ``pad_shape``.
    """
    bboxes = torch.cat([found.bboxes for found in instances])
    counts = tuple(len(found.bboxes) for found in instances)
    shapes = [tuple(meta["img_shape"][:2]) for meta in metas]
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sent = torch.cat([image, torch.tensor([side for height, width in shapes for side in (width, height) * 2])])
    if bboxes.is_cuda:
        sent = sent.pin_memory().to(bboxes.device, non_blocking=True)
    return BatchObjects(
        bboxes=bboxes,
        labels=torch.cat([found.labels for found in instances]),
        image=sent[: len(image)],
        extents=sent[len(image) :].view(-1, 4).to(bboxes.dtype),
        counts=counts,
        pad_shapes=tuple(tuple(meta.get("pad_shape", meta["img_shape"])[:2]) for meta in metas),
    )


def objects_of(samples: Sequence[Any]) -> BatchObjects:
    """Return the objects of a batch of MMDetection's `DetDataSample`s."""
    return pack([sample.gt_instances for sample in samples], [sample.metainfo for sample in samples])
