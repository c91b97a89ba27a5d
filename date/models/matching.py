"""Exact one-to-one matching between points and objects, the core of one-to-one label assignment (DATE sec. 3.1).

DATE follows OneNet and DETR: every object takes one point, no point serves two objects, and the summed quality is the
largest possible. SciPy solves that on the full matrix; here the matrix is scanned once, and the solver sees only the
objects that compete and the few points they compete for.

Each object has a list of its best points, empty at first, and the next best point as its reserve. In the *relaxed*
problem the points on the lists are exclusive but reserves are not: an object may take its reserve whoever else uses
that point. No matching scores more than the relaxed optimum, because an object matched beyond its list scores no more
than its reserve does. So once the relaxed optimum uses no point twice, it is an optimum of the full problem. Until then
the objects that share their reserve with another get longer lists. Empty lists give the plain argmax, which is final
when the objects' best points differ. Lists of G points need no reserve: the other G - 1 objects can block no more than
G - 1 of them.

Fastest layout: storage ``(objects, points)`` passed as the transposed view ``quality.T``. With row-major storage
``(points, objects)`` finding the best points takes about twice as long. Neither is copied.

Ties: points rank by quality, then by lower index, and an object without competitors takes its first point. Among equal
optima of a problem that goes to ``scipy.optimize.linear_sum_assignment``, that function decides; it gets objects and
points in ascending order. The result therefore depends on the values alone, not on memory layout, threads or device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# First length of a contested object's list, and the growth of one that was too short.
FIRST_LENGTH, GROWTH = 1, 4
# Up to so many entries, or so many points per object, the solver is faster on the whole matrix.
SMALL_ENTRIES, SMALL_POINTS_PER_OBJECT = 2**15, 8


class NonFiniteQualityError(ValueError):
    """A matching quality is NaN or infinite."""


def match(quality: Tensor) -> Tensor:
    """Match each object to its own point so that the summed quality is maximal.

    Args:
        quality: ``(N points, G objects)`` floating tensor, larger is better; negate a cost (OneNet, DETR) to use it.
            bfloat16 and float16 are compared as float32. It receives no gradient.

    Returns:
        ``(G,)`` int64 tensor on quality's device: the point of each object, each point at most once. With N < G, N
        objects are matched and the others hold -1.

    Raises:
        ValueError: quality holds NaN or infinite entries.
    """
    return match_batch([quality])[0]


def match_batch(qualities: Sequence[Tensor]) -> list[Tensor]:
    """Match the objects of each image of a batch; see :func:`match`.

    On an accelerator the candidates are ranked there; the whole batch then takes one transfer to the host, which also
    carries the check for finite entries, and one transfer back.

    Args:
        qualities: per image a ``(N_i, G_i)`` floating tensor, all on one device.

    Returns:
        Per image a ``(G_i,)`` int64 tensor on that device.

    Raises:
        ValueError: an entry is NaN or infinite; the message names the image's index.
    """
    if not qualities:
        return []
    device = qualities[0].device
    wide = [quality.detach().float() if quality.dtype.itemsize < 4 else quality.detach() for quality in qualities]
    problems = [_read(quality.numpy()) for quality in wide] if device.type == "cpu" else _fetch(wide)
    for index, (quality, problem) in enumerate(zip(wide, problems, strict=True)):
        if not problem.finite:
            raise NonFiniteQualityError(
                f"the quality of image {index} holds {_describe_nonfinite(quality)}; it must be finite"
            )
    matched = [problem.solve() for problem in problems]
    packed = torch.from_numpy(np.concatenate(matched)).to(device)
    return list(packed.split([len(points) for points in matched]))


def _describe_nonfinite(quality: Tensor) -> str:
    """Return how many entries are NaN, inf and -inf, e.g. ``"3 NaN and 1 inf entries"``."""
    counts = {
        "NaN": quality.isnan().sum().item(),
        "inf": (quality == torch.inf).sum().item(),
        "-inf": (quality == -torch.inf).sum().item(),
    }
    return " and ".join(f"{count} {name}" for name, count in counts.items() if count) + " entries"


def _is_small(num_points: int, num_objects: int) -> bool:
    return num_points * num_objects <= SMALL_ENTRIES or num_points <= SMALL_POINTS_PER_OBJECT * num_objects


class _Problem(Protocol):
    """One image's matching."""

    finite: bool

    def solve(self) -> IntArray:
        """Return the matched point of each object, ``(G,)``, or -1."""


