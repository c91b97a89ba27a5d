"""From a trained network to its sealed folder, and what is left behind where that does not come about."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from date.errors import UserError
from date.training import run as module
from date.training.interruption import Interrupted
from date.training.journal import LOG, SEGMENTS, STATUS, read_segments
from date.training.lease import HOLDER, LeaseLostError
from date.training.run import read_provenance
from tests.support.runs import STEPS, carry_out, plan


def raising(error: BaseException) -> Any:
    def act(lease: Any) -> None:
        raise error

    return act


def status(work: Path) -> dict[str, Any]:
    return json.loads((work / STATUS).read_text())


def test_a_sealed_run_is_complete_and_nothing_else_is_left(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    carry_out(planned)
    assert {p.name for p in planned.sealed.iterdir()} == {"config.py", "final.safetensors", "metrics.jsonl", "provenance.json", LOG}  # fmt: skip
    provenance = read_provenance(planned.sealed)
    assert (provenance["run_digest"], provenance["steps"]) == (planned.digest, STEPS)
    assert [segment["reason"] for segment in provenance["segments"]] == ["finished"]
    assert list(tmp_path.joinpath(".work").iterdir()) == []


def test_the_working_folder_is_removed_when_nothing_in_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """NFS keeps a file that is open under another name in its folder, which then can't be removed."""
    planned, removed = plan(tmp_path), []
    original = shutil.rmtree

    def rmtree(folder: Path) -> None:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]  # fmt: skip
        removed.append((folder, [link for link in links if str(tmp_path) in link]))
        original(folder)

    monkeypatch.setattr(module.shutil, "rmtree", rmtree)
    carry_out(planned)
    assert removed == [(planned.work.with_name(f"{planned.work.name}.done"), [])]


def test_a_working_folder_that_stays_is_told_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rmtree(folder: Path) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", rmtree)
        carry_out(plan(tmp_path))
    assert read_provenance(plan(tmp_path).sealed)
    assert "can't be removed (Directory not empty); nobody needs it, delete it" in capsys.readouterr().err
    shutil.rmtree(plan(tmp_path).sealed)
    carry_out(plan(tmp_path))
    assert list(tmp_path.joinpath(".work").iterdir()) == [], "the next one of that name does"


def test_an_interruption_leaves_its_reason(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    with pytest.raises(Interrupted):
        carry_out(planned, raising(Interrupted("SIGTERM", 12)), until=12)
    assert not planned.sealed.exists()
    assert {k: status(planned.work)[k] for k in ("state", "reason", "step")} == {"state": "interrupted", "reason": "SIGTERM", "step": 12}  # fmt: skip
    assert [(s["step"], s["reason"]) for s in read_segments(planned.work)] == [(12, "SIGTERM")]
    assert not (planned.work / HOLDER).exists()


def test_a_failure_leaves_its_sentence(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    with pytest.raises(UserError):
        carry_out(planned, raising(UserError("the loss is not finite at step 13; lower the lr.")), until=12)
    assert status(planned.work)["reason"] == "the loss is not finite at step 13; lower the lr."
    assert read_segments(planned.work)[-1]["reason"] == status(planned.work)["reason"]
    assert (planned.work / LOG).read_text().endswith(" failed: the loss is not finite at step 13; lower the lr.\n")
    carry_out(planned)
    reasons = [s["reason"] for s in read_provenance(planned.sealed)["segments"]]
    assert reasons == ["the loss is not finite at step 13; lower the lr.", "finished"]


def test_a_failure_to_seal_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(tmp_path)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "sync_folder", full)
        with pytest.raises(OSError, match="No space left"):
            carry_out(planned)
    assert not planned.sealed.exists()
    assert status(planned.work)["state"] == "failed" and "No space left on device" in status(planned.work)["reason"]
    assert len(read_segments(planned.work)) == 1 and "No space left" in read_segments(planned.work)[0]["reason"]
    carry_out(planned)
    assert read_provenance(planned.sealed)


def test_who_lost_the_lease_writes_nothing_more(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    before: dict[str, bytes] = {}

    def lose(lease: Any) -> None:
        """Let another process take the run over, and this one notice it at its next checkpoint."""
        (planned.work / HOLDER).write_text(json.dumps(lease.me | {"token": "theirs", "host": "elsewhere", "beat": 3}))
        before.update({name: (planned.work / name).read_bytes() for name in (STATUS, SEGMENTS, LOG, HOLDER)})
        lease.check()

    with pytest.raises(LeaseLostError, match="taken over by process .* on elsewhere"):
        carry_out(planned, lose, until=12)
    assert {name: (planned.work / name).read_bytes() for name in before} == before


def test_a_run_that_was_sealed_meanwhile_is_not_trained_again(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    carry_out(planned)
    before = (planned.sealed / "provenance.json").read_bytes()
    carry_out(planned, raising(AssertionError("trains")))
    assert (planned.sealed / "provenance.json").read_bytes() == before
    assert list(tmp_path.joinpath(".work").iterdir()) == []
