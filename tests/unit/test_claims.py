"""The paper's claims judged on constructed results."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

from date.catalogue import (
    ROOT,
    Claim,
    Complexity,
    Convergence,
    Gap,
    Higher,
    Loss,
    Ordered,
    Within,
    load,
    load_tier,
)
from date.catalogue.settings import load_settings
from date.cli import main
from date.errors import UserError
from date.reporting.claim_formats import claims_csv, claims_markdown
from date.reporting.claims import VERDICTS, Judged, Outcome, conjunction, judge_all, judge_comparison, summary
from date.reporting.comparisons import Comparison
from date.reporting.panels import panel
from date.reporting.report import write_report
from date.reporting.scores import Scores
from date.reporting.seeds import audit_seeds, configured_seeds
from date.reporting.tables import WORDS
from date.results import load_annotation_recalls, load_complexity, load_results
from sealed import add_complexity, add_paper, add_run, change, coco

DATE_F, ONENET, FCOS, POTO = (f"{name}-r50-coco-12e" for name in ("date_f", "onenet", "fcos", "onenet_poto"))


def outcome(results: Path, tier: str, name: str | Claim) -> Outcome:
    claim = load().claims[name] if isinstance(name, str) else name
    audit = audit_seeds(load_results(results, tier), results, tier)
    ious = {entry.name: entry.iou for entry in load().annotations.values()}
    scores = Scores(audit.kept, load_complexity(results), load_annotation_recalls(results, tier), ious)
    return judge_all(scores, audit.kept, load_tier(tier), load(), audit, [claim])[0]


def add_pairs(results: Path, tier: str, pairs: dict[int, tuple[float | None, float | None]]) -> None:
    for seed, (date_f, onenet) in pairs.items():
        for training, ap in ((DATE_F, date_f), (ONENET, onenet)):
            if ap is not None:
                add_run(results, tier, training, seed, {"o2o": coco(ap)})


def compare(
    above: dict[int, float], below: dict[int, float], paper: float | None = None, stated: float | None = None
) -> Comparison:
    """A comparison of two trainings, by seed."""
    sd = {} if stated is None else {"a": stated, "b": stated}
    each = panel({"a": above, "b": below}, lambda _, seed: seed, lambda _, seed: None, sd)
    return Comparison("", "AP", ((each, {"a": 1.0, "b": -1.0}),), paper=paper)


def judged(differences: list[float], parts: int = 1, **known: float) -> Judged:
    """Both trainings move with the seed; what is left is their difference."""
    below = {seed: 30.0 + 3 * seed for seed in range(len(differences))}
    above = {seed: below[seed] + d for seed, d in enumerate(differences)}
    return judge_comparison(compare(above, below, **known), parts=parts)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1.8, 2.0, 1.9], "SUPPORTED"),
        ([-1.0, -1.2, -1.1], "CONTRADICTED"),
        ([0.1, -0.1, 0.05, 0.0], "NOT SUPPORTED"),  # holds 0 and excludes 1.9
        ([3.0, -1.0, 1.0], "UNRESOLVED"),
        ([1.9], "UNRESOLVED"),
    ],
)
def test_verdicts_by_the_interval(differences: list[float], verdict: str) -> None:
    assert judged(differences, paper=1.9).verdict == verdict


def test_without_a_result_a_claim_is_missing() -> None:
    assert judge_comparison(Comparison("", "AP")).verdict == "MISSING"


def test_disjoint_seeds_are_judged() -> None:
    far = compare({0: 40.0, 1: 40.3, 2: 40.1}, {5: 30.0, 6: 30.2, 7: 30.3})
    assert judge_comparison(far).verdict == "SUPPORTED"
    assert judge_comparison(compare({0: 40.0}, {5: 30.0, 6: 30.2})).verdict == "UNRESOLVED", "two seeds a side at least"


def test_unresolved_says_what_it_takes(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0), 1: (37.0, 36.5), 2: (39.0, 35.0)})
    found = outcome(tmp_path, "mini", "date_f_over_onenet_12e")
    assert found.verdict == "UNRESOLVED"
    assert re.fullmatch(
        r"\d+ seeds of each training would resolve it with 80 % power, if our differences are the true ones",
        found.needs,
    )
    add_pairs(tmp_path / "one", "mini", {0: (38.0, 36.0)})
    alone = outcome(tmp_path / "one", "mini", "date_f_over_onenet_12e")
    assert alone.main is not None
    assert alone.main.sentence == "1 seed; at least two seeds a side are needed, since no spread is known"
    assert alone.needs == "at least two seeds a side are needed before it can be said how many would resolve it"


def test_more_seeds_of_the_same_kind_never_weaken_a_verdict() -> None:
    """With stated noise, which a second seed used to throw away: intervals get narrower with every seed."""
    values = [37.0, 37.15, 36.9, 37.05, 36.95]
    widths = []
    for n in range(1, 6):
        above, below = dict(enumerate(v + 0.7 for v in values[:n])), dict(enumerate(reversed(values[:n])))
        found = judge_comparison(compare(above, below, stated=0.15)).estimate
        assert found is not None and found.low is not None and found.high is not None and found.noise == "stated"
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_equal_differences_are_not_certainty() -> None:
    """Zero spread of two or three runs is not zero noise."""
    each = panel(
        {"a": {0: 30.1, 1: 31.1}, "b": {0: 30.0, 1: 31.0}, "c": {0: 29.0, 1: 30.7}}, lambda _, s: s, lambda _, s: None
    )
    pooled = judge_comparison(Comparison("", "AP", ((each, {"a": 1.0, "b": -1.0}),)))
    assert pooled.verdict == "UNRESOLVED"
    assert judged([0.1, 0.1], stated=0.15).verdict == "UNRESOLVED"
    assert judged([0.1, 0.1]).verdict == "UNRESOLVED"


def test_stated_noise_counts_at_the_papers_tier_alone(tmp_path: Path) -> None:
    for tier in ("paper", "mini"):
        add_pairs(tmp_path, tier, {0: (37.3, 35.4)})
    at_paper, at_mini = (outcome(tmp_path, tier, "date_f_over_onenet_12e") for tier in ("paper", "mini"))
    assert (at_paper.verdict, at_mini.verdict) == ("SUPPORTED", "UNRESOLVED")
    assert at_paper.main is not None and at_paper.main.estimate is not None
    # 1.9 +- 4.604 * 0.15 * sqrt(2): the stated deviation is known with four degrees of freedom, and a look costs 1 %.
    assert at_paper.main.estimate.low == pytest.approx(1.9 - 4.604095 * 0.15 * 2**0.5, abs=1e-5)
    assert "moderated by the field's stated noise" in at_paper.main.sentence


def test_all_seeds_of_both_sides_count(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, None), 1: (38.2, 36.1), 2: (37.9, 36.2), 3: (None, 36.0)})
    found = outcome(tmp_path, "mini", "date_f_over_onenet_12e")
    assert found.main is not None and found.main.estimate is not None
    assert found.main.comparison.difference.values == pytest.approx({1: 2.1, 2: 1.7}), "for the eye"
    assert found.main.estimate.seeds == (3, 3)
    assert found.main.estimate.mean == pytest.approx((38.0 + 38.2 + 37.9 - 36.1 - 36.2 - 36.0) / 3)
    assert found.verdict == "SUPPORTED"
    assert found.remarks == [
        f"{DATE_F} has no result for seed 3, which other trainings here have.",
        f"{ONENET} has no result for seed 0, which other trainings here have.",
    ]


def test_runs_from_the_same_trained_weights_count_once(tmp_path: Path) -> None:
    fast, slow = "date_f_init-r50-coco-30k", "onenet_poto_init-r50-coco-30k"
    for seed, (one, other) in enumerate([(38.0, 37.0), (38.2, 37.4), (36.0, 35.1)]):
        for training, ap in ((fast, one), (slow, other)):
            folder = add_run(tmp_path, "mini", training, seed, {"o2o": coco(ap)})
            start = f"fcos {min(seed, 1)}"  # seeds 1 and 2 start from one FCOS
            change(folder, initialised_from={"weights": start, "weights_sha256": start})
    found = outcome(tmp_path, "mini", "init_without_o2m_behind")
    assert found.main is not None and found.main.estimate is not None
    assert found.main.estimate.seeds == (2, 2)
    assert found.main.estimate.mean == pytest.approx((1.0 + (0.8 + 0.9) / 2) / 2)


def test_a_failed_seed_is_judged_both_ways(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.9), 1: (38.1, 37.0), 2: (38.2, 36.8), 3: (37.0, 37.0), 4: (38.1, 36.9)})
    before = outcome(tmp_path, "mini", "date_f_over_onenet_12e")
    (tmp_path / "mini" / DATE_F / "seed5").mkdir()
    (tmp_path / "mini" / DATE_F / "seed6").mkdir()
    found = outcome(tmp_path, "mini", "date_f_over_onenet_12e")
    assert before.verdict == found.verdict == "SUPPORTED"
    assert found.remarks[-1] == (
        f"With seeds 5, 6 of {DATE_F}, which failed, counted as the worst of their side the claim is UNRESOLVED."
    )
    assert not any("counted as the worst" in remark for remark in before.remarks)


def test_all_verdicts_together(tmp_path: Path) -> None:
    """How many are false by chance, and which survive Holm's correction."""
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0), 1: (38.1, 36.1), 2: (38.2, 35.9)})
    scores = Scores(load_results(tmp_path, "mini"))
    found = judge_all(scores, load_results(tmp_path, "mini"), load_tier("mini"), load())
    (adjusted_one,) = [o for o in found if o.adjusted is not None]
    assert adjusted_one.adjusted == adjusted_one.p, "the only one"
    assert "1 claim was judged" in summary(found)[0] and "at most 0.1 are expected to be false" in summary(found)[0]
    assert summary(found)[1] == "After Holm's correction for their number 1 of the 1 stand."