class _SmallProblem:
    """A matching that the solver is left to do, on the whole ``(G, N)`` matrix."""

    def __init__(self, by_object: FloatArray, finite: bool) -> None:
        self.by_object = by_object
        self.finite = finite

    def solve(self) -> IntArray:
        matched = np.full(len(self.by_object), -1, dtype=np.int64)
        objects, points = linear_sum_assignment(self.by_object, maximize=True)
        matched[objects] = points
        return matched


class _ShortList(NamedTuple):
    """An object's best points with their qualities, and the next best as its reserve unless the list has G points."""

    values: FloatArray
    points: IntArray
    reserve: tuple[float, int] | None


class _RankedProblem:
    """A matching of N >= G points that works on lists of the objects' best points; a subclass ranks the points."""

    num_objects: int
    finite: bool

    def _first(self) -> IntArray:
        """Return each object's best point, ``(G,)``, a new array."""
        raise NotImplementedError

    def _top(self, objects: IntArray, count: int) -> tuple[FloatArray, IntArray]:
        """Return the qualities and indices of some objects' best points in order, ``(len(objects), count)``."""
        raise NotImplementedError

    def solve(self) -> IntArray:
        """Return the matched point of each object: lengthen the lists until the relaxed optimum uses no point twice."""
        matched = self._first()
        on_reserve = np.ones(self.num_objects, dtype=bool)
        lists: dict[int, _ShortList] = {}
        while True:
            claims = matched.tolist()
            users = Counter(claims)
            if len(users) == self.num_objects:
                return matched
            short = [obj for obj, point in enumerate(claims) if users[point] > 1 and on_reserve[obj]]
            lists |= self._lengthen(lists, short)
            contested = sorted(lists)
            matched[contested], on_reserve[contested] = _solve_relaxed([lists[obj] for obj in contested])

    def _lengthen(self, lists: dict[int, _ShortList], short: list[int]) -> dict[int, _ShortList]:
        """Return longer lists for some objects."""
        wanted: dict[int, list[int]] = {}
        for obj in short:
            length = GROWTH * len(lists[obj].points) if obj in lists else FIRST_LENGTH
            wanted.setdefault(min(length, self.num_objects), []).append(obj)
        longer = {}
        for length, objects in wanted.items():
            values, points = self._top(np.array(objects), min(length + 1, self.num_objects))
            for obj, row, indices in zip(objects, values, points, strict=True):
                reserve = (row[length], indices[length]) if length < self.num_objects else None
                longer[obj] = _ShortList(row[:length], indices[:length], reserve)
        return longer


def _solve_relaxed(lists: list[_ShortList]) -> tuple[IntArray, BoolArray]:
    """Solve the relaxed problem; return each object's point and whether that is its reserve."""
    if all(len(short.points) == 1 for short in lists):
        return _solve_single(lists)
    objects = np.arange(len(lists))
    lengths = np.array([len(short.points) for short in lists])
    rows = objects.repeat(lengths)
    points, columns, users = np.unique(
        np.concatenate([short.points for short in lists]), return_inverse=True, return_counts=True
    )
    # A point that is on one list only is always free for its object, which then needs nothing further down.
    private = users[columns] == 1
    passed = np.cumsum(private) - private
    kept = np.flatnonzero(passed == passed[np.cumsum(lengths) - lengths].repeat(lengths))
    secured = np.bincount(rows, weights=private, minlength=len(lists)) > 0
    points, columns = np.unique(points[columns[kept]], return_inverse=True)
    reserves = [(row, *short.reserve) for row, short in enumerate(lists) if short.reserve and not secured[row]]
    quality = np.full((len(lists), len(points) + len(reserves)), -np.inf)
    quality[rows[kept], columns] = np.concatenate([short.values for short in lists])[kept]
    for column, (row, value, _) in enumerate(reserves, start=len(points)):
        quality[row, column] = value
    _, chosen = linear_sum_assignment(quality, maximize=True)
    column_points = np.concatenate([points, np.array([point for *_, point in reserves], dtype=np.int64)])
    return column_points[chosen], chosen >= len(points)


