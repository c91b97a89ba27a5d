"""What a generated picture shows: scenes of shapes (a small COCO) and crowds of figures (a small CrowdHuman).

A painter takes a random generator and an image size and returns a `Picture`. A painter whose pictures are in use is
never changed: a change is a new painter with the next version in `PAINTERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from date.data.shapes import (
    OUTLINE_RADIUS,
    OUTLINES,
    Array,
    Canvas,
    Inside,
    Mask,
    Rng,
    as_mask,
    between,
    capsule,
    direction,
    ellipse,
    log_uniform,
    muted,
    placed,
    quantise,
    rasterise,
    texture,
    value_noise,
    vivid,
    weighted,
)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Target:
    """One annotated object; boxes are (x1, y1, x2, y2) in px, multiples of 1/4."""

    label: int
    box: Box
    visible: Box
    ignore: bool = False


@dataclass(frozen=True)
class Picture:
    """``pixels``: (S, S, 3) uint8 RGB; ``targets``: from back to front."""

    pixels: Array
    targets: list[Target]


def clip(box: Box, frame: Box) -> Box:
    """Intersect a box with a frame; both are (x1, y1, x2, y2)."""
    return max(box[0], frame[0]), max(box[1], frame[1]), min(box[2], frame[2]), min(box[3], frame[3])


# ------------------------------------------------------------------------------------------------- what both share


def background(rng: Rng, size: int) -> Array:
    """Blend four corner colours over an image, with coarse and fine noise and faint stripes; (S, S, 3) integer."""
    corner = np.stack([muted(rng) for _ in range(4)])
    t = ((np.arange(size) + 0.5) / size)[:, None, None]
    s = t.transpose(1, 0, 2)
    pixels = (corner[0] * (1 - s) + corner[1] * s) * (1 - t) + (corner[2] * (1 - s) + corner[3] * s) * t
    for cell in (size / 3, size / 10, size / 40):
        grain = value_noise(rng, size, size, cell)[..., None]
        pixels = pixels + (grain - 0.5) * rng.integers(0, 46, 3)
    if rng.integers(3) == 0:
        dx, dy = direction(rng)
        ramp = dx * np.arange(size)[None, :] + dy * np.arange(size)[:, None]
        stripe = np.floor(ramp / between(rng, size / 24, size / 8)) % 2
        pixels = pixels + stripe[..., None] * rng.integers(-22, 23, 3)
    return quantise(pixels)


def strokes(rng: Rng, canvas: Canvas, count: int) -> None:
    """Paint thin bent strokes that belong to no class."""
    size = canvas.size
    for _ in range(count):
        x, y = between(rng, 0, size), between(rng, 0, size)
        radius = size * between(rng, 0.004, 0.013)
        (ax, ay), (bx, by) = direction(rng), direction(rng)
        a, b = size * between(rng, 0.04, 0.16), size * between(rng, 0.04, 0.16)
        limbs = [capsule(0, 0, ax * a, ay * a, radius, radius), capsule(0, 0, bx * b, by * b, radius, radius)]
        reach = (
            radius - min(0.0, ax * a, bx * b),
            radius - min(0.0, ay * a, by * b),
            radius + max(0.0, ax * a, bx * b),
            radius + max(0.0, ay * a, by * b),
        )
        canvas.paint(union(rasterise(limbs, x, y, reach)), vivid(rng) if rng.integers(2) else muted(rng))


def union(masks: list[Mask]) -> Mask:
    """Unite masks of one window."""
    return as_mask(masks[0].x, masks[0].y, reduce(np.logical_or, [mask.samples for mask in masks]))


def developed(rng: Rng, canvas: Canvas) -> Array:
    """Add sensor noise; (S, S, 3) uint8."""
    strength = int(rng.integers(1, 6))
    noise = rng.integers(-strength, strength + 1, (2, canvas.size, canvas.size, 3)).sum(0)
    return np.minimum(np.maximum(canvas.pixels + noise, 0), 255).astype(np.uint8)


def contrasting(rng: Rng, against: Array, least: int) -> Array:
    """Draw a vivid or grey colour whose channels differ from ``against`` by ``least`` in sum."""
    while True:
        colour = vivid(rng) if rng.integers(5) else np.full(3, rng.integers(0, 256))
        if int(np.abs(colour - against).sum()) >= least:
            return colour


# ----------------------------------------------------------------------------------------------------------- scenes

SCENE_CLASSES = tuple(OUTLINES)
_CLASS_WEIGHTS = (24, 21, 18, 15, 12, 10)
_CLASS_TINTS = np.array(
    [[205, 70, 70], [70, 90, 205], [70, 185, 80], [215, 195, 60], [190, 70, 190], [70, 190, 200]],
)
_COUNT_WEIGHTS = (8, 12, 15, 16, 15, 12, 9, 6, 4, 3)  # of 1 to 10 objects
_LEAST_VISIBLE = 0.4


def paint_scene(rng: Rng, size: int) -> Picture:
    """Paint 1 to 10 textured, rotated shapes over clutter, or none in one picture of a hundred.

    Four objects of five have a colour near their class's own, as many things of the real world have; the shape tells
    the others. The sides of the boxes are log-uniform from 1/11 to 1/2 of the picture. Later shapes cover earlier ones,
    but none shows less than two fifths of itself. A box is the shape's full extent within the image, hidden parts
    included.
    """
    canvas = Canvas(background(rng, size))
    strokes(rng, canvas, int(rng.integers(1, 6)))
    count = 0 if rng.integers(100) == 0 else 1 + weighted(rng, _COUNT_WEIGHTS)
    placed_objects: list[tuple[int, Mask, float, float]] = []
    for _ in range(count):
        label, side = weighted(rng, _CLASS_WEIGHTS), log_uniform(rng, size / 11, 2.46)
        for _ in range(12):
            shape = _try_shape(rng, canvas, label, side, [(x, y) for _, _, x, y in placed_objects])
            if shape is not None:
                placed_objects.append((label, *shape))
                break
    strokes(rng, canvas, int(rng.integers(0, 3)))
    frame = (0.0, 0.0, float(size), float(size))
    targets = []
    for index, (label, mask, _, _) in enumerate(placed_objects):
        box = clip(mask.box, frame)
        targets.append(Target(label, box, clip(canvas.visible_box(index), box)))
    return Picture(developed(rng, canvas), targets)


def _try_shape(
    rng: Rng, canvas: Canvas, label: int, side: float, others: list[tuple[float, float]]
) -> tuple[Mask, float, float] | None:
    """Paint a shape at a random place, often near another one; None where it would hide too much."""
    inner = (0.04 * canvas.size, 0.96 * canvas.size)
    x, y = between(rng, *inner), between(rng, *inner)
    if others and rng.integers(3) == 0:
        (dx, dy), far = direction(rng), side * between(rng, 0.4, 1.0)
        near = others[int(rng.integers(len(others)))]
        x, y = near[0] + dx * far, near[1] + dy * far
        if not (inner[0] <= x <= inner[1] and inner[0] <= y <= inner[1]):
            return None
    stretch = between(rng, 0.85, 1.15)
    reach = OUTLINE_RADIUS * 0.5 * side * max(stretch, 1 / stretch)
    outline = placed(OUTLINES[SCENE_CLASSES[label]], side, direction(rng), stretch)
    (mask,) = rasterise([outline], x, y, (reach, reach, reach, reach))
    if not canvas.claim(mask, _LEAST_VISIBLE):
        return None
    under = canvas.mean_under(mask)
    colour = _tint(rng, label, under) if rng.integers(5) else contrasting(rng, under, 170)
    second = quantise(0.5 * colour + 0.5 * contrasting(rng, under, 120))
    canvas.paint(mask, texture(rng, mask, colour, second))
    return mask, x, y


def _tint(rng: Rng, label: int, under: Array) -> Array:
    """Draw a colour near the class's own that stands out from what lies under it; any such colour after ten tries."""
    for _ in range(10):
        colour = np.clip(_CLASS_TINTS[label] + rng.integers(-35, 36, 3), 0, 255)
        if int(np.abs(colour - under).sum()) >= 130:
            return colour
    return contrasting(rng, under, 170)


