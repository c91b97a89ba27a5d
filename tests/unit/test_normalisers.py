"""A batch divided into passes gives the losses and gradients of the whole, whatever the head; per-process normalisers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mmdet.utils
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from date.experiments.fragments import fragment
from date.models import DualAssignmentHead, normalisers
from date.models.baselines import FCOSHead, RetinaNetHead
from date.models.normalisers import recording, reduce_mean, reduced, replaying

CLASSES, CHANNELS, STRIDES = 4, 16, (8, 16)
NORM = dict(type="GN", num_groups=4)
RANGES = ((-1, 32), (32, 1e8))
COUNTS = (3, 0, 5, 1, 2, 7)
"""Objects of the images: passes differ in them, and one image has none."""


def dual(quality: str, o2m: str | None = None) -> DualAssignmentHead:
    config = fragment("models/dual.py")
    branches = [config["o2o"] | dict(quality=config["qualities"][quality])]
    if o2m:
        branches.append(config["o2m"][o2m])
        if o2m == "fcos":
            branches[1]["regress_ranges"] = RANGES
        else:
            branches[1]["anchor_generator"]["strides"] = list(STRIDES)
    return DualAssignmentHead(CLASSES, branches, CHANNELS, CHANNELS, stacked_convs=1, strides=STRIDES, norm_cfg=NORM)


def defcn() -> DualAssignmentHead:
    config = fragment("models/defcn.py")["model"]["bbox_head"]
    (branch,) = config["branches"]
    branch["max_filter"]["norm_cfg"] = NORM
    return DualAssignmentHead(CLASSES, [branch], CHANNELS, CHANNELS, stacked_convs=1, strides=STRIDES, norm_cfg=NORM)


def fcos() -> FCOSHead:
    return FCOSHead(
        CLASSES, CHANNELS, feat_channels=CHANNELS, stacked_convs=1, strides=STRIDES, norm_cfg=NORM, conv_bias=False,
        regress_ranges=RANGES,
    )  # fmt: skip


def retinanet(**options: Any) -> RetinaNetHead:
    model = fragment("models/retinanet.py")["model"]
    config = {k: v for k, v in model["bbox_head"].items() if k != "type"}
    config["anchor_generator"]["strides"] = list(STRIDES)
    sizes = dict(num_classes=CLASSES, in_channels=CHANNELS, feat_channels=CHANNELS, stacked_convs=1)
    return RetinaNetHead(**config | sizes | options, train_cfg=ConfigDict(model["train_cfg"]))


HEADS: dict[str, Callable[[], nn.Module]] = {
    "one-to-one, POTO": lambda: dual("poto"),
    "one-to-one, Hungarian": lambda: dual("hungarian"),
    "FCOS branch": lambda: dual("poto", "fcos"),
    "Retina branch": lambda: dual("hungarian", "retinanet"),
    "DeFCN with its auxiliary loss": defcn,
    "FCOS's head": fcos,
    "RetinaNet's head": retinanet,
}


def build(make: Callable[[], nn.Module]) -> Any:
    """Return a head in float64 whose predictions differ from point to point."""
    torch.manual_seed(0)
    head: Any = make()
    head.init_weights()
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return head.double()


Batch = tuple[list[Tensor], list[Any]]


def batch(counts: tuple[int, ...] = COUNTS) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    feats = [uniform(len(counts), CHANNELS, 12 // k, 16 // k) - 0.5 for k in (1, 2)]
    samples = []
    for count in counts:
        corner = uniform(count, 2) * 50
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        instances = InstanceData(bboxes=torch.cat([corner, corner + 8 + uniform(count, 2) * 40], dim=-1), labels=labels)
        meta = dict(img_shape=(96, 120), pad_shape=(96, 128))
        samples.append(SimpleNamespace(metainfo=meta, gt_instances=instances))
    return feats, samples


def losses_of(head: Any, part: Batch) -> dict[str, Tensor]:
    feats, samples = part
    if isinstance(head, DualAssignmentHead):
        return head.loss(feats, samples)
    found = head.loss_by_feat(*head(feats), [s.gt_instances for s in samples], [s.metainfo for s in samples])
    return {name: sum(value) if isinstance(value, list) else value for name, value in found.items()}


def divided(whole: Batch, bounds: tuple[int, ...]) -> list[Batch]:
    feats, samples = whole
    return [([x[a:b] for x in feats], samples[a:b]) for a, b in itertools.pairwise(bounds)]


def in_passes(head: Any, parts: list[Batch]) -> dict[str, float]:
    """Add up the losses, and in the parameters the gradients, of the parts of a batch."""
    recorded = []
    for part in parts:
        with recording() as asked, torch.no_grad():
            losses_of(head, part)
        recorded.append(asked)
    answers = reduced(recorded)
    assert answers
    sums: dict[str, float] = {}
    for part in parts:
        with replaying(answers):
            found = losses_of(head, part)
        sum(found.values()).backward()  # type: ignore[union-attr]
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return sums


def gradients(head: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}
    head.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("bounds", [(0, 3, 6), (0, 1, 2, 6)], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_passes_give_the_losses_and_gradients_of_the_whole(name: str, bounds: tuple[int, ...]) -> None:
    head, whole = build(HEADS[name]), batch()
    losses = losses_of(head, whole)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    expected = gradients(head)
    assert all(value.item() != 0 for value in losses.values())

    sums = in_passes(head, divided(whole, bounds))
    assert sums == pytest.approx({k: v.item() for k, v in losses.items()}, rel=1e-12)
    found = gradients(head)
    assert found.keys() == expected.keys()
    for parameter, gradient in found.items():
        scale = expected[parameter].abs().max().item()
        torch.testing.assert_close(gradient, expected[parameter], rtol=0, atol=1e-12 * max(scale, 1.0), msg=parameter)
    assert normalisers._recorded is normalisers._replayed is None, "nothing is left behind"


@pytest.mark.parametrize("name", HEADS)
def test_naive_accumulation_differs(name: str) -> None:
    """Without the whole batch's numbers each pass divides by its own: what the passes are made to agree against."""
    head, whole = build(HEADS[name]), batch()
    losses = losses_of(head, whole)
    parts = [losses_of(head, part) for part in divided(whole, (0, 3, 6))]
    naive = {k: sum(part[k].item() for part in parts) / 2 for k in losses}
    assert any(abs(naive[k] - v.item()) > 1e-4 * v.item() for k, v in losses.items())


