"""Files that are complete or absent: atomic writes, exclusive locks, digests."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from date.errors import UserError


def replace_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a file under a temporary name, sync it and rename it into place; see `replace_bytes`."""
    replace_bytes(path, text.encode(), durable)


def replace_bytes(path: Path, data: bytes | memoryview, durable: bool = True) -> None:
    """Write a file under a temporary name and rename it into place, so that it is always complete.

    Of several writers at once the last one's content stays.

    Args:
        path: of the file; its folder is made.
        data: the content.
        durable: also wait until it would survive a loss of power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of each writer's own, else two would write into one file; with the permissions that the umask gives.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with partial.open("xb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = str(path)  # which a failed write does not tell
        raise


def read_replaced(path: Path) -> bytes:
    """Return the content of a file that other machines replace: it may go stale between opening and reading it."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return path.read_bytes()


def sync_folder(folder: Path) -> None:
    """Make a folder and the files in it survive a loss of power."""
    for path in [*folder.iterdir(), folder]:
        sync_path(path)


def sync_path(path: Path) -> None:
    """Make a file, or a folder's list of files, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive(lock: Path, holder: str = "", wait: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs; the operating system releases it when the process ends, however it ends.

    Args:
        lock: the file.
        holder: what is done under the lock, for the message.
        wait: wait for the lock instead of raising.

    Raises:
        UserError: another process holds the lock, and ``wait`` is false.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"another process is {holder}; wait for it or stop it first.") from None
        yield


@contextlib.contextmanager
def sealing(sealed: Path, holder: str) -> Iterator[tuple[Path, Path]]:
    """Let a block fill a folder that appears under its name complete, by a rename, or not at all.

    Yields the folder to fill and a folder for work that is thrown away at the end; both lie in ``.work`` beside the
    target. What an interrupted block left there is removed first.

    Args:
        sealed: the folder that appears.
        holder: what the block does, for the message.

    Raises:
        UserError: another process is filling the same folder.
    """
    work = sealed.parent / ".work" / sealed.name
    with exclusive(work.with_name(f"{sealed.name}.lock"), holder=holder):
        if work.exists():
            shutil.rmtree(work)
        folder = work / "sealed"
        folder.mkdir(parents=True)
        yield folder, work
        sync_folder(folder)
        folder.rename(sealed)
        shutil.rmtree(work)