def test_one_run_does_not_count_as_two_seeds(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0), 1: (38.0, 36.1), 2: (38.3, 36.2)})
    first, copy = (tmp_path / "mini" / DATE_F / f"seed{seed}" for seed in (0, 1))
    change(copy, weights_sha256=json.loads((first / "provenance.json").read_text())["weights_sha256"])
    found = outcome(tmp_path, "mini", "date_f_over_onenet_12e")
    assert found.main is not None
    assert set(found.main.comparison.difference.values) == {0, 2}
    assert found.remarks[0] == (
        f"Left out: seed 1 of {DATE_F} has the same weights as seed 0 of {DATE_F}; one run does not count twice."
    )
    page = write_report("mini", tmp_path, tmp_path / "reports").read_text()
    assert page.count(f"Left out: seed 1 of {DATE_F}") > 1, "above the page and beside the claim"


def test_dropped_seeds_are_shown(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 30.0), 1: (38.1, 30.1)})
    add_run(tmp_path, "mini", DATE_F, 2, None)
    (tmp_path / "mini" / ONENET / "seed4").mkdir()
    assert outcome(tmp_path, "mini", "date_f_over_onenet_12e").remarks == [
        f"Seed 2 of {DATE_F} was dropped: it was trained but not evaluated.",
        f"Seed 4 of {ONENET} was dropped: it was started and has no sealed result.",
        f"{ONENET} has no result for seed 2, which other trainings here have.",
    ]


