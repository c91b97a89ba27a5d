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
optima of a problem that goes to SciPy's solver, that function decides; it gets objects and points in ascending order.
It is ``scipy.optimize.linear_sum_assignment``, for large problems ``scipy.sparse.csgraph``'s
``min_weight_full_bipartite_matching``, which does the same on the listed entries alone. The result therefore depends on
the values alone, not on memory layout, threads or device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor
from torch.nn import functional as F

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# If at least this share of the objects compete for their best points, all get lists at once.
CROWDED = 0.5
# First length of a contested object's list, that in crowds, and the growth of one that was too short.
FIRST_LENGTH, FIRST_LENGTH_IN_CROWDS, GROWTH = 1, 8, 4
# Consecutive points that are ranked together first.
BLOCK_SIZE = 64
# Up to so many entries, objects times columns, SciPy's dense solver is faster than its sparse one.
SMALL_ASSIGNMENT = 2**16
SMALLEST_FLOAT = 5e-324
# Up to so many entries, or so many points per object, the solver is faster on the whole matrix.
SMALL_ENTRIES, SMALL_POINTS_PER_OBJECT = 2**15, 8


# Rows of up to so many points are ranked at once; of longer ones first the best of every so many points, since PyTorch
# ranks rows of 400 points and more, where they are many, in over thirty kernels.
RANKED_ROW, RANKED_BLOCK = 2048, 256


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
    packed = torch.from_numpy(np.concatenate(matched))
    if device.type == "cuda":
        packed = packed.pin_memory().to(device, non_blocking=True)
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


class _RankedProblem:
    """A matching of N >= G points that works on lists of the objects' best points; a subclass ranks the points."""

    num_points: int
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
        lists, first_length = None, FIRST_LENGTH
        while len(set(matched.tolist())) < self.num_objects:
            short = ((np.bincount(matched)[matched] > 1) & on_reserve).nonzero()[0]
            if lists is None:
                lists = _Lists(self.num_points, self.num_objects)
                crowded = len(short) >= CROWDED * self.num_objects > 2
                short = np.arange(self.num_objects) if crowded else short
                first_length = FIRST_LENGTH_IN_CROWDS if crowded else FIRST_LENGTH
            self._lengthen(lists, short, first_length)
            objects, points, reserve = lists.solve_relaxed()
            matched[objects], on_reserve[objects] = points, reserve
        return matched

    def _lengthen(self, lists: _Lists, objects: IntArray, first_length: int) -> None:
        """Give some objects longer lists, or their first."""
        lengths = lists.lengths[objects]
        for length in sorted(set(lengths.tolist())):
            longer = min(GROWTH * length or first_length, self.num_objects)
            chosen = objects[lengths == length]
            lists.put(chosen, longer, *self._top(chosen, min(longer + 1, self.num_objects)))