# ------------------------------------------------------------------------------------------------------------ crowd

CROWD_CLASSES = ("person",)
_SKIN = np.array([[247, 214, 187], [229, 184, 143], [198, 144, 102], [151, 101, 67], [98, 64, 45]])
_LEAST_VISIBLE_FIGURE = 0.2


@dataclass(frozen=True)
class Stance:
    """Where a figure stands (its feet, px) and how large it is (px)."""

    x: float
    foot: float
    height: float
    width: float


def paint_crowd(rng: Rng, size: int) -> Picture:
    """Paint groups of overlapping figures, near ones over far ones, and now and then a blurred clump to be ignored.

    A box is the figure's full extent, which may reach out of the image, as CrowdHuman's full-body boxes do. No figure
    shows less than a fifth of itself. A clump's box is the part of it within the image.
    """
    horizon = size * between(rng, 0.08, 0.3)
    canvas = Canvas(_street(rng, size, horizon))
    frame = (0.0, 0.0, float(size), float(size))
    drawn: list[tuple[Mask, bool]] = []
    if rng.integers(5) < 2:
        clump = _paint_clump(rng, canvas, horizon)
        drawn.append((clump, True))
    for stance in sorted(_stances(rng, size, horizon), key=lambda s: s.foot):
        figure = paint_figure(rng, canvas, stance, _LEAST_VISIBLE_FIGURE)
        if figure is not None:
            drawn.append((figure, False))
    targets = []
    for index, (mask, ignore) in enumerate(drawn):
        box = clip(mask.box, frame) if ignore else mask.box
        targets.append(Target(0, box, clip(canvas.visible_box(index), box), ignore))
    return Picture(developed(rng, canvas), targets)


