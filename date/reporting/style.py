"""The look of all figures, in one place, and how they are written: the same bytes for the same content."""

from __future__ import annotations

import base64
import fnmatch
import html
import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from date.catalogue.publication import load_paper
from date.files import replace_bytes

PAPER_WHITE, INK, MUTED, GRID = "#ffffff", "#22262b", "#6b727b", "#e3e6ea"
SERIES = {
    "sky": "#56b4e9",
    "blue": "#0072b2",
    "pink": "#cc79a7",
    "orange": "#e69f00",
    "vermilion": "#d55e00",
    "green": "#009e73",
    "brown": "#7a6a53",
}
"""Okabe and Ito's colours, told apart with the common kinds of colour blindness, without black and yellow."""
TEXT = {"#56b4e9": "#2a86bb", "#e69f00": "#a86f00", "#cc79a7": "#a84f82"}
"""What takes the place of a light colour in letters."""
DARK = {
    PAPER_WHITE: "#1b1f24",
    INK: "#e4e7ea",
    MUTED: "#9aa3ad",
    GRID: "#30363d",
    "#56b4e9": "#8fd3ff",
    "#0072b2": "#3d95dd",
    "#d55e00": "#f0702a",
    "#009e73": "#1fbf92",
    "#7a6a53": "#b3a184",
    "#2a86bb": "#8fd3ff",
    "#a86f00": "#f0b030",
    "#a84f82": "#e09cc4",
}
"""What takes the place of a colour on a dark page."""
ONE_TO_ONE, ONE_TO_MANY = SERIES["vermilion"], SERIES["blue"]
"""Of kinds of branches, the same in every figure: the two colours that are told apart best."""
MARKERS = ("o", "s", "D", "v", "^", "P", "X")
FORMATS = ("svg", "png", "pdf")

RC: Any = {
    # DejaVu comes with matplotlib, so that figures are the same everywhere.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "lines.markeredgecolor": PAPER_WHITE,
    "lines.markeredgewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 0.6,
    "figure.facecolor": PAPER_WHITE,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "date",
    "pdf.fonttype": 42,
}
METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Neither time nor version of the library enters a file."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a network's curve or points."""

    color: str
    marker: str
    hollow: bool = False

    @property
    def text(self) -> str:
        """The colour of its labels, dark enough to be read on white."""
        return TEXT.get(self.color, self.color)

    @property
    def line(self) -> dict[str, Any]:
        """Matplotlib's keywords for its curve."""
        shown: dict[str, Any] = {"color": self.color, "linestyle": (0, (5, 1.5)) if self.hollow else "-"}
        if self.marker in "XP":  # crosses look smaller than other markers of a size
            shown["markersize"] = 5.6
        if self.hollow:
            shown |= {"markerfacecolor": PAPER_WHITE, "markeredgecolor": self.color, "markeredgewidth": 1.0}
        return shown


def looks(trainings: Sequence[str]) -> dict[str, Look]:
    """Return the colour and marker of each training of a catalogue, the same in every figure.

    Those that ``paper.yaml`` gives no look take the pairs of colour and marker that are left, in order.
    """
    given = load_paper().looks
    taken = {(entry.colour, entry.marker) for entry in given}
    left = [(c, m) for shift in range(len(MARKERS)) for c, m in _pairs(shift) if (c, m) not in taken]
    found: dict[str, Look] = {}
    free = 0
    for name in trainings:
        entry = next((entry for entry in given if fnmatch.fnmatchcase(name, entry.trainings)), None)
        if entry is not None:
            found[name] = Look(SERIES[entry.colour], entry.marker, entry.hollow)
        else:
            colour, marker = left[free % len(left)]
            found[name], free = Look(SERIES[colour], marker), free + 1
    return found


def _pairs(shift: int) -> list[tuple[str, str]]:
    return [(colour, MARKERS[(i + shift) % len(MARKERS)]) for i, colour in enumerate(SERIES)]


