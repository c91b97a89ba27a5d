"""Every one of the paper's forty trainings is built at the paper's size and makes one optimisation step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import date.models  # noqa: F401 - registers the heads
from date.catalogue import load, load_tier
from date.identity.config import resolve

PAPER = load_tier("paper")
SIZE = 96


def random_batch(num_classes: int) -> dict[str, list[torch.Tensor] | list[DetDataSample]]:
    """Two random images of 96 pixels: one with three objects, one without any."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for count in (3, 0):
        corner = torch.rand(count, 2, generator=generator) * 40
        bboxes = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=generator) * 40], dim=-1)
        labels = torch.randint(0, num_classes, (count,), generator=generator)
        sample = DetDataSample(metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=bboxes, labels=labels)
        samples.append(sample)
    images = [(torch.rand(3, SIZE, SIZE, generator=generator) * 255) for _ in samples]
    return dict(inputs=images, data_samples=samples)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(load().trainings))
def test_one_step_at_the_papers_size(name: str) -> None:
    init_default_scope("mmdet")
    config = Config(resolve(load().training(name), PAPER, 0, Path("/data")))
    config.model.backbone.pop("init_cfg")  # the pretrained weights are not at hand here
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    before = {k: v.detach().clone() for k, v in model.named_parameters() if v.requires_grad}
    losses = model.train_step(random_batch(model.bbox_head.num_classes), optim_wrapper)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in losses.values()), losses
    after = dict(model.named_parameters())
    assert all(torch.isfinite(after[k]).all() for k in before)
    for part in ("backbone.layer4", "neck", "bbox_head"):
        changed = [k for k in before if k.startswith(part) and not torch.equal(before[k], after[k])]
        assert changed, f"nothing in {part} was trained"
    assert all(not v.requires_grad for k, v in after.items() if ".bn" in k or k.startswith("backbone.layer1."))
