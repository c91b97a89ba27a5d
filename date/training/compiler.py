"""The tools that compiling for a GPU needs: Triton builds a module in C before its first kernel."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from date.errors import UserError

REMEDY = "install gcc and Python's headers (python3.11-dev) there, or set 'compile: false' in the tier's 'compute'"


def missing_tool() -> str | None:
    """Return what Triton needs and this machine lacks, in words; None where everything is here."""
    named = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([named] if named else ["gcc", "clang"])):
        return f"a C compiler ({f'CC names {named}' if named else 'there is no gcc and no clang'})"
    scheme = sysconfig.get_default_scheme()
    # Debian's Python installs packages elsewhere, and has its headers where every Python has them.
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    header = Path(sysconfig.get_paths(scheme=scheme)["include"]) / "Python.h"
    return None if header.is_file() else f"Python's headers ({header} is not there)"


def check_tools() -> None:
    """Make sure that networks can be compiled for a GPU here.

    Raises:
        UserError: something is missing.
    """
    if (missing := missing_tool()) is not None:
        raise UserError(f"compiling a network for a GPU needs {missing}; {REMEDY}.")
