"""What a user can do wrong: one exception family, each message a sentence that names the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its message without a traceback and exits with 2."""


NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def told(error: BaseException) -> str:
    """Return what to tell of an error in one line: a user's sentence as it is, any other with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def unknown_name(kind: str, name: str, valid: Iterable[str], where: str = "") -> UserError:
    """Return the error for an unknown name: it names the nearest valid one, or all of them when none is near.

    Args:
        kind: what the name should have been, e.g. ``"training"``.
        name: what the user wrote.
        valid: the names that exist.
        where: optional place of the mistake, e.g. a file, put in front of the sentence.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5) or sorted((n for n in names if name in n), key=len)
    hint = f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(names) or 'none'}."
    prefix = f"{where}: " if where else ""
    return UserError(f"{prefix}unknown {kind} {name!r}; {hint}")
