"""The steps of continuous integration that are scripts of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from date.catalogue import ROOT


@pytest.mark.parametrize(
    ("present", "user", "works", "asked", "said"),
    [
        ({"chromium", "apt-get"}, 0, True, [], ""),
        ({"apt-get"}, 0, True, ["-qq update", "-qq install --yes --no-install-recommends chromium"], ""),
        ({"apt-get"}, 0, False, ["-qq update"], "apt-get could not install it"),
        ({"apt-get"}, 1000, True, [], "can't be installed (that takes root and apt-get)"),
        (set(), 0, True, [], "can't be installed (that takes root and apt-get)"),
    ],
    ids=["present", "absent", "fails", "not root", "no apt"],
)
def test_chromium_is_installed_where_that_can_be(
    tmp_path: Path, present: set[str], user: int, works: bool, asked: list[str], said: str
) -> None:
    calls = tmp_path / "calls"
    commands = dict.fromkeys(present, "exit 0") | {"id": f"echo {user}"}
    if "apt-get" in present:
        commands["apt-get"] = f'echo "$*" >> {calls}; echo chatter; exit {0 if works else 100}'
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = ["/bin/bash", str(ROOT / ".ci" / "install-chromium")]
    done = subprocess.run(script, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert calls.read_text().splitlines() == asked if asked else not calls.exists()
    assert said in done.stderr and bool(said) == bool(done.stderr)