@pytest.mark.parametrize("name", ["one-to-one, POTO", "FCOS branch", "RetinaNet's head"])
def test_passes_of_a_batch_with_fewer_objects_than_passes(name: str) -> None:
    """The least normaliser, 1, is of the whole batch, not of each pass."""
    head, whole = build(HEADS[name]), batch((0, 1, 0, 0))
    losses = {k: v.item() for k, v in losses_of(head, whole).items()}
    assert in_passes(head, divided(whole, (0, 1, 2, 3, 4))) == pytest.approx(losses, rel=1e-12)


# ------------------------------------------------------------------------------------------------- processes


@pytest.fixture
def four_processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let this process be one of four of which the others have no positives; return how often they reduced."""
    calls: list[int] = []

    def quarter(values: Tensor) -> Tensor:
        calls.append(values.numel())
        return values / 4

    monkeypatch.setattr(normalisers, "get_world_size", lambda: 4)
    monkeypatch.setattr(mmdet.utils, "reduce_mean", quarter)
    return calls


def test_retinanet_divides_by_the_mean_or_by_its_own_number(four_processes: list[int]) -> None:
    whole = batch()
    reducing, own = build(retinanet), build(lambda: retinanet(reduce_normaliser=False))
    theirs = {k: v.item() for k, v in losses_of(own, whole).items()}
    assert four_processes == [], "the official code's: no process asks another"
    ours = {k: v.item() for k, v in losses_of(reducing, whole).items()}
    assert four_processes == [1]
    for name, value in ours.items():
        assert value == pytest.approx(4 * theirs[name], rel=1e-6)


def test_retinanets_own_number_is_the_process_whole_number_in_passes(four_processes: list[int]) -> None:
    head, whole = build(lambda: retinanet(reduce_normaliser=False)), batch()
    losses = {k: v.item() for k, v in losses_of(head, whole).items()}
    assert in_passes(head, divided(whole, (0, 2, 4, 6))) == pytest.approx(losses, rel=1e-12)


def test_all_passes_together_reduce_once(four_processes: list[int]) -> None:
    head, whole = build(HEADS["FCOS branch"]), batch()
    losses = {k: v.item() for k, v in losses_of(head, whole).items()}
    assert len(four_processes) == 3, "positives of both branches, and the sum of the centre-ness"
    four_processes.clear()
    sums = in_passes(head, divided(whole, (0, 2, 4, 6)))
    assert four_processes == [3]
    assert sums == pytest.approx(losses, rel=1e-12)


# ------------------------------------------------------------------------------------------------- by hand


def test_recording_and_replaying_by_hand() -> None:
    passes = []
    for first, second in ((2.0, 10.0), (3.0, 20.0)):
        with recording() as asked:
            assert reduce_mean(torch.tensor(first)).item() == first, "as it is"
            assert reduce_mean(torch.tensor(second, dtype=torch.float64), over_processes=False).item() == second
        passes.append(asked)
    answers = reduced(passes)
    assert [a.item() for a in answers] == [5.0, 30.0]
    assert [a.dtype for a in answers] == [torch.float32, torch.float64], "as they were asked"
    with replaying(answers):
        assert [reduce_mean(torch.tensor(0.0)).item() for _ in range(2)] == [5.0, 30.0]
    assert reduce_mean(torch.tensor(7.0)).item() == 7.0


def test_an_error_in_a_pass_leaves_nothing_behind() -> None:
    for context in (recording, lambda: replaying([torch.tensor(1.0)])):
        with pytest.raises(RuntimeError, match="memory"), context():  # type: ignore[operator]
            raise RuntimeError("memory")
        assert reduce_mean(torch.tensor(7.0)).item() == 7.0
