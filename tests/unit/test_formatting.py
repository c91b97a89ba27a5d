"""Times and sizes for a reader."""

from __future__ import annotations

import pytest

from date.formatting import format_duration, format_size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.41, "0.41 s"),
        (29, "29 s"),
        (59.6, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3569, "59 min"),
        (3600, "1 h 00 min"),
        (100_000, "27 h 47 min"),
        (172_800, "2 d 0 h"),
        (190_000, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_sizes() -> None:
    assert [format_size(n) for n in (12, 3.1e6, 5e12)] == ["12 B", "3.1 MB", "5.0 TB"]
