"""Shapes, textures and a canvas for the generated scenes: numpy only, the same pixels on every machine.

Everything here is made of IEEE additions, products, quotients, square roots, comparisons and integers, which round
alike everywhere. Sines, exponentials, normal deviates, float reductions and BLAS do not (they depend on the libm or on
the vector unit), so directions come from points in a disc, log-uniform sizes from a polynomial, and blending is done in
integers. ``Generator.random`` and ``Generator.integers`` are the only random calls, for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rng = np.random.Generator
Inside = Callable[[Array, Array], Array]
"""Maps x of shape (1, W) and y of shape (H, 1), in pixels from the shape's centre, to a boolean (H, W)."""

SUBSAMPLES = 4
"""Samples per pixel and axis; boxes are therefore exact multiples of 1/4 px."""
FULL_COVERAGE = SUBSAMPLES**2


def between(rng: Rng, low: float, high: float) -> float:
    """Draw uniformly from [low, high)."""
    return low + (high - low) * float(rng.random())


def log_uniform(rng: Rng, low: float, octaves: float) -> float:
    """Draw from [low, low * 2**octaves) with a uniform logarithm (to within 2e-4)."""
    whole, part = divmod(octaves * float(rng.random()), 1.0)
    return math.ldexp(low * (1.0 + part * (0.69518 + part * (0.22638 + part * 0.07844))), int(whole))


def direction(rng: Rng) -> tuple[float, float]:
    """Draw a unit vector, uniform over all directions."""
    while True:
        x, y = between(rng, -1, 1), between(rng, -1, 1)
        if 0.01 < x * x + y * y < 1:
            length = math.sqrt(x * x + y * y)
            return x / length, y / length


def weighted(rng: Rng, weights: Sequence[int]) -> int:
    """Draw an index with a probability proportional to its integer weight."""
    return int(np.searchsorted(np.cumsum(weights), rng.integers(sum(weights)), side="right"))


# ---------------------------------------------------------------------------------------------------------- outlines


def _disc(u: Array, v: Array) -> Array:
    return u * u + v * v <= 1.0


def _square(u: Array, v: Array) -> Array:
    return (np.abs(u) <= 0.8) & (np.abs(v) <= 0.8)


def _triangle(u: Array, v: Array) -> Array:
    half_root3 = 0.8660254037844386
    return (v <= 0.62) & (half_root3 * u - 0.5 * v <= 0.62) & (-half_root3 * u - 0.5 * v <= 0.62)


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return ((u <= 1.05) & (v <= 0.34)) | ((v <= 1.05) & (u <= 0.34))


def _ring(u: Array, v: Array) -> Array:
    r2 = u * u + v * v
    return (r2 <= 1.0) & (r2 >= 0.3)


# Cosines and sines of the five edge normals of a pentagram.
_NORMALS = (
    (0.0, 1.0),
    (0.9510565162951535, 0.30901699437494745),
    (-0.9510565162951535, 0.30901699437494745),
    (0.5877852522924731, -0.8090169943749475),
    (-0.5877852522924731, -0.8090169943749475),
)


def _star(u: Array, v: Array) -> Array:
    # A pentagram is where at least four of its five half-planes hold; its tips are cut to keep it legible when small.
    held = sum((a * u + b * v <= 0.42).astype(np.uint8) for a, b in _NORMALS)
    return (held >= 4) & (u * u + v * v <= 1.21)


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
}
"""Shapes in unit coordinates: all within `OUTLINE_RADIUS`, in a box of side about 2 in any rotation."""
OUTLINE_RADIUS = 1.25


def placed(outline: Callable[[Array, Array], Array], size: float, turn: tuple[float, float], stretch: float) -> Inside:
    """Scale a unit outline to a box of side ``size`` px, stretch it along one axis, rotate it by ``turn``."""
    cos, sin = turn
    along, across = 2.0 / (size * stretch), 2.0 * stretch / size
    return lambda x, y: outline((cos * x + sin * y) * along, (cos * y - sin * x) * across)


def capsule(x0: float, y0: float, x1: float, y1: float, r0: float, r1: float) -> Inside:
    """Return a segment from (x0, y0) to (x1, y1) thickened to radius r0 at its start and r1 at its end, round-ended."""
    dx, dy = x1 - x0, y1 - y0
    length2 = dx * dx + dy * dy

    def inside(x: Array, y: Array) -> Array:
        t = np.minimum(np.maximum(((x - x0) * dx + (y - y0) * dy) / length2, 0.0), 1.0)
        ex, ey, r = x - x0 - t * dx, y - y0 - t * dy, r0 + t * (r1 - r0)
        return ex * ex + ey * ey <= r * r

    r = max(r0, r1)
    return _within(inside, min(x0, x1) - r, min(y0, y1) - r, max(x0, x1) + r, max(y0, y1) + r)


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Inside:
    """Return an axis-parallel ellipse."""
    return _within(lambda x, y: _disc((x - cx) / rx, (y - cy) / ry), cx - rx, cy - ry, cx + rx, cy + ry)


