"""The metadata of an exported network, as text by key, so that every format can hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from date.errors import UserError
from date.inference.evaluate import Selection

FORMAT = "date-reproduction export"
VERSION = 1
_WORDS = ("name", "training", "weights_sha256", "run_digest", "tier")
"""Keys whose values are text, empty for None."""


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to the input of an exported network, for readers without this project."""

    channels: str = "BGR"
    """Their order."""
    range: tuple[int, int] = (0, 255)
    """Of the pixels; the network normalises them itself."""
    long_side: int = 0
    """Pixels. An image is resized, bilinearly and in proportion, to the largest size within long x short side."""
    short_side: int = 0
    multiple: int = 1
    """Of which height and width of the input have to be; the image lies in the upper left corner."""


@dataclass(frozen=True)
class Metadata:
    """The facts that a user of an exported network needs."""

    name: str
    """Of the run, or of the file that was exported."""
    training: str
    classes: list[str]
    category_ids: list[int] | None
    """Of each class, in the annotations that it was judged by; None where they are not known."""
    preprocessing: Preprocessing
    pipeline: list[dict[str, Any]]
    """MMDetection's steps from a decoded image to the network's input."""
    batch_size: int
    """Images that the evaluation shows the network at once."""
    selection: Selection
    """How detections are chosen."""
    weights_sha256: str
    """Digest of the trained weights: the run's, or that of the file."""
    run_digest: str | None
    tier: str | None
    seed: int | None

    def to_text(self) -> dict[str, str]:
        """Return everything as text by key, JSON where a value is not text."""
        return {"format": FORMAT, "format_version": str(VERSION)} | {
            key: (value or "") if key in _WORDS else json.dumps(value, ensure_ascii=False)
            for key, value in asdict(self).items()
        }


def from_text(text: Mapping[str, str], path: Path) -> Metadata:
    """Return the metadata of an exported network.

    Args:
        text: by key, see `Metadata.to_text`.
        path: of the network, for messages.

    Raises:
        UserError: it was not exported by this project, or by another version of it.
    """
    if text.get("format") != FORMAT:
        raise UserError(
            f"{path} was not exported by this project (its metadata lack it); export a run by `date export`."
        )
    if text.get("format_version") != str(VERSION):
        raise UserError(
            f"{path} was exported by another version of this project (format {text.get('format_version')}, this one "
            f"reads {VERSION}); export the run again."
        )
    try:
        values: dict[str, Any] = {
            key: text[key] or None if key in _WORDS else json.loads(text[key]) for key in Metadata.__dataclass_fields__
        }
        values["pipeline"] = [_tuples(step) for step in values["pipeline"]]
        values["preprocessing"] = Preprocessing(**values["preprocessing"])
        values["selection"] = Selection(**values["selection"])
        return Metadata(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"the metadata of {path} are damaged ({error}); export the run again.") from None


def _tuples(value: Any) -> Any:
    """Return a step of a pipeline with tuples for JSON's lists, which MMDetection tells from lists."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
