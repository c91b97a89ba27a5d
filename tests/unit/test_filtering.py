"""3D max filtering: the maximum over space and levels has the values and gradients of ``max_pool3d``."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from date.models.filtering import max_over_neighbourhood


def pooled(maps: list[Tensor]) -> Tensor:
    """Return the same by ``max_pool3d``, of whose levels the first or the middle one sees all of them."""
    return F.max_pool3d(torch.stack(maps, dim=2), 3, 1, 1)[:, :, min(len(maps) - 1, 1)]


def gradients(function: object, maps: list[Tensor], weight: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in maps]
    (function(leaves) * weight).sum().backward()  # type: ignore[operator]
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_values_and_gradients_are_max_pool3ds(seed: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(levels)]
    weight = torch.rand(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    assert torch.equal(max_over_neighbourhood(maps), pooled(maps))
    mine, theirs = (gradients(function, maps, weight) for function in (max_over_neighbourhood, pooled))
    assert all(torch.allclose(a, b, rtol=1e-14, atol=0) for a, b in zip(mine, theirs, strict=True))


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_ties_have_the_same_values_and_hand_on_the_whole_gradient(seed: int, levels: int) -> None:
    """Where a maximum occurs twice one of its places gets the gradient: within a map the same as ``max_pool3d``'s."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randint(0, 3, (1, 2, 5, 4), generator=generator).double() for _ in range(levels)]
    weight = torch.rand(1, 2, 5, 4, generator=generator, dtype=torch.float64)
    assert torch.equal(max_over_neighbourhood(maps), pooled(maps))
    mine = gradients(max_over_neighbourhood, maps, weight)
    assert sum(g.sum() for g in mine).item() == pytest.approx(weight.sum().item(), rel=1e-12)

    lower = [x - 10 * number for number, x in enumerate(maps)]  # now all ties are within the first map
    mine, theirs = (gradients(function, lower, weight) for function in (max_over_neighbourhood, pooled))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_tie_between_maps_by_hand() -> None:
    first, second = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4)
    first[..., 3] = second[..., 0] = (
        1.0  # the position at the left sees only the second's, that at the right the first's
    )
    second[..., 3] = 1.0
    first, second = first.requires_grad_(), second.requires_grad_()
    max_over_neighbourhood([first, second])[..., 2:].sum().backward()
    assert first.grad is not None and first.grad.flatten().tolist() == [0, 0, 0, 2]
    assert second.grad is not None and second.grad.flatten().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_not_a_number_shows(number: int) -> None:
    maps = [torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)]
    maps[number][..., 1, 1] = torch.nan
    assert max_over_neighbourhood(maps).isnan().all()