def _solve_single(lists: list[_ShortList]) -> tuple[IntArray, BoolArray]:
    """Solve the relaxed problem for lists of one point: that object gets it which would lose most by its reserve."""
    reserves = [short.reserve for short in lists if short.reserve]
    losses = [float(short.values[0]) - float(value) for short, (value, _) in zip(lists, reserves, strict=True)]
    winners: dict[int, int] = {}
    for row, short in enumerate(lists):
        point = int(short.points[0])
        if point not in winners or losses[row] > losses[winners[point]]:
            winners[point] = row
    matched = np.array([point for _, point in reserves], dtype=np.int64)
    on_reserve = np.ones(len(lists), dtype=bool)
    for point, row in winners.items():
        matched[row], on_reserve[row] = point, False
    return matched, on_reserve


def _read(quality: FloatArray) -> _Problem:
    """Return the problem of a matrix on the host, ``(N, G)``."""
    if _is_small(*quality.shape):
        return _SmallProblem(quality.T, bool(np.isfinite(quality).all()))
    return _HostProblem(quality)


class _HostProblem(_RankedProblem):
    """Ranks the points on the CPU, and only what is asked for, by the maxima of blocks of points.

    Block b holds the points b, b + num_blocks, b + 2 * num_blocks, ...: in either memory layout the maxima are then
    element-wise maxima of long contiguous runs, and neighbouring points, which tend to be good together, fall into
    different blocks.
    """

    def __init__(self, quality: FloatArray) -> None:
        self.quality = quality
        self.num_points, self.num_objects = quality.shape
        # At least 2 G blocks: a list of the G best points needs as many.
        self.block_size = max(1, min(32, self.num_points // (2 * self.num_objects)))
        self.num_blocks = -(-self.num_points // self.block_size)
        self.offsets = self.num_blocks * np.arange(self.block_size)
        # By object, where an object's qualities are not contiguous; else only contested objects need them, later.
        self.peaks = None if quality.T.flags.c_contiguous else self._block_maxima(quality)
        self.best = quality.argmax(axis=0) if self.peaks is None else self._find_best(self.peaks)
        # The best points show NaN and inf, the minimum shows -inf.
        best = quality[self.best, np.arange(self.num_objects)]
        self.finite = bool(np.isfinite(best).all() and np.isfinite(quality.min()))

    def _block_maxima(self, quality: FloatArray) -> FloatArray:
        """Return the maxima of the blocks by object, ``(G, num_blocks)``."""
        complete = self.num_points // self.num_blocks
        rest = quality[complete * self.num_blocks :]
        peaks = quality[: complete * self.num_blocks].reshape(complete, self.num_blocks, -1).max(axis=0)
        np.maximum(peaks[: len(rest)], rest, out=peaks[: len(rest)])
        return np.ascontiguousarray(peaks.T)

    def _find_best(self, peaks: FloatArray) -> IntArray:
        """Return each object's best point, ``(G,)``."""
        objects = np.arange(self.num_objects)
        block = peaks.argmax(axis=1)
        value = peaks[objects, block]
        points = np.minimum(block + self.offsets[:, None], self.num_points - 1)
        best = points[(self.quality[points, objects] == value).argmax(axis=0), objects]
        equal = peaks == value[:, None]
        if np.count_nonzero(equal) > self.num_objects:
            for obj in np.flatnonzero(equal.sum(axis=1) > 1).tolist():
                best[obj] = self._find_equal(obj, value[obj], 1)[0]
        return best

    def _find_equal(self, obj: int, value: float, count: int) -> IntArray:
        """Return the lowest ``count`` points, or all there are, at which an object's quality has this value."""
        equal = np.flatnonzero(self.quality[: 16 * count, obj] == value)
        if len(equal) < count:
            equal = np.flatnonzero(self.quality[:, obj] == value)
        return equal[:count]

    def _first(self) -> IntArray:
        return self.best.copy()

    def _top(self, objects: IntArray, count: int) -> tuple[FloatArray, IntArray]:
        if self.peaks is None and count == 2:
            return self._top_two(objects)
        peaks = self._block_maxima(self.quality.T[objects].T) if self.peaks is None else self.peaks[objects]
        # ``count`` blocks reach this quality, hence at least ``count`` points do: the rest cannot be among the best.
        bound = np.partition(peaks, -count, axis=1)[:, -count]
        reached = peaks >= bound[:, None]
        tied = np.count_nonzero(reached, axis=1) > count
        found = []
        if tied.any():
            # E.g. the zeros outside POTO's mask: any block may reach the bound, but its lowest points are enough.
            reached[tied] = peaks[tied] > bound[tied, None]
            for row in np.flatnonzero(tied).tolist():
                points = self._find_equal(objects[row], bound[row], count)
                found.append((np.full(len(points), row), points, bound[row].repeat(len(points))))
        rows, blocks = np.nonzero(reached)
        rows, points = rows.repeat(self.block_size), (blocks[:, None] + self.offsets).ravel()
        values = self.quality[np.minimum(points, self.num_points - 1), objects[rows]]
        kept = (values > bound[rows]) | ((values == bound[rows]) & ~tied[rows])
        kept &= points < self.num_points
        found.append((rows[kept], points[kept], values[kept]))
        rows, points, values = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((points, -values, rows))
        starts = np.searchsorted(rows[order], np.arange(len(objects)))
        best = order[starts[:, None] + np.arange(count)]
        return values[best], points[best]

    def _top_two(self, objects: IntArray) -> tuple[FloatArray, IntArray]:
        """Do as :meth:`_top` for ``count`` 2, given contiguous columns."""
        points = np.stack([self.best[objects], self.best[objects]], axis=1)
        for row, (obj, best) in enumerate(zip(objects.tolist(), points[:, 0].tolist(), strict=True)):
            column = self.quality[:, obj]
            sides = [column[:best], column[best + 1 :]]
            seconds = [
                start + int(side.argmax()) for start, side in zip((0, best + 1), sides, strict=True) if len(side)
            ]
            points[row, 1] = max(seconds, key=column.__getitem__)  # the first of equals
        return self.quality[points, objects[:, None]], points


def _fetch(qualities: Sequence[Tensor]) -> list[_Problem]:
    """Return the problems of matrices on an accelerator, brought over in one transfer as one int32 tensor."""
    parts = [_pack(quality) for quality in qualities]
    packed = torch.cat(parts).cpu().numpy()
    ends = np.cumsum([len(part) for part in parts])
    return [_unpack(quality, part) for quality, part in zip(qualities, np.split(packed, ends[:-1]), strict=True)]


def _pack(quality: Tensor) -> Tensor:
    """Return a flat int32 tensor: 1 if all entries are finite, then the bits of the qualities that the host needs.

    Of a small problem these are all, by object. Otherwise they are each object's G best, and their points follow.
    """
    finite = quality.isfinite().all().reshape(1).int()
    by_object = quality.T.contiguous()
    if _is_small(*quality.shape):
        return torch.cat([finite, by_object.flatten().view(torch.int32)])
    points = _rank(by_object)[:, : len(by_object)]
    values = by_object.gather(1, points)
    return torch.cat([finite, values.flatten().view(torch.int32), points.int().flatten()])


def _rank(by_object: Tensor) -> Tensor:
    """Return each object's best points in order, ``(G, G)`` or more, from ``(G, N)`` qualities."""
    num_objects, num_points = by_object.shape
    comparable = by_object + 0.0  # turns -0.0 into 0.0, which it ties with
    if comparable.dtype == torch.float64:
        return comparable.sort(dim=1, descending=True, stable=True).indices
    # ``topk`` is faster but leaves the order of ties open. Keys made of the quality, as an integer that sorts alike,
    # and the reversed index have no ties.
    bits = comparable.view(torch.int32)
    sortable = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    reversed_index = torch.arange(num_points - 1, -1, -1, device=by_object.device)
    return ((sortable.long() << 32) + reversed_index).topk(num_objects, dim=1).indices


def _unpack(quality: Tensor, packed: npt.NDArray[np.int32]) -> _Problem:
    """Return the problem that :func:`_pack` packed."""
    num_points, num_objects = quality.shape
    small = _is_small(num_points, num_objects)
    columns = num_points if small else num_objects
    finite, words = bool(packed[0]), num_objects * columns * quality.dtype.itemsize // 4
    values = packed[1 : 1 + words].copy().view(f"f{quality.dtype.itemsize}").reshape(num_objects, columns)
    if small:
        return _SmallProblem(values, finite)
    return _FetchedProblem(values, packed[1 + words :].astype(np.int64).reshape(num_objects, columns), finite)


class _FetchedProblem(_RankedProblem):
    """Has each object's G best points, in order, from an accelerator: ``(G, G)`` qualities and indices."""

    def __init__(self, values: FloatArray, points: IntArray, finite: bool) -> None:
        self.values = values
        self.points = points
        self.finite = finite
        self.num_objects = len(points)

    def _first(self) -> IntArray:
        return self.points[:, 0].copy()

    def _top(self, objects: IntArray, count: int) -> tuple[FloatArray, IntArray]:
        return self.values[objects, :count], self.points[objects, :count]
