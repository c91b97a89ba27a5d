"""Snakemake's dry runs in processes of their own that start fast: forks of a process that has imported it."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.forking import Server

_SNAKEMAKE = """
import os, sys
sys.path = [path for path in sys.path if path]  # the package `date` is that of the folder that Snakemake runs in
import snakemake.cli
import msgspec, pydantic, snakemake.report, snakemake.workflow, yaml
assert "date" not in sys.modules

def work(arguments):
    sys.argv[:] = [os.path.join(os.path.dirname(sys.executable), "snakemake"), *arguments]
    snakemake.workflow.Workflow._rundir = os.getcwd()  # which it asks for as it is imported
    snakemake.cli.main(arguments)
"""


@functools.cache
def _server() -> Server:
    return Server(_SNAKEMAKE)


def run_forked(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Do what the command ``snakemake`` does, in a fork of a process that has imported it.

    Variables that Python or Snakemake reads before its first line of work, such as ``HOME`` or ``PYTHONHASHSEED``, need
    a process of their own.
    """
    return _server().run(arguments, folder, environment)