def new_figure(
    width: float, height: float, margins: tuple[float, float, float, float], panels: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure of a size in inches and its panels, one above the other on the same horizontal axis.

    Args:
        width: in inches.
        height: in inches.
        margins: left, right, bottom and top in inches.
        panels: number of pairs of axes; none where the caller makes its own.
    """
    left, right, bottom, top = margins
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure, list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]) if panels else []


def style_context() -> AbstractContextManager[None]:
    """Return the context in which figures are made and written."""
    return matplotlib.rc_context(RC)


def add_heading(figure: Figure, title: str, watermark: str | None) -> None:
    """Put the title at the top left and a tier's watermark at the bottom left, clear of the axes."""
    width, height = figure.get_size_inches()
    x = 0.12 / width
    figure.text(x, 1 - 0.10 / height, title, va="top", weight="bold", size=9.5)
    if watermark is not None:
        figure.text(x, 0.08 / height, watermark, va="bottom", size=7, color=MUTED, style="italic")


def spread(targets: list[float], gap: float) -> list[float]:
    """Return places nearest to ascending targets (least squares) that are at least ``gap`` apart, for labels."""
    blocks: list[tuple[float, int]] = []
    for i, target in enumerate(targets):
        total, count = target - i * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before, members = blocks.pop()
            total, count = total + before, count + members
        blocks.append((total, count))
    means = [total / count for total, count in blocks for _ in range(count)]
    return [mean + i * gap for i, mean in enumerate(means)]


@dataclass(frozen=True)
class Photo:
    """An image in a figure, which fills its axes."""

    artist: AxesImage
    jpeg: bytes
    """Stands in the SVG as it is, once however often it is drawn; Matplotlib would write each as a large PNG."""


def write_figure(figure: Figure, stem: Path, photos: Sequence[Photo] = ()) -> None:
    """Write a figure as ``<stem>.svg``, ``.png`` and ``.pdf``, each complete or not at all."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in FORMATS:
        for photo in photos:
            photo.artist.set_visible(kind != "svg")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=200, metadata=METADATA[kind])
        content = buffer.getvalue()
        if kind == "svg" and photos:
            content = _with_photos(content.decode(), figure, photos).encode()
        replace_bytes(stem.with_name(f"{stem.name}.{kind}"), content, durable=False)


def remove_figure(stem: Path) -> None:
    """Remove what `write_figure` wrote, if anything."""
    for kind in FORMATS:
        stem.with_name(f"{stem.name}.{kind}").unlink(missing_ok=True)


def _with_photos(svg: str, figure: Figure, photos: Sequence[Photo]) -> str:
    """Return an SVG with photos below all axes; its unit is a point, from the top left corner."""
    width, height = (72 * float(side) for side in figure.get_size_inches())
    first: dict[bytes, tuple[str, float, float]] = {}
    elements = []
    for photo in photos:
        box = photo.artist.axes.get_position()
        x, y = box.x0 * width, (1 - box.y1) * height
        if photo.jpeg in first:
            name, x0, y0 = first[photo.jpeg]
            elements.append(f'<use xlink:href="#{name}" transform="translate({x - x0:.4f} {y - y0:.4f})"/>')
            continue
        name = f"photo{len(first) + 1}"
        first[photo.jpeg] = (name, x, y)
        size = f'width="{box.width * width:.4f}" height="{box.height * height:.4f}" preserveAspectRatio="none"'
        data = base64.b64encode(photo.jpeg).decode("ascii")
        elements.append(
            f'<image id="{name}" x="{x:.4f}" y="{y:.4f}" {size} xlink:href="data:image/jpeg;base64,{data}"/>'
        )
    before, axes, after = svg.partition('<g id="axes_1">')
    return "\n".join([before, *elements, axes + after])


def color_variables() -> list[tuple[str, str, str]]:
    """Return the CSS variable of each colour of the figures, with its value on light and on dark pages."""
    colors = (PAPER_WHITE, INK, MUTED, GRID, *SERIES.values(), *TEXT.values())
    return [(f"--figure-{color[1:]}", color, DARK.get(color, color)) for color in colors]


def inline_svg(svg: str, name: str, title: str, description: str) -> str:
    """Return an SVG file's content for a page, which sets its width and colours, with a text for screen readers.

    Args:
        svg: the file's text.
        name: goes before every id, which are unique in a file but not on a page with several.
        title: short name, plain text.
        description: what the figure shows, plain text.
    """
    head, body = svg[svg.index("<svg") :].rstrip().split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    body = body.replace("*{stroke-linejoin", "svg *{stroke-linejoin")
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    heading, text = html.escape(title), html.escape(description)
    body = f'{head} role="img" aria-label="{heading}: {text}"><title>{heading}</title><desc>{text}</desc>{body}'
    for variable, color, _ in color_variables():
        body = body.replace(color, f"var({variable})")
    return body
