"""Which GPUs a training needs, from the table: plan and doctor say it before a job starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from date.catalogue import load, load_tier
from date.doctor.memory import gpu_memory as examine
from date.planning import memory as module
from date.planning.durations import kind
from date.planning.memory import BESIDES, gpu_memory, images_that_fit, memory, smallest_gpu

PAPER = load_tier("paper")
TRAININGS = load().trainings
DATE_F = TRAININGS["date_f-r50-coco-12e"]


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table by hand: DATE-F takes 1,000 MiB and 1,000 for each of 16 images, in the fast setting half."""
    row = {"fp32": {"resting": 1000, "peak": 17000}, "fast": {"resting": 1000, "peak": 9000}}
    monkeypatch.setattr(module, "_table", lambda: {"images": 16, "mib": {"date_f-r50-coco-12e": row}})
    module._names.cache_clear()
    yield
    module._names.cache_clear()


@pytest.mark.usefixtures("by_hand")
def test_memory_grows_with_the_images() -> None:
    assert [memory(DATE_F, PAPER, n) for n in (16, 8, 1)] == [17000 + BESIDES, 9000 + BESIDES, 2000 + BESIDES]
    fast = PAPER.model_copy(update={"compute": PAPER.compute.model_copy(update={"precision": "bf16"})})
    assert memory(DATE_F, fast, 16) == 9000 + BESIDES
    assert images_that_fit(DATE_F, PAPER, 16, 17000 + BESIDES) == 16
    assert images_that_fit(DATE_F, PAPER, 16, 17000 + BESIDES - 1) == 15
    assert images_that_fit(DATE_F, PAPER, 16, 1999 + BESIDES) == 0
    assert memory(TRAININGS["date_f-r50-coco-36e"], PAPER, 16) == 17000 + BESIDES, "the same kind of network"
    assert memory(TRAININGS["retinanet-r50-coco-12e"], PAPER, 16) is None


def test_what_the_table_does_not_know() -> None:
    assert memory(DATE_F, load_tier("mini"), 16) is None, "sizes of another tier"
    double = PAPER.model_copy(update={"compute": PAPER.compute.model_copy(update={"precision": "fp64"})})
    assert memory(DATE_F, double, 16) is None
    assert smallest_gpu(16 * 1024 - 512) == 16 and smallest_gpu(16 * 1024 - 511) == 24 and smallest_gpu(10**6) is None


def test_the_committed_table_has_every_kind_of_network() -> None:
    table = module._table()
    assert {kind(TRAININGS[name]) for name in table["mib"]} == {kind(training) for training in TRAININGS.values()}
    for name, row in table["mib"].items():
        assert row["fast"]["peak"] < row["fp32"]["peak"], name
        assert all(0 < each["resting"] < each["peak"] for each in row.values())


def findings(profile: dict[str, Any], *gigabytes: int) -> list[tuple[str, str, str]]:
    sizes = [1024 * size for size in gigabytes]
    return [(f.status, f.text, f.remedy) for f in examine(PAPER, [DATE_F], profile, sizes)]


@pytest.mark.usefixtures("by_hand")
def test_doctor_tells_of_a_gpu_that_is_too_small_and_what_fits() -> None:
    need = "18.1 GiB needed with 16 images at a time, by date_f-r50-coco-12e"
    assert findings({}, 24) == [("ok", f"{need}, 24 GiB there", "")]
    # 12 GiB less 512 MiB are 11,776 MiB: 1,000 and 9 images of 1,000, with the allowance of 1,536.
    assert findings({}, 80, 12) == [
        (
            "error",
            f"{need}, 12 GiB there; too little for 1 of 1 trainings",
            "train with --images-per-pass 9, or set train.images_per_pass to 9 in the profile",
        )
    ]
    assert [f[2] for f in findings({}, 3)] == ["use a larger GPU: not even one image at a time fits"]
    assert findings({}) == [("ok", f"{need}: GPUs of 24 GiB or more", "")], "none here"
    fewer: dict[str, Any] = {"set-resources": {"train": {"images_per_pass": 4}}}
    assert findings(fewer, 12) == [("ok", "6.4 GiB needed with 4 images at a time, by date_f-r50-coco-12e, 12 GiB there", "")]  # fmt: skip
    several: dict[str, Any] = {"set-resources": {"train": {"gpu": 4}}}
    assert findings(several, 12)[0][0] == "ok", "four processes have four images each"
    for gres, nodes, status in (
        ("gpu:2", 2, "ok"),
        ("gpu:a100:4", 1, "ok"),
        ("gpu", 1, "error"),
        ("tmp:4", 1, "error"),
    ):
        by_node: dict[str, Any] = {"set-resources": {"train": {"gres": f"'{gres}'", "nodes": nodes}}}
        assert findings(by_node, 12)[0][0] == status, gres
    assert list(examine(load_tier("mini"), [DATE_F], {}, [1])) == [], "made for CPUs"


@pytest.mark.usefixtures("by_hand")
def test_plan_says_which_gpus_are_needed() -> None:
    lines = gpu_memory([DATE_F, DATE_F, TRAININGS["retinanet-r50-coco-12e"]], PAPER)
    assert lines == [
        "GPU memory with all 16 images at a time: 18.1 to 18.1 GiB (measured on a stand-in, 1.5 GiB of it an allowance)",
        "    24 GiB  date_f-r50-coco-12e",
        "  all of them fit 16 GiB with --images-per-pass 13",
    ]
    assert gpu_memory([], PAPER) == gpu_memory([DATE_F], load_tier("mini")) == []
