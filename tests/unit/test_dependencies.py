"""pyproject.toml, requirements.lock and environment.yml agree, and the lock can be installed as it is."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import yaml
from packaging.requirements import Requirement

from date.catalogue import ROOT


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    requirements = map(Requirement, [*project["dependencies"], *extras])
    return {r.name: str(r.specifier) for r in requirements}


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def test_every_direct_dependency_is_pinned_as_in_the_lock() -> None:
    pins = locked()
    assert declared() == {name: f"=={pins[name]}" for name in declared()}


def test_every_package_of_the_lock_has_a_hash() -> None:
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=[a-z0-9.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked()) > 100
    assert all("--hash=sha256:" in block for block in blocks)


def test_conda_installs_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Requirement(python.replace("=", "==", 1)).specifier.contains("3.11") and "3.11" in project["requires-python"]
    assert pip == {"pip": ["--require-hashes", "-r requirements.lock"]}


def test_opencv_is_the_headless_build_alone() -> None:
    assert {name for name in locked() if name.startswith("opencv")} == {"opencv-python-headless"}


def test_what_is_installed_is_what_is_locked() -> None:
    pins = locked()
    assert {name: version(name) for name in declared()} == {name: pins[name] for name in declared()}


def test_every_direct_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    columns = [re.sub(r"\(.*?\)", "", line.split("|")[1]) for line in page.splitlines() if line.startswith("| `")]
    assert {name for column in columns for name in re.findall(r"`([\w-]+)`", column)} == set(declared())
