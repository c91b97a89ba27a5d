"""The command line: ``python -m date COMMAND``. PyTorch is imported only by commands that need it."""

from __future__ import annotations

import argparse
import errno
import os
import select
import shlex
import signal
import sys
import tomllib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from date.cli import (
    calibrate,
    complexity,
    config,
    data_nms_recall,
    data_samples,
    data_verify,
    detect,
    doctor,
    evaluate,
    export,
    identity,
    import_checkpoint,
    import_detections,
    latency,
    lint_paper,
    listing,
    matrix,
    plan,
    rehearse,
    report,
    schema,
    score,
    status,
    train,
)
from date.errors import NO_SPACE, UserError
from date.memory import noticed

COMMANDS = (
    train,
    import_checkpoint,
    import_detections,
    evaluate,
    detect,
    export,
    score,
    status,
    listing,
    plan,
    calibrate,
    rehearse,
    schema,
    config,
    identity,
    doctor,
    complexity,
    latency,
    lint_paper,
    report,
    matrix,
)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)
"""What keeps a place from being written to or read, and can be avoided by naming another."""
DATA_ACTIONS = (data_verify, data_samples, data_nms_recall)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    0: done. 2: the user made a mistake, or something failed in a known way; one sentence says what. 75: a training
    saved its state and left before its end; the same command resumes it. 141: the reader of the output stopped early.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    from date.experiments.refusals import understood  # not for --help

    try:
        with noticed(), understood():
            if args.experiments:
                _read_from(args.experiments)
            with _given(getattr(args, "settings", None)):
                status = args.command(args)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_left():
            raise
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"error: {_as_typed(str(error), args.experiments or ())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (*NO_SPACE, *UNUSABLE):
            raise
        remedy = "make room" if error.errno in NO_SPACE else "name a place that can be, or correct its permissions"
        print(f"error: {error.filename or 'a file'} can't be used: {error.strerror}; {remedy}.", file=sys.stderr)
        return 2
    return status or 0


def _reader_left() -> bool:
    """Return whether the reader of the output, such as `head`, is gone; what is still to be written is dropped then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    left = any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def released_version() -> str:
    """Return the version of the project, which only ``pyproject.toml`` states."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]


class _Version(argparse.Action):
    """Prints the version, which no other command reads: a copy of the package may lack the project's file."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        print(released_version())
        parser.exit()


def _read_from(named: Sequence[str]) -> None:
    """Read experiments from these folders, which are relative to where the command is typed, or to the project."""
    from date.experiments.folders import choose_folders

    choose_folders([path.resolve() if path.exists() else path for path in map(Path, named)])


def _given(settings: dict[str, Any] | None) -> AbstractContextManager[None]:
    """Let settings, if any, replace those of ``config.yaml`` for this command."""
    if settings is None:
        return nullcontext()
    from date.catalogue.settings import given

    return given(settings)


def _as_typed(text: str, named: Sequence[str]) -> str:
    """Return a message whose commands name the folders of experiments that were named for this one."""
    words = "".join(f" --experiments {shlex.quote(folder)}" for folder in named)
    return text.replace("python -m date ", f"python -m date{words} ")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m date", description="Train, evaluate and tabulate the networks of a detection paper."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument(
        "--experiments",
        action="append",
        metavar="DIR",
        help="folder with experiments of your own, or with another paper's (repeatable)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    data = commands.add_parser("data", help="verify and show datasets").add_subparsers(required=True, metavar="ACTION")
    for action in DATA_ACTIONS:
        action.add(data)
    return parser
