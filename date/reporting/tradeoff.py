"""Figure 5: Pareto optimality as the paper illustrates it, and beside it what the loss weights really trade.

The illustration has no data. Each measured point is a setting of Table 10, its checkpoints judged by either branch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from date.catalogue import Catalogue, Figure, Tier, TradeOff
from date.inference.drawing import overlap
from date.reporting import style
from date.reporting.formats import aligned
from date.reporting.pareto import draw_criteria, draw_losses
from date.reporting.scores import MISSING, Sample, Scores, number

METRIC = "AP"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, MARK = 6.8, 4.5, 0.36, 0.22, 0.58, 0.48, 0.22
"""Inches; `MARK` is what a watermark takes at the bottom."""
LABEL_SIZE = 7.0
FEW = 4
"""Up to so many settings without results are named in the figure; the page's table has all."""


@dataclass(frozen=True)
class Setting:
    """A pair of loss weights: what the two branches of its checkpoints score."""

    grid: str
    look: style.Look
    training: str
    weights: str
    """One-to-one over one-to-many, e.g. ``1/0.5``."""
    across: Sample
    up: Sample
    """Of the seeds that have both."""
    paper: tuple[float | None, float | None]
    """The paper's two numbers, across and up, where its tables print them."""

    @property
    def place(self) -> tuple[float, float] | None:
        """Mean over the seeds, across and up; None without a result."""
        across, up = self.across.mean, self.up.mean
        return None if across is None or up is None else (across, up)


@dataclass(frozen=True)
class TradeOffDrawing:
    """The figure's content."""

    name: str
    title: str
    caption: str
    trade_off: TradeOff
    settings: list[Setting]

    @property
    def shown(self) -> list[Setting]:
        """The settings with results."""
        return [setting for setting in self.settings if setting.place is not None]

    @property
    def missing(self) -> list[Setting]:
        """The others."""
        return [setting for setting in self.settings if setting.place is None]

    @property
    def front(self) -> list[Setting]:
        """The settings that no other one beats, from the lowest to the highest AP across."""
        places = [setting.place for setting in self.shown if setting.place]
        best = [s for s in self.shown if s.place and not any(dominates(other, s.place) for other in places)]
        return sorted(best, key=lambda setting: setting.place or ())

    @property
    def notes(self) -> list[str]:
        """How the measured points are to be read, one sentence each."""
        texts = [
            "Points are labelled with their weights, one-to-one over one-to-many; the step line joins those that no "
            "other one beats in both APs, by their means."
        ]
        if any(setting.up.n > 1 for setting in self.shown):
            texts.append("Points are means over the seeds, bars reach one sample standard deviation to either side.")
        else:
            texts.append("One seed a point: no spread is known, and a lead of some tenths may be chance.")
        return texts


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether a point is nowhere lower than another one and somewhere higher."""
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def trade_offs(catalogue: Catalogue, scores: Scores) -> list[TradeOffDrawing]:
    """Return the catalogue's figures of trade-offs with their results."""
    return [_drawing(figure, catalogue, scores) for figure in catalogue.figures.values() if figure.trade_off]


def _drawing(figure: Figure, catalogue: Catalogue, scores: Scores) -> TradeOffDrawing:
    trade_off = figure.trade_off
    assert trade_off is not None
    settings = []
    looks = style.looks(list(catalogue.trainings))
    for grid in trade_off.grids:
        look = looks[grid.trainings[0]]
        for name in grid.trainings:
            training = catalogue.training(name)
            names = (f"{name}/{trade_off.across}", f"{name}/{trade_off.up}")
            across, up = (scores.sample(evaluation, METRIC) for evaluation in names)
            both = sorted(across.values.keys() & up.values.keys())
            settings.append(
                Setting(
                    grid.label,
                    look,
                    name,
                    trade_off.setting.format_map(training.options.model_dump()),
                    Sample({seed: across.values[seed] for seed in both}),
                    Sample({seed: up.values[seed] for seed in both}),
                    (_printed(catalogue, names[0]), _printed(catalogue, names[1])),
                )
            )
    return TradeOffDrawing(figure.name, figure.heading, figure.marked_caption, trade_off, settings)


def _printed(catalogue: Catalogue, evaluation: str) -> float | None:
    """Return the AP that the paper's tables print of an evaluation, where they do."""
    rows = (row for table in catalogue.tables.values() for row in table.rows)
    return next((row.paper[METRIC] for row in rows if row.evaluation == evaluation and METRIC in row.paper), None)