def test_seeds_that_were_asked_for_and_have_no_result_are_shown(tmp_path: Path) -> None:
    add_pairs(tmp_path, "smoke", {0: (38.0, 36.0), 1: (38.4, None), 5: (38.2, 36.4)})
    settings = load_settings(
        {"seeds": [0, 1], "seeds_of": {ONENET: [0, 1, 2]}, "trainings": [DATE_F, ONENET, FCOS, POTO]}
    )
    page = write_report("smoke", tmp_path, tmp_path / "reports", settings=settings).read_text()
    missing = [f"Seeds 1, 2 of {ONENET} are missing: configured, and without any result."]
    extra = [f"Seed 5 of {DATE_F}, {ONENET} has results without being configured; it counts like all others."]
    assert (tmp_path / "reports" / "smoke" / "seeds.md").read_text().split("# Seeds\n\n")[1].splitlines() == [
        f"- {sentence}" for sentence in missing + extra
    ]
    assert all(f"<li>{sentence}</li>" in page for sentence in missing + extra)
    assert f"Seed 2 of {ONENET} is missing: configured, and without any result." in page, "beside the claim"
    missing_trainings = page.split("<summary>Which</summary><p><code>")[1].split("<")[0].split(", ")
    assert missing_trainings == ["retinanet-r50-coco-12e", FCOS, POTO], "two of the tier's and one that is chosen"
    found = audit_seeds(
        load_results(tmp_path, "smoke"), tmp_path, "smoke", configured_seeds(load(), settings, [DATE_F])
    )
    assert {run.training for run in found.kept} == {DATE_F, ONENET}
    assert 1 in found.unfinished[FCOS], "known to be configured,"
    assert not any(FCOS in sentence for sentence in found.sentences), (
        "but a training without any result is told as that"
    )


