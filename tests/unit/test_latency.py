"""Latency: what is measured, how networks are compared, and what the report says of it."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from date.catalogue import Claim, load, load_tier
from date.catalogue.claims import Complexity
from date.catalogue.publication import load_paper
from date.errors import UserError
from date.identity.config import resolve
from date.inference import latency
from date.inference.latency import PASSES, STAGES, Plan, Subject, clock, measure
from date.inference.latency_table import latency_rows, latency_text, median_interval, ratio
from date.inference.network import Choice, Network
from date.reporting.claims import judge_all
from date.reporting.latency import judge_time, latency_markdown
from date.reporting.scores import Scores
from date.results import complexity_figures, load_latency, seal
from tests.sealed import complexity_json
from tests.support.alone import alone

ONENET, DATE_F, FCOS = "onenet-r50-coco-12e", "date_f-r50-coco-12e", "fcos-r50-coco-12e"


def record(name: str, total: list[float], nms: float = 0.0, **where: Any) -> dict[str, Any]:
    """A record whose rounds take so many milliseconds, of which NMS has a share."""
    ms = {"preprocessing": [0.0] * len(total), "network": [t * (1 - nms) for t in total]}
    ms |= {"decoding": [0.0] * len(total), "nms": [t * nms for t in total]}
    return {"name": name, "size": "tier", "runtime": "pytorch", "threads": 1, "ms": ms, "detections": 100.0} | where


def measured(*records: dict[str, Any]) -> dict[str, Any]:
    hardware = {"cpu": "a processor"}
    return {
        "stages": STAGES, "records": list(records), "exports": {}, "hardware": hardware, "seed": 0, "made": "today",
        "tier": "smoke", "passes": {"tier": 10, "800x1333": 1},
    }  # fmt: skip


def test_the_interval_of_a_median_covers_it_by_counting_all_signs() -> None:
    """Of n values each above the median or below: the interval misses it as often as too few lie on one side."""
    for n in (6, 9, 12):
        low, high = median_interval(np.arange(n, dtype=float))
        first, last = int(low), int(high)
        assert (first, last) == (n - 1 - last, last), "symmetric"
        missed = sum(not first < above <= last for above in map(sum, itertools.product((0, 1), repeat=n)))
        assert missed / 2**n <= 0.05
        wider = sum(not first + 1 < above <= last - 1 for above in map(sum, itertools.product((0, 1), repeat=n)))
        assert wider / 2**n > 0.05, "no narrower one would do"
    assert median_interval(np.arange(5, dtype=float)) == (-math.inf, math.inf)


def test_a_ratio_is_of_the_same_rounds() -> None:
    slow = [10.0 * 3**i for i in range(8)]  # the machine gets slower, for both alike
    found = ratio(measured(record("a", [1.01 * t for t in slow]), record("b", slow)), "a", "b", threads=1)
    assert found is not None and found.rounds == 8
    assert all(abs(v - 1) < 1e-9 for v in (found.median, found.low, found.high))
    assert ratio(measured(record("a", slow)), "a", "b") is None
    assert ratio(measured(record("a", slow), record("b", slow)), "a", "b", threads=2) is None


def test_rows_have_medians_quartiles_and_shares() -> None:
    (row,) = latency_rows(measured(record("x", [1.0, 2.0, 3.0, 4.0, 10.0], nms=0.25)))
    assert row == ("x", "tier", "pytorch", "1", "3.00", "2.00 to 4.00", "0.0 %", "75.0 %", "0.0 %", "25.0 %", "100")
    assert "25.0 %" in latency_text(measured(record("x", [1.0], nms=0.25)))


def claim(limit: float = 2.0) -> Claim:
    predicate = Complexity(
        kind="complexity", network=(DATE_F, "infer"), than=(ONENET, "infer"), at_most={"params": 0}, time_at_most=limit
    )
    return Claim(name="x", sentence="", predicate=predicate)


@pytest.mark.parametrize(
    ("percent", "word"), [([0.5] * 9, "within"), ([3.0] * 9, "above"), ([0.0, 5.0] * 6, "open"), ([1.0] * 4, "open")]
)
def test_time_is_judged_by_the_interval(percent: list[float], word: str) -> None:
    times = [10.0] * len(percent)
    found = measured(
        record(f"{DATE_F}/o2o", [10 + p / 10 for p in percent]), record(f"{ONENET}/o2o", times),
        record(f"{FCOS}/head", times, nms=0.125),
    )  # fmt: skip
    predicate = claim().predicate
    assert isinstance(predicate, Complexity)
    ((said, sentence),) = judge_time(predicate, found)
    assert said == word and sentence.startswith("Time, pytorch, 1 thread, tier: ")
    scores = Scores([], complexity_figures(complexity_json()), latency=found)
    (outcome,) = judge_all(scores, [], load_tier("smoke"), load(), claims=[claim()])
    assert outcome.verdict == {"within": "SUPPORTED", "above": "CONTRADICTED", "open": "UNRESOLVED"}[word]
    assert sentence in outcome.remarks
    assert f"NMS and the final choice take 12.5 to 12.5 % of the time of {FCOS}/head." in outcome.remarks
    assert not any(f"time of {DATE_F}" in remark for remark in outcome.remarks), "it has no NMS"


def test_without_a_measurement_counts_alone_judge() -> None:
    scores = Scores([], complexity_figures(complexity_json()))
    (outcome,) = judge_all(scores, [], load_tier("smoke"), load(), claims=[claim()])
    assert outcome.verdict == "SUPPORTED" and not any("Time" in remark for remark in outcome.remarks)


def test_a_page_and_a_changed_file(tmp_path: Path) -> None:
    found = measured(record(f"{DATE_F}/o2o", [1.0] * 9))
    text = latency_markdown(found, load_tier("smoke"))
    assert "Ours, not the paper's" in text and "a processor" in text and "smoke tier" in text
    assert f"| {DATE_F}/o2o | tier | pytorch | 1 | 1.00 |" in text
    assert "A round's time is the median of 10 images at the size tier." in text
    assert load_latency(tmp_path, "smoke") is None
    file = tmp_path / "smoke" / "latency.json"
    file.parent.mkdir()
    file.write_text(seal(found))
    again = load_latency(tmp_path, "smoke")
    assert again is not None and latency_markdown(again, load_tier("smoke")) == text
    file.write_text(seal(found).replace("today", "later"))
    with pytest.raises(UserError, match="has changed since it was sealed"):
        load_latency(tmp_path, "smoke")
    file.write_text(seal({"something": 1}))
    with pytest.raises(UserError, match="has no measured latencies"):
        load_latency(tmp_path, "smoke")


def test_what_the_catalogue_measures_exists() -> None:
    names = load_paper().latency
    assert names and [load().evaluation(name).name for name in names] == names
    judged = load().claims["no_inference_overhead"].predicate
    assert isinstance(judged, Complexity) and judged.time_at_most == 2
    assert {judged.network[0], judged.than[0]} <= {name.split("/")[0] for name in names}


def subject(training: str) -> Subject:
    torch.manual_seed(0)
    config = Config(resolve(load().training(training), load_tier("smoke"), 0, None))
    with DefaultScope.overwrite_default_scope("mmdet"):
        from mmdet.registry import MODELS

        model = MODELS.build(config.model)
    for key, parameter in model.bbox_head.named_parameters():
        if key.endswith("_cls.bias"):
            parameter.data.fill_(0.0)
    network = Network(training, model.eval(), config, training, None, Path("none"), torch.device("cpu"))
    images = [np.random.default_rng(i).integers(0, 256, (60, 90, 3), dtype=np.uint8) for i in range(2)]
    return Subject(training, network, network.selection(Choice()), images)


def test_every_stage_of_every_network_is_measured_in_every_round() -> None:
    said: list[str] = []
    plan = Plan(sizes=("tier", "96x128"), runtimes=("pytorch",), threads=(1,), rounds=3)
    with alone(Path("unused")):
        found = measure([subject(DATE_F), subject(FCOS)], plan, said.append)
    assert [(r["name"], r["size"]) for r in found["records"]] == [
        (DATE_F, "tier"), (FCOS, "tier"), (DATE_F, "96x128"), (FCOS, "96x128")
    ]  # fmt: skip
    for entry in found["records"]:
        assert list(entry["ms"]) == list(STAGES)
        assert all(len(values) == 3 and min(values) >= 0 for values in entry["ms"].values())
        assert min(entry["ms"]["network"]) > 0
        assert entry["detections"] == 100, "as many as there are places, by a class bias of 0"
    assert len(said) == 2 and found["passes"] == {"tier": PASSES["tier"], "96x128": 1}


def test_a_round_at_the_tiers_size_is_the_median_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow image in a round, as when another program has the processor, does not count."""
    threads, times = cv2.getNumThreads(), iter(range(1, 1000))

    def timed(*_: Any) -> Callable[..., tuple[dict[str, float], int]]:
        def run(_: Any) -> tuple[dict[str, float], int]:
            i = next(times)
            return dict.fromkeys(STAGES, 100.0 if i % PASSES["tier"] == 0 else 0.002), i

        return run

    monkeypatch.setattr(latency, "_timed", timed)
    one = Subject("one", *[None] * 2, [np.zeros((8, 8, 3), np.uint8)])  # type: ignore[arg-type]
    (entry,) = measure([one], Plan(("tier",), ("pytorch",), (1,), rounds=4), lambda _: None)["records"]
    assert entry["ms"] == dict.fromkeys(STAGES, [2.0] * 4)
    first = latency.WARM_UP * PASSES["tier"] + 1
    assert entry["detections"] == np.mean(range(first, first + 4 * PASSES["tier"])), "of all images that count"
    assert cv2.getNumThreads() == threads


def test_the_clock_of_one_thread_leaves_other_threads_out() -> None:
    """A pool's idle threads wait in loops, which the processor time of the process would count."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    other = threading.Thread(target=spin)
    now, process = clock(1), time.process_time
    began, all_began = now(), process()
    other.start()
    while process() - all_began < 0.2:
        time.sleep(0.01)
    stop.set()
    other.join()
    assert now() - began < 0.1
