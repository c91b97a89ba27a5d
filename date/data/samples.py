"""Sheets of generated pictures with their annotations, for readers."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHEET_COLOURS = ("#ffb000", "#4cc9f0", "#fe6100", "#b5e48c", "#ff7ac6", "#c8b6ff")
SHEET_BACKGROUND = "#16181d"
JPEG_WIDTH, JPEG_QUALITY = 1100, 88


def sample_sheet(root: Path, split: str, count: int, path: Path | io.BytesIO, columns: int) -> None:
    """Draw the first images of a generated dataset with their boxes and class names; ignored regions are dashed.

    Args:
        root: the dataset.
        split: ``"train"`` or ``"val"``.
        count: number of images.
        path: the PNG to write, or a buffer for it.
        columns: images per row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from PIL import Image

    data = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    names = {c["id"]: c["name"] for c in data["categories"]}
    colours = dict(zip(names, itertools.cycle(SHEET_COLOURS), strict=False))
    images = data["images"][:count]
    rows, legend = -(-len(images) // columns), 0.4
    cell, gap = 2.4, 0.08
    width, height = columns * (cell + gap) + gap, rows * (cell + gap) + gap + legend
    figure = Figure(figsize=(width, height), dpi=150, facecolor=SHEET_BACKGROUND)
    FigureCanvasAgg(figure)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left, bottom = gap + column * (cell + gap), height - (row + 1) * (cell + gap)
        axes = figure.add_axes((left / width, bottom / height, cell / width, cell / height))
        axes.imshow(Image.open(root / split / image["file_name"]), extent=(0, image["width"], image["height"], 0))
        axes.set_axis_off()
        for record in (a for a in data["annotations"] if a["image_id"] == image["id"]):
            _draw_box(axes, record, names[record["category_id"]], colours[record["category_id"]], len(names) > 1)
        axes.set(xlim=(0, image["width"]), ylim=(image["height"], 0))
    handles = [Line2D([], [], color=colours[i], lw=3, label=name) for i, name in names.items()]
    if any(a["iscrowd"] for a in data["annotations"]):
        handles.append(Line2D([], [], color="white", lw=1.5, ls=(0, (3, 2)), label="ignored region"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, labelcolor="white")
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_box(axes: Any, record: dict[str, Any], name: str, colour: str, labelled: bool) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = record["bbox"]
    ignored = bool(record["iscrowd"])
    style: dict[str, Any] = {"ec": "white", "ls": (0, (3, 2)), "lw": 1.2} if ignored else {"ec": colour, "lw": 1.3}
    axes.add_patch(Rectangle((x, y), width, height, fill=False, **style))
    if labelled:
        place = (max(x, 0), max(y, 5))
        label = axes.annotate(name, place, xytext=(0.5, 1.5), textcoords="offset points", fontsize=5.5)
        label.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 0.8})


def write_samples(roots: Sequence[Path], count: int, columns: int, path: Path) -> None:
    """Write a JPEG with the first validation images of several generated datasets, one dataset below the other."""
    from PIL import Image

    sheets = []
    for root in roots:
        buffer = io.BytesIO()
        sample_sheet(root, "val", count, buffer, columns)
        sheets.append(Image.open(buffer).convert("RGB"))
    whole = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)))
    for i, sheet in enumerate(sheets):
        whole.paste(sheet, (0, sum(above.height for above in sheets[:i])))
    height = round(whole.height * JPEG_WIDTH / whole.width)
    whole.resize((JPEG_WIDTH, height), Image.Resampling.LANCZOS).save(path, quality=JPEG_QUALITY, optimize=True)