def test_a_training_that_another_starts_from_has_that_ones_seeds() -> None:
    settings = load_settings({"seeds": [0], "seeds_of": {"date_f_init-r50-coco-30k": [0, 3]}})
    seeds = configured_seeds(load(), settings, ["date_f_init-r50-coco-30k"])
    start = load().training("date_f_init-r50-coco-30k").init or ""
    assert (seeds[start], configured_seeds(load(), settings, [])[start]) == ({0, 3}, {0})


def test_a_failed_training_is_named_with_its_reason(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0), 1: (38.4, 36.1)})
    (tmp_path / "mini" / ONENET / "seed2").mkdir()
    runs = [
        {"training": DATE_F, "seed": 0, "state": "done", "reason": "1 min"},
        {"training": ONENET, "seed": 1, "state": "failed", "reason": "an older run of it"},  # it has a result now
        {"training": ONENET, "seed": 2, "state": "failed", "reason": "the loss is not finite at step 120."},
        {"training": DATE_F, "seed": 3, "state": "interrupted", "reason": ""},
        {"training": DATE_F, "seed": 4, "state": "waiting", "reason": ""},
    ]
    status = tmp_path / "status.json"
    status.write_text(json.dumps({"tier": "mini", "summary": "", "runs": runs}))
    settings = load_settings({"seeds": [0, 1]})
    write_report("mini", tmp_path, tmp_path / "reports", settings=settings, status=status)
    sentences = [
        f"Seed 3 of {DATE_F} is missing: its training is interrupted.",
        f"Seed 2 of {ONENET} was dropped: its training failed: the loss is not finite at step 120.",
    ]
    said = (tmp_path / "reports" / "mini" / "seeds.md").read_text()
    assert said.split("# Seeds\n\n")[1].splitlines() == [f"- {sentence}" for sentence in sentences]
    claims = (tmp_path / "reports" / "mini" / "claims.md").read_text()
    assert all(f"- {sentence}" in claims for sentence in sentences)
    without = write_report("mini", tmp_path, tmp_path / "without", settings=settings).with_name("seeds.md").read_text()
    assert f"Seed 2 of {ONENET} was dropped: it was started and has no sealed result." in without
    for text, complaint in (
        ("{}", "is not what `date status --json` prints"),
        ('{"tier": "x", "runs": []}', "of the tier 'x'"),
    ):
        status.write_text(text)
        with pytest.raises(UserError, match=f"{complaint}; make it by: python -m date status --tier mini --json > "):
            write_report("mini", tmp_path, tmp_path / "reports", settings=settings, status=status)


def test_the_command_line_takes_settings_and_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0)})
    run = {"training": DATE_F, "seed": 2, "state": "failed", "reason": "out of memory"}
    (tmp_path / "status.json").write_text(json.dumps({"tier": "mini", "runs": [run]}))
    where = ["report", "--tier", "mini", "--results", str(tmp_path), "--reports", str(tmp_path / "reports")]
    settings = json.dumps({"seeds": [0], "seeds_of": {ONENET: [0, 1]}})
    assert main([*where, "--status", str(tmp_path / "status.json"), "--settings", settings]) == 0
    assert (tmp_path / "reports" / "mini" / "seeds.md").read_text().splitlines()[-2:] == [
        f"- Seed 2 of {DATE_F} was dropped: its training failed: out of memory.",
        f"- Seed 1 of {ONENET} is missing: configured, and without any result.",
    ]
    assert main([*where, "--status", str(tmp_path / "nothing.json")]) == 2
    assert "nothing.json is not there; make it by: python -m date status" in capsys.readouterr().err
    assert main([*where, "--settings", '{"seed": [0]}']) == 2
    assert "unknown key 'seed'; did you mean 'seeds'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*where, "--settings", "seeds=0"])
    assert "is not a JSON object; give settings as" in capsys.readouterr().err


