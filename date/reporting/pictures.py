"""Figures that show images: the positive points of Figure 1, and detections with and without NMS."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from date.catalogue import Catalogue, Tier, Training, View
from date.reporting import style
from date.results import RunResult

WIDTH, SIDE, GAP, TOP, LABEL, SCORE, COUNT, BOTTOM, MARK = 6.8, 0.12, 0.12, 0.36, 0.22, 0.13, 0.24, 0.08, 0.22
"""Inches: of the figure; beside and between panels; of the heading, the views' names and their scores, the counts below
an image; and at the bottom for legend and watermark, each."""
TALLEST = 1.25
"""Height over width of the tallest panel; taller images are narrower than their column."""
LIGHT, SHADE = "#fefefe", "#101214"
"""Around what is drawn on photos, which are as bright on a dark page: not the colours that change with the page."""
FINEST_STRIDE = 8


@dataclass(frozen=True)
class PictureDrawing:
    """A figure of pictures to be drawn."""

    name: str
    title: str
    caption: str
    views: tuple[View, ...]
    one_image: bool
    """The first of the chosen images, with all views of it in a grid; else a line of views for each."""


@dataclass(frozen=True)
class DrawnPictures:
    """A figure of pictures that was drawn; without any picture there is none, and the notes say why."""

    notes: list[str]
    """Sentences for the caption: what was counted by which threshold, and what is missing."""
    counts: list[str] = field(default_factory=list)
    """What was counted on each image, for screen readers, too."""
    runs: list[RunResult] = field(default_factory=list)
    """Whose pictures they are."""

    def __bool__(self) -> bool:
        return bool(self.counts)


@dataclass(frozen=True)
class _Source:
    """The recorded data of a view."""

    view: View
    run: RunResult | None
    """The run of the lowest seed that has pictures."""
    missing: str = ""

    def image(self, like: dict[str, Any]) -> dict[str, Any] | None:
        """Return the view's own record of an image; None where it has none."""
        images = [] if self.run is None or self.run.pictures is None else self.run.pictures["images"]
        same = (image for image in images if image["id"] == like["id"] and image["jpeg"] == like["jpeg"])
        return next(same, None)


def picture_drawings(catalogue: Catalogue) -> list[PictureDrawing]:
    """Return the figures of pictures: the paper's, then the catalogue's own sheets."""
    figures = [
        PictureDrawing(f.name, f.heading, f.marked_caption, tuple(f.views), True)
        for f in catalogue.figures.values()
        if f.views
    ]
    sheets = catalogue.pictures.sheets.values()
    return figures + [PictureDrawing(s.name, s.title, s.caption, tuple(s.views), False) for s in sheets]


def write_pictures(
    drawing: PictureDrawing, catalogue: Catalogue, tier: Tier, results: Sequence[RunResult], stem: Path
) -> DrawnPictures:
    """Draw a figure of pictures as ``<stem>.svg``, ``.png`` and ``.pdf``.

    Returns:
        What its caption says; without any picture no file is written, and earlier ones are removed.
    """
    sources = [_source(view, results) for view in drawing.views]
    absent = list(dict.fromkeys(source.missing for source in sources if source.missing))
    records = [source.run.pictures for source in sources if source.run is not None and source.run.pictures is not None]
    if not records:
        style.remove_figure(stem)
        return DrawnPictures(absent)
    images = records[0]["images"][: 1 if drawing.one_image else None]
    with style.style_context():
        counts, several = _draw(drawing, catalogue, tier, sources, images, stem)
    runs = list({id(s.run): s.run for s in sources if s.run is not None}.values())
    notes = [*_notes(drawing, records[0], runs), *absent]
    if several:
        notes.append("A view without an image is of a network that was evaluated on other images.")
    return DrawnPictures(notes, counts, runs)


def _source(view: View, results: Sequence[RunResult]) -> _Source:
    runs = [run for run in results if run.training == view.training]
    for run in runs:
        if run.pictures is not None and run.pictures["images"]:
            return _Source(view, run)
    if view.training is None:
        return _Source(view, None)
    reasons = [run.pictures["none_because"] for run in runs if run.pictures is not None]
    if reasons:
        return _Source(view, None, f"No pictures of {view.training}: {reasons[0]}.")
    what = "it was evaluated before there were any, evaluate it again" if runs else "it is not trained yet"
    return _Source(view, None, f"No pictures of {view.training}: {what}.")