def _street(rng: Rng, size: int, horizon: float) -> Array:
    """Paint a wall above the horizon and a ground below, with poles and strokes; (S, S, 3) integer."""
    ground = background(rng, size)
    wall = quantise(ground + rng.integers(-60, 61, 3))
    canvas = Canvas(np.where(np.arange(size)[:, None, None] < horizon, wall, ground))
    for _ in range(int(rng.integers(0, 4))):
        radius, top = size * between(rng, 0.006, 0.016), size * between(rng, 0.15, 0.5)
        pole = capsule(0, 0, 0, -top, radius, radius)
        reach = (radius, top + radius, radius, radius)
        (mask,) = rasterise([pole], between(rng, 0, size), horizon + 0.1 * size, reach)
        canvas.paint(mask, muted(rng))
    strokes(rng, canvas, int(rng.integers(1, 6)))
    return canvas.pixels


def _stances(rng: Rng, size: int, horizon: float) -> list[Stance]:
    """Place groups of 1 to 7 figures of like height that stand close together; the nearer, the lower their feet."""
    stances = []
    for _ in range(int(rng.integers(2, 7))):
        height = log_uniform(rng, 0.21 * size, 1.75)
        foot = horizon + 1.25 * height + size * between(rng, -0.03, 0.03)
        x, side = between(rng, -0.05 * size, 0.95 * size), 1 if rng.integers(2) else -1
        for _ in range(1 + weighted(rng, (2, 4, 5, 5, 4, 3, 2))):
            tall = height * between(rng, 0.88, 1.08)
            width = tall * between(rng, 0.34, 0.46)
            if -0.3 * width < x < size + 0.3 * width:
                stances.append(Stance(x, foot + height * between(rng, -0.06, 0.06), tall, width))
            x += side * width * between(rng, 0.145, 1.08)
    return stances


def _paint_clump(rng: Rng, canvas: Canvas, horizon: float) -> Mask:
    """Paint a far, dense, blurred clump of figures and register its rectangle as one object."""
    size = canvas.size
    height = size * between(rng, 0.1, 0.17)
    count = int(rng.integers(5, 11))
    x0, foot = between(rng, 0, 0.8 * size), horizon + 1.2 * height
    width = min(0.28 * height * (count - 1) + 0.5 * height, size - x0)
    for i in range(count):
        jitter = height * between(rng, -0.08, 0.08)
        stance = Stance(x0 + 0.25 * height + 0.28 * height * i, foot + jitter, height, 0.42 * height)
        paint_figure(rng, canvas, stance, None)
    reach = (0.0, 1.1 * height, width, 0.1 * height)
    (mask,) = rasterise([lambda x, y: (x >= 0) & (x <= width) & (y <= 0.1 * height)], x0, foot, reach)
    canvas.blur(mask, max(1, round(size / 100)))
    claimed = canvas.claim(mask, 0.0)
    assert claimed
    return mask


