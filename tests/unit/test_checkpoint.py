"""Checkpoints: what goes in comes out; whatever else lies in the folder is told from them, and executes nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from date.training import checkpoint
from date.training.checkpoint import CheckpointError, finite, free_space, latest, load, save, steps

RUN = "a" * 64


def state(value: float = 0.0, **changes: Any) -> dict[str, Any]:
    return {"run_digest": RUN, "model": {"weight": torch.full((3,), value)}, "optimizer": {"state": {}}, **changes}


def put(folder: Path, step: int, data: bytes) -> Path:
    """Write a file whose name has the right digest."""
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}-{hashlib.sha256(data).hexdigest()[:16]}.ckpt"
    path.write_bytes(data)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def messages() -> list[str]:
    return []


def test_nested_state_comes_back(tmp_path: Path) -> None:
    given_state = state(
        model={"half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16), "long": torch.arange(4), "empty": torch.zeros(0)},
        optimizer={"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(2, 3, dtype=torch.float64)}}, "groups": [{"lr": 4e-4, "betas": (0.9, 0.999), "maximize": False, "fused": None}]},
        schedulers=[{"last_step": 3}, {"milestones": [1, 2], "name": "späte Stufe"}],
    )  # fmt: skip
    path = save(tmp_path, 12, given_state)
    read = load(path, RUN)
    assert (read["step"], read["schema_version"]) == (12, checkpoint.SCHEMA)
    for name, value in given_state["model"].items():
        assert read["model"][name].dtype == value.dtype and torch.equal(read["model"][name], value)
    assert torch.equal(read["optimizer"]["state"][0]["exp_avg"], given_state["optimizer"]["state"][0]["exp_avg"]), (
        "to the last bit"
    )
    assert read["optimizer"]["groups"] == given_state["optimizer"]["groups"]
    assert read["schedulers"] == given_state["schedulers"]


def test_the_last_two_by_step_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100, 99_999_999, 100_000_000):
        save(tmp_path, step, state(step))
        assert steps(tmp_path)[0][0] == step
    assert [step for step, _ in steps(tmp_path)] == [100_000_000, 99_999_999], "by number, not by name"
    assert len(names(tmp_path)) == 2, "and nothing else"


def test_no_checkpoint_is_none_and_no_good_one_an_error(tmp_path: Path, messages: list[str]) -> None:
    assert latest(tmp_path / "absent", RUN, messages.append) is None
    assert latest(tmp_path, RUN, messages.append) is None
    (tmp_path / "step-00000001.ckpt").write_bytes(b"not one of our names")
    assert latest(tmp_path, RUN, messages.append) is None and messages == []
    (tmp_path / f"step-00000002-{'0' * 16}.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used \(step-00000002-0{16}.ckpt is damaged.*delete .* to train from the beginning"):  # fmt: skip
        latest(tmp_path, RUN, messages.append)
    assert len(messages) == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = save(tmp_path_factory.mktemp("checkpoints"), 5, state(1.0))
    return path, path.read_bytes()


def test_every_truncation_is_noticed(written: tuple[Path, bytes]) -> None:
    path, data = written
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="is damaged: its bytes are not those that were written"):
            load(path, RUN)
    path.write_bytes(data)
    assert load(path, RUN)["step"] == 5


@given(st.data())
def test_every_flipped_bit_is_noticed(written: tuple[Path, bytes], data: st.DataObject) -> None:
    path, good = written
    place, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[place] ^= 1 << bit
    path.write_bytes(bad)
    try:
        with pytest.raises(CheckpointError, match="is damaged"):
            load(path, RUN)
    finally:
        path.write_bytes(good)


def torch_bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not a checkpoint of a training"),
        (b"any bytes at all", "is not a checkpoint of a training"),
        (b"PK\x03\x04 and no more of an archive", "is not a checkpoint of a training"),
        (torch_bytes([1, 2]), "is not a checkpoint of this version"),
        (torch_bytes({"weight": torch.zeros(2)}), "is not a checkpoint of this version"),
        (torch_bytes(state() | {"schema_version": checkpoint.SCHEMA + 1}), "is not a checkpoint of this version"),
        (torch_bytes(state(run_digest="b" * 64) | {"schema_version": checkpoint.SCHEMA}), r"is of another run \(b{10}\)"),
    ],
    ids=["empty", "text", "torn archive", "list", "weights", "other schema", "other run"],
)  # fmt: skip
def test_a_foreign_file_with_a_right_name_is_refused(data: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        load(put(tmp_path, 3, data), RUN)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["inside a checkpoint", "bare pickle"])
def test_a_payload_is_refused_and_not_executed(form: str, tmp_path: Path, messages: list[str]) -> None:
    folder, target = tmp_path / "checkpoints", tmp_path / "side effect"
    save(folder, 5, state(1.0))
    content = state(model=Payload(target)) | {"schema_version": checkpoint.SCHEMA, "step": 9}
    put(folder, 9, torch_bytes(content) if form == "inside a checkpoint" else pickle.dumps(content, protocol=2))
    read = latest(folder, RUN, messages.append)
    assert read is not None and read[1]["step"] == 5 and read[0].name.startswith("step-00000005-")
    assert not target.exists()
    assert "is not a checkpoint of a training" in messages[0]
    assert messages[1] == "going on from the checkpoint before it, of step 5"
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.exists(), "the payload would have worked"


@pytest.mark.parametrize("damage", ["flipped", "folder", "unreadable"])
def test_the_checkpoint_before_a_damaged_one_is_used(
    damage: str, tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5, state(1.0))
    newest = save(tmp_path, 6, state(2.0))
    if damage == "flipped":
        newest.write_bytes(newest.read_bytes()[::-1])
    elif damage == "folder":
        newest.unlink()
        newest.mkdir()
    else:
        original = Path.read_bytes

        def read_bytes(path: Path) -> bytes:
            if path == newest:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
    read = latest(tmp_path, RUN, messages.append)
    assert read is not None and torch.equal(read[1]["model"]["weight"], torch.full((3,), 1.0))
    assert newest.name in messages[0] and "going on from the checkpoint before it, of step 5" in messages[1]


def test_a_damaged_checkpoint_never_displaces_a_good_one(tmp_path: Path, messages: list[str]) -> None:
    """The training goes on from before it, so that the good ones have smaller steps for a while."""
    save(tmp_path, 5, state(5.0))
    save(tmp_path, 9, state(9.0)).write_bytes(b"damaged")
    save(tmp_path, 7, state(7.0))
    assert [step for step, _ in steps(tmp_path)] == [7, 5]
    put(tmp_path, 9, b"damaged, too")
    free_space(tmp_path, 8)
    assert [step for step, _ in steps(tmp_path)] == [7]
    read = latest(tmp_path, RUN, messages.append)
    assert read is not None and read[1]["step"] == 7 and messages == []


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename"])
def test_a_failed_write_leaves_the_earlier_ones(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5, state(1.0))
    save(tmp_path, 6, state(2.0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(call, no_space)
        with pytest.raises(OSError, match="No space left") as caught:
            save(tmp_path, 7, state(3.0))
    assert "step-00000007" in caught.value.filename
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_space_is_freed_of_all_but_the_newest(tmp_path: Path) -> None:
    save(tmp_path, 5, state(1.0))
    newest = save(tmp_path, 6, state(2.0))
    (tmp_path / f".step-00000007-{'0' * 16}.ckpt.partial").write_bytes(b"of a writer that was killed")
    free_space(tmp_path, 7)
    assert names(tmp_path) == [newest.name]
    free_space(tmp_path / "absent", 7)


def test_what_a_killed_writer_left_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / f".step-00000007-{'0' * 16}.ckpt.partial").write_bytes(b"torn")
    path = save(tmp_path, 8, state())
    assert names(tmp_path) == [path.name]


def test_finite() -> None:
    good = {"weight": torch.ones(2), "half": torch.ones(2, dtype=torch.float16), "counter": torch.tensor(3)}
    assert finite(good)
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not finite(good | {"bias": torch.tensor([0.0, bad])})
