from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from date.models import matching
from date.models.matching import match, match_batch
from tests.support.examples import examples

Rng = np.random.Generator


@pytest.fixture
def no_small_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every matrix with N > G through the ranking, however small."""
    monkeypatch.setattr(matching, "SMALL_ENTRIES", 0)
    monkeypatch.setattr(matching, "SMALL_POINTS_PER_OBJECT", 1)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_optimal(quality: Tensor, matched: Tensor) -> None:
    """Check a matching against SciPy on the full matrix: one-to-one, as many objects, the same sum."""
    full = quality.double().numpy()
    points, objects = linear_sum_assignment(full, maximize=True)
    assert matched.dtype == torch.int64
    assert matched.shape == quality.shape[1:]
    ours = matched.numpy()
    chosen = np.flatnonzero(ours >= 0)
    assert len(chosen) == len(objects) == len(np.unique(ours[chosen]))
    assert (ours[ours < 0] == -1).all()
    tolerance = 1e-12 * np.abs(full[points, objects]).sum()
    assert abs(full[ours[chosen], chosen].sum() - full[points, objects].sum()) <= tolerance


KINDS: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    "normal": lambda rng, n, g: rng.standard_normal((n, g)),
    "few values": lambda rng, n, g: rng.integers(-1, 3, (n, g)).astype(float),
    "constant": lambda rng, n, g: np.full((n, g), float(rng.integers(-2, 2))),
    "zero outside mask": lambda rng, n, g: rng.random((n, g)) * (rng.random((n, g)) < 0.1),
    "nearly all zero": lambda rng, n, g: rng.random((n, g)) * (rng.random((n, g)) < 0.004),
    "minus one outside mask": lambda rng, n, g: np.where(rng.random((n, g)) < 0.1, rng.random((n, g)), -1.0),
    "zero columns": lambda rng, n, g: rng.random((n, g)) * (rng.random(g) < 0.5),
    "duplicated objects": lambda rng, n, g: rng.random((n, g))[:, rng.integers(0, max(g, 1), g)],
    "alike objects": lambda rng, n, g: rng.random((n, 1)) + 0.1 * rng.random((n, g)),
    "product": lambda rng, n, g: rng.random((n, 1)) * rng.random((1, g)),
    "minus cost": lambda rng, n, g: -10 * rng.random((n, 1)) - rng.random((n, g)),
    "huge range": lambda rng, n, g: rng.standard_normal((n, g)) * 10.0 ** rng.integers(-30, 30, (n, g)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_small_problems", "one_thread")
def test_equals_scipy_on_random_matrices_in_every_layout(kind: str) -> None:
    rng = np.random.default_rng(list(KINDS).index(kind))
    for case in range(400):
        num_objects = int(rng.integers(0, 21))
        # N < G, N = G, N around the block sizes, and some large matrices.
        sizes = [rng.integers(0, 30), num_objects, rng.integers(30, 120), 64 * num_objects + 7]
        num_points = int(rng.choice(sizes, p=[0.4, 0.1, 0.45, 0.05]))
        quality = torch.from_numpy(KINDS[kind](rng, num_points, num_objects))
        quality = quality if case % 4 == 0 else quality.float()
        matched = match(quality)
        assert_optimal(quality, matched)
        strided = torch.zeros(2 * num_points, 3 * num_objects, dtype=quality.dtype)[::2, ::3].copy_(quality)
        assert torch.equal(match(strided if case % 3 == 0 else quality.T.contiguous().T), matched)
        # What an accelerator would do, on the CPU.
        fetched = matching._fetch([quality])[0].solve()
        assert fetched.tolist() == matched.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3000, 40), (22400, 12), (300, 60), (20, 50), (2048, 17)])
@pytest.mark.usefixtures("one_thread")
def test_equals_scipy_at_the_sizes_of_training(kind: str, shape: tuple[int, int]) -> None:
    quality = torch.from_numpy(KINDS[kind](np.random.default_rng(0), *shape)).float()
    matched = match(quality)
    assert_optimal(quality, matched)
    assert torch.equal(match(quality.T.contiguous().T), matched)
    assert matching._fetch([quality])[0].solve().tolist() == matched.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["NG", "GN"])
@pytest.mark.usefixtures("no_small_problems")
def test_ranks_points_by_quality_then_index(kind: str, layout: str) -> None:
    rng = np.random.default_rng(0)
    for num_points, num_objects in [(700, 6), (701, 6), (2000, 20), (90, 40), (5000, 12), (5003, 12)]:
        quality = KINDS[kind](rng, num_points, num_objects).astype(np.float32)
        problem = matching._HostProblem(np.ascontiguousarray(quality.T).T if layout == "GN" else quality)
        objects = rng.permutation(num_objects)[:5]
        for count in (1, 2, 3, num_objects):
            expected = np.argsort(-quality[:, objects], axis=0, kind="stable")[:count].T
            values, points = problem._top(objects, count)
            assert points.tolist() == expected.tolist()
            assert values.tolist() == quality[points, objects[:, None]].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("points", "count"), [(2048, 3), (2049, 1), (2100, 100), (22_400, 7), (22_401, 60), (9001, 700)]
)
def test_long_rows_are_ranked_in_rounds(kind: str, points: int, count: int) -> None:
    """Of long rows the best of each block are ranked again, until few are left; ties stay in their order."""
    quality = KINDS[kind](np.random.default_rng(1), points, max(5, count))[:, :3].astype(np.float32)
    expected = np.argsort(-quality, axis=0, kind="stable")[:count].T
    assert matching._rank(torch.from_numpy(quality.T.copy()), count).tolist() == expected.tolist()


@settings(max_examples=examples(100))
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(9, 60), st.integers(1, 7)),
        elements=st.one_of(st.sampled_from([0.0, -0.0, -1.0, 1.0]), st.floats(-1e6, 1e6, width=32)),
    )
)
def test_equals_scipy_on_what_hypothesis_finds(values: np.ndarray) -> None:
    quality = torch.from_numpy(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "SMALL_ENTRIES", 0)
        patch.setattr(matching, "SMALL_POINTS_PER_OBJECT", 1)
        ranked = match(quality)
        fetched = matching._fetch([quality])[0].solve()
    assert_optimal(quality, ranked)
    assert_optimal(quality, match(quality))
    assert fetched.tolist() == ranked.tolist()


def clustered(rng: Rng, num_points: int, num_objects: int, crowds: int = 1) -> np.ndarray:
    """Return minus the distances of points to objects that stand in crowds: the objects of one share their best points.

    Every point is admissible, as for OneNet's cost, and the best matching is unique.
    """
    middles = rng.random((crowds, 2))
    objects = middles[rng.integers(0, crowds, num_objects)] + 0.02 * rng.standard_normal((num_objects, 2))
    points = rng.random((num_points, 2))
    distance = np.abs(points[:, None] - objects).sum(axis=2)
    return -(distance + 0.05 * rng.random((num_points, 1)) + 0.001 * rng.random((num_points, num_objects)))


@pytest.mark.parametrize("sparse", [False, True], ids=["dense solver", "sparse solver"])
@pytest.mark.usefixtures("no_small_problems")
def test_crowds_equal_brute_force(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "SMALL_ASSIGNMENT", 0 if sparse else 2**16)
    for case in range(60):
        rng = np.random.default_rng(case)
        num_objects = 2 + case % 4
        values = clustered(rng, 9, num_objects)
        values = np.vstack([values, np.full((700, num_objects), -9.0)])[rng.permutation(709)]
        points = np.argsort(values.max(axis=1))[-9:]
        best = max(permutations(points, num_objects), key=lambda p: values[list(p), range(num_objects)].sum())
        for layout in (values, np.ascontiguousarray(values.T).T):
            assert match(torch.from_numpy(layout)).tolist() == list(best)


@pytest.mark.parametrize("first_length", [1, 8])
@pytest.mark.parametrize("shape", [(3000, 20, 1), (5000, 100, 4), (8400, 300, 12), (2500, 300, 1)])
@pytest.mark.usefixtures("one_thread")
def test_crowds_get_the_pairs_of_scipy(
    shape: tuple[int, int, int], first_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "FIRST_LENGTH_IN_CROWDS", first_length)
    for seed in range(3):
        quality = torch.from_numpy(clustered(np.random.default_rng(seed), *shape)).float()
        points, objects = linear_sum_assignment(quality.numpy(), maximize=True)
        expected = points[np.argsort(objects)].tolist()
        assert match(quality).tolist() == expected
        assert match(quality.T.contiguous().T).tolist() == expected
        assert matching._fetch([quality])[0].solve().tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_sparse_solver_equals_the_dense_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every kind with entries of 0 would fail if SciPy's sparse solver took them for missing ones.
    monkeypatch.setattr(matching, "SMALL_ENTRIES", 0)
    monkeypatch.setattr(matching, "SMALL_POINTS_PER_OBJECT", 1)
    monkeypatch.setattr(matching, "SMALL_ASSIGNMENT", 0)
    rng = np.random.default_rng(7)
    for _ in range(30):
        num_objects = int(rng.integers(1, 15))
        quality = torch.from_numpy(KINDS[kind](rng, int(rng.integers(num_objects, 200)), num_objects))
        assert_optimal(quality, match(quality))


@pytest.mark.usefixtures("no_small_problems")
def test_gives_a_contested_point_to_the_object_that_loses_more_without_it() -> None:
    quality = torch.tensor([[0.9, 0.8], [0.8, 0.1], [0.0, 0.2]])
    # Both want point 0. Object 0 can fall back on point 1 at a loss of 0.1, object 1 on point 2 at a loss of 0.6.
    assert match(quality).tolist() == [1, 0]


@pytest.mark.usefixtures("no_small_problems")
def test_displaces_an_object_that_nobody_contested_at_first() -> None:
    # Objects 0 and 1 want point 0; the loser's second choice is object 2's first.
    quality = torch.tensor([[9.0, 9.0, 0.0], [8.0, 8.0, 5.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    matched = match(quality)
    assert sorted(matched[:2].tolist()) == [0, 1]
    assert matched[2] == 2


@pytest.mark.usefixtures("no_small_problems")
def test_ties_of_an_object_alone_go_to_its_first_point() -> None:
    quality = torch.zeros(5000, 3)
    quality[4000:, 0] = 1.0
    quality[[77, 4321], 1] = 2.0
    quality[[4999], 2] = 3.0
    for layout in (quality, quality.T.contiguous().T):
        assert match(layout).tolist() == [4000, 77, 4999]


def test_empty_sides() -> None:
    assert match(torch.zeros(5, 0)).tolist() == []
    assert match(torch.zeros(0, 3)).tolist() == [-1, -1, -1]
    assert match(torch.zeros(0, 0)).tolist() == []
    assert match_batch([]) == []


def test_fewer_points_than_objects_leaves_the_worst_unmatched() -> None:
    assert match(torch.tensor([[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_as_float32(dtype: torch.dtype) -> None:
    quality = torch.randn(4000, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(match(quality), match(quality.float()))


def test_accepts_a_quality_that_requires_grad_and_leaves_it_alone() -> None:
    quality = torch.randn(5000, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = quality.detach().clone()
    assert not match(quality).requires_grad
    assert torch.equal(quality, before)


def crowded(num_points: int, num_objects: int, seed: int) -> Tensor:
    """Return a quality whose objects compete, with ties: the best matching is not unique."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.rand(num_points, 1, generator=generator)
    return (shared + 0.2 * torch.rand(num_points, num_objects, generator=generator)).mul(50).round()


