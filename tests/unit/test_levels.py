from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from date.models.geometry import pick
from date.models.levels import by_level

SIZES = [(24, 30), (12, 15), (6, 8), (3, 4), (2, 2)]


def gradients(copied: bool, bias: bool) -> list[Tensor]:
    """Return the gradients of two convolutions whose parameters all levels share."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(6, channels, 3, padding=1, bias=bias) for channels in (5, 4)]
    feats = [torch.randn(2, 6, *size) for size in SIZES]
    shared = [[(conv.weight, conv.bias)] * len(SIZES) for conv in convs]
    total = torch.zeros(())
    for own in by_level(convs, len(SIZES)) if copied else shared:
        maps = [
            nn.functional.conv2d(x, *parameters, padding=1).flatten(2) for x, parameters in zip(feats, own, strict=True)
        ]
        total = total + torch.cat(maps, dim=-1).exp().sum()
    total.backward()
    return [parameter.grad for conv in convs for parameter in conv.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_all_levels_are_those_of_autograd_byte_for_byte(bias: bool) -> None:
    ours, autograds = gradients(copied=True, bias=bias), gradients(copied=False, bias=bias)
    assert len(ours) == len(autograds) == 2 + 2 * bias
    assert all(torch.equal(a, b) for a, b in zip(ours, autograds, strict=True))


def test_what_takes_no_part_in_a_loss_gets_no_gradient() -> None:
    convs = [nn.Conv2d(3, 4, 3, bias=bias) for bias in (True, False, True)]
    first, _, third = by_level(convs, 3)
    x = torch.randn(1, 3, 6, 6)
    sum(nn.functional.conv2d(x, *own).sum() for own in first).backward()  # type: ignore[union-attr]
    nn.functional.conv2d(x, *third[1]).sum().backward()
    assert all(parameter.grad is not None for parameter in convs[0].parameters())
    assert convs[1].weight.grad is None
    assert torch.equal(convs[0].weight.grad, 3 * convs[2].weight.grad), "three levels, and one"


def test_without_a_gradient_the_parameters_themselves_are_used() -> None:
    conv = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        assert all(own[0] is conv.weight and own[1] is conv.bias for own in by_level([conv], 5)[0])
    conv.requires_grad_(False)
    assert by_level([conv], 5)[0][4][0] is conv.weight
    conv.requires_grad_(True)
    assert by_level([conv], 5)[0][4][0] is not conv.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_picked_places_have_the_gradient_of_an_index(dtype: torch.dtype) -> None:
    """Also where it is -0.0, of which a sum makes 0.0."""
    torch.manual_seed(0)
    values = torch.randn(3, 4, 50, dtype=dtype, requires_grad=True)
    places = torch.randperm(150)[:40]
    image, point = places // 50, places % 50
    weight = torch.randn(40, 4, dtype=dtype)
    weight[:5] = -0.0
    found = pick(values.mT, image, point)
    assert torch.equal(found, values.mT[image, point])
    (ours,) = torch.autograd.grad((found * weight).sum(), values)
    (autograds,) = torch.autograd.grad((values.mT[image, point] * weight).sum(), values)
    assert ours.stride() == autograds.stride()
    assert ours.numpy().tobytes() == autograds.numpy().tobytes(), "signs of zeros included"


def test_nothing_picked_leaves_a_gradient_of_zeros() -> None:
    values = torch.randn(2, 7, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    pick(values, none, none).sum().backward()
    assert torch.equal(values.grad, torch.zeros(2, 7))
