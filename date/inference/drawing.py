"""Detections drawn on an image so that they can be read on dark and on light."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLORS = ("#56b4e9", "#0072b2", "#cc79a7", "#e69f00", "#d55e00", "#009e73", "#7a6a53")
"""Of the classes, in turn: Okabe and Ito's, told apart with the common kinds of colour blindness."""
LIGHT, DARK = "#ffffff", "#101214"
LEAST_SIDE = 640
"""Pixels of the longer side of a drawn picture at least: names could not be read on smaller ones."""
MOST_ENLARGED = 8
"""Times that a small image is enlarged at most."""
TEXT, SEAM = 13, 2
"""Pixels: of the letters, and of the seam around a box's line, on a picture of `LEAST_SIDE`; more on larger ones."""

Rectangle = tuple[float, float, float, float]


def draw(
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: Sequence[int],
    classes: Sequence[str],
) -> Image.Image:
    """Draw detections on an image, enlarged by a whole number where it is small.

    A box is a line in its class's colour between a light and a dark seam; its name stands on a plate of the colour,
    above the box where there is room, and on no other name where that can be had.

    Args:
        pixels: (H, W, 3), RGB.
        boxes: (K, 4) xyxy in the image's pixels.
        scores: (K,).
        labels: (K,) indices into the classes.
        classes: their names.
    """
    height, width = pixels.shape[:2]
    factor = max(1, min(MOST_ENLARGED, LEAST_SIDE // max(height, width)))
    image = Image.fromarray(pixels).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(image)
    unit = max(1.0, max(image.size) / LEAST_SIDE / 2)
    line = max(2, round(1.5 * unit))
    order = np.argsort(np.asarray(scores), kind="stable")  # the best are drawn last, on top of the others
    placed = [tuple(float(v) * factor for v in box) for box in boxes]
    for i in order:
        _draw_box(canvas, placed[i], color_of(labels[i]), line)
    font = _font(round(TEXT * unit))
    taken: list[Rectangle] = []
    for i in reversed(order):  # the best choose their place first
        text = f"{classes[labels[i]]} {100 * scores[i]:.0f}"
        taken.append(_draw_name(canvas, placed[i], text, color_of(labels[i]), font, taken, image.size))
    return image


def color_of(label: int) -> str:
    """Return the colour of a class."""
    return COLORS[label % len(COLORS)]


def _draw_box(canvas: ImageDraw.ImageDraw, box: Rectangle, color: str, line: int) -> None:
    """Draw a box whose line is centred on its edge; a box of no extent is a dot."""
    x1, y1, x2, y2 = box
    half = line / 2
    for edge, grow, thick in ((DARK, half + 1, 1), (LIGHT, half - line, 1), (color, half, line)):
        outer = (x1 - grow, y1 - grow, max(x2 + grow, x1 - grow), max(y2 + grow, y1 - grow))
        canvas.rectangle(outer, outline=edge, width=thick)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"  # comes with matplotlib
    return ImageFont.truetype(str(path), size)


def _draw_name(
    canvas: ImageDraw.ImageDraw,
    box: Rectangle,
    text: str,
    color: str,
    font: ImageFont.FreeTypeFont,
    taken: Sequence[Rectangle],
    size: tuple[int, int],
) -> Rectangle:
    """Draw a name where it covers the fewest others, and return where."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 4
    x1, y1, x2, y2 = box
    corners = [(x1, y1 - high), (x1, y2), (x2 - wide, y1 - high), (x2 - wide, y2), (x1, y1), (x2 - wide, y2 - high)]
    plates = [_inside(x, y, wide, high, size) for x, y in corners]
    plate = min(plates, key=lambda p: sum(overlap(p, other) for other in taken))
    canvas.rectangle(plate, fill=color, outline=DARK)
    ink = DARK if _luminance(color) > 0.25 else LIGHT
    canvas.text((plate[0] + 3 - left, plate[1] + 2 - top), text, fill=ink, font=font)
    return plate


def _inside(x: float, y: float, wide: float, high: float, size: tuple[int, int]) -> Rectangle:
    x, y = max(0.0, min(x, size[0] - 1 - wide)), max(0.0, min(y, size[1] - 1 - high))
    return x, y, x + wide, y + high


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the common area of two rectangles, each given by left, top, right and bottom."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour, 0 to 1 (WCAG 2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