class _Lists:
    """The contested objects' best points in order, in lists, each list followed by the object's reserve.

    Row g of ``values`` and ``points``, ``(G, width)``, is object g's; ``lengths`` is 0 for an object without a list. A
    list of G points has no reserve.
    """

    def __init__(self, num_points: int, num_objects: int) -> None:
        self.num_points = num_points
        self.lengths = np.zeros(num_objects, dtype=np.int64)
        self.values = np.empty((num_objects, 0))
        self.points = np.empty((num_objects, 0), dtype=np.int64)

    def put(self, objects: IntArray, length: int, values: FloatArray, points: IntArray) -> None:
        """Give some objects lists of ``length`` points; ``values`` and ``points`` hold the reserve too."""
        (num_objects, width), wanted = self.values.shape, values.shape[1]
        if wanted > width:
            old_values, old_points = self.values, self.points
            self.values = np.empty((num_objects, wanted))
            self.points = np.zeros((num_objects, wanted), dtype=np.int64)
            self.values[:, :width], self.points[:, :width] = old_values, old_points
        self.lengths[objects] = length
        self.values[objects, :wanted] = values
        self.points[objects, :wanted] = points

    def solve_relaxed(self) -> tuple[IntArray, IntArray, BoolArray]:
        """Solve the relaxed problem.

        Returns:
            the objects that have lists, in ascending order; their points; and whether these are their reserves.
        """
        objects = self.lengths.nonzero()[0]
        if self.points.shape[1] == 2:
            return self._solve_single(objects)
        points, lengths, places = self.points[objects], self.lengths[objects], np.arange(self.points.shape[1])
        listed = places < lengths[:, None]
        # A point that is on one list only is always free for its object, which then needs nothing further down.
        private = listed & (np.bincount(points[listed], minlength=self.num_points)[points] == 1)
        secured = private.any(axis=1)
        rows, ranks = (places < np.where(secured, private.argmax(axis=1) + 1, lengths)[:, None]).nonzero()
        kept, columns = self._number(points[rows, ranks])
        reserved = (~secured & (lengths < len(self.lengths))).nonzero()[0]
        reserves = lengths[reserved]
        chosen = _assign(
            np.concatenate([rows, reserved]),
            np.concatenate([columns, np.arange(len(kept), len(kept) + len(reserved))]),
            np.concatenate([self.values[objects[rows], ranks], self.values[objects[reserved], reserves]]),
            (len(objects), len(kept) + len(reserved)),
        )
        return objects, np.concatenate([kept, points[reserved, reserves]])[chosen], chosen >= len(kept)

    def _solve_single(self, objects: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
        """Solve the relaxed problem for lists of one point: the object that would lose most by its reserve gets it."""
        values, matched = self.values[objects], self.points[objects, 1]
        losses = (values[:, 0] - values[:, 1]).tolist()
        on_reserve = np.ones(len(objects), dtype=bool)
        winners: dict[int, int] = {}
        for row, point in enumerate(self.points[objects, 0].tolist()):
            if point not in winners or losses[row] > losses[winners[point]]:
                winners[point] = row
        for point, row in winners.items():
            matched[row], on_reserve[row] = point, False
        return objects, matched, on_reserve

    def _number(self, points: IntArray) -> tuple[IntArray, IntArray]:
        """Return the different points in ascending order, and where each given point stands among them."""
        present = np.zeros(self.num_points, dtype=bool)
        present[points] = True
        different = present.nonzero()[0]
        place = np.empty(self.num_points, dtype=np.int64)
        place[different] = np.arange(len(different))
        return different, place[points]


def _assign(rows: IntArray, columns: IntArray, values: FloatArray, shape: tuple[int, int]) -> IntArray:
    """Return a column of its own for each row such that the summed value is maximal, from the entries given."""
    if shape[0] * shape[1] <= SMALL_ASSIGNMENT:
        dense = np.full(shape, -np.inf)
        dense[rows, columns] = values
        return linear_sum_assignment(dense, maximize=True)[1]
    # SciPy takes a stored 0 for an entry that may not be used: the smallest float is one that may.
    entries = csr_array((np.where(values == 0, SMALLEST_FLOAT, values), (rows, columns)), shape=shape)
    return min_weight_full_bipartite_matching(entries, maximize=True)[1].astype(np.int64)


def _read(quality: FloatArray) -> _Problem:
    """Return the problem of a matrix on the host, ``(N, G)``."""
    if _is_small(*quality.shape):
        return _SmallProblem(quality.T, bool(np.isfinite(quality).all()))
    return _HostProblem(quality)


class _HostProblem(_RankedProblem):
    """Ranks the points on the CPU, and only what is asked for, by the maxima of blocks of consecutive points.

    Points behind the last whole block belong to no block; they are looked at one by one.
    """

    def __init__(self, quality: FloatArray) -> None:
        self.quality = quality.T
        self.num_objects, self.num_points = self.quality.shape
        self.in_blocks = self.num_points // BLOCK_SIZE * BLOCK_SIZE
        self.blocks = self.quality[:, : self.in_blocks].reshape(self.num_objects, -1, BLOCK_SIZE)
        self.peaks: FloatArray | None = None
        self.contiguous = self.quality.flags.c_contiguous
        # By the blocks, where an object's qualities are not contiguous: else only contested objects need them, later.
        by_blocks = self.in_blocks and not self.contiguous
        self.best = self._find_best() if by_blocks else self.quality.argmax(axis=1)
        # The best points show NaN and inf, the minimum shows -inf.
        best = self.quality[np.arange(self.num_objects), self.best]
        self.finite = bool(np.isfinite(best).all() and np.isfinite(self.quality.min()))

    def _find_best(self) -> IntArray:
        """Return each object's best point, ``(G,)``."""
        objects = np.arange(self.num_objects)
        blocks = self._peaks(objects).argmax(axis=1)
        best = blocks * BLOCK_SIZE + self.blocks[objects, blocks].argmax(axis=1)
        if self.in_blocks < self.num_points:
            behind = self.in_blocks + self.quality[:, self.in_blocks :].argmax(axis=1)
            best = np.where(self.quality[objects, behind] > self.quality[objects, best], behind, best)
        return best

    def _peaks(self, objects: IntArray) -> FloatArray:
        """Return the maxima of some objects' blocks, ``(len(objects), number of blocks)``."""
        if self.peaks is None:
            if self.contiguous and len(objects) < CROWDED * self.num_objects:
                return torch.from_numpy(self.blocks[objects]).amax(dim=2).numpy()
            if self.contiguous:
                self.peaks = torch.from_numpy(self.blocks).amax(dim=2).numpy()
            else:  # in two steps, both over long runs
                num_blocks, step = self.blocks.shape[1], 8
                by_point = torch.from_numpy(self.quality.T[: self.in_blocks])
                runs = by_point.reshape(num_blocks, step, BLOCK_SIZE // step * self.num_objects).amax(1)
                maxima = runs.reshape(num_blocks, BLOCK_SIZE // step, self.num_objects).amax(1)
                self.peaks = maxima.T.contiguous().numpy()
        return self.peaks if len(objects) == self.num_objects else self.peaks[objects]

    def _first(self) -> IntArray:
        return self.best.copy()

    def _top(self, objects: IntArray, count: int) -> tuple[FloatArray, IntArray]:
        if count == 2 and self.peaks is None:
            return self._top_two(objects)
        if 4 * count > self.blocks.shape[1]:
            best = _rank(torch.from_numpy(self.quality[objects]), count).numpy()
            return self.quality[objects[:, None], best], best
        peaks = self._peaks(objects)
        # ``count`` maxima, each of several blocks, reach this quality, hence at least ``count`` points do.
        bound = np.partition(_group_maxima(peaks, 2 * count), -count, axis=1)[:, -count]
        reached = peaks >= bound[:, None]
        tied = np.count_nonzero(reached, axis=1) > 2 * count
        found = []
        if tied.any():
            # E.g. the zeros outside POTO's mask: many blocks reach the bound, but its lowest points are enough.
            found.append(self._equal_to(objects, bound, tied.nonzero()[0], count))
            reached[tied] = peaks[tied] > bound[tied, None]
        rows, blocks = reached.nonzero()
        values = self.blocks[objects[rows], blocks]
        above = values >= bound[rows, None]
        if tied.any():
            above &= ~tied[rows, None] | (values > bound[rows, None])
        entries, places = above.nonzero()
        found.append((rows[entries], blocks[entries] * BLOCK_SIZE + places, values[entries, places]))
        if self.in_blocks < self.num_points:
            rest = self.quality[objects, self.in_blocks :]
            rows, places = ((rest > bound[:, None]) | ((rest == bound[:, None]) & ~tied[:, None])).nonzero()
            found.append((rows, self.in_blocks + places, rest[rows, places]))
        rows, points, values = found[0]
        if len(found) > 1:
            rows, points, values = (np.concatenate(part) for part in zip(*found, strict=True))
            order = np.lexsort((points, rows))
            rows, points, values = rows[order], points[order], values[order]
        return _sort_rows(rows, points, values, len(objects), count)

    def _top_two(self, objects: IntArray) -> tuple[FloatArray, IntArray]:
        """Do as :meth:`_top` for ``count`` 2, given contiguous qualities."""
        points = np.stack([self.best[objects], self.best[objects]], axis=1)
        for row, (obj, best) in enumerate(zip(objects.tolist(), points[:, 0].tolist(), strict=True)):
            qualities = self.quality[obj]
            sides = [qualities[:best], qualities[best + 1 :]]
            seconds = [
                start + int(side.argmax()) for start, side in zip((0, best + 1), sides, strict=True) if len(side)
            ]
            points[row, 1] = max(seconds, key=qualities.__getitem__)  # the first of equals
        return self.quality[objects[:, None], points], points

    def _equal_to(
        self, objects: IntArray, bound: FloatArray, rows: IntArray, count: int
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Return, for some rows of objects, the lowest ``count`` points, or all there are, of the bound's quality."""
        equal = self.quality[objects[rows], : 16 * count] == bound[rows, None]
        number = equal.cumsum(axis=1)
        entries, points = (equal & (number <= count)).nonzero()
        lacking = (number[:, -1] < count).nonzero()[0]
        if len(lacking):
            kept = ~np.isin(entries, lacking)
            entries, points = entries[kept], points[kept]
            for entry in lacking.tolist():
                more = (self.quality[objects[rows[entry]]] == bound[rows[entry]]).nonzero()[0][:count]
                entries = np.concatenate([entries, np.full(len(more), entry)])
                points = np.concatenate([points, more])
        return rows[entries], points, bound[rows[entries]]


def _group_maxima(peaks: FloatArray, count: int) -> FloatArray:
    """Return maxima of groups of columns, ``count`` of them or more if there are so many columns."""
    size = max(1, peaks.shape[1] // count)
    width = peaks.shape[1] // size
    return peaks[:, : size * width].reshape(len(peaks), size, width).max(axis=1)


def _sort_rows(
    rows: IntArray, points: IntArray, values: FloatArray, num_rows: int, count: int
) -> tuple[FloatArray, IntArray]:
    """Return each row's ``count`` best values in order, the first of equals first, and their points.

    ``rows`` ascends, each row at least ``count`` times; so do the points of each row.
    """
    lengths = np.bincount(rows, minlength=num_rows)
    starts = np.cumsum(lengths) - lengths
    padded = np.full((num_rows, lengths.max()), np.inf, dtype=values.dtype)
    padded[rows, np.arange(len(rows)) - starts[rows]] = -values
    best = starts[:, None] + padded.argsort(axis=1, kind="stable")[:, :count]
    return values[best], points[best]


def _fetch(qualities: Sequence[Tensor]) -> list[_Problem]:
    """Return the problems of matrices on an accelerator, brought over in one transfer as one int32 tensor.

    All objects are ranked in one go where the images have equally many points, as those of a batch do.
    """
    if len({(len(quality), quality.dtype) for quality in qualities}) == 1:
        packed = torch.cat(_pack(qualities))
    else:
        packed = torch.cat([part for quality in qualities for part in _pack([quality])])
    words, start, problems = packed.cpu().numpy(), 0, []
    for quality in qualities:
        problem, start = _unpack(quality, words, start)
        problems.append(problem)
    return problems


def _pack(qualities: Sequence[Tensor]) -> list[Tensor]:
    """Return flat int32 tensors, image by image what the host needs: 1 for each object whose entries are all finite,
    then the bits of qualities.

    Of a small problem these are all, by object. Otherwise they are each object's G best, and their points follow.
    """
    counts = [quality.shape[1] for quality in qualities]
    by_object = torch.cat([quality.T for quality in qualities])
    finite = ((by_object * 0).sum(dim=1) == 0).int().split(counts)  # 0 times what is not finite is NaN
    whole = by_object.split(counts)
    small = [_is_small(*quality.shape) for quality in qualities]
    if all(small):
        return [part for parts in zip(finite, map(_bits, whole), strict=True) for part in parts]
    points = _rank(by_object, max(count for count, few in zip(counts, small, strict=True) if not few))
    best, places = by_object.gather(1, points).split(counts), points.int().split(counts)
    parts = []
    for i, count in enumerate(counts):
        ranked = [_bits(best[i][:, :count]), places[i][:, :count].flatten()]
        parts += [finite[i], _bits(whole[i])] if small[i] else [finite[i], *ranked]
    return parts


def _bits(values: Tensor) -> Tensor:
    return values.flatten().view(torch.int32)


def _rank(rows: Tensor, count: int) -> Tensor:
    """Return the indices of each row's ``count`` largest entries in order, the first of equals first."""
    comparable = rows + 0.0  # turns -0.0 into 0.0, which it ties with
    if comparable.dtype == torch.float64:
        return comparable.sort(dim=1, descending=True, stable=True).indices[:, :count]
    # ``topk`` is faster but leaves the order of ties open. Keys made of the quality, as an integer that sorts alike,
    # and the reversed index have no ties.
    bits = comparable.view(torch.int32)
    sortable = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    last = rows.shape[1] - 1
    keys = (sortable.long() << 32) + torch.arange(last, -1, -1, device=rows.device)
    block = max(RANKED_BLOCK, 4 * count)  # so that each round leaves less than half of the points
    while keys.shape[1] > max(RANKED_ROW, block):
        keys = F.pad(keys, (0, -keys.shape[1] % block), value=torch.iinfo(torch.int64).min)
        keys = keys.view(len(rows), -1, block).topk(count, dim=2, sorted=False).values.flatten(1)
    return last - (keys.topk(count, dim=1).values & 0xFFFFFFFF)


def _unpack(quality: Tensor, words: npt.NDArray[np.int32], start: int) -> tuple[_Problem, int]:
    """Return the problem that :func:`_pack` packed at a place, and where the next one begins."""
    num_points, num_objects = quality.shape
    small = _is_small(num_points, num_objects)
    columns = num_points if small else num_objects
    begin = start + num_objects
    end = begin + num_objects * columns * quality.dtype.itemsize // 4
    finite = bool(words[start:begin].all())
    values = words[begin:end].copy().view(f"f{quality.dtype.itemsize}").reshape(num_objects, columns)
    if small:
        return _SmallProblem(values, finite), end
    points = words[end : end + num_objects * columns].astype(np.int64).reshape(num_objects, columns)
    return _FetchedProblem(values, points, num_points, finite), end + points.size


class _FetchedProblem(_RankedProblem):
    """Has each object's G best points, in order, from an accelerator: ``(G, G)`` qualities and indices."""

    def __init__(self, values: FloatArray, points: IntArray, num_points: int, finite: bool) -> None:
        self.values = values
        self.points = points
        self.finite = finite
        self.num_points = num_points
        self.num_objects = len(points)

    def _first(self) -> IntArray:
        return self.points[:, 0].copy()

    def _top(self, objects: IntArray, count: int) -> tuple[FloatArray, IntArray]:
        return self.values[objects, :count], self.points[objects, :count]
