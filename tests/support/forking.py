"""Commands in processes of their own that start fast: a server imports everything once and forks for each of them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from date.catalogue import ROOT

_LOOP = """
import gc, json, os, sys, traceback
gc.collect(), gc.freeze()  # else every fork looks through all of it for garbage, and copies it for that
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            how = os.O_RDWR | os.O_CREAT | os.O_APPEND
            for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
                os.dup2(os.open(name, how), number)
            os.chdir(request["folder"])
            os.environ.clear(), os.environ.update(request["environment"])
            status = work(request["arguments"])
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

_DATE = """
import os, sys
sys.path[0] = os.getcwd()  # forks go elsewhere and import more
from date import stack
stack.load()
import torch
torch.set_num_threads(1)
import date.models, date.training.components, date.training.loop, date.training.run, mmdet.datasets, mmdet.models
import hotcoco, mmdet.engine, mmdet.visualization
import torch.distributed.launcher.api
from date.catalogue import load
from date.cli import main
from date.identity.code import code_fingerprint
load(), code_fingerprint()  # what every process works out once

def work(arguments):
    if arguments[0] != "--processes":
        return main(arguments)
    _, count, *words = arguments
    # What `torchrun --standalone` makes of its options, except that the processes are forks, too.
    launcher = torch.distributed.launcher.api
    config = launcher.LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=int(count), run_id=str(os.getpid()), max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork",
    )
    launcher.elastic_launch(config, one_of_several)(words)

def one_of_several(words):
    sys.exit(main(words))
"""


class Server:
    """A process that imports modules once and then forks for every piece of work, one at a time.

    Nothing of one piece of work is left for the next one: the server does nothing but fork. It ends with this process.

    Args:
        code: imports, and defines ``work``, which gets the words of a command line and returns an exit status.
    """

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + _LOOP], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
            bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.pid: int | None = None
        self.owner = os.getpid()
        atexit.register(self.stop)

    def start(
        self, arguments: Sequence[object], folder: Path, environment: Mapping[str, str], out: Path, err: Path
    ) -> int:
        """Start a piece of work, whose output is appended to two files, and return its process number."""
        assert self.pid is None and self.process.stdin is not None
        request = dict(folder=str(folder), environment=dict(environment), out=str(out), err=str(err))
        self.process.stdin.write(json.dumps(request | {"arguments": [str(word) for word in arguments]}) + "\n")
        self.pid = self._number()
        return self.pid

    def wait(self) -> int:
        """Wait for what was started, and return its status; negative: the signal that ended it."""
        assert self.pid is not None
        status, self.pid = self._number(), None
        return status

    def kill(self) -> None:
        """End what was started, if it is still at work."""
        if self.pid is not None:
            kill(self.pid)
            self.wait()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        """Let the server end, unless this is a fork of the process that it is of."""
        if os.getpid() != self.owner:
            return
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=120)

    def run(
        self, arguments: Sequence[object], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Do a piece of work, for at most ten minutes, and return what came of it."""
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            late = threading.Timer(600, kill, (self.start(arguments, folder, environment, out, err),))
            late.start()
            try:
                status = self.wait()
            finally:
                late.cancel()
                self.kill()
            return subprocess.CompletedProcess(list(map(str, arguments)), status, out.read_text(), err.read_text())


@functools.cache
def date_server() -> Server:
    """Return this process's server for ``python -m date``."""
    return Server(_DATE)


class Commands:
    """Runs ``python -m date`` in forks of a process that has PyTorch loaded, one at a time.

    Args:
        data: the data root.
        log: gets what the commands print.
    """

    def __init__(self, data: Path, log: Path) -> None:
        self.log, self.server = log, date_server()
        self.environment = {**os.environ, "DATE_DATA_ROOT": str(data), "OMP_NUM_THREADS": "1"}

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.server.kill()

    def start(self, arguments: Sequence[object]) -> int:
        """Start a command and return its process number."""
        return self.server.start(arguments, ROOT, self.environment, self.log, self.log)

    def wait(self) -> int:
        """Wait for the command that was started, and return its status; negative: the signal that ended it."""
        return self.server.wait()

    def run(self, *arguments: object) -> int:
        """Run a command to its end and return its status."""
        self.start(arguments)
        return self.wait()

    def said(self) -> str:
        """Return all that the commands printed."""
        return self.log.read_text()


def run_together(arguments: Sequence[object], count: int, data: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m date`` in several processes, which PyTorch's launcher starts as forks."""
    environment = {**os.environ, "DATE_DATA_ROOT": str(data), "OMP_NUM_THREADS": "1"}
    return date_server().run(["--processes", count, *arguments], ROOT, environment)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
