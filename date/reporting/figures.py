"""Curves over the trainings: the headline of the report, and the paper's figures of curves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from date.catalogue import Catalogue, Panel, Tier, load, load_tier
from date.catalogue import Curve as CurveEntry
from date.catalogue.publication import load_paper
from date.experiments.fragments import schedule_fragment
from date.identity.config import epochs
from date.reporting import style
from date.reporting.scores import number
from date.results import RunResult

DROP = 2.0
"""A learning rate that falls at least by this factor between two records is marked."""
WINDOWS = 60
"""Losses are averaged over so many equal parts of a training; single steps are noise."""
BEGINNING = 0.1
"""Share of a training in which losses fall so steeply that a scale with them would hide all that follows."""
WIDTH, LEFT, TOP, PLOT, SMALL_PLOT, GAP, BOTTOM, MARK = 6.8, 0.50, 0.76, 2.45, 1.35, 0.18, 0.48, 0.22
"""Inches: of a panel's height (where there is one, and where there are several), the space around, and what a watermark
takes at the bottom."""


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn: which metrics of which trainings."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    curves: tuple[CurveEntry, ...]


@dataclass(frozen=True)
class Curve:
    """A metric over a training, with its spread over seeds."""

    label: str
    entry: int
    """Index among the drawing's curves."""
    look: style.Look
    seeds: tuple[int, ...]
    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    digits: int = 1

    @property
    def end(self) -> str:
        """The label at the curve's end, with the final value."""
        return f"{self.label}\N{EN SPACE}{number(self.mean[-1], self.digits)}"


@dataclass(frozen=True)
class Axis:
    """Where a panel lies in its figure, so that a page can find values under a pointer."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom as fractions of the figure from its top left corner."""
    x: tuple[float, float]
    y: tuple[float, float]
    """Data at the left and right, and at the bottom and top edge."""


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn; without any curve there is none."""

    panels: list[list[Curve]]
    axes: list[Axis]

    def __bool__(self) -> bool:
        return bool(self.panels)


def drawings(catalogue: Catalogue, tier: Tier | None = None) -> list[Drawing]:
    """Return what is drawn: the headline of the paper, where it has one, then its figures in order.

    Args:
        catalogue: all there is.
        tier: whose number of epochs stands in the headline's title, where it is another than the paper's.
    """
    first = []
    if (headline := load_paper().headline) is not None:
        entries = [CurveEntry(label=training_label(catalogue, t), training=t) for t in shown_trainings(catalogue)]
        panel = Panel(metric="AP", label="AP of the validation images (%)")
        title = headline.title + ("" if tier is None else _epochs_here(headline.schedule, tier))
        first = [Drawing("convergence", title, headline.caption, (panel,), tuple(entries))]
    figures = [
        Drawing(f.name, f.heading, f.marked_caption, tuple(f.panels), tuple(f.curves))
        for f in catalogue.figures.values()
        if f.curves
    ]
    return [*first, *figures]


def _epochs_here(schedule: str, tier: Tier) -> str:
    """Return e.g. ``, here 4`` for a tier that trains a schedule for another number of epochs than the paper."""
    content = schedule_fragment(schedule)
    if "iterations" in content:
        return ""
    here, there = (epochs(content, each) for each in (tier, load_tier(load_paper().reference_tier)))
    return "" if here == there else f", here {here}"


def curves(drawing: Drawing, panel: Panel, results: Sequence[RunResult]) -> list[Curve]:
    """Return one curve per training of a drawing that has results, in the drawing's order."""
    found, looks = [], style.looks(list(load().trainings))
    for index, entry in enumerate(drawing.curves):
        by_step: dict[float, list[float]] = {}
        runs = [run for run in results if run.training == entry.training]
        points = {run.seed: _points(run, panel.metric) for run in runs}
        for step, value in itertools.chain.from_iterable(points.values()):
            by_step.setdefault(step, []).append(value)
        if by_step:
            steps = sorted(by_step)
            values = [by_step[step] for step in steps]
            mean, low, high = ([f(v) for v in values] for f in (statistics.fmean, min, max))
            seeds = tuple(seed for seed, pairs in points.items() if pairs)
            digits = 1 if panel.metric == "AP" else 3
            found.append(Curve(entry.label, index, looks[entry.training], seeds, steps, mean, low, high, digits))
    return found


