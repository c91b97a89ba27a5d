"""Errors that a user can fix: one exception family, whose messages are sentences that name the remedy."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Sequence

LISTED = 10
"""How many things of a kind a message names; the rest is counted."""
MANY = 60
"""How many valid names a message lists: all of the experiments', not all of MMDetection's components."""


class UserError(Exception):
    """A mistake that the user can fix; the command line prints its message without a traceback and exits with 2."""


NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def one_line(error: BaseException) -> str:
    """Return an error as one line: a `UserError` as it is, any other with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


_NUMBER = re.compile(r"(?<!\d)0+(?=\d)")
"""Leading zeros, which people leave out: ``table1`` means ``table01``."""


def unknown_name(kind: str, name: str, valid: Iterable[str], where: str = "") -> UserError:
    """Return the error for an unknown name: it names the nearest valid one, or all of them when none is near.

    Args:
        kind: what the name should have been, e.g. ``"training"``.
        name: what the user wrote.
        valid: the names that exist.
        where: optional place of the mistake, e.g. a file, put in front of the sentence.
    """
    names = sorted(valid)
    near = [other for other in names if _NUMBER.sub("", other) == name]
    near = near or [other for other in names if sorted(other) == sorted(name)]
    near = near or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    near = near or sorted((other for other in names if name in other), key=len)
    hint = f"did you mean {near[0]!r}?" if near else f"valid names: {listed(names, most=MANY) or 'none'}."
    prefix = f"{where}: " if where else ""
    return UserError(f"{prefix}unknown {kind} {name!r}; {hint}")


def listed(items: Sequence[str], total: int | None = None, most: int = LISTED) -> str:
    """Join the first things that a message is about, and count the others.

    Args:
        items: the things, or the first of them.
        total: how many there are, where ``items`` has only the first.
        most: how many are named.
    """
    others = (len(items) if total is None else total) - len(items[:most])
    return ", ".join(items[:most]) + (f" and {others:,} more" if others > 0 else "")
