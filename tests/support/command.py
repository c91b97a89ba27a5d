"""``python -m date``, in a process of its own or, which spares the imports, in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from date.catalogue import ROOT
from date.cli import main
from tests.support.alone import alone


def date(*arguments: object, data: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, on one thread, with its own data root."""
    words = list(map(str, arguments))
    out, err = io.StringIO(), io.StringIO()
    with alone(data), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:
            status = int(end.code or 0)  # argparse's
    return _checked(subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue()), check)


def date_process(*arguments: object, data: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, on one thread, with its own data root."""
    environment = {**os.environ, "DATE_DATA_ROOT": str(data), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "date", *map(str, arguments)]
    return _checked(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True), check)


def _checked(done: subprocess.CompletedProcess[str], check: bool) -> subprocess.CompletedProcess[str]:
    assert not check or done.returncode == 0, done.stderr
    return done
