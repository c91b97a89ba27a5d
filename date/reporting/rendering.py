"""Every figure of a report: drawn as files, and as the page and ``figures.md`` present it."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from date.catalogue import Catalogue, Tier
from date.reporting import style
from date.reporting.figures import Drawing, Drawn, drawings, write_drawing
from date.reporting.page import PageFigure, RunLinks
from date.reporting.pictures import PictureDrawing, picture_drawings, write_pictures
from date.reporting.scores import Scores, number
from date.reporting.tradeoff import TradeOffDrawing, trade_offs, values, values_markdown, write_trade_off
from date.results import RunResult

NO_RESULT = "No result yet."


@dataclass(frozen=True)
class RenderedFigure:
    """A figure that was drawn, or found to have no results."""

    on_page: PageFigure
    below: str
    """Markdown below title, caption and image; may be empty."""

    @property
    def markdown(self) -> str:
        """The figure for ``figures.md``."""
        drawing = self.on_page.drawing
        image = NO_RESULT if self.on_page.svg is None else f"![{drawing.title}](figures/{drawing.name}.svg)"
        return "\n\n".join(part for part in (f"# {drawing.title}", drawing.caption, image, self.below) if part)


def figure_names(catalogue: Catalogue) -> list[str]:
    """Return the names of all figures in the page's order: convergence, the paper's figures, sheets of pictures."""
    drawn = [drawing.name for drawing in drawings(catalogue)]
    first = [name for name in drawn if name not in catalogue.figures]
    return [*first, *catalogue.drawn]


@dataclass(frozen=True)
class FigureRenderer:
    """Draws figures into a folder."""

    catalogue: Catalogue
    tier: Tier
    results: list[RunResult]
    scores: Scores
    folder: Path

    def render(self, name: str) -> RenderedFigure:
        """Draw a figure of `figure_names` as ``<name>.svg``, ``.png`` and ``.pdf``; without results it has no files."""
        curves = {drawing.name: drawing for drawing in drawings(self.catalogue, self.tier)}
        pictures = {drawing.name: drawing for drawing in picture_drawings(self.catalogue)}
        if name in curves:
            return self._curves(curves[name])
        if name in pictures:
            return self._pictures(pictures[name])
        return self._trade_off(next(t for t in trade_offs(self.catalogue, self.scores) if t.name == name))

    def _curves(self, drawing: Drawing) -> RenderedFigure:
        drawn = write_drawing(drawing, self.tier, self.results, self.folder / drawing.name)
        if not drawn:
            return RenderedFigure(PageFigure(drawing, None), "")
        description = f"Against training iterations. Final values of {'; '.join(_finals(drawing, drawn))}."
        several = any(len(curve.seeds) > 1 for curves in drawn.panels for curve in curves)
        seeds: dict[int, set[int]] = {}
        for curve in itertools.chain.from_iterable(drawn.panels):
            seeds.setdefault(curve.entry, set()).update(curve.seeds)
        entries = [(drawing.curves[look], sorted(found)) for look, found in sorted(seeds.items())]
        figure = PageFigure(
            drawing,
            self._inline(drawing, description),
            several,
            _pointer_data(drawing, drawn),
            runs=[RunLinks(entry.label, entry.training, found) for entry, found in entries],
        )
        return RenderedFigure(figure, _ends_markdown(drawing, drawn))

    def _trade_off(self, drawing: TradeOffDrawing) -> RenderedFigure:
        lines, table = [setting.training for setting in drawing.settings], values(drawing)
        if not write_trade_off(drawing, self.tier, self.folder / drawing.name):
            return RenderedFigure(PageFigure(drawing, None, values=table, lines=lines), values_markdown(drawing))
        front = ", ".join(
            f"{setting.grid} {setting.weights} with {number(setting.up.mean)} and {number(setting.across.mean)}"
            for setting in drawing.front
        )
        labels = f"{drawing.trade_off.up_label} against {drawing.trade_off.across_label}"
        svg = self._inline(drawing, f"An illustration of Pareto optimality, and {labels}. On the front: {front}.")
        runs = [RunLinks(f"{s.grid} {s.weights}", s.training, sorted(s.up.values)) for s in drawing.shown]
        figure = PageFigure(drawing, svg, notes=drawing.notes, values=table, lines=lines, runs=runs)
        return RenderedFigure(figure, "\n\n".join([" ".join(drawing.notes), values_markdown(drawing)]))

    def _pictures(self, drawing: PictureDrawing) -> RenderedFigure:
        drawn = write_pictures(drawing, self.catalogue, self.tier, self.results, self.folder / drawing.name)
        notes = " ".join(drawn.notes)
        if not drawn:
            return RenderedFigure(PageFigure(drawing, None, notes=drawn.notes), notes)
        svg = self._inline(drawing, " ".join(drawn.counts))
        runs = [RunLinks(run.training, run.training, [run.seed]) for run in drawn.runs]
        counts = "\n".join(f"- {count}" for count in drawn.counts)
        return RenderedFigure(PageFigure(drawing, svg, notes=drawn.notes, runs=runs), f"{notes}\n\n{counts}")

    def _inline(self, drawing: Drawing | TradeOffDrawing | PictureDrawing, description: str) -> str:
        """Return a figure's SVG for the page, with a text for screen readers."""
        if self.tier.watermark is not None:
            description += f" {self.tier.watermark}."
        svg = (self.folder / f"{drawing.name}.svg").read_text(encoding="utf-8")
        return style.inline_svg(svg, drawing.name, drawing.title, description)


def _finals(drawing: Drawing, drawn: Drawn) -> list[str]:
    return [
        f"{panel.label}: {', '.join(f'{curve.label} {number(curve.mean[-1], curve.digits)}' for curve in curves)}"
        for panel, curves in zip(drawing.panels, drawn.panels, strict=True)
        if curves
    ]


def _ends_markdown(drawing: Drawing, drawn: Drawn) -> str:
    """Return the final values of all curves, beside the paper's where it gives them."""
    paper, ends = {curve.label: curve for curve in drawing.curves}, []
    for panel, curves in zip(drawing.panels, drawn.panels, strict=True):
        for curve in curves:
            printed = paper[curve.label].end if panel.metric == "AP" else None
            beside = f" (the paper: {number(printed)}, {paper[curve.label].place})" if printed is not None else ""
            ends.append(f"- {panel.label}, {curve.label}: {number(curve.mean[-1], curve.digits)} at the end{beside}")
    return "\n".join(ends)


def _pointer_data(drawing: Drawing, drawn: Drawn) -> str:
    panels = [
        {
            "label": panel.label,
            "box": axis.box,
            "x": axis.x,
            "y": axis.y,
            "curves": [
                {
                    "label": curve.label,
                    "digits": curve.digits,
                    "steps": [round(step) for step in curve.steps],
                    "mean": [round(value, curve.digits + 1) for value in curve.mean],
                }
                for curve in curves
            ],
        }
        for panel, axis, curves in zip(drawing.panels, drawn.axes, drawn.panels, strict=True)
    ]
    return json.dumps(panels, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