def values(drawing: TradeOffDrawing) -> tuple[list[str], list[list[str]]]:
    """Return the header and the lines of the table of all settings; what is missing is an em dash."""
    across, up = drawing.trade_off.across, drawing.trade_off.up
    header = ["Setting", drawing.trade_off.setting_label, "seeds"]
    header += [f"{variant}, {whose}" for variant in (up, across) for whose in ("paper", "ours")] + ["front"]
    front = {setting.training for setting in drawing.front}
    lines = [
        [
            setting.grid,
            setting.weights,
            str(setting.up.n or MISSING),
            number(setting.paper[1]),
            _with_spread(setting.up),
            number(setting.paper[0]),
            _with_spread(setting.across),
            "yes" if setting.training in front else "no" if setting.place else MISSING,
        ]
        for setting in drawing.settings
    ]
    return header, lines


def _with_spread(sample: Sample) -> str:
    return number(sample.mean) if sample.sd is None else f"{number(sample.mean)} \u00b1 {number(sample.sd)}"


def values_markdown(drawing: TradeOffDrawing) -> str:
    """Return the same as Markdown."""
    return aligned(*values(drawing))


def write_trade_off(drawing: TradeOffDrawing, tier: Tier, stem: Path) -> bool:
    """Draw the figure as ``<stem>.svg``, ``.png`` and ``.pdf``.

    The paper's points are drawn at its own tier alone: elsewhere they would lie far from all others.

    Returns:
        Whether any setting has results; without, no file is written and earlier ones are removed.
    """
    if not drawing.shown:
        style.remove_figure(stem)
        return False
    with style.style_context():
        bottom = BOTTOM if tier.watermark is None else BOTTOM + MARK
        figure, _ = style.new_figure(WIDTH, HEIGHT, (LEFT, RIGHT, bottom, TOP), panels=0)
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.9), wspace=0.3, hspace=0.62)
        draw_losses(figure.add_subplot(grid[0, 0]))
        draw_criteria(figure.add_subplot(grid[1, 0]))
        _draw_measured(figure, figure.add_subplot(grid[:, 1]), drawing, tier.reference)
        style.add_heading(figure, drawing.title, tier.watermark)
        style.write_figure(figure, stem)
    return True


def _draw_measured(figure: Canvas, axes: Axes, drawing: TradeOffDrawing, with_paper: bool) -> None:
    """Draw the settings with results, their front, and the paper's pairs."""
    trade_off = drawing.trade_off
    axes.set_xlabel(trade_off.across_label)
    axes.set_ylabel(trade_off.up_label)
    axes.set_title("Measured", loc="left", size=7.5, color=style.MUTED, style="italic", pad=5)
    axes.grid(True, axis="both")
    labels: list[tuple[float, float, str, str]] = []
    for setting in drawing.shown:
        assert setting.place is not None
        color, marker = setting.look.color, setting.look.marker
        spread = (setting.across.sd, setting.up.sd)
        axes.errorbar(*setting.place, xerr=spread[0], yerr=spread[1], fmt=marker, color=color, markersize=5,
                      elinewidth=0.8, ecolor=(color, 0.4), zorder=3)  # fmt: skip
        labels.append((*setting.place, setting.weights, setting.look.text))
    printed = [s for s in drawing.settings if None not in s.paper] if with_paper else []
    for setting in printed:
        across, up = setting.paper
        assert across is not None and up is not None
        color = setting.look.color
        axes.plot(across, up, setting.look.marker, color=color, markerfacecolor="none", markeredgecolor=color,
                  markersize=6, markeredgewidth=1.1, zorder=3)  # fmt: skip
        labels.append((across, up, f"paper {setting.weights}", setting.look.text))
    _set_limits(axes, drawing, [(x, y) for x, y, _, _ in labels])
    _draw_front(axes, drawing)
    _add_legend(axes, drawing, bool(printed))
    _place_labels(figure, axes, labels, drawing)


def _set_limits(axes: Axes, drawing: TradeOffDrawing, places: Sequence[tuple[float, float]]) -> None:
    """Give every point with its bars some room."""
    reach = [(s.across.sd or 0.0, s.up.sd or 0.0) for s in drawing.shown]
    reach += [(0.0, 0.0)] * (len(places) - len(reach))
    limits: list[Any] = [axes.set_xlim, axes.set_ylim]
    for i, set_limits in enumerate(limits):
        low = min(place[i] - r[i] for place, r in zip(places, reach, strict=True))
        high = max(place[i] + r[i] for place, r in zip(places, reach, strict=True))
        room = max(0.10 * (high - low), 0.25)
        set_limits(low - room, high + room)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _front_corners(axes: Axes, drawing: TradeOffDrawing) -> list[tuple[float, float]]:
    """Return the corners of the front's step line, from the left edge of the axes to their bottom."""
    front = [setting.place for setting in drawing.front if setting.place]
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    corners = [(left, front[0][1]), front[0]]
    for before, after in itertools.pairwise(front):
        corners += [(before[0], after[1]), after]
    return [*corners, (front[-1][0], bottom)]