def test_does_not_depend_on_repetition_or_threads() -> None:
    quality = crowded(6000, 40, seed=0)
    expected = match(quality)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            assert all(torch.equal(match(quality), expected) for _ in range(3))
    finally:
        torch.set_num_threads(threads)


def test_batch_equals_the_images_one_by_one() -> None:
    shapes = [(6000, 40), (0, 3), (50, 7), (6000, 0), (4, 9), (8000, 11)]
    qualities = [crowded(*shape, seed=index) for index, shape in enumerate(shapes)]
    qualities[5] = qualities[5].double()
    matched = match_batch(qualities)
    assert [m.tolist() for m in matched] == [match(q).tolist() for q in qualities]
    assert [p.solve().tolist() for p in matching._fetch(qualities)] == [m.tolist() for m in matched]


def test_images_of_equally_many_points_are_fetched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = []
    rank = matching._rank
    monkeypatch.setattr(matching, "_rank", lambda rows, count: ranked.append((rows.shape, count)) or rank(rows, count))
    counts = [40, 0, 3, 11, 1]  # 3 and 1 objects are few enough to bring all their qualities over
    qualities = [crowded(6000, count, seed=index) for index, count in enumerate(counts)]
    assert [p.solve().tolist() for p in matching._fetch(qualities)] == [match(q).tolist() for q in qualities]
    assert ranked == [((55, 6000), 40)]
    qualities[2][7, 1] = np.nan
    assert [p.finite for p in matching._fetch(qualities)] == [True, True, False, True, True]


