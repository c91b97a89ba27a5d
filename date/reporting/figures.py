"""The paper's convergence figure from the records of the trainings."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from date.catalogue import Catalogue, Tier
from date.reporting import style
from date.reporting.scores import number
from date.results import RunResult

SCHEDULE, TABLE = "12e", "table01"
"""The convergence figure shows the trainings of this schedule in this table."""
DROP = 2.0
"""A learning rate that falls at least by this factor between two records is marked."""
WIDTH, LEFT, TOP, PLOT, BOTTOM, MARK = 6.8, 0.50, 0.76, 2.45, 0.48, 0.22
"""Inches: of the plot's height, the space around it, and what a watermark takes at the bottom."""


@dataclass(frozen=True)
class Curve:
    """AP of the validation images over a training, with its spread over seeds."""

    label: str
    look: int
    """Index of colour and marker: the training's, whichever others have results."""
    seeds: tuple[int, ...]
    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]

    @property
    def end(self) -> str:
        """The label at the curve's end, with the final AP."""
        return f"{self.label}\N{EN SPACE}{number(self.mean[-1])}"


def convergence_curves(catalogue: Catalogue, results: Sequence[RunResult]) -> list[Curve]:
    """Return one curve per 12-epoch training of Table 1 that has results, in the table's order."""
    curves = []
    for look, training in enumerate(shown_trainings(catalogue)):
        by_step: dict[int, list[float]] = {}
        runs = [run for run in results if run.training == training and run.curve("AP")]
        for run in runs:
            for step, value in run.curve("AP"):
                by_step.setdefault(step, []).append(value)
        if runs:
            steps = sorted(by_step)
            values = [by_step[step] for step in steps]
            mean, low, high = ([f(v) for v in values] for f in (statistics.fmean, min, max))
            seeds = tuple(run.seed for run in runs)
            curves.append(Curve(training_label(catalogue, training), look, seeds, steps, mean, low, high))
    return curves


def shown_trainings(catalogue: Catalogue) -> list[str]:
    """Return the trainings of the convergence figure."""
    named = [catalogue.evaluation(row.evaluation).training for row in catalogue.tables[TABLE].rows]
    return [name for name in dict.fromkeys(named) if catalogue.training(name).schedule == SCHEDULE]


def training_label(catalogue: Catalogue, training: str) -> str:
    """Return what the tables call a training judged as in its curve, e.g. ``FCOS (NMS)``, or else its name."""
    judged = catalogue.evaluations_of(training)[0].name
    for table in catalogue.tables.values():
        for row in table.rows:
            if row.evaluation == judged:
                return f"{row.label} (NMS)" if row.setting.get("NMS") is True else row.label
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
    """Return the iterations of an epoch, or None where trainings differ in it."""
    ratios = {r["step"] / r["epoch"] for run in results for r in run.records if r["kind"] == "eval"}
    return ratios.pop() if len(ratios) == 1 else None


def write_convergence(catalogue: Catalogue, tier: Tier, results: Sequence[RunResult], stem: Path) -> list[Curve]:
    """Draw AP against iterations as ``<stem>.svg``, ``.png`` and ``.pdf``.

    Returns:
        The curves drawn; without any, no file is written and earlier ones are removed.
    """
    curves = convergence_curves(catalogue, results)
    if not curves:
        for kind in style.FORMATS:
            stem.with_name(f"{stem.name}.{kind}").unlink(missing_ok=True)
        return []
    names = shown_trainings(catalogue)
    shown = [run for run in results if run.training in names]
    with style.style_context():
        right = 0.40 + 0.066 * max(len(curve.end) for curve in curves)
        bottom = BOTTOM if tier.watermark is None else BOTTOM + MARK
        figure, axes = style.new_figure(WIDTH, TOP + PLOT + bottom, (LEFT, right, bottom, TOP))
        style.add_heading(figure, f"Convergence, {SCHEDULE.removesuffix('e')}-epoch schedule", tier.watermark)
        _draw_curves(axes, curves)
        _draw_drops(axes, learning_rate_drops(shown))
        _label_axes(axes, curves, steps_per_epoch(shown))
        _label_ends(axes, curves)
        style.write_figure(figure, stem)
    return curves


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        color = style.SERIES[curve.look % len(style.SERIES)]
        marker = style.MARKERS[curve.look % len(style.MARKERS)]
        if len(curve.seeds) > 1:
            axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.16, linewidth=0)
        axes.plot(curve.steps, curve.mean, color=color, marker=marker, clip_on=False)
    bottom, top = min(min(c.low) for c in curves), max(max(c.high) for c in curves)
    margin = 0.06 * (top - bottom) or 0.5
    axes.set_ylim(max(0.0, bottom - margin), top + margin)
    axes.set_xlim(0, 1.012 * max(c.steps[-1] for c in curves))


def _draw_drops(axes: Axes, drops: Sequence[int]) -> None:
    for step in drops:
        axes.axvline(step, color=style.MUTED, linewidth=0.7, linestyle=(0, (1, 2.5)), zorder=0.5)
    if drops:
        axes.annotate(
            "learning rate drops", (drops[0], 0.03), xycoords=("data", "axes fraction"), xytext=(-4, 0),
            textcoords="offset points", ha="right", size=7, color=style.MUTED,
        )  # fmt: skip


def _label_axes(axes: Axes, curves: Sequence[Curve], epoch: float | None) -> None:
    thousands = max(curve.steps[-1] for curve in curves) >= 10_000
    axes.set_xlabel("training iterations")
    axes.set_ylabel("AP of the validation images (%)")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if thousands:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step else "0"))
    if epoch is not None:

        def scale(factor: float) -> Callable[[Any], Any]:
            return lambda value: value * factor

        top = axes.secondary_xaxis("top", functions=(scale(1 / epoch), scale(epoch)))
        top.set_xlabel("epochs")
        top.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        top.spines["top"].set_visible(False)


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Name each curve at its end, moved apart where ends are close, with a line from end to name."""
    ordered = sorted(curves, key=lambda curve: curve.mean[-1])
    low, high = axes.get_ylim()
    gap = (high - low) * 13 / (72 * PLOT)
    for curve, place in zip(ordered, style.spread([c.mean[-1] for c in ordered], gap), strict=True):
        color = style.SERIES[curve.look % len(style.SERIES)]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.9, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)}
        axes.annotate(
            curve.end, (curve.steps[-1], curve.mean[-1]), xytext=(1.045, place), textcoords=axes.get_yaxis_transform(),
            va="center", annotation_clip=False, arrowprops=line,
        )  # fmt: skip
