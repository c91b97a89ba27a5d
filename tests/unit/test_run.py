"""From a trained network to its sealed folder, and what is left behind where that does not come about."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import load, load_tier
from date.errors import UserError
from date.training import run as module
from date.training.hardware import cpu_name, hardware, kept_threads
from date.training.interruption import Interrupted
from date.training.journal import LOG, SEGMENTS, STATUS, begin_segment, end_segment, read_segments
from date.training.lease import HOLDER, LeaseLostError
from date.training.run import read_provenance
from tests.support.runs import MANIFEST, STEPS, carry_out, plan


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


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("final.safetensors", Path.unlink, "is missing; restore it, or delete"),
        ("metrics.jsonl", Path.unlink, "is missing; restore it, or delete"),
        ("final.safetensors", lambda path: path.write_bytes(b"another"), "has changed since it was sealed; delete"),
        ("provenance.json", lambda path: path.write_text("{"), "is damaged"),
    ],
)
def test_a_training_starts_from_sealed_weights_alone(
    name: str, damage: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    """The identity of the training names the run that it starts from, whose weights have to be those of its seal."""
    carry_out(first := plan(tmp_path))
    start, tier = load().training("date_f_init-r50-coco-30k"), load_tier("smoke")
    found = module._initial_weights(start, tier, 0, tmp_path, MANIFEST)
    assert found == first.sealed / "final.safetensors"
    damage(first.sealed / name)
    with pytest.raises(UserError, match=f"{re.escape(str(first.sealed / name))} {sentence}.*train it again"):
        module._initial_weights(start, tier, 0, tmp_path, MANIFEST)


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


def test_a_working_folder_that_stays_is_reported_and_no_failure(
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


# ------------------------------------------------------------------------------------------------- hardware


def left_behind(planned: Any, threads: int, checkpoints: bool = True, **facts: Any) -> None:
    """Leave a working folder as an interrupted training does."""
    begin_segment(planned.work, {"job": None, "devices": ["cpu"], "threads": threads, **facts})
    (planned.work / "checkpoints").mkdir(exist_ok=True)
    if checkpoints:
        (planned.work / "checkpoints" / f"step-00000006-{'0' * 16}.ckpt").touch()
        (planned.work / "metrics.jsonl").write_text('{"kind": "start"}\n{"kind": "train", "step": 6, "epoch": 1}\n')


@pytest.mark.parametrize(
    ("wanted", "kept", "warned"),
    [(None, 3, False), (3, 3, False), (8, 3, True)],
    ids=["none asked", "the same", "another"],
)
def test_a_training_goes_on_with_the_threads_that_it_began_with(
    wanted: int | None, kept: int, warned: bool, tmp_path: Path
) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    assert kept_threads(planned.work, wanted) == (wanted, None), "nothing has begun"
    left_behind(planned, 3, checkpoints=False)
    assert kept_threads(planned.work, wanted) == (wanted, None), "nothing of it is kept"
    left_behind(planned, 3)
    threads, sentence = kept_threads(planned.work, wanted)
    assert threads == kept
    expected = "goes on with --threads 3, as it began, and not 8, which would give other last bits"
    assert sentence == (expected if warned else None)


def test_threads_do_not_matter_on_gpus(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    left_behind(planned, 3, devices=["NVIDIA H200"])
    assert kept_threads(planned.work, 8) == (8, None)


def test_other_kernels_are_recorded_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    here = hardware()
    left_behind(planned, here["threads"], processes=1, cpu="another", kernels=here["kernels"])
    carry_out(planned)
    expected = (
        f"may differ in their last bits from an undisturbed run's: processor another before and {here['cpu']} now\n"
    )
    assert expected in capsys.readouterr().err
    assert expected in (planned.sealed / LOG).read_text()
    segments = read_provenance(planned.sealed)["segments"]
    assert [segment["cpu"] for segment in segments] == ["another", here["cpu"]]
    assert segments[1]["kernels"] == here["kernels"] != ""


def test_the_same_hardware_is_not_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    left_behind(planned, processes=1, **{k: v for k, v in hardware().items() if k != "devices"})
    carry_out(planned)
    assert "last bits" not in capsys.readouterr().err


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Wonder CPU @ 2 GHz\nprocessor\t: 1\n")
    assert cpu_name(tmp_path / "cpuinfo") == "Wonder CPU @ 2 GHz"
    assert cpu_name(tmp_path / "absent")


# ------------------------------------------------------------------------------------------------- what is lost or left


def test_a_lost_record_is_reported(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    left_behind(planned, 1)
    whole = (planned.work / "metrics.jsonl").read_bytes()
    (planned.work / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"metrics.jsonl lacks records of steps up to 6, of which there is a checkpoint; restore it, or delete .* to train from the beginning"):  # fmt: skip
        carry_out(planned)
    (planned.work / "metrics.jsonl").write_bytes(whole)
    carry_out(planned)
    assert planned.sealed.exists()


@pytest.mark.parametrize("how", ["left after a signal", "resumed before"])
def test_lost_checkpoints_are_reported(how: str, tmp_path: Path) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    left_behind(planned, 1, checkpoints=False, **({"from_step": 6} if how == "resumed before" else {}))
    end_segment(planned.work, 6, "SIGTERM" if how == "left after a signal" else "killed")
    with pytest.raises(UserError, match=r"checkpoints has lost the checkpoint of step 6; restore it, or delete"):
        carry_out(planned)


def test_a_process_killed_before_its_first_checkpoint_is_no_loss(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    planned.work.mkdir(parents=True)
    left_behind(planned, 1, checkpoints=False)
    end_segment(planned.work, 5, "killed")
    carry_out(planned)
    assert planned.sealed.exists()


def test_a_working_folder_left_after_sealing_is_removed_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(tmp_path)
    carry_out(planned)
    (planned.work / "checkpoints").mkdir(parents=True)
    planned.work.with_name(f"{planned.work.name}.done").mkdir()
    monkeypatch.setattr(module, "plan", lambda *_: planned)
    assert module.train(planned.training, planned.tier, 0, tmp_path) == planned.sealed
    assert list((tmp_path / ".work").iterdir()) == []


def test_others_may_read_the_weights_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        carry_out(plan(tmp_path))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in plan(tmp_path).sealed.iterdir()}
    assert set(modes.values()) == {0o664}, modes


def test_a_disk_that_fills_up_while_sealing_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="No space left on device .*; make room, then run the same command again: the training is finished"):  # fmt: skip
        carry_out(plan(tmp_path))