def _draw_front(axes: Axes, drawing: TradeOffDrawing) -> None:
    """Join the points of the front by steps, the region that they dominate lying below and left of it."""
    corners = _front_corners(axes, drawing)
    axes.plot(*zip(*corners, strict=True), color=style.INK, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)


def _add_legend(axes: Axes, drawing: TradeOffDrawing, with_paper: bool) -> None:
    handles = []
    looks = {setting.grid: setting.look for setting in drawing.settings}
    for grid, look in looks.items():
        handles.append(Line2D([], [], color=look.color, marker=look.marker, markersize=5, linestyle="", label=grid))
    if with_paper:
        hollow: dict[str, Any] = {
            "marker": "D",
            "markerfacecolor": "none",
            "markeredgecolor": style.MUTED,
            "markeredgewidth": 1.1,
        }
        handles.append(Line2D([], [], linestyle="", markersize=5.5, label="the paper", **hollow))
    handles.append(Line2D([], [], color=style.INK, linewidth=1.2, linestyle=(0, (4, 2)), label="front"))
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), fontsize=7.5, frameon=False, borderpad=0,
                handletextpad=0.3, borderaxespad=0.3, ncols=len(handles), columnspacing=1.1)  # fmt: skip
    missing = drawing.missing
    if missing:
        named = ", ".join(f"{setting.grid} {setting.weights}" for setting in missing)
        many = f"{len(missing)} of {len(drawing.settings)} settings have no result"
        text = many if len(missing) > FEW else f"no result: {named}"
        axes.text(0.015, 0.015, text, transform=axes.transAxes, size=7, color=style.MUTED)


def _place_labels(
    figure: Canvas, axes: Axes, labels: Sequence[tuple[float, float, str, str]], drawing: TradeOffDrawing
) -> None:
    """Label every point where the label covers no point, bar, other label or front, as near as there is room."""
    scale = 72 / figure.dpi
    points = [tuple(axes.transData.transform((x, y)) * scale) for x, y, _, _ in labels]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for setting in drawing.shown:
        (across, up), (wide, high) = setting.place or (0.0, 0.0), (setting.across.sd or 0.0, setting.up.sd or 0.0)
        for x, y in ((wide, 0.0), (0.0, high)):
            ends = axes.transData.transform([(across - x, up - y), (across + x, up + y)]) * scale
            taken.append((*(ends[0] - 0.5), *(ends[1] + 0.5)))
    corners = axes.transData.transform(_front_corners(axes, drawing)) * scale
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        taken.append((min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
    box = axes.get_window_extent()
    frame = (box.x0 * scale, box.y0 * scale + 10, box.x1 * scale, box.y1 * scale)
    placed: list[Sequence[float]] = []
    for (x, y), (across, up, text, color) in zip(points, labels, strict=True):
        width, height = 0.62 * LABEL_SIZE * len(text), 1.05 * LABEL_SIZE

        def at(distance: float, angle: float, x: float = x, y: float = y, w: float = width, h: float = height) -> tuple:
            cx = x + math.cos(angle) * (distance + w / 2)
            cy = y + math.sin(angle) * (distance + h / 2)
            return (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)

        tried = [
            at(d, k * math.pi / 8) for d in (5, 9, 14, 20, 28) for k in (0, 8, 4, 12, 2, 6, 14, 10, *range(1, 16, 2))
        ]
        costs = [
            sum(overlap(b, other) for other in taken)
            + 10 * _outside(b, frame)
            + 10 * sum(overlap(part, label) for part in _leader(x, y, b) for label in placed)
            for b in tried
        ]
        chosen = tried[costs.index(min(costs))]
        leader = _leader(x, y, chosen)
        placed.append(chosen)
        taken += [chosen, *leader]
        middle = ((chosen[0] + chosen[2]) / 2 - x, (chosen[1] + chosen[3]) / 2 - y)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if leader else None
        ground = {"facecolor": style.PAPER_WHITE, "alpha": 0.75, "linewidth": 0, "pad": 0.4}
        axes.annotate(text, (across, up), xytext=middle, textcoords="offset points", ha="center", va="center",
                      size=LABEL_SIZE, color=color, arrowprops=line, bbox=ground, zorder=5)  # fmt: skip


def _leader(x: float, y: float, box: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Return small boxes along the line from a point to its label; none if the label is near enough without one."""
    across, up = (box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y
    if math.hypot(across, up) <= 9 + (box[2] - box[0]) / 2:
        return []
    places = [(x + across * part / 10, y + up * part / 10) for part in range(2, 9)]
    return [(px - 1, py - 1, px + 1, py + 1) for px, py in places]


def _outside(a: Sequence[float], frame: Sequence[float]) -> float:
    return (a[2] - a[0]) * (a[3] - a[1]) - overlap(a, frame)
