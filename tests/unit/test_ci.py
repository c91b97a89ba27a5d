"""The steps of continuous integration that are scripts of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
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


SIDE_BY_SIDE = str(ROOT / ".ci" / "side-by-side")


def side_by_side(*commands: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SIDE_BY_SIDE, "--patience", "30", *commands], capture_output=True, text=True, timeout=300)


def meets(folder: Path, mine: str, other: str) -> str:
    """Return a command that ends well once another one is at work, too; it says a line before and one after."""
    return f"cd {folder}; touch {mine}; echo {mine} 1; until [ -e {other} ]; do sleep 0.05; done; echo {mine} 2"


def test_commands_run_at_the_same_time_and_what_they_say_is_not_mixed(tmp_path: Path) -> None:
    done = side_by_side(meets(tmp_path, "a", "b"), meets(tmp_path, "b", "a"), "echo c >&2; printf d")
    assert (done.returncode, done.stderr) == (0, "")
    said = re.sub(
        r"=====( cd .*?)?( echo .*?)?(: passed after \d+ s =====)?$", r"==\3", done.stdout, flags=re.MULTILINE
    )
    said = re.sub(r"after \d+ s =====", "", said)
    assert "==\nb 1\nb 2\n==: passed" in said
    assert "==\nc\nd\n==: passed" in said
    live = [line for line in said.splitlines() if line.startswith("a ")]
    assert live == ["a 1", "a 2"] and said.count(": passed") == 3


@pytest.mark.parametrize("live", [True, False])
def test_all_end_soon_after_one_has_failed(tmp_path: Path, live: bool) -> None:
    """What is stopped tidies up, and so do what it started; the failed one's words and its status come last."""
    long = f"trap ': > {tmp_path}/tidied; exit 1' INT; echo begun; : > {tmp_path}/begun; sleep 600 & wait"
    fails = f"until [ -e {tmp_path}/begun ]; do sleep 0.05; done; echo it is broken; exit 3"
    done = side_by_side(*([fails, long] if live else [long, fails]))
    assert done.returncode == 3
    assert (tmp_path / "tidied").exists()
    assert ": stopped =====" in done.stdout
    assert re.search(r"FAILED with status 3 after \d+ s =====\n\Z", done.stdout)
    assert "it is broken" in done.stdout and ("begun" in done.stdout.splitlines()) == (not live)


def test_a_killed_command_is_a_failure_and_what_ignores_a_stop_is_killed(tmp_path: Path) -> None:
    stubborn = f"trap '' INT; : > {tmp_path}/begun; sleep 600"
    killed = f"until [ -e {tmp_path}/begun ]; do sleep 0.05; done; kill -9 $$"
    words = [SIDE_BY_SIDE, "--patience", "0.2", stubborn, killed]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 128 + signal.SIGKILL
    assert "FAILED with status 137" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_commands_in_the_background_too(tmp_path: Path, number: signal.Signals) -> None:
    long = "trap ': > {0}; exit 1' INT; : > {0}.begun; sleep 600 & wait"
    names = [tmp_path / "a", tmp_path / "b"]
    # A shell's background, where SIGINT is ignored.
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", SIDE_BY_SIDE, *(long.format(name) for name in names)]
    with subprocess.Popen(ignoring, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while not all(name.with_suffix(".begun").exists() for name in names):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(300) == 128 + number
    assert all(name.exists() for name in names)


BESIDE = ["nice make test ONLY=not slurm and not timed", "nice make lint", "own make test-slurm"]
"""What runs side by side where the tests on Slurm have an /etc/slurm of their own."""


@pytest.mark.parametrize(
    ("user", "namespaces", "slurm", "failing", "together", "then"),
    [
        (0, True, "beside", "", BESIDE, ["make test ONLY=timed"]),
        (0, True, "beside", "test-slurm", BESIDE, []),
        (0, True, "beside", "ONLY=timed", BESIDE, ["make test ONLY=timed"]),
        (0, False, "beside", "", ["make test", "make lint"], ["make test-slurm"]),
        (0, True, "after", "", ["make test", "make lint"], ["make test-slurm"]),
        (1000, True, "beside", "", ["make test", "make lint"], ["make test-slurm"]),
        (1000, True, "beside", "lint", ["make test", "make lint"], []),
        (0, True, "beside", "setup", [], []),
    ],
)
def test_everything_is_run_and_any_failure_is_the_whole_ones(
    tmp_path: Path, user: int, namespaces: bool, slurm: str, failing: str, together: list[str], then: list[str]
) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / "clone" / ".ci")
    scripts, commands, calls = tmp_path / "clone" / ".ci", tmp_path / "bin", tmp_path / "calls"
    commands.mkdir()
    calls.touch()
    run = (scripts / "run").read_text()
    assert len(re.findall(r"^SLURM=(?:beside|after) #", run, re.MULTILINE)) == 1
    (scripts / "run").write_text(re.sub(r"^SLURM=\w+ #", f"SLURM={slurm} #", run, flags=re.MULTILINE))
    # What is to run side by side does not end before all of it has begun.
    meet = f"until [ $(wc -l < {calls}) -gt {len(together)} ]; do sleep 0.05; done"
    for path, body in {
        commands / "id": f"echo {user}",
        commands / "make": f'''echo "${{FIRST:-}}make $*" >> {calls}
            [ "$1" = setup ] || {meet}
            for word in "$@"; do [ "$word" != "{failing}" ] || exit 1; done''',
        commands / "nice": 'FIRST="nice " exec "$@"',
        commands / "python": f'echo "$*" >> {calls}.packages; exit 1',
        scripts / "install-chromium": f"echo chromium >> {calls}.packages",
        scripts / "with-own-slurm": f'{"" if namespaces else "exit 1; "}FIRST="own " exec "$@"',
    }.items():
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHON": "python"}
    done = subprocess.run([scripts / "run"], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == bool(failing), done.stdout + done.stderr
    first, *rest = calls.read_text().splitlines()
    assert first == "make setup" and sorted(rest[: len(together)]) == sorted(together) and rest[len(together) :] == then
    assert ("run when all others are done" in done.stderr) == (user == 0 and not namespaces)
    if failing != "setup":
        packages = ["chromium"] + ["tests/slurm/cluster.py install"] * (user == 0)
        assert Path(f"{calls}.packages").read_text().splitlines() == packages


@pytest.mark.parametrize("only", ["", "not slurm and not timed"])
def test_make_takes_the_marks_of_the_tests_to_run(only: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-n", "test", f"ONLY={only}"], cwd=ROOT, capture_output=True, text=True, check=True)
    (command,) = (line for line in done.stdout.splitlines() if "-m pytest" in line)
    assert (f' -m "{only}"' in command) == bool(only) and command.count(" -m ") == 1 + bool(only)


def test_a_command_has_an_own_slurm_that_others_do_not_see(tmp_path: Path) -> None:
    script = [ROOT / ".ci" / "with-own-slurm", "sh", "-c"]
    if subprocess.run([*script, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    before = set(Path("/etc/slurm").iterdir())
    inside = subprocess.run([*script, "touch /etc/slurm/ours; ls /etc/slurm; exit 7"], capture_output=True, text=True)
    assert inside.returncode == 7, inside.stderr
    assert set(inside.stdout.split()) == {path.name for path in before} | {"ours"}
    assert set(Path("/etc/slurm").iterdir()) == before