def _points(run: RunResult, metric: str) -> list[tuple[float, float]]:
    """Return the (step, value) pairs of a metric: each evaluation, or means of a loss over parts of the training."""
    if pairs := run.curve(metric):
        return list(pairs)
    records = [(r["step"], r[metric]) for r in run.records if r["kind"] == "train" and r.get(metric) is not None]
    return list(_window_means(records, WINDOWS))


def _window_means(records: Sequence[tuple[int, float]], windows: int) -> Iterator[tuple[float, float]]:
    """Yield the mean step and value of up to ``windows`` equal parts of a sequence."""
    count = min(windows, len(records))
    for i in range(count):
        part = records[i * len(records) // count : (i + 1) * len(records) // count]
        yield statistics.fmean(step for step, _ in part), statistics.fmean(value for _, value in part)


def shown_trainings(catalogue: Catalogue) -> list[str]:
    """Return the trainings of the headline."""
    headline = load_paper().headline
    if headline is None:
        return []
    named = [catalogue.evaluation(name).training for name in catalogue.tables[headline.table].evaluations]
    return [name for name in dict.fromkeys(named) if catalogue.training(name).schedule == headline.schedule]


def training_label(catalogue: Catalogue, training: str) -> str:
    """Return what the tables call a training judged as in its curve, e.g. ``FCOS (NMS)``, or else its name."""
    judged = catalogue.evaluations_of(training)[0].name
    for table in catalogue.tables.values():
        for row in table.rows:
            if row.evaluation == judged:
                label = load_paper().label(row.label)
                return f"{label} (NMS)" if row.setting.get("NMS") is True else label
    return training


def learning_rate_drops(results: Sequence[RunResult]) -> list[int]:
    """Return the steps after which any training's learning rate falls: where an epoch ends between two records."""
    drops = set()
    for run in results:
        records = [r for r in run.records if r["kind"] == "train"]
        epochs = [r["step"] for r in run.records if r["kind"] == "eval"]
        for before, after in itertools.pairwise(records):
            if before["lr"] >= DROP * after["lr"] > 0:
                ends = [step for step in epochs if before["step"] <= step < after["step"]]
                drops.add(ends[0] if ends else before["step"])
    return sorted(drops)


def steps_per_epoch(results: Sequence[RunResult]) -> float | None:
    """Return the iterations of an epoch, or None where trainings differ in it.

    Records have epochs at four decimals, so the ratio of step and epoch is nearly equal within one training.
    """
    evaluations = [
        (r["step"], r["epoch"]) for run in results for r in run.records if r["kind"] == "eval" and r["epoch"]
    ]
    ratios = [step / epoch for step, epoch in sorted(evaluations)]
    if not ratios or max(ratios) > 1.001 * min(ratios):
        return None
    return ratios[-1]


def write_drawing(drawing: Drawing, tier: Tier, results: Sequence[RunResult], stem: Path) -> Drawn:
    """Draw a figure as ``<stem>.svg``, ``.png`` and ``.pdf``.

    Returns:
        The curves of each panel and where they lie; without any, no file is written and earlier ones are removed.
    """
    panels = [curves(drawing, panel, results) for panel in drawing.panels]
    if not any(panels):
        style.remove_figure(stem)
        return Drawn([], [])
    names = {entry.training for entry in drawing.curves}
    shown = [run for run in results if run.training in names]
    with style.style_context():
        right = 0.40 + 0.066 * max(len(curve.end) for panel in panels for curve in panel)
        bottom = BOTTOM if tier.watermark is None else BOTTOM + MARK
        plot = PLOT if len(panels) == 1 else SMALL_PLOT
        height = TOP + len(panels) * plot + (len(panels) - 1) * GAP + bottom
        figure, axes = style.new_figure(WIDTH, height, (LEFT, right, bottom, TOP), len(panels))
        figure.subplots_adjust(hspace=GAP / plot)
        style.add_heading(figure, drawing.title, tier.watermark)
        epoch, drops = steps_per_epoch(shown), learning_rate_drops(shown)
        for i, (panel, lines) in enumerate(zip(drawing.panels, panels, strict=True)):
            if lines:
                _draw_curves(axes[i], lines, evaluations=panel.metric == "AP")
            _draw_drops(axes[i], drops)
            axes[i].set_ylabel(panel.label)
            axes[i].yaxis.set_major_locator(MaxNLocator(6 if len(panels) == 1 else 4, steps=[1, 2, 5, 10]))
        longest = max(curve.steps[-1] for panel in panels for curve in panel)
        axes[-1].set_xlim(0, 1.012 * longest)
        _label_drops(axes[0], drops, longest)
        _label_steps(axes[0], axes[-1], longest, epoch)
        for ax, lines in zip(axes, panels, strict=True):
            _label_ends(ax, lines, plot)
        style.write_figure(figure, stem)
        places = [_axis(ax) for ax in axes]
    return Drawn(panels, places)


def _axis(axes: Axes) -> Axis:
    box = axes.get_position()
    left, right, bottom, top = (round(float(v), 5) for v in (box.x0, box.x1, box.y0, box.y1))
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return Axis((left, round(1 - top, 5), right, round(1 - bottom, 5)), (float(x0), float(x1)), (float(y0), float(y1)))


def _draw_curves(axes: Axes, curves: Sequence[Curve], evaluations: bool) -> None:
    """Draw the curves of a panel: evaluations with markers, losses as lines."""
    for curve in curves:
        if len(curve.seeds) > 1:
            axes.fill_between(curve.steps, curve.low, curve.high, color=curve.look.color, alpha=0.16, linewidth=0)
        marker = curve.look.marker if evaluations else ""
        axes.plot(curve.steps, curve.mean, marker=marker, clip_on=not evaluations, **curve.look.line)
    begin = 0.0 if evaluations else BEGINNING * max(curve.steps[-1] for curve in curves)
    bottom = min(low for c in curves for step, low in zip(c.steps, c.low, strict=True) if step >= begin)
    top = max(high for c in curves for step, high in zip(c.steps, c.high, strict=True) if step >= begin)
    margin = 0.06 * (top - bottom) or 0.5
    axes.set_ylim(max(0.0, bottom - margin), top + margin)


def _draw_drops(axes: Axes, drops: Sequence[int]) -> None:
    for step in drops:
        axes.axvline(step, color=style.MUTED, linewidth=0.7, linestyle=(0, (1, 2.5)), zorder=0.5)


def _label_drops(axes: Axes, drops: Sequence[int], longest: float) -> None:
    """Name the dotted lines, left of the first that has room there."""
    with_room = [step for step in drops if step > 0.3 * longest]
    if with_room:
        axes.annotate(
            "learning rate drops", (with_room[0], 0.03), xycoords=("data", "axes fraction"), xytext=(-4, 0),
            textcoords="offset points", ha="right", size=7, color=style.MUTED,
        )  # fmt: skip


def _label_steps(top_axes: Axes, bottom_axes: Axes, longest: float, epoch: float | None) -> None:
    """Label the common horizontal axis: iterations below, epochs above."""
    bottom_axes.set_xlabel("training iterations")
    bottom_axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    if longest >= 10_000:
        bottom_axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step else "0"))
    if epoch is not None:

        def scale(factor: float) -> Callable[[Any], Any]:
            return lambda value: value * factor

        top = top_axes.secondary_xaxis("top", functions=(scale(1 / epoch), scale(epoch)))
        top.set_xlabel("epochs")
        top.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        top.spines["top"].set_visible(False)


def _label_ends(axes: Axes, curves: Sequence[Curve], plot: float) -> None:
    """Name each curve at its end, moved apart where ends are close, with a line from end to name.

    The line is dotted where the curve ends early, so that it is not taken for the curve.
    """
    ordered = sorted(curves, key=lambda curve: curve.mean[-1])
    low, high = axes.get_ylim()
    gap = (high - low) * 13 / (72 * plot)
    for curve, place in zip(ordered, style.spread([c.mean[-1] for c in ordered], gap), strict=True):
        color = curve.look.color
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.9, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)}
        if curve.steps[-1] < 0.9 * axes.get_xlim()[1]:
            line |= {"linestyle": (0, (1, 3))}
        axes.annotate(
            curve.end, (curve.steps[-1], curve.mean[-1]), xytext=(1.045, place), textcoords=axes.get_yaxis_transform(),
            va="center", annotation_clip=False, arrowprops=line,
        )  # fmt: skip
