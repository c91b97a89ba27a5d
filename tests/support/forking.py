"""Trainings in processes of their own that start fast: a server imports everything once and forks for each of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from date.catalogue import ROOT

_SERVER = """
import json, os, sys, traceback
import torch
torch.set_num_threads(1)
import date.models, date.training.components, date.training.loop, mmdet.datasets, mmdet.models
from date.cli import main
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        status = 1
        try:
            status = main(request["arguments"])
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Commands:
    """Runs ``python -m date`` in forks of a process that has PyTorch loaded, one at a time.

    Args:
        data: the data root.
        log: gets what the commands print.
    """

    def __init__(self, data: Path, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "DATE_DATA_ROOT": str(data), "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], cwd=ROOT, env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(timeout=120)

    def start(self, arguments: Sequence[object]) -> int:
        """Start a command and return its process number."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps({"arguments": [str(a) for a in arguments], "log": str(self.log)}) + "\n")
        return int(self.server.stdout.readline())

    def wait(self) -> int:
        """Wait for the command that was started, and return its status; negative: the signal that ended it."""
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def run(self, *arguments: object) -> int:
        """Run a command to its end and return its status."""
        self.start(arguments)
        return self.wait()

    def said(self) -> str:
        """Return all that the commands printed."""
        return self.log.read_text()


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