def test_largest_finite_values_are_accepted() -> None:
    quality = torch.full((5000, 10), torch.finfo(torch.float32).max)
    assert_optimal(quality, match(quality))
    double = torch.full((5000, 10), 1e308, dtype=torch.float64)
    assert sorted(match(double).tolist()) == sorted(set(match(double).tolist()))


@pytest.mark.parametrize("fetch", [False, True], ids=["host", "device path"])
@pytest.mark.parametrize("layout", ["NG", "GN"])
@pytest.mark.parametrize("shape", [(6, 3), (2000, 20)])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "1 NaN"), (np.inf, "1 inf"), (-np.inf, "1 -inf")])
def test_refuses_nan_and_infinity(
    value: float, name: str, shape: tuple[int, int], layout: str, fetch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fetch:
        monkeypatch.setattr(matching, "_read", lambda array: matching._fetch([torch.from_numpy(array)])[0])
    good = crowded(*shape, seed=0)
    bad = good.clone()
    bad[shape[0] - 1, 1] = value
    bad = bad.T.contiguous().T if layout == "GN" else bad
    with pytest.raises(ValueError, match=rf"image 0 holds {name} entries"):
        match(bad)
    with pytest.raises(ValueError, match=rf"image 2 holds {name} entries"):
        match_batch([good, good, bad, good])


def test_names_all_that_was_found() -> None:
    with pytest.raises(ValueError, match="2 NaN and 1 inf entries"):
        match(torch.tensor([[np.nan, 1.0], [np.inf, np.nan], [0.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 3), (9000, 20)])
def test_packing_needs_no_value_on_the_host(shape: tuple[int, int], dtype: torch.dtype) -> None:
    # On the meta device any operation that waits for values, a device synchronisation, raises.
    packed = torch.cat(matching._pack([torch.empty(shape, dtype=dtype, device="meta")]))
    num_points, num_objects = shape
    words = dtype.itemsize // 4
    small = num_objects + num_points * num_objects * words
    assert len(packed) == (small if shape == (6, 3) else num_objects + num_objects**2 * (words + 1))


def test_a_batch_takes_one_transfer_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers = []
    to_host = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: transfers.append(tensor.dtype) or to_host(tensor))
    matching._fetch([crowded(6000, 20, seed=0), crowded(50, 3, seed=1), crowded(6000, 9, seed=2)])
    assert transfers == [torch.int32]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_what_the_cpu_gives() -> None:
    qualities = [crowded(6000, 40, seed=0), crowded(50, 7, seed=1), torch.zeros(6000, 0), -crowded(22400, 100, seed=2)]
    qualities.append(crowded(6000, 30, seed=3).double())
    qualities[4][5, 5] = -0.0
    matched = match_batch([quality.cuda() for quality in qualities])
    assert all(points.is_cuda for points in matched)
    assert [points.tolist() for points in matched] == [match(quality).tolist() for quality in qualities]
