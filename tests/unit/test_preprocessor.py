"""Images and annotations reach the network as MMDetection's preprocessor brings them there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.data_preprocessors import DetDataPreprocessor as MMDetections
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from date.models import DetDataPreprocessor

MEAN, STD = [102.9801, 115.9465, 122.7717], [1.0, 58.0, 57.5]
SHAPES = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4)


def loaded(shapes: list[tuple[int, int]], dtype: torch.dtype = torch.uint8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for number, (height, width) in enumerate(shapes):
        inputs.append((torch.rand(3, height, width, generator=generator) * 255).to(dtype))
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), img_id=number))
        boxes = HorizontalBoxes(torch.rand(number, 4, generator=generator))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(number))
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.arange(0))
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


@given(SHAPES, st.sampled_from([1, 32]), st.sampled_from([torch.uint8, torch.float32]), st.booleans())
def test_everything_equals_mmdetections(
    shapes: list[tuple[int, int]], divisor: int, dtype: torch.dtype, turned: bool
) -> None:
    options = dict(mean=MEAN, std=STD, pad_size_divisor=divisor, bgr_to_rgb=turned)
    preprocessor = DetDataPreprocessor(**options)
    mine, theirs = preprocessor(loaded(shapes, dtype), True), MMDetections(**options)(loaded(shapes, dtype), True)
    assert preprocessor.is_plain and preprocessor.mean.flatten().tolist() == pytest.approx(MEAN)
    assert torch.equal(mine["inputs"], theirs["inputs"])
    for a, b in zip(mine["data_samples"], theirs["data_samples"], strict=True):
        assert a.metainfo == b.metainfo
        for name in ("gt_instances", "ignored_instances"):
            assert type(a.get(name).bboxes) is torch.Tensor
            assert torch.equal(a.get(name).bboxes, b.get(name).bboxes)
            assert torch.equal(a.get(name).labels, b.get(name).labels)


def test_what_was_loaded_stays_as_it_is() -> None:
    data = loaded([(8, 8), (9, 5)])
    before = [sample.gt_instances.bboxes for sample in data["data_samples"]]
    found = DetDataPreprocessor(MEAN, STD, 4)(data)
    for sample, bboxes, mine in zip(data["data_samples"], before, found["data_samples"], strict=True):
        assert sample.gt_instances.bboxes is bboxes and isinstance(bboxes, HorizontalBoxes)
        assert "pad_shape" not in sample.metainfo and mine.metainfo["pad_shape"] in [(8, 8), (12, 8)]


def test_without_annotations() -> None:
    data = loaded([(8, 8)]) | {"data_samples": None}
    assert DetDataPreprocessor(MEAN, STD)(data)["data_samples"] is None


def test_what_it_does_not_compute_is_left_to_mmdetections() -> None:
    plain, padded = DetDataPreprocessor(), DetDataPreprocessor(MEAN, STD, 4, pad_value=7)
    assert not plain.is_plain and not padded.is_plain
    found = padded({"inputs": [torch.zeros(3, 4, 3)], "data_samples": None})
    assert found["inputs"][0, 0, 0].tolist() == pytest.approx([-MEAN[0] / STD[0]] * 3 + [7])
