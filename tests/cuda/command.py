"""The command line on the stand-in for a GPU: ``python -m tests.cuda.command WORDS``, as ``python -m date WORDS``.

Nothing is computed there. Where a command reads from the device whether something is finite, or which points objects
get, it is answered. Processes that `date rehearse` starts are of this module, too. ``benchmarks.NAME`` in place of a
command is ``python -m benchmarks.NAME``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from tests.cuda.standin import Watch

WATCH = Watch()

from date.rehearsal import network as rehearsed  # noqa: E402
from date.training import checkpoint  # noqa: E402
from date.training.recorder import Recorder  # noqa: E402
from tests.cuda.measure import answer_matching  # noqa: E402

COUNTED = 3
"""What counts read from the device are said to be: positives of an assignment, candidates of a level."""
EXECV = os.execv


def become(program: str, words: Sequence[str]) -> Any:
    """Put a new Python in this process's place; for a command, this module."""
    if list(words[1:3]) == ["-m", "date"]:
        words = [words[0], "-m", __spec__.name, *words[3:]]
    return EXECV(program, words)


def main() -> int:
    """Carry out the command."""
    WATCH.set_count(COUNTED)
    answer_matching()
    setattr(Recorder, "raise_if_bad", lambda self, means=None: None)  # noqa: B010 - in place of a method
    checkpoint.finite = lambda state: True
    setattr(rehearsed.os, "execv", become)  # noqa: B010
    if len(sys.argv) > 1 and sys.argv[1].startswith("benchmarks."):
        importlib.import_module(sys.argv.pop(1)).main()
        return 0
    from date.cli import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
