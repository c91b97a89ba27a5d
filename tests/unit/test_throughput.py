"""The benchmark of throughput: what can be known of it without a GPU."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from mmengine.registry import init_default_scope

from benchmarks import throughput
from benchmarks.throughput import (
    AS_IT_COMES,
    FAST,
    FASTEST,
    KEPT,
    PLAIN,
    TF32_OFF,
    Subject,
    keep_matches,
    paper_hours,
    table,
    turn,
)
from date.catalogue import ROOT, Compute, load, load_tier
from date.identity.length import length


def test_the_fast_setting_is_the_documented_one() -> None:
    page = (ROOT / "docs/training.md").read_text()
    documented = yaml.safe_load(re.search(r"```yaml\n(# fast.yaml\n.*?)```", page, re.DOTALL)[1])
    assert Compute.model_validate(documented["compute"]) == FAST
    assert documented["extends"] == "paper"


def test_what_ours_is_compared_with_is_mmdetections_own() -> None:
    """In the registry, head and preprocessor of these names are ours."""
    init_default_scope("mmdet")
    model, config = throughput.stock_network()
    found = {type(module).__module__.partition(".")[0] for module in model.modules()}
    assert found == {"mmdet", "mmcv", "torch"}
    assert type(model.bbox_head).__name__ == "FCOSHead" and config.optim_wrapper.clip_grad["max_norm"] == 35


def test_the_papers_hours_are_the_catalogues_at_the_catalogues_speed() -> None:
    """The speed of DATE-F on which the catalogue's hours rest has to give the catalogue's hours."""
    trainings = load().of_the_paper().trainings
    own = trainings["date_f-r50-coco-12e"]
    seconds = 3600 * own.gpu_hours / length(own, load_tier("paper")).steps
    assert paper_hours(seconds) == pytest.approx(sum(t.gpu_hours for t in trainings.values()))
    assert paper_hours(2 * seconds) == pytest.approx(2 * paper_hours(seconds))


def row(seconds: float, hours: float | None = None, problem: str = "") -> dict[str, Any]:
    return {
        "seconds": seconds,
        "images_per_second": 16 / seconds,
        "gib": 15.25,
        "paper_hours": hours,
        "problem": problem,
    }


def test_the_table_by_hand() -> None:
    rows = {
        AS_IT_COMES: row(0.4), TF32_OFF: row(0.8), PLAIN: row(0.6, 3000), FASTEST: row(0.2, 1000), KEPT: row(0.197),
    }  # fmt: skip
    said = table(rows)
    assert said[2] == f"| {AS_IT_COMES} | 400.0 | 40.0 | 1.00 | 2.00 | 15.2 |  |"
    assert said[5] == f"| {FASTEST} | 200.0 | 80.0 | 2.00 | 4.00 | 15.2 | 1,000 |"
    assert "Matching: 1.5 % of the fast setting's step." in said
    assert said[-1] == "The paper's 40 trainings: 3,000 GPU hours in float32, 1,000 in the fast setting."
    rows[TF32_OFF] = row(0.8, problem="does not fit into the memory")
    said = table(rows)
    assert said[3] == f"| {TF32_OFF} | does not fit into the memory | | | | | |"
    assert said[5] == f"| {FASTEST} | 200.0 | 80.0 | 2.00 |  | 15.2 | 1,000 |"
    assert not any("Matching" in line for line in table({PLAIN: row(0.6, 3000)}))


def test_a_turn_counts_no_step_of_the_warm_up_and_says_where_memory_ends() -> None:
    cpu, taken = torch.device("cpu"), list[str]()
    subject = Subject(lambda: taken.append("step"), lambda: taken.append("precision"))
    turn(subject, 3, 5, cpu)
    assert taken == ["precision"] + 8 * ["step"] and len(subject.seconds) == 5

    def burst() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    small = Subject(burst, lambda: None)
    turn(small, 3, 5, cpu)
    assert small.problem == "does not fit into the memory" and not small.seconds and not small.failed

    def fall() -> None:
        raise ValueError("no backend | for it")

    broken = Subject(fall, lambda: None)
    turn(broken, 3, 5, cpu)
    assert broken.failed and broken.problem == "FAILED: ValueError: no backend / for it"


def test_matches_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Branch:
        asked = 0

        def _match(self, *arguments: Any) -> int:
            self.asked += 1
            return self.asked

    branch: Any = Branch()
    keep_matches(branch)
    assert [branch._match(1, 2, 3) for _ in range(3)] == [1, 1, 1] and branch.asked == 1
    assert hasattr(throughput.OneToOneBranch, "_match"), "what is replaced is still what the branch calls"