def test_a_page_that_is_not_there_names_a_command_that_finds_the_tier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tier may be a path, with a space in it."""
    tier = tmp_path / "my tier.yaml"
    shutil.copy(ROOT / "experiments" / "tiers" / "smoke.yaml", tier)
    assert main(["report", "--tier", str(tier), "--reports", str(tmp_path / "reports"), "--where"]) == 2
    command = capsys.readouterr().err.split("run: ")[1].split("\n")[0]
    assert shlex.split(command) == ["python", "-m", "date", "report", "--tier", str(tier)]


def test_equal_checkpoints_of_two_seeds_are_a_reuse_in_the_whole_report(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0), 1: (38.5, 36.1)})
    first, copy = (tmp_path / "mini" / DATE_F / f"seed{seed}" for seed in (0, 1))
    change(copy, weights_sha256=json.loads((first / "provenance.json").read_text())["weights_sha256"])
    folder = write_report("mini", tmp_path, tmp_path / "reports", settings=load_settings({"seeds": [0, 1]})).parent
    sentence = f"Left out: seed 1 of {DATE_F} has the same weights as seed 0 of {DATE_F}; one run does not count twice."
    assert f"- {sentence}" in (folder / "seeds.md").read_text()
    assert f"- {sentence}" in (folder / "claims.md").read_text()
    assert f"run-{DATE_F}-seed1" not in (folder / "index.html").read_text(), "it is no run of its own"
    row = next(line for line in (folder / "tables" / "table01.csv").read_text().splitlines() if ",DATE-F" in line)
    assert ",38.0," in row, "38.25 with the copy"


def test_nms_changes_nothing_needs_an_interval_within_the_margin(tmp_path: Path) -> None:
    for tier, changes in (("paper", [0.1, 0.09, 0.11]), ("mini", [0.5, 0.51, 0.49])):
        for seed, more in enumerate(changes):
            add_run(tmp_path, tier, DATE_F, seed, {"o2o": coco(37.0 + seed), "o2o_nms50": coco(37.0 + seed + more)})
    found = outcome(tmp_path, "paper", "nms_changes_nothing_12e")
    assert found.verdict == "SUPPORTED"
    both = (f"{DATE_F}/o2o_nms50", f"{DATE_F}/o2o")
    labels = [f"{a} \N{MINUS SIGN} {b}" for a, b in (both, both[::-1])]
    assert [part.comparison.label for part in found.parts] == labels, "no label begins with a minus"
    assert outcome(tmp_path, "mini", "nms_changes_nothing_12e").verdict == "CONTRADICTED"
    # One seed says nothing: the noise between two runs is not that of one checkpoint judged twice.
    add_run(tmp_path / "one", "paper", DATE_F, 0, {"o2o": coco(37.0), "o2o_nms50": coco(37.0)})
    assert outcome(tmp_path / "one", "paper", "nms_changes_nothing_12e").verdict == "UNRESOLVED"


def test_curves_at_equal_iterations_by_hand(tmp_path: Path) -> None:
    for seed in (0, 1):
        add_run(tmp_path, "mini", DATE_F, seed, None, [10.0 + seed, 20.0, 30.0])
        add_run(tmp_path, "mini", POTO, seed, None, [4.0, 18.0])
    found = outcome(tmp_path, "mini", "date_converges_faster")
    assert found.main is not None
    # Steps 100 and 200: (6 + 2) / 2, and (7 + 2) / 2 with the other seed.
    assert found.main.comparison.difference.values == {0: 4.0, 1: 4.5}


def test_passing_in_a_third_of_the_iterations_by_hand(tmp_path: Path) -> None:
    fast = "date_f_init-r50-coco-30k"
    add_run(tmp_path, "paper", ONENET, 0, None, [5.0 * i for i in range(1, 13)])  # 1200 steps, 60 at the end
    add_run(tmp_path, "paper", fast, 0, None, [50.0, 58.0, 59.0, 61.0, 99.0])
    found = outcome(tmp_path, "paper", "init_passes_onenet")
    assert found.main is not None
    # 35 % of 1200 steps are 420: the fourth evaluation counts, 61 - 60.
    assert found.main.comparison.difference.values == {0: 1.0}
    assert found.verdict == "SUPPORTED"


def test_a_lower_loss_by_hand(tmp_path: Path) -> None:
    for seed, first in enumerate([1.0, 1.1]):
        add_run(tmp_path, "mini", DATE_F, seed, None, losses={"o2o.loss_cls": first})
        add_run(tmp_path, "mini", POTO, seed, None, losses={"o2o.loss_cls": 2.0})
    found = outcome(tmp_path, "mini", "lower_classification_loss")
    assert found.main is not None
    # Records at steps 25, 50, 75 (weights 25 each, differences 1.0), 125, 150, 175 (weights 50, 25, 25, halves).
    expected = (75 * 1.0 + 100 * 0.5) / 175
    assert found.main.comparison.difference.values == pytest.approx({0: expected, 1: expected * 0.9})
    assert found.verdict == "SUPPORTED"


def test_claims_on_networks_are_exact(tmp_path: Path) -> None:
    add_run(tmp_path, "mini", FCOS, 0, {"head": coco(20.0)})
    assert outcome(tmp_path, "mini", "few_parameters").verdict == "MISSING"
    add_complexity(tmp_path)
    for name in ("few_parameters", "few_operations", "no_inference_overhead"):
        assert outcome(tmp_path, "mini", name).verdict == "SUPPORTED", name
    assert "1.99 % more (2.08 % by unrounded counts)" in outcome(tmp_path, "mini", "few_operations").remarks[0]
    predicate = load().claims["few_operations"].predicate
    assert isinstance(predicate, Complexity)
    strict = Claim(name="x", sentence="", place="", predicate=predicate.model_copy(update={"at_most": {"gflops": 1.9}}))
    assert outcome(tmp_path, "mini", strict).verdict == "CONTRADICTED"


def test_recall_of_annotations_is_compared_with_every_seed(tmp_path: Path) -> None:
    for seed, recall in enumerate([97.9, 98.0, 97.8]):
        metrics = {"AP": 90.0, "mMR": 48.0, "Recall": recall}
        add_run(tmp_path, "paper", "date_f-r50-crowdhuman-30k", seed, {"o2o": metrics})
    assert outcome(tmp_path, "paper", "crowd_recall_over_annotations").verdict == "MISSING"
    (tmp_path / "paper" / "annotations").mkdir()
    (tmp_path / "paper" / "annotations" / "crowdhuman_nms.json").write_text('{"recall": {"0.6": 95.0}}')
    found = outcome(tmp_path, "paper", "crowd_recall_over_annotations")
    assert found.main is not None
    assert found.main.comparison.difference.values == pytest.approx({0: 2.9, 1: 3.0, 2: 2.8})
    assert found.verdict == "SUPPORTED"


def test_parts_that_contradict_are_corrected_for_their_number() -> None:
    # The interval of a look excludes zero, that of one of ten parts does not.
    barely = [-0.55, -0.7, -0.4, -0.9, -0.6]
    assert judged(barely, parts=1).verdict == "CONTRADICTED"
    assert judged(barely, parts=10).verdict == "UNRESOLVED"
    assert conjunction(["SUPPORTED", "UNRESOLVED", "MISSING"]) == "MISSING"
    assert conjunction(["SUPPORTED", "CONTRADICTED", "MISSING"]) == "CONTRADICTED"
    assert conjunction(["SUPPORTED", "SUPPORTED"]) == "SUPPORTED"


def test_the_papers_own_numbers_support_its_claims(tmp_path: Path) -> None:
    """With results that are the paper's numbers and hardly any noise, no claim with a printed difference fails."""
    add_paper(tmp_path, "paper", seeds=(0, 1, 2, 3), noise=0.005)
    found = {claim.name: outcome(tmp_path, "paper", claim) for claim in load().claims.values()}
    judged = {name: o.verdict for name, o in found.items()}
    for name, part in ((name, part) for name, o in found.items() for part in o.parts):
        if part.comparison.paper is not None and "init" not in name:
            assert part.estimate is not None
            assert part.estimate.mean == pytest.approx(part.comparison.paper, abs=0.06), (name, part.comparison.label)
    unsettled = {
        "init_passes_onenet", "init_without_o2m_behind",  # Figure 3 is in no table
        "lower_classification_loss", "date_converges_faster",  # the made-up curves
        "equal_weights_date_f",  # 0.2 behind the best is the margin itself
    }  # fmt: skip
    assert {name for name, verdict in judged.items() if verdict != "SUPPORTED"} <= unsettled, judged


