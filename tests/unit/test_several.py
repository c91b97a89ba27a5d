"""Work by name in forks: results in order, the first error, and one core without forks."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from date.errors import UserError
from date.reporting.several import begun


@pytest.fixture(params=[1, 2, 3])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))
    return int(request.param)


def test_results_come_in_order_from_other_processes_where_there_are_cores(cores: int) -> None:
    read = {"a": 3, "b": 1, "c": 2}

    def work(name: str) -> tuple[int, int]:
        time.sleep(0.05 * read[name])
        return read[name], os.getpid()

    with begun(work, list(read)) as results:
        found = results()
    assert [value for value, _ in found] == [3, 1, 2]
    elsewhere = {process for _, process in found} - {os.getpid()}
    assert len(elsewhere) <= cores and bool(elsewhere) is (cores > 1)


@pytest.mark.timed
def test_the_block_goes_on_meanwhile(cores: int, tmp_path: Any) -> None:
    def work(name: str) -> bool:
        deadline = time.monotonic() + 20
        while not (tmp_path / "meanwhile").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return (tmp_path / "meanwhile").exists()

    with begun(work, ["a", "b"]) as results:
        (tmp_path / "meanwhile").touch()
        assert results() == [True, True]


def test_the_first_error_is_raised(cores: int) -> None:
    def work(name: str) -> str:
        if name != "a":
            raise UserError(f"{name} can't be drawn.")
        return name

    with pytest.raises(UserError, match="b can't be drawn"), begun(work, ["a", "b", "c"]) as results:
        results()


def test_one_within_another(cores: int) -> None:
    def inner(name: str) -> str:
        return name.upper()

    def outer(name: str) -> list[str]:
        with begun(inner, [name, name]) as results:
            return results()

    with begun(outer, ["a", "b"]) as results:
        assert results() == [["A", "A"], ["B", "B"]]


def test_nothing_to_do(cores: int) -> None:
    with begun(str.upper, []) as results:
        assert results() == []