def _within(inside: Inside, left: float, top: float, right: float, bottom: float) -> Inside:
    """Evaluate a shape on its bounding rectangle only: most of a limb's window is empty."""

    def cropped(x: Array, y: Array) -> Array:
        samples = np.zeros((y.shape[0], x.shape[1]), dtype=bool)
        i, j = np.searchsorted(y[:, 0], (top, bottom)), np.searchsorted(x[0], (left, right))
        samples[i[0] : i[1], j[0] : j[1]] = inside(x[:, j[0] : j[1]], y[i[0] : i[1]])
        return samples

    return cropped


# ----------------------------------------------------------------------------------------------------- rasterisation


@dataclass(frozen=True)
class Mask:
    """A rasterised shape on its own window, which may reach out of the image.

    Attributes:
        x: first column of the window, in image pixels.
        y: first row.
        samples: (h * SUBSAMPLES, w * SUBSAMPLES) boolean.
        coverage: (h, w) integer, samples inside per pixel, 0 to FULL_COVERAGE.
    """

    x: int
    y: int
    samples: Array
    coverage: Array

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Full extent (x1, y1, x2, y2) in px, occlusion and image border ignored."""
        rows, cols = np.flatnonzero(self.samples.any(1)), np.flatnonzero(self.samples.any(0))
        return (
            self.x + float(cols[0]) / SUBSAMPLES,
            self.y + float(rows[0]) / SUBSAMPLES,
            self.x + float(cols[-1] + 1) / SUBSAMPLES,
            self.y + float(rows[-1] + 1) / SUBSAMPLES,
        )

    @property
    def solid(self) -> Array:
        """(h, w) boolean, pixels of which at least half is covered."""
        return self.coverage * 2 >= FULL_COVERAGE

    def grid(self) -> tuple[Array, Array]:
        """Return pixel coordinates x, (1, w), and y, (h, 1), counted from the window's middle."""
        h, w = self.coverage.shape
        return np.arange(w)[None, :] - (w - 1) / 2, np.arange(h)[:, None] - (h - 1) / 2


def as_mask(x: int, y: int, samples: Array) -> Mask:
    """Count samples per pixel."""
    counts = samples.astype(np.int32)
    counts = reduce(np.add, [counts[i::SUBSAMPLES] for i in range(SUBSAMPLES)])
    return Mask(x, y, samples, reduce(np.add, [counts[:, i::SUBSAMPLES] for i in range(SUBSAMPLES)]))


def rasterise(shapes: Sequence[Inside], cx: float, cy: float, reach: tuple[float, float, float, float]) -> list[Mask]:
    """Rasterise shapes around (cx, cy) on one window that reaches ``reach`` px to the left, top, right and bottom."""
    x0, y0 = math.floor(cx - reach[0]), math.floor(cy - reach[1])
    x1, y1 = math.ceil(cx + reach[2]), math.ceil(cy + reach[3])
    x = (x0 + (np.arange((x1 - x0) * SUBSAMPLES) + 0.5) / SUBSAMPLES - cx)[None, :]
    y = (y0 + (np.arange((y1 - y0) * SUBSAMPLES) + 0.5) / SUBSAMPLES - cy)[:, None]
    return [as_mask(x0, y0, shape(x, y)) for shape in shapes]


# ---------------------------------------------------------------------------------------------------------- textures


def vivid(rng: Rng) -> Array:
    """Draw a colour, (3,) integer: one channel high, one low, one between."""
    high, low = int(rng.integers(140, 256)), int(rng.integers(0, 120))
    colour = np.array([high, low, int(rng.integers(low, high + 1))])
    return colour[np.argsort(rng.random(3))]


def muted(rng: Rng) -> Array:
    """Draw a greyish colour, (3,) integer."""
    return rng.integers(40, 210) + rng.integers(-28, 29, 3)


def value_noise(rng: Rng, height: int, width: int, cell: float) -> Array:
    """Draw noise in [0, 1], (height, width): random values on a lattice of ``cell`` px, interpolated smoothly."""
    rows, cols = (np.arange(height) + 0.5) / cell, (np.arange(width) + 0.5) / cell
    i, j = rows.astype(np.int64), cols.astype(np.int64)
    lattice = rng.random((int(i[-1]) + 2, int(j[-1]) + 2))
    a, b = (rows - i)[:, None], (cols - j)[None, :]
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    top = lattice[i][:, j] * (1.0 - b) + lattice[i][:, j + 1] * b
    bottom = lattice[i + 1][:, j] * (1.0 - b) + lattice[i + 1][:, j + 1] * b
    return top * (1.0 - a) + bottom * a