def _notes(drawing: PictureDrawing, record: dict[str, Any], runs: Sequence[RunResult]) -> list[str]:
    low, high = record["choice"]["objects"]
    overlapping = record["choice"]["prefer"] == "overlapping"
    rule = "with the most overlapping pairs, of those with" if overlapping else "the first with"
    which = "Image" if drawing.one_image else "Images"
    notes = [f"{which} of the validation set: {rule} {low} to {high} objects."]
    scores = {view.label: view.score for view in drawing.views if view.score is not None}
    if scores:
        each = "; ".join(f"{label}: from score {score:g}" for label, score in scores.items())
        notes.append(f"Boxes drawn and counted: {each}. NMS: by class, at IoU {record['nms']:g}.")
    named = [f"{run.training} (seed {run.seed}), checkpoint {run.provenance['weights_sha256'][:12]}" for run in runs]
    return [*notes, f"Networks: {'; '.join(named)}."]


def _draw(
    drawing: PictureDrawing,
    catalogue: Catalogue,
    tier: Tier,
    sources: Sequence[_Source],
    images: Sequence[dict[str, Any]],
    stem: Path,
) -> tuple[list[str], bool]:
    """Draw and write the figure; return what was counted on each image, and whether a view lacks an image."""
    columns = math.ceil(len(sources) / 2) if drawing.one_image and len(sources) > 3 else len(sources)
    panels = [(image, source) for image in images for source in sources]
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    legend = any(view.shows == "positives" for view in drawing.views)
    width = (WIDTH - 2 * SIDE - (columns - 1) * GAP) / columns
    heights = [width * min(line[0][0]["height"] / line[0][0]["width"], TALLEST) for line in lines]
    # A grid of one image has a name over every panel, a sheet over the columns alone.
    named = LABEL + SCORE * any(view.score is not None for view in drawing.views)
    above = [named if drawing.one_image or i == 0 else 0.0 for i in range(len(lines))]
    bottom = BOTTOM + MARK * legend + MARK * (tier.watermark is not None)
    height = TOP + sum(heights) + sum(above) + len(lines) * COUNT + bottom
    figure, _ = style.new_figure(WIDTH, height, (0, 0, 0, 0), panels=0)
    style.add_heading(figure, drawing.title, tier.watermark)
    photos, lacking = [], False
    shown: dict[Any, list[str]] = {image["id"]: [] for image in images}
    y = height - TOP
    for line, tall, label in zip(lines, heights, above, strict=True):
        y -= label + tall
        for i, (image, source) in enumerate(line):
            x = SIDE + i * (width + GAP)
            wide = min(width, tall * image["width"] / image["height"])
            box = ((x + (width - wide) / 2) / WIDTH, y / height, wide / WIDTH, tall / height)
            axes = figure.add_axes(box)
            own = image if source.view.shows == "objects" else source.image(image)
            if own is None:
                lacking |= source.run is not None
                text = _placeholder(axes)
            else:
                photos.append(_photo(axes, own))
                text = _draw_view(axes, own, source.view, catalogue)
            middle = (x + width / 2) / WIDTH
            if label:
                top = (y + tall + label - LABEL + 0.05) / height
                figure.text(middle, top, source.view.label, ha="center", va="bottom", size=8)
            if label and source.view.score is not None:
                words = f"score from {source.view.score:g}"
                top = (y + tall + 0.05) / height
                figure.text(middle, top, words, ha="center", va="bottom", size=7, color=style.MUTED)
            figure.text(middle, (y - 0.05) / height, text, ha="center", va="top", size=7.5, color=style.MUTED)
            words = f"{source.view.label}: " if source.view.shows != "objects" else ""
            shown[image["id"]].append(f"{words}{text}")
        y -= COUNT
    counts = [f"Image {i}: {'; '.join(texts)}." for i, texts in enumerate(shown.values(), 1)]
    if legend:
        _draw_legend(figure, sources, images, (BOTTOM + MARK * (tier.watermark is not None)) / height)
    style.write_figure(figure, stem, photos)
    return counts, lacking


def _photo(axes: Axes, image: dict[str, Any]) -> style.Photo:
    """Put an image into axes whose data are its pixels as annotated."""
    jpeg = base64.b64decode(image["jpeg"])
    width, height = image["width"], image["height"]
    artist = axes.imshow(np.asarray(Image.open(io.BytesIO(jpeg))), extent=(0, width, height, 0), aspect="auto")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return style.Photo(artist, jpeg)


def _placeholder(axes: Axes) -> str:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=style.GRID)
    axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", va="center", color=style.MUTED, size=8)
    return "no result"


