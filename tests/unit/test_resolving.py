"""Which seeds next: chances by hand and by simulation, the greedy choice against all choices, and the configfile."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from date.catalogue import load, load_tier
from date.catalogue.settings import load_settings
from date.cli import main
from date.reporting.claims import SUPPORTED, judge_all
from date.reporting.scores import Scores
from date.resolving.chances import OpenClaim
from date.resolving.choice import Work, choose
from date.resolving.proposal import open_claims
from date.results import load_results
from sealed import add_run, coco

DATE_F, ONENET, POTO = (f"{name}-r50-coco-12e" for name in ("date_f", "onenet", "onenet_poto"))


def add(results: Path, scores: dict[str, list[float]], tier: str = "mini") -> None:
    for training, values in scores.items():
        for seed, ap in enumerate(values):
            add_run(results, tier, training, seed, {"o2o": coco(ap)})


def claims_of(results: Path, *names: str) -> dict[str, OpenClaim]:
    found = open_claims(load_results(results, "mini"), results, load_tier("mini"))
    return {claim.name: claim for claim in found if not names or claim.name in names}


def test_a_chance_is_how_often_a_claim_is_resolved(tmp_path: Path) -> None:
    """Against runs that are really drawn, from true means that the present runs leave likely."""
    rng = np.random.default_rng(2)
    start = {DATE_F: [37.0, 37.9], ONENET: [36.2, 35.8], POTO: [36.0, 36.9]}
    add(tmp_path, start)
    claim = claims_of(tmp_path, "date_f_over_onenet_12e")["date_f_over_onenet_12e"]
    present = dict.fromkeys(start, 2)
    chance = claim.chance(present, {**present, DATE_F: 5, ONENET: 5})
    (part,) = claim.outcome.parts
    fit = part.comparison.parts[0][0].fit
    sds = {name.split("/")[0]: v**0.5 for name, v in zip(fit.columns, fit.variances, strict=True)}
    resolved = []
    for draw in range(60):
        folder = tmp_path / str(draw)
        drawn = {}
        for name in (DATE_F, ONENET):
            true = rng.normal(np.mean(start[name]), sds[name] / 2**0.5)
            drawn[name] = [*start[name], *(float(v) for v in rng.normal(true, sds[name], 3))]
        add(folder, drawn | {POTO: start[POTO]})
        scores = Scores(load_results(folder, "mini"))
        claims = [load().claims["date_f_over_onenet_12e"]]
        (outcome,) = judge_all(scores, load_results(folder, "mini"), load_tier("mini"), load(), None, claims)
        resolved.append(outcome.verdict in (SUPPORTED, "CONTRADICTED"))
    assert chance == pytest.approx(np.mean(resolved), abs=0.17), "three standard errors of 60 draws"
    assert claim.chance(present, present) == 0.0
    assert claim.chance(present, {**present, DATE_F: 9, ONENET: 9}) > chance


def test_two_seeds_a_side_at_least(tmp_path: Path) -> None:
    add(tmp_path, {DATE_F: [38.0], ONENET: [36.0], POTO: [36.0, 36.2]})
    claim = claims_of(tmp_path, "date_f_over_onenet_12e")["date_f_over_onenet_12e"]
    present = {DATE_F: 1, ONENET: 1}
    assert claim.chance(present, {DATE_F: 5, ONENET: 1}) == 0.0
    assert claim.chance(present, {DATE_F: 3, ONENET: 3}) > 0.5, "ten deviations apart"


def test_runs_of_a_schedule_tell_the_spread_together(tmp_path: Path) -> None:
    """A second seed of ten networks resolves what a second seed of two does not, and is chosen as a whole."""
    names = [n for n, t in load().trainings.items() if t.schedule == "12e" and "o2o" in t.branches][:10]
    names = list(dict.fromkeys([DATE_F, ONENET, POTO, *names]))
    add(tmp_path, {name: [30.0 + 2 * i if i else 56.0] for i, name in enumerate(names)})
    claim = claims_of(tmp_path, "date_f_over_onenet_12e")["date_f_over_onenet_12e"]
    assert [c is not None for c in claim.comparisons] == [True], "scores that lie apart stand in for a spread"
    present = {**dict.fromkeys((name for group in claim.groups for name in group), 0), **dict.fromkeys(names, 1)}
    two, all_of_them = ({**present, **dict.fromkeys(chosen, 2)} for chosen in ((DATE_F, ONENET), names))
    assert claim.chance(present, all_of_them) > claim.chance(present, two) + 0.1
    assert claim.lent(two) == (2,) and claim.lent(all_of_them) == (len(names),)


def test_the_choice_is_the_best_where_there_are_few(tmp_path: Path) -> None:
    """Against every choice within the hours; the greedy one loses little, and never takes more than the hours."""
    add(tmp_path, {DATE_F: [38.0, 37.2], ONENET: [36.6, 36.2], POTO: [36.9, 36.3]})
    names = ("date_f_over_onenet_12e", "date_f_with_poto", "poto_over_hungarian")
    claims = list(claims_of(tmp_path, *names).values())
    assert len(claims) == 3
    present = dict.fromkeys((DATE_F, ONENET, POTO), 2)
    cost = {DATE_F: 1.0, ONENET: 2.0, POTO: 1.5}
    work = Work(cost.__getitem__)
    choice = choose(claims, present, work, 9.0, 9.0)
    assert choice.hours == pytest.approx(sum(cost[n] * k for n, k in choice.added.items())) and choice.hours <= 9.0
    best = 0.0
    for more in itertools.product(range(7), repeat=3):
        later = {n: 2 + k for n, k in zip(present, more, strict=True)}
        if work.cost(present, later) <= 9.0:
            best = max(best, sum(claim.chance(present, later) for claim in claims))
    assert choice.expected >= 0.85 * best
    assert choose(claims, present, work, 0.5, 0.5).added == {}


def test_what_a_training_starts_from_is_paid_for() -> None:
    work = Work({"start": 3.0, "fast": 1.0}.__getitem__, {"fast": "start"})
    assert work.cost({"fast": 1, "start": 2}, {"fast": 4, "start": 2}) == 3 * 1.0 + 2 * 3.0
    assert work.cost({"fast": 1, "start": 4}, {"fast": 4, "start": 4}) == 3.0


def test_the_command_writes_what_the_settings_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    add(results, {DATE_F: [38.0, 37.2], ONENET: [36.6, 36.2], POTO: [36.9, 36.3]})
    path = tmp_path / "next.yaml"
    arguments = [
        "plan",
        "--resolve",
        "--tier",
        "mini",
        "--results",
        str(results),
        "--hours",
        "1",
        "--output",
        str(path),
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "open claims are resolved by this on average" in text
    assert text.endswith(
        f"\nThese seeds are now in the settings file {path}.\n"
        f"Run them by: snakemake --profile workflow/profiles/local --configfile {path} -- all\n"
    )
    config = yaml.safe_load(path.read_text())
    settings = load_settings(config)
    for name in config["trainings"]:
        seeds = settings.seeds_for(name)
        assert len(seeds) > 2 and seeds == list(range(len(seeds))), "those that are there, and the next ones"
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["config"] == config and answer["hours"] <= 1.0 and 0 < max(answer["chances"].values()) <= 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--resolve", "table05"], "leave targets, --seeds and --cached out"),
        (["--resolve", "--gpus", "1", "2"], "give one by --gpus"),
        (["--hours", "2"], "belong to --resolve"),
        (["--resolve", "--tier", "mini"], "is not known; time it by: python -m date calibrate --tier mini"),
    ],
)
def test_mistakes(arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments, "--results", str(tmp_path)]) == 2
    assert complaint in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--resolve", "--hours", "0"])
    assert "'0' is not a positive number of hours" in capsys.readouterr().err
