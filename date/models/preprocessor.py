"""From loaded images and annotations to what a detector takes: to the device, normalised, padded.

The class stands in MMDetection's registry under MMDetection's name: a config means the same with and without this
package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MMDetectionsPreprocessor
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor


@MODELS.register_module(force=True)
class DetDataPreprocessor(MMDetectionsPreprocessor):
    """MMDetection's preprocessor without its waits: a batch's annotations go over packed, and nothing is read back.

    Pixels (3, H, W) of any dtype become ``(pixels - mean) / std``; images are padded with zeros, below and on the
    right, to the batch's largest height and width rounded up. Masks, batch augmentations and images that are not
    normalised are left to MMDetection's code.

    Args:
        args, kwargs: of MMDetection's preprocessor.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"non_blocking": True} | kwargs)
        more = self.pad_mask or self.pad_seg or self.batch_augments is not None or self.pad_value
        self.is_plain = bool(self._enable_normalize and not more and self.boxtype2tensor)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return ``inputs`` (B, 3, H, W) in float32 and ``data_samples``, copies of the given ones on the device.

        Args:
            data: ``inputs``, B images, and ``data_samples`` of MMDetection, or None.
            training: matters to batch augmentations alone.
        """
        if not self.is_plain:
            return super().forward(data, training)
        images, samples = data["inputs"], data["data_samples"]
        divisor = self.pad_size_divisor
        shapes = [tuple(divisor * math.ceil(side / divisor) for side in image.shape[-2:]) for image in images]
        height, width = (max(sides) for sides in zip(*shapes, strict=True))
        inputs = self._padded(images, height, width).sub_(self.mean).div_(self.std)
        if samples is not None:
            samples = self._on_device(samples)
            for sample, pad_shape in zip(samples, shapes, strict=True):
                sample.set_metainfo({"batch_input_shape": (height, width), "pad_shape": pad_shape})
        return {"inputs": inputs, "data_samples": samples}

    def _padded(self, images: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Return the images (B, 3, height, width), filled up with the mean, of which normalising makes zeros."""
        padded = self.mean.new_empty((len(images), len(self.mean), height, width)).copy_(self.mean)
        for target, image in zip(padded, images, strict=True):
            # First over, then to float32: the other way round four times the bytes would go over, and be waited for.
            moved = image.to(self.device, non_blocking=True)
            moved = moved.flip(0) if self._channel_conversion else moved
            target[:, : image.shape[-2], : image.shape[-1]].copy_(moved)
        return padded

    def _on_device(self, samples: SampleList) -> SampleList:
        """Return copies of the samples with their annotations on the device, in one transfer for each dtype."""
        samples = [sample.clone() for sample in samples]
        for sample in samples:
            sample.set_data({name: instances.clone() for name, instances in sample.items()})
        samplelist_boxtype2tensor(samples)
        if self.device.type == "cpu":
            return samples
        by_dtype: dict[torch.dtype, list[tuple[Any, str]]] = {}
        for instances in (instances for sample in samples for instances in sample.values()):
            for name, value in instances.items():
                if isinstance(value, Tensor):
                    by_dtype.setdefault(value.dtype, []).append((instances, name))
        for found in by_dtype.values():
            values = [instances[name] for instances, name in found]
            packed = torch.cat([value.flatten() for value in values]).pin_memory()
            parts = packed.to(self.device, non_blocking=True).split([value.numel() for value in values])
            for (instances, name), value, part in zip(found, values, parts, strict=True):
                instances[name] = part.view(value.shape)
        return samples