def test_claims_as_files_read_back(tmp_path: Path) -> None:
    add_pairs(tmp_path, "mini", {0: (38.0, 36.0), 1: (38.4, 36.1)})
    found = [outcome(tmp_path, "mini", claim) for claim in load().claims.values()]
    text = claims_csv(found, load_tier("mini"))
    assert text.startswith("# mini tier")
    lines = list(csv.DictReader(io.StringIO(text.split("\n", 1)[1])))
    assert {line["claim"] for line in lines} == set(load().claims)
    first = lines[0]
    assert [float(v) for v in first["differences"].split()] == pytest.approx([2.0, 2.3])
    assert float(first["mean"]) == pytest.approx(2.15)
    markdown = claims_markdown(found, load_tier("mini"))
    assert "33 MISSING" in markdown or "MISSING" in markdown.splitlines()[4]


def test_sentences_are_the_papers(shared_paper: str) -> None:
    """Every sentence is in the paper word for word, but for citations and how symbols are set."""
    paper = words(shared_paper)
    for claim in load().claims.values():
        assert words(claim.sentence) in paper, claim.sentence


def words(text: str) -> str:
    """Return letters and digits alone, without tags, citations, and TeX around symbols."""
    text = re.sub(r"<[^>]*>|\[\d+\]", "", text).replace("\\lambda", "λ")
    return "".join(character for character in text.lower() if character.isalnum())


