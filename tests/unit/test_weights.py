"""Checkpoints are read without running code, compared by name, and start another training's feature extractor."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from torch import Tensor, nn

import date.models  # noqa: F401 - registers the heads
from date.catalogue import load, load_tier
from date.errors import UserError
from date.experiments.fragments import merge
from date.files import file_digest
from date.identity.config import resolve
from date.training.weights import (
    feature_extractor,
    initialise_feature_extractor,
    load_checkpoint,
    match_state,
)
from tests.support.examples import examples

STATE = {"neck.weight": torch.arange(6.0).view(2, 3), "backbone.bn.num_batches_tracked": torch.tensor(7)}


def assert_equal(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name].dtype == value.dtype
        assert torch.equal(mine[name], value), name


# --- reading ----------------------------------------------------------------------------------------------------


MMDETECTION_2 = {
    "meta": {"mmdet_version": "2.25.1", "CLASSES": ("disc", "square"), "epoch": 12, "hook_msgs": {}, "config": "..."},
    "state_dict": OrderedDict(STATE),
    "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 4e-4}]},
}
MMENGINE = {
    "meta": {"epoch": 1, "dataset_meta": {"classes": ("disc",)}},
    "state_dict": OrderedDict(STATE),
    "message_hub": {"log_scalars": {"train/loss": HistoryBuffer([1.0, 2.0], [1, 1])}},
}


@pytest.mark.parametrize(
    "content",
    [STATE, OrderedDict(STATE), {k: nn.Parameter(v, False) for k, v in STATE.items()}, MMDETECTION_2, MMENGINE],
    ids=["dict", "OrderedDict", "Parameters", "MMDetection 2", "MMEngine"],
)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_checkpoints_of_every_kind(content: Any, zipped: bool, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"epoch_12{suffix}"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_equal(load_checkpoint(path), STATE)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "final.safetensors")
    assert_equal(load_checkpoint(tmp_path / "final.safetensors"), STATE)


def test_the_state_dict_of_a_module_keeps_its_metadata_out(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    torch.save(module.state_dict(), tmp_path / "plain.pth")  # an OrderedDict with the attribute _metadata
    assert_equal(load_checkpoint(tmp_path / "plain.pth"), dict(module.state_dict()))


class Payload:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def write_malicious(kind: str, path: Path, mark: Path) -> None:
    payload = {"state_dict": Payload(os.mkdir, str(mark)), "meta": {}}
    if kind == "zip":
        torch.save(payload, path)
    elif kind == "old":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    elif kind == "builtin":
        torch.save({"meta": Payload(eval, f"__import__('os').mkdir({str(mark)!r})"), "state_dict": STATE}, path)
    else:
        path.write_bytes(pickle.dumps(payload, protocol=int(kind)))


@pytest.mark.parametrize("kind", ["zip", "old", "builtin", "2", "4", "5"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_would_execute_code_is_refused_and_does_not(kind: str, tmp_path: Path) -> None:
    live, refused = tmp_path / "live", tmp_path / "refused"
    write_malicious(kind, tmp_path / "live.pth", live)
    if kind in ("zip", "old", "builtin"):
        torch.load(tmp_path / "live.pth", weights_only=False)
    else:
        pickle.loads((tmp_path / "live.pth").read_bytes())
    assert live.exists()  # the payload would work

    write_malicious(kind, tmp_path / "evil.pth", refused)
    with pytest.raises(UserError, match=r"evil\.pth is refused: it holds more than weights.* could execute code"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not refused.exists()


def test_the_refusal_names_what_would_be_called(tmp_path: Path) -> None:
    torch.save({"meta": argparse.Namespace(lr=1), "state_dict": STATE}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=re.escape("more than weights (argparse.Namespace), and")):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like a TorchScript archive")
def test_a_program_of_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(UserError, match="could execute code"):
        load_checkpoint(tmp_path / "script.pt")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a checkpoint in each format."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(STATE, folder / "new.pth")
    torch.save(STATE, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(STATE, folder / "final.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=examples(150))
@given(st.sampled_from(["new.pth", "old.pth", "final.safetensors"]), st.floats(0, 1, exclude_max=True))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_truncated_file_is_a_users_mistake(files: dict[str, bytes], name: str, share: float) -> None:
    content = files[name][: int(share * len(files[name]))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(name)):
            load_checkpoint(path)


@settings(max_examples=examples(150))
@given(st.sampled_from(["any.pth", "any.safetensors"]), st.binary(max_size=200))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_bytes_are_a_users_mistake(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        with pytest.raises(UserError):
            load_checkpoint(path)


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html><html>Not found</html>", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", ""]
)
def test_what_a_failed_download_leaves_is_called_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "date.pth").write_text(text)
    with pytest.raises(UserError, match="is damaged, incomplete or no checkpoint"):
        load_checkpoint(tmp_path / "date.pth")


def test_pytorchs_advice_against_safety_is_not_repeated(tmp_path: Path) -> None:
    contents = {"text.pth": b"hello world\n", "image.pth": b"\x89PNG\r\n\x1a\n" + bytes(99), "list.pth": b"[1, 2]"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as error:
            load_checkpoint(tmp_path / name)
        assert "weights_only" not in str(error.value) and "is damaged, incomplete or no checkpoint" in str(error.value)


@pytest.mark.parametrize(
    "content", [{}, {"state_dict": {}}, {"meta": {"epoch": 1}}, [torch.zeros(1)], {0: torch.zeros(1)}]
)
def test_a_checkpoint_without_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="has no weights"):
        load_checkpoint(tmp_path / "empty.pth")


def test_absent_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(UserError, match="is not a file; correct the name"):
            load_checkpoint(path)


def test_the_digest_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    digest = file_digest(path)
    assert_equal(load_checkpoint(path, digest), STATE)
    with pytest.raises(UserError, match=f"has the SHA-256 {digest} and not {'0' * 64}"):
        load_checkpoint(path, "0" * 64)


# --- comparing --------------------------------------------------------------------------------------------------


def test_differences_by_hand() -> None:
    wanted = {"a": torch.zeros(2), "b": torch.zeros(2, 3), "c": torch.zeros(()), "z": torch.zeros(1)}
    given = {"x": torch.zeros(1), "b": torch.zeros(3, 2), "c": torch.zeros(1), "d": torch.zeros(1), "z": torch.ones(1)}
    assert match_state(wanted, given) == [
        "missing: a",
        "not in the network: d",
        "not in the network: x",
        "b is (3, 2) instead of (2, 3)",
        "c is (1,) instead of ()",
    ]


states = st.dictionaries(
    st.text("ab.", min_size=1, max_size=3), st.sampled_from([(), (1,), (2,), (1, 2)]).map(torch.zeros), max_size=6
)


@given(states, states)
def test_every_difference_is_named_once(wanted: dict[str, Tensor], given_: dict[str, Tensor]) -> None:
    differences = match_state(wanted, given_)
    expected = [
        name
        for name in {*wanted, *given_}
        if name not in wanted or name not in given_ or wanted[name].shape != given_[name].shape
    ]
    assert len(differences) == len(expected)
    for name in expected:
        assert sum(d.endswith(f": {name}") or d.startswith(f"{name} is ") for d in differences) == 1
    assert match_state(wanted, dict(wanted)) == []


# --- initialising -----------------------------------------------------------------------------------------------


def config(training: str, **changes: Any) -> dict[str, Any]:
    model: dict[str, Any] = resolve(load().training(f"{training}-r50-coco-12e"), load_tier("smoke"), 0, Path())["model"]
    merge(model, changes)
    return model


def detector(training: str, seed: int, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(ConfigDict(config(training, **changes)))
    model.init_weights()
    for value in model.state_dict().values():  # nothing equal by chance, batch statistics included
        if value.is_floating_point():
            value += 0.05 * torch.rand_like(value)
    return model.eval()


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_feature_extractor_of_a_dual_head() -> None:
    model = detector("date_r", 0, bbox_head=dict(share_towers=False))
    names = feature_extractor(model.state_dict()).keys()
    head = model.bbox_head
    parts = {"backbone": model.backbone, "neck": model.neck, "bbox_head.cls_convs": head.cls_convs}
    parts |= {"bbox_head.reg_convs": head.reg_convs}
    assert names == {f"{place}.{name}" for place, part in parts.items() for name in part.state_dict()}
    left_out = {name.split(".")[1] for name in model.state_dict().keys() - names}
    assert left_out == {"predictors", "scales", "branch_cls_convs", "branch_reg_convs"}


@pytest.mark.parametrize("training", ["onenet", "date_f", "date_r"])
def test_a_trained_fcos_starts_a_dual_head(training: str) -> None:
    fcos, model = detector("fcos", 1), detector(training, 2)
    before = copied_state(model)
    initialise_feature_extractor(model, fcos.state_dict(), "fcos")
    after = model.state_dict()
    for name, value in after.items():
        if name.startswith(("bbox_head.predictors", "bbox_head.scales")):
            assert torch.equal(value, before[name]), name
        else:
            assert torch.equal(value, fcos.state_dict()[name]), name
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        feats, theirs = model.extract_feat(image), fcos.extract_feat(image)
        for mine, level in zip(model.bbox_head.tower_levels(feats, 0)[0], theirs, strict=True):
            for conv in fcos.bbox_head.cls_convs:
                level = conv(level)
            assert torch.equal(mine, level)


def test_the_source_is_not_shared() -> None:
    fcos, model = detector("fcos", 1), detector("onenet", 2)
    initialise_feature_extractor(model, fcos.state_dict(), "fcos")
    before = copied_state(fcos)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert_equal(dict(fcos.state_dict()), before)


def test_towers_that_differ_are_listed_and_nothing_changes() -> None:
    retinanet, model = detector("retinanet", 1), detector("onenet", 2)  # towers without GroupNorm, with biases
    before = copied_state(model)
    with pytest.raises(UserError) as error:
        initialise_feature_extractor(model, retinanet.state_dict(), "retinanet.pth")
    message = str(error.value)
    assert message.startswith("retinanet.pth does not fit the network's backbone, neck and towers (missing: ")
    for tower in ("cls_convs", "reg_convs"):
        for i in range(4):
            assert f"missing: bbox_head.{tower}.{i}.gn.weight" in message
            assert f"not in the network: bbox_head.{tower}.{i}.conv.bias" in message
    assert "scales" not in message and "retina_cls" not in message
    assert_equal(dict(model.state_dict()), before)


def test_shapes_that_differ_are_listed_and_nothing_changes() -> None:
    state, model = detector("fcos", 1).state_dict(), detector("onenet", 2)
    state["neck.lateral_convs.0.conv.weight"] = torch.zeros(2, 2, 1, 1)
    before = copied_state(model)
    with pytest.raises(
        UserError, match=r"neck\.lateral_convs\.0\.conv\.weight is \(2, 2, 1, 1\) instead of \(32, 40, 1, 1\)"
    ):
        initialise_feature_extractor(model, state, "fcos")
    assert_equal(dict(model.state_dict()), before)