def texture(rng: Rng, mask: Mask, first: Array, second: Array) -> Array:
    """Mix two colours over a mask's window as plain colour, gradient, stripes or noise; (h, w, 3) integer."""
    h, w = mask.coverage.shape
    x, y = mask.grid()
    dx, dy = direction(rng)
    ramp = dx * x + dy * y
    style = weighted(rng, (3, 3, 3, 2))
    if style == 0:
        mix = np.full((h, w), 0.15)
    elif style == 1:
        mix = np.minimum(np.maximum(0.5 + ramp / max(h, w), 0.0), 1.0)
    elif style == 2:
        period = max(h, w) * between(rng, 0.15, 0.4)
        mix = (np.floor(ramp / period) % 2) * 0.7
    else:
        mix = value_noise(rng, h, w, max(2.0, max(h, w) * between(rng, 0.1, 0.25)))
    return quantise(first + (second - first) * mix[..., None])


def quantise(values: Array) -> Array:
    """Round to the nearest integer in [0, 255]."""
    return np.minimum(np.maximum(np.floor(values + 0.5), 0), 255).astype(np.int32)


# ------------------------------------------------------------------------------------------------------------ canvas


class Canvas:
    """A square picture that remembers which object each pixel shows.

    Attributes:
        pixels: (S, S, 3) integer RGB in [0, 255].
        owner: (S, S) integer, index of the object that a pixel shows, -1 for none.
    """

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels
        self.size = pixels.shape[0]
        self.owner = np.full(pixels.shape[:2], -1, dtype=np.int64)
        self._full: list[int] = []

    def _slices(self, mask: Mask) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where a mask's window meets the image, in the image and in the window."""
        h, w = mask.coverage.shape
        top, left = max(mask.y, 0), max(mask.x, 0)
        bottom, right = max(min(mask.y + h, self.size), top), max(min(mask.x + w, self.size), left)
        image = slice(top, bottom), slice(left, right)
        return image, (slice(top - mask.y, bottom - mask.y), slice(left - mask.x, right - mask.x))

    def paint(self, mask: Mask, colours: Array) -> None:
        """Blend ``colours``, (3,) or (h, w, 3) of the mask's window, into the picture by coverage."""
        image, window = self._slices(mask)
        cover = mask.coverage[window][..., None]
        new = np.broadcast_to(colours, (*mask.coverage.shape, 3))[window]
        old = self.pixels[image]
        self.pixels[image] = (old * (FULL_COVERAGE - cover) + new * cover + FULL_COVERAGE // 2) // FULL_COVERAGE

    def claim(self, mask: Mask, least_visible: float) -> bool:
        """Register a new object in front of all others, unless it or another would show too little of itself.

        Args:
            mask: the object.
            least_visible: what any object must show, as a fraction of its area, the part outside the image included.

        Returns:
            Whether the object was registered.
        """
        image, window = self._slices(mask)
        solid, owner = mask.solid[window], self.owner[image]
        full, shown = int(mask.solid.sum()), int(solid.sum())
        if shown == 0 or shown < least_visible * full:
            return False
        visible = np.bincount(self.owner[self.owner >= 0], minlength=len(self._full))
        hidden = np.bincount(owner[solid & (owner >= 0)], minlength=len(self._full))
        if any(v - h < least_visible * f for v, h, f in zip(visible, hidden, self._full, strict=True) if h):
            return False
        owner[solid] = len(self._full)
        self._full.append(full)
        return True

    def visible_box(self, index: int) -> tuple[float, float, float, float]:
        """Return the extent (x1, y1, x2, y2) of the pixels that show object ``index``."""
        shown = self.owner == index
        rows, cols = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        return float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1)

    def mean_under(self, mask: Mask) -> Array:
        """Return the mean colour, (3,) integer, of what lies under a mask's window."""
        image, _ = self._slices(mask)
        under = self.pixels[image].reshape(-1, 3)
        return under.sum(0) // max(len(under), 1)

    def blur(self, mask: Mask, radius: int) -> None:
        """Average the pixels of a mask's window over squares of side 2 * radius + 1, in integers."""
        image, _ = self._slices(mask)
        patch = np.pad(self.pixels[image], ((radius, radius), (radius, radius), (0, 0)), mode="edge")
        h, w = patch.shape[0] - 2 * radius, patch.shape[1] - 2 * radius
        side = 2 * radius + 1
        rows = reduce(np.add, [patch[i : i + h] for i in range(side)])
        self.pixels[image] = reduce(np.add, [rows[:, j : j + w] for j in range(side)]) // side**2
