"""Times, sizes and counts for a reader, the same in every listing and message."""

from __future__ import annotations

SINGULAR = {
    "are": "is", "have": "has", "come": "comes", "were": "was", "count": "counts", "name": "names", "tell": "tells"
}  # fmt: skip
"""The verb of one thing by that of several."""


def format_duration(seconds: float) -> str:
    """Return a duration in its one or two largest units, e.g. ``40 s``, ``4 min 05 s``, ``3 h 20 min``, ``2 d 5 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def format_size(number: float) -> str:
    """Return a number of bytes in the unit that suits it, e.g. ``3.1 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def counted(number: int, what: str, verb: str = "") -> str:
    """Return e.g. ``1 detection has`` or ``2,000 detections have``; ``verb`` is that of several."""
    singular = SINGULAR.get(verb, verb) if number == 1 else verb
    noun = what if number != 1 else what.removesuffix("es") if what.endswith("xes") else what.removesuffix("s")
    return " ".join(filter(None, (f"{number:,}", noun, singular)))
