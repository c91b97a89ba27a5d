"""Boxes in another form than x, y, width, height in pixels: corners, fractions of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from date.datasets.columns import Floats
from date.errors import UserError

SUSPICIOUS = 0.9
"""Share of boxes of a strange form from which on it is said; boxes that leave the image: half of that."""
FEW = 10
"""Annotated boxes below which their form is not judged."""
FRACTIONS = "fractions of the image, and not pixels"
CORNERS = "x1, y1, x2, y2, and not x, y, width, height"
OPTION = "give --boxes-as-written"
"""How a command is told that boxes are what they should be, whatever they look like."""
KEY = "write 'boxes_as_written: true' into the dataset's entry"
"""How a dataset's entry says so."""


def strange_form(boxes: Floats, sizes: Floats) -> tuple[str, str] | None:
    """Return what is strange about boxes and what they look like; None where they are as they should be.

    Args:
        boxes: (N, 4) as they stand in a file.
        sizes: (N, 2) width and height of the image of each in px, NaN where unknown.
    """
    if not len(boxes):
        return None
    share = SUSPICIOUS * len(boxes)  # one side after the other, since most files end at the first
    if np.sum(np.abs(boxes[:, 2]) <= 1.5) > share and np.sum((np.abs(boxes) <= 1.5).all(axis=1)) > share:
        return "almost all boxes lie in the first pixel", FRACTIONS
    if np.sum(boxes[:, 2] >= boxes[:, 0]) <= share:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        leave = (boxes[:, :2] + boxes[:, 2:] > 1.1 * sizes + 1).any(axis=1)
        corners = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= sizes + 1).all(axis=1)
    if leave.mean() > SUSPICIOUS / 2 and corners.sum() > share:
        return f"{100 * leave.mean():.0f} % of the boxes leave their image", CORNERS
    return None


def check_form(path: Path | str, boxes: Floats, sizes: Floats, accept: str) -> None:
    """Raise a `UserError` where annotated boxes look as if they were in another form.

    Args:
        path: of their file, for the message.
        boxes: see `strange_form`.
        sizes: see `strange_form`.
        accept: how to say that the boxes are as they should be, for the message: `OPTION` or `KEY`.
    """
    if len(boxes) >= FEW and (found := strange_form(boxes, sizes)) is not None:
        raise UserError(
            f"{path}: {found[0]}: they look like {found[1]}; write them as x, y, width, height in pixels, or, if they "
            f"are that, {accept}."
        )
