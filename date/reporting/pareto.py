"""The paper's illustration of Pareto optimality (its Figure 5, appendix B): two made-up losses, no data."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from date.reporting import style

ILLUSTRATION = "Illustration, no data"
BOTTOM_OF_O2O, BOTTOM_OF_O2M, BETWEEN = -1.0, 1.0, -0.1
"""The parameters a, b and c: where the one-to-one loss is lowest, where the one-to-many loss is, and a compromise."""


def _losses(x: Any) -> tuple[Any, Any]:
    """Return the illustration's two losses of a parameter."""
    return 0.5 + 0.6 * (x - BOTTOM_OF_O2O) ** 2, 0.8 + 0.45 * (x - BOTTOM_OF_O2M) ** 2


MARKED = {"a": BOTTOM_OF_O2O, "b": BOTTOM_OF_O2M, "c": BETWEEN}
NAMES = {"a": "one-to-one alone", "b": "one-to-many alone", "c": "both branches"}


def _plain(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Take away what a picture without data has no use for."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.set_title(title, loc="left", size=7.5, color=style.MUTED, style="italic", pad=5)
    axes.set_xlabel(x_label, size=7.5)
    axes.set_ylabel(y_label, size=7.5)


def draw_losses(axes: Axes) -> None:
    """Draw the two losses, the interval of Pareto optimal parameters, and where trainings end."""
    x = np.linspace(-1.8, 2.0, 120)
    one, many = style.ONE_TO_ONE, style.ONE_TO_MANY
    axes.axvspan(BOTTOM_OF_O2O, BOTTOM_OF_O2M, color=style.GRID, alpha=0.7, linewidth=0)
    for losses, color, end, name in zip(_losses(x), (one, many), (0, -1), ("o2o", "o2m"), strict=True):
        axes.plot(x, losses, color=color)
        axes.annotate(rf"$l_{{{name}}}$", (x[end], losses[end]), xytext=(2, 3), textcoords="offset points", ha="center",
                      va="bottom", size=8.5, color=color)  # fmt: skip
    for name, place in MARKED.items():
        losses = _losses(place)
        for loss in losses if name == "c" else (min(losses),):
            axes.plot(place, loss, "o", color=style.INK, markersize=3.5, zorder=4)
        axes.annotate(name, (place, 0), xycoords=("data", "axes fraction"), xytext=(0, -2), textcoords="offset points",
                      ha="center", va="top", size=8, style="italic")  # fmt: skip
    axes.text(0, 3.85, "Pareto optimal", ha="center", va="top", size=7, color=style.MUTED)
    axes.set_ylim(0, 4.1)
    _plain(axes, ILLUSTRATION, "parameter", "losses")
    axes.xaxis.labelpad = 11


def draw_criteria(axes: Axes) -> None:
    """Draw the same in the space of the two losses: the front, its ends, and the utopia point."""
    x = np.linspace(-1.75, 1.75, 160)
    axes.plot(*_losses(x), color=style.GRID, linewidth=1.2)
    front = np.linspace(BOTTOM_OF_O2O, BOTTOM_OF_O2M, 80)
    axes.plot(*_losses(front), color=style.INK, linewidth=2)
    axes.annotate("front", _losses(-0.62), xytext=(6, 0), textcoords="offset points", va="center", size=7,
                  color=style.INK)  # fmt: skip
    offsets = {"a": (6, 4), "b": (6, 6), "c": (6, 5)}
    for name, place in MARKED.items():
        point = _losses(place)
        axes.plot(*point, "o", color=style.INK, markersize=3.5, zorder=4)
        axes.annotate(f"{name}: {NAMES[name]}", point, xytext=offsets[name], textcoords="offset points", size=7,
                      ha="center" if name == "b" else "left")  # fmt: skip
    utopia = (float(_losses(BOTTOM_OF_O2O)[0]), float(_losses(BOTTOM_OF_O2M)[1]))
    axes.plot(*utopia, "*", color=style.MUTED, markersize=7)
    axes.annotate("utopia point", utopia, xytext=(4, -2), textcoords="offset points", va="top", size=7,
                  color=style.MUTED)  # fmt: skip
    axes.set_xlim(0.1, 4.2)
    axes.set_ylim(0.1, 3.6)
    _plain(axes, ILLUSTRATION, r"loss of the one-to-one branch, $l_{o2o}$", r"loss $l_{o2m}$")