def _draw_view(axes: Axes, image: dict[str, Any], view: View, catalogue: Catalogue) -> str:
    """Draw a view on an image and return what it shows of how many."""
    objects = image["objects"]
    total = f"{len(objects)} object{'s' * (len(objects) != 1)}"
    if view.shows == "objects":
        _draw_boxes(axes, objects, LIGHT, SHADE)
        return total
    assert view.branch is not None and view.training is not None
    one_to_one = catalogue.training(view.training).branches[view.branch].one_to_one
    color = style.ONE_TO_ONE if one_to_one else style.ONE_TO_MANY
    branch = image["branches"][view.branch]
    if view.shows == "positives":
        _draw_boxes(axes, objects, LIGHT, SHADE)
        _draw_points(axes, branch["positives"], objects, color, one_to_one)
        anchors = _has_anchors(catalogue.training(view.training), view.branch)
        return f"{_counted(branch['positives'], anchors)} for {total}"
    boxes = [box for box in branch["boxes"] if box[4] >= (view.score or 0)]
    left = [box for box in boxes if box[6]]
    shown = boxes if view.shows == "before_nms" else left
    _draw_boxes(axes, shown, color, LIGHT)
    text = f"{len(shown)} box{'es' * (len(shown) != 1)} for {total}"
    return f"{text}, NMS leaves {len(left)}" if view.shows == "before_nms" else text


def _draw_boxes(axes: Axes, boxes: Sequence[Sequence[float]], color: str, around: str) -> None:
    """Draw boxes with a seam that sets them off from any photo; all seams lie below all boxes."""
    for edge, width, alpha in ((around, 2.2, 0.55), (color, 1.0, 1.0)):
        for x1, y1, x2, y2, *_ in boxes:
            axes.add_patch(
                Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=edge, linewidth=width, alpha=alpha)
            )


def _draw_points(
    axes: Axes, points: Sequence[Sequence[float]], objects: Sequence[Sequence[float]], color: str, lines: bool
) -> None:
    """Draw positive points, the coarsest first, with lines to the centres of their objects if wanted."""
    for x, y, _, index in points if lines else ():
        x1, y1, x2, y2, _ = objects[int(index)]
        for edge, width in ((LIGHT, 2.0), (color, 0.9)):
            axes.plot([x, (x1 + x2) / 2], [y, (y1 + y2) / 2], color=edge, linewidth=width, solid_capstyle="round")
    for x, y, stride in sorted(_places(points), key=lambda place: -place[2]):
        axes.plot(x, y, "o", color=color, markersize=_size(stride), markeredgecolor=LIGHT, clip_on=False)


def _places(points: Sequence[Sequence[float]]) -> list[tuple[float, float, float]]:
    """Return x, y and stride of points, each once: several anchors share a centre."""
    return list(dict.fromkeys((x, y, stride) for x, y, stride, _ in points))


def _has_anchors(training: Training, branch: str) -> bool:
    return training.network.has_anchors(branch)


def _counted(points: Sequence[Sequence[float]], anchors: bool) -> str:
    count, places = len(points), len(_places(points))
    at = f"{places} point{'s' * (places != 1)}"
    return f"{count} anchor{'s' * (count != 1)} at {at}" if anchors else at


def _size(stride: float) -> float:
    """Return the size in points of a marker for a point of a level."""
    return 3.2 + 1.3 * math.log2(max(1.0, stride / FINEST_STRIDE))


def _draw_legend(figure: Figure, sources: Sequence[_Source], images: Sequence[dict[str, Any]], bottom: float) -> None:
    """Say which size of marker is which stride, which colour which kind of branch, and where lines lead."""
    strides = {
        int(point[2])
        for source in sources
        for image in images
        if (own := source.image(image)) and source.view.branch
        for point in own["branches"][source.view.branch]["positives"]
    }
    kinds = {"one-to-many": style.ONE_TO_MANY, "one-to-one": style.ONE_TO_ONE}
    handles = [Line2D([], [], linestyle="", marker="o", color=c, markersize=5, label=k) for k, c in kinds.items()]
    handles += [
        Line2D([], [], linestyle="", marker="o", color=style.MUTED, markersize=_size(s), label=f"stride {s}")
        for s in sorted(strides)
    ]
    handles.append(Line2D([], [], color=style.ONE_TO_ONE, linewidth=0.9, label="to its object's centre"))
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, bottom), ncols=len(handles), frameon=False,
        fontsize=7.5, handlelength=1.4, handletextpad=0.4, columnspacing=1.2, borderpad=0, borderaxespad=0,
    )  # fmt: skip