def paint_figure(rng: Rng, canvas: Canvas, stance: Stance, least_visible: float | None) -> Mask | None:
    """Paint a person of head, trunk, arms and legs.

    Args:
        rng: where pose, colours and texture come from.
        canvas: what to paint on.
        stance: place and size.
        least_visible: the least visible fraction of any object, see `Canvas.claim`; None to register no object.

    Returns:
        The whole figure's mask, or None where the figure was not painted since it would hide too much.
    """
    h, w = stance.height, stance.width
    reach = (0.6 * w, 1.02 * h, 0.6 * w, 0.02 * h)
    masks = rasterise(_body(rng, h, w), stance.x, stance.foot, reach)
    whole = union(masks)
    if least_visible is not None and not canvas.claim(whole, least_visible):
        return None
    under = canvas.mean_under(whole)
    trousers, shirt, second = (contrasting(rng, under, 110) for _ in range(3))
    skin = _SKIN[int(rng.integers(len(_SKIN)))] + rng.integers(-8, 9)
    hair = rng.integers(10, 90) + np.array([12, 4, 0])
    # Round bodies: darker to the sides, which also parts figures of like colours.
    x, _ = whole.grid()
    shade = (1.08 - 0.45 * (2.0 * x / w) ** 2)[..., None]
    legs, sleeves, trunk, head, fringe = masks
    cloth = texture(rng, whole, shirt, second)
    for mask, colour in ((legs, trousers), (sleeves, cloth), (trunk, cloth), (head, skin), (fringe, hair)):
        darker = 0.78 if mask is sleeves else 1.0
        canvas.paint(mask, quantise(colour * darker * shade))
    return whole


def _body(rng: Rng, h: float, w: float) -> list[Inside]:
    """Return legs, sleeves, trunk, head and fringe around the feet's midpoint, y down; ``h`` and ``w`` in px."""
    lean = w * between(rng, -0.06, 0.06)
    stride, thigh = w * between(rng, 0.08, 0.3), h * between(rng, 0.045, 0.06)
    hand, drop = [w * between(rng, 0.3, 0.45) for _ in range(2)], [h * between(rng, 0.4, 0.6) for _ in range(2)]
    shoulder, waist = w * between(rng, 0.24, 0.3), w * between(rng, 0.18, 0.27)
    sole, arm, head = 0.03 * h, 0.12 * w, h * between(rng, 0.065, 0.08)

    def legs(x: Array, y: Array) -> Array:
        left = capsule(-0.5 * waist, -0.48 * h, -stride, -sole, thigh, sole)
        right = capsule(0.5 * waist, -0.48 * h, stride, -sole, thigh, sole)
        return left(x, y) | right(x, y)

    def sleeves(x: Array, y: Array) -> Array:
        left = capsule(lean - shoulder, -0.77 * h, -hand[0], -drop[0], arm, 0.7 * arm)
        right = capsule(lean + shoulder, -0.77 * h, hand[1], -drop[1], arm, 0.7 * arm)
        return left(x, y) | right(x, y)

    trunk = capsule(lean, -0.83 * h + shoulder, 0, -0.46 * h, shoulder, waist)
    face = ellipse(1.3 * lean, -h + 1.15 * head, head, 1.15 * head)
    return [legs, sleeves, trunk, face, lambda x, y: face(x, y) & (y < -h + 0.85 * head)]


@dataclass(frozen=True)
class Painter:
    """How one version of a kind of pictures is painted, and its classes in the order of their labels."""

    paint: Callable[[Rng, int], Picture]
    classes: tuple[str, ...]


PAINTERS: dict[str, dict[int, Painter]] = {
    "scenes": {1: Painter(paint_scene, SCENE_CLASSES)},
    "crowd": {1: Painter(paint_crowd, CROWD_CLASSES)},
}
