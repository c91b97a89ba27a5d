"""How many examples hypothesis tries where its usual number is not the right one."""

from __future__ import annotations

from hypothesis import settings


def examples(usual: int) -> int:
    """Return a number of examples: ``usual``, or as many times more as the profile in force has more than 100."""
    return usual * settings.default.max_examples // 100