@pytest.fixture
def shared_paper() -> str:
    for folder in Path(__file__).resolve().parents:
        path = folder / "shared" / "paper" / "date-paper.md"
        if path.exists():
            return path.read_text(encoding="utf-8")
    pytest.skip("the paper's text is not at hand")


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        ({"kind": "upper"}, "upper"),
        ({"kind": "higher", "above": "x", "belows": "y"}, "'belows'; did you mean 'below'"),
        ({"kind": "within", "evaluation": "x", "of": ["y", "z"], "by": 0.2, "paper": [0.1]}, "one difference for each"),
    ],
)
def test_mistakes_in_a_predicate(predicate: dict[str, Any], message: str) -> None:
    from date.catalogue import parse

    with pytest.raises(UserError, match=message):
        parse(Claim, {"name": "c", "sentence": "s", "place": "p", "predicate": predicate}, "claims.yaml, c")


def test_the_documentation_has_every_kind_of_predicate_with_its_keys_and_every_verdict() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for model in (Higher, Within, Ordered, Gap, Convergence, Loss, Complexity):
        (kind,) = get_args(model.model_fields["kind"].annotation)
        absent = [key for key in model.model_fields if key != "kind" and f"`{key}" not in lines[kind]]
        assert not absent, (kind, absent)
    for word in (*VERDICTS, *WORDS):
        assert f"| {word} |" in text


def test_a_claim_is_a_predicate_of_its_kind() -> None:
    kinds = {claim.predicate.kind for claim in load().claims.values()}
    assert kinds == {"higher", "within", "ordered", "gap", "curve", "loss", "complexity"}
    assert sum(isinstance(claim.predicate, Higher) for claim in load().claims.values()) > 10
