"""One run of the DAG at a time in a clone: two would remove each other's results.

Snakemake's own lock outlives a Snakemake that was killed, so the profile turns it off. This one is the operating
system's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import re
import socket
import time
from pathlib import Path
from typing import IO

from date.errors import UserError
from date.results import utc

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
HOLDER = re.compile(r"Snakemake \(process (?P<pid>\d+) of .* on (?P<host>\S+) since ")
"""How the line of a lock's holder begins."""
_held: list[IO[str]] = []


def occupy(folder: Path, name: str) -> str | None:
    """Hold a lock until this process ends; return what to say where the file system has no locks.

    Args:
        folder: of the locks.
        name: of what is worked at, e.g. a tier.

    Raises:
        UserError: another process holds it; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    try:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); work in a clone that is yours, or have its owner run "
            "`chmod -R g+w .` and `umask 002` for a common group."
        ) from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(stream) or "another Snakemake"
        raise UserError(
            f"{holder} is at work in this clone at {name}; wait for it to end, or stop it first (Ctrl-C there). "
            "Two at once would remove each other's results."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return f"{path} can't be locked ({error.strerror}); make sure that only one Snakemake works in this clone"
    stream.truncate(0)
    stream.write(f"Snakemake (process {os.getpid()} of {getpass.getuser()} on {socket.gethostname()} since {utc()})\n")
    stream.flush()
    _held.append(stream)
    return None


def _holder(stream: IO[str]) -> str:
    """Return the line of who holds a lock, or nothing if that says nothing for a second.

    Who has just taken the lock has not written its line yet, and the one before it may have left its own.
    """
    end = time.monotonic() + 1.0
    while _ended(line := stream.read().strip()):
        if time.monotonic() > end:
            return ""
        time.sleep(0.02)
        stream.seek(0)
    return line


def _ended(line: str) -> bool:
    """Return whether a holder's line names no process, or one of this machine that lives no more."""
    named = HOLDER.match(line)
    if named is None:
        return not line
    if named["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(named["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False
