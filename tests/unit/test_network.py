"""Options of precision and speed: what stays float32 under bfloat16, and how often a network is compiled."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import date.training.components  # noqa: F401 - registers what configs name
from date.catalogue import Compute, load, load_tier
from date.identity.config import resolve
from date.models.branches import BranchOutput
from date.models.geometry import aligned_iou
from date.models.precision import PreciseConv2d
from date.planning.calibration import random_batch
from date.training import network
from date.training.network import _as_affine_map, build_network, build_schedulers, compilations, total_loss

KINDS = ("date_f-r50-coco-12e", "date_r-r50-coco-12e", "date_f_3dmf-r50-coco-36e", "fcos-r50-coco-12e", "retinanet-r50-coco-12e")  # fmt: skip


def build(training: str, **compute: Any) -> Any:
    init_default_scope("mmdet")
    config = Config(resolve(load().training(training), load_tier("smoke"), 0, Path("/data")))
    config.model.backbone.pop("init_cfg", None)
    config.compute = Compute(**compute).model_dump()
    torch.manual_seed(0)
    model: Any = build_network(config, torch.device("cpu"))
    for parameter in model.bbox_head.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def step(model: Any, height: int, width: int, images: int = 2, training: bool = True) -> Any:
    """Go forward, and in training backward, on random images of a size."""
    model.train(training)
    data = model.data_preprocessor(random_batch(height, width, images, model.bbox_head.num_classes, 3), training)
    if not training:
        with torch.no_grad():
            return model(**data, mode="predict")
    total, losses = total_loss(model(**data, mode="loss"))
    total.backward()
    return losses


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, BranchOutput):
        yield from tensors([value.cls, value.reg, value.extra])
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


@pytest.mark.parametrize("training", KINDS)
def test_predictions_and_losses_are_float32_under_bfloat16(training: str) -> None:
    model = build(training, precision="bf16")
    seen: dict[str, list[torch.dtype]] = {"normalised": [], "features": []}
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    for module in norms:
        module.register_forward_hook(lambda _, args, out: seen["normalised"].extend([args[0].dtype, out.dtype]))
    model.neck.register_forward_hook(lambda _, args, out: seen["features"].extend(x.dtype for x in out))
    losses = step(model, 64, 96)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    with torch.no_grad():
        images = model.data_preprocessor(random_batch(64, 96, 2, 3, 3))["inputs"]
        assert {x.dtype for x in tensors(model.bbox_head(model.extract_feat(images)))} == {torch.float32}
    assert set(seen["features"]) == {torch.bfloat16}, "parts hand their features on as they are"
    assert set(seen["normalised"]) == ({torch.bfloat16} if norms else set())
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("training", KINDS)
def test_predictions_from_the_same_features_are_float32s(training: str) -> None:
    """What a predictor makes of the towers' bfloat16 features has all of float32's bits: boxes as well as logits."""
    model = build(training, precision="bf16")
    convs = {name: m for name, m in model.bbox_head.named_modules() if isinstance(m, PreciseConv2d)}
    assert any("reg" in name for name in convs) and any("cls" in name for name in convs)
    plain = sum(isinstance(m, nn.Conv2d) for name, m in model.bbox_head.named_modules() if "convs" not in name)
    assert len(convs) == plain - (1 if "3dmf" in training else 0), "all but the filter's own"
    calls: list[tuple[str, Tensor, Tensor]] = []
    for name, module in convs.items():
        module.register_forward_hook(lambda _, args, out, name=name: calls.append((name, args[0], out)))
    with torch.no_grad():
        model.bbox_head(model.extract_feat(model.data_preprocessor(random_batch(64, 96, 2, 3, 3))["inputs"]))
    for name, features, predicted in calls:
        assert features.dtype == torch.bfloat16 and predicted.dtype == torch.float32
        exact = nn.functional.conv2d(
            features.double(), convs[name].weight.double(), convs[name].bias.double(), padding=1
        )
        if "reg" in name:  # as ltrb distances around a point, by FCOS's exponential: the most that an error can do
            mine, theirs = (
                torch.cat([-x[:, :2], x[:, 2:]], dim=1).permute(0, 2, 3, 1).reshape(-1, 4)
                for x in (predicted[:, :4].double().exp(), exact[:, :4].exp())
            )
            assert aligned_iou(mine, theirs, 1e-12)[0].min() >= 0.9999
        torch.testing.assert_close(predicted, exact.float(), rtol=1e-4, atol=1e-5)


def test_a_precise_convolution_takes_over_parameters_without_drawing() -> None:
    conv = nn.Conv2d(4, 3, 3, padding=1)
    state = torch.get_rng_state()
    precise = PreciseConv2d.replacing(conv)
    assert torch.equal(state, torch.get_rng_state())
    x = torch.randn(1, 4, 5, 5)
    assert precise.weight is conv.weight and torch.equal(precise(x), conv(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16 and torch.equal(precise(x), conv.float()(x).float()) is False
        assert precise(x).dtype == torch.float32 and precise(x.bfloat16()).dtype == torch.float32


def test_a_frozen_normalisation_is_an_affine_map() -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5).double().eval().requires_grad_(False)
    for value in plain.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2.0)
    mapped = copy.deepcopy(plain)
    _as_affine_map(mapped)
    for _ in range(2):
        x = torch.randn(2, 5, 4, 3, dtype=torch.float64, requires_grad=True)
        mine, theirs = mapped(x), plain(x)
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)
        weight = torch.randn_like(mine)
        gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (mine, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)
        plain.running_var.mul_(3.0)  # as loading a checkpoint does
        mapped.load_state_dict(plain.state_dict())
    last = torch.channels_last
    assert mapped(x.to(memory_format=last)).is_contiguous(memory_format=last)


@pytest.fixture
def without_inductor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the compiler find its graphs and not translate them, which takes a C++ compiler minutes."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: compile_module(self, backend="eager", **kwargs))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch.compiler.set_stance("default")


@pytest.mark.slow
@pytest.mark.usefixtures("without_inductor")
@pytest.mark.parametrize("training", ["date_f-r50-coco-12e", "fcos-r50-coco-12e"])
def test_a_network_stays_compiled_over_all_sizes(training: str) -> None:
    model, before = build(training, precision="bf16", compile=True), compilations()
    step(model, 64, 96)
    step(model, 96, 64)
    step(model, 64, 128, training=False)
    trained = compilations() - before
    assert 3 <= trained <= 12, "backbone, neck and head, in training and in evaluation"
    torch.compiler.set_stance("fail_on_recompile")
    for size in ((96, 96), (128, 96), (64, 160), (160, 64), (192, 224)):
        step(model, *size)
        step(model, *size, training=False)
    step(model, 96, 128, images=3)
    step(model, 128, 96, images=5, training=False)
    assert compilations() - before == trained


@pytest.mark.slow
@pytest.mark.usefixtures("without_inductor")
def test_parts_have_limits_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many graphs as a part may have do not take from the others': each is compiled until its own limit."""
    monkeypatch.setattr(network, "RECOMPILATIONS", 2)
    model, before = build("onenet-r50-coco-12e", compile=True), compilations()
    step(model, 64, 96)
    step(model, 64, 128, training=False)
    assert compilations() - before == 6


def test_losses_are_summed_as_mmengine_does() -> None:
    parts = {"a.loss_x": torch.tensor(1.5), "loss_y": [torch.tensor([1.0, 3.0]), torch.tensor(4.0)], "acc": torch.tensor(9.0)}  # fmt: skip
    total, named = total_loss(parts)
    theirs, logged = build("fcos-r50-coco-12e").parse_losses(parts)
    assert total.item() == theirs.item() == 7.5
    assert {name: value.item() for name, value in named.items()} == {k: v.item() for k, v in logged.items()}
    assert list(named) == list(logged)


@pytest.mark.parametrize("short", [{"warmup_iters": 1}, {"warmup_max_share": 1e-9}])
def test_the_shortest_warm_up_ends(short: dict[str, float]) -> None:
    """In MMEngine a warm-up of one step lasts for ever: findings/mmengine-warm-up-of-one-epoch.sh."""
    tier = load_tier("smoke").model_copy(update=short)
    config = Config(resolve(load().training("fcos-r50-coco-12e"), tier, 0, None))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    warm_up, _ = build_schedulers(config, optimizer)
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warm_up.step()
    assert rates == [pytest.approx(config.param_scheduler[0].start_factor), 1.0, 1.0]
