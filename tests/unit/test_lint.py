"""The paper's arithmetic recomputed: what is found, what is not, and the rounding in between."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from date.catalogue import ROOT, Catalogue, Statement, load
from date.errors import UserError
from date.paperlint.expressions import Quantities, Value
from date.paperlint.lint import Check, compare, lint, to_json, to_text
from date.results import complexity_figures
from sealed import complexity_json

COUNTS = complexity_figures(complexity_json())

DISAGREE = {
    "table02.3 APl", "table02.6 APs", "table09.3 gflops_train",  # +2.4, +0.2, 388
    "superiority_date_r, citation", "settings_reference_23, reference 23",
    "defcn_1x", "basic_fcos", "ablation_relative_increase",
    "nms_changes_nothing.2", "nms_changes_nothing.3", "nms_changes_nothing.5", "nms_changes_nothing.6",
    "weights_fcos_all_metrics.3", "unshared_gflops_to", "unshared_gflops_share",
    "weights_of_one.2", "weights_chosen_for_date_r",
}  # fmt: skip
ROUNDING = {
    "table02.3 AP50", "superiority_same_as_fcos.1", "superiority_same_as_fcos.2", "defcn_gain_1x",
    "crowd_relative_error_date_f", "unshared_branch_of_retinanet",
}  # fmt: skip


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    found = lint(load(), COUNTS)
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def changed(path: str, value: Any) -> Catalogue:
    """Return the catalogue with one number of it changed, e.g. ``table09.3 gflops_train``."""
    row_id, column, *bracket = path.split()
    data = load().model_dump()
    for evaluation in data["evaluations"].values():
        del evaluation["name"]
    for table in data["tables"].values():
        for group in table["groups"]:
            for row in group:
                if row["id"] == row_id:
                    (row["bracket"] if bracket else row)["paper"][column] = value
    return Catalogue.model_validate(data)


def verdicts(catalogue: Catalogue) -> dict[str, str]:
    return {check.name: check.verdict for check in lint(catalogue, COUNTS)}


def test_what_does_not_agree_is_found_and_nothing_else(checks: dict[str, Check]) -> None:
    assert {name for name, check in checks.items() if check.verdict == "does not agree"} == DISAGREE
    assert {name for name, check in checks.items() if check.verdict == "rounding"} == ROUNDING
    assert sum(check.verdict == "ok" for check in checks.values()) > 150


def test_judgements_have_the_numbers(checks: dict[str, Check]) -> None:
    assert (
        checks["table02.3 APl"].judgement == "51.3 - 48.7 = 2.60; unrounded numbers give from 2.50 to 2.70, never +2.4."
    )
    assert (checks["table02.6 APs"].printed, checks["table02.6 APs"].recomputed) == ("+0.2", "+1.2")
    assert checks["table09.3 gflops_train"].judgement.endswith("338.444 G, which would be printed as 338.")
    assert "338 is the operations of the network itself." in checks["unshared_gflops_to"].judgement
    assert "42 is the increase of the networks themselves." in checks["unshared_gflops_share"].judgement
    assert "37.3 is DATE-F's AP." in checks["basic_fcos"].judgement
    assert "1.4 is the absolute increase." in checks["ablation_relative_increase"].judgement
    assert checks["superiority_date_r, citation"].judgement == "Table 1 has no such row; the number is in Table 5."
    assert "reference 23, Sec. 4.1 has ResNet" in checks["settings_reference_23, reference 23"].judgement
    assert checks["crowd_relative_error_date_r"].verdict == "ok"
    assert checks["cost_params_share"].recomputed == "0.625"
    assert checks["unshared_branch_of_retinanet"].recomputed == "1.7"


def test_corrected_numbers_are_no_longer_reported() -> None:
    corrected = verdicts(changed("table09.3 gflops_train", 338))
    names = ("table09.3 gflops_train", "unshared_gflops_to", "unshared_gflops_share")
    assert [corrected[name] for name in names] == ["ok"] * 3
    assert verdicts(changed("table02.6 APs bracket", 1.2))["table02.6 APs"] == "ok"


def test_a_new_mistake_is_found() -> None:
    assert verdicts(changed("table01.4 AP bracket", 1.7))["table01.4 AP"] == "does not agree"
    assert verdicts(changed("table01.4 AP bracket", 2.0))["table01.4 AP"] == "rounding"
    twice = next(c for c in lint(changed("table07.3 APm", 40.2), COUNTS) if c.name == "date_f-r50-coco-12e/o2o APm")
    assert twice.verdict == "does not agree"
    assert "40.2 in Table 7" in twice.judgement
    assert verdicts(changed("table08.3 params", 32.3))["table08.3 params"] == "does not agree"


@given(st.decimals(0, 100, places=4), st.decimals(0, 100, places=4))
def test_a_consistent_difference_is_never_reported(a: Any, b: Any) -> None:
    a, b = Fraction(a), Fraction(b)
    printed = [Value.printed(Fraction(round(number, 1)), 1) for number in (a, b, a - b)]
    difference = Value(
        printed[0].center - printed[1].center, printed[0].low - printed[1].high, printed[0].high - printed[1].low
    )
    assert compare(printed[2], difference) in ("ok", "rounding")


@given(st.decimals(1, 100, places=3), st.decimals(1, 100, places=3), st.sampled_from(["+", "-", "*", "/"]))
def test_intervals_hold_the_unrounded_result(a: Any, b: Any, operation: str) -> None:
    a, b = Fraction(a), Fraction(b)
    quantities = Quantities(load(), {("onenet-r50-coco-12e", "train"): {"params": float(a), "gflops": float(b)}})
    expression = f"[onenet-r50-coco-12e/train params] {operation} [onenet-r50-coco-12e/train gflops]"
    value = quantities.evaluate(expression).value
    truth = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[operation]
    assert value.low <= truth <= value.high
    assert value.center == truth


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50))
def test_a_whole_unit_off_is_always_reported(a: int, b: int, c: int) -> None:
    assume(abs(a - b - c) >= 2)
    difference = Value(Fraction(a - b), Fraction(a - b) - 1, Fraction(a - b) + 1)
    assert compare(Value.printed(c, 0), difference) == "does not agree"


def test_the_digits_of_a_printed_number_count() -> None:
    assert compare(Value.printed("1.0", 1), Value.exact("1.2")) == "does not agree"
    assert compare(Value.printed("1", 0), Value.exact("1.2")) == "ok"
    assert compare(Value.printed("37.9", 1), Value.printed("37.8", 1)) == "does not agree", "they only touch at 37.85"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(2 + 3) * -4 / 8", -2.5),
        ("abs([table06.1 AP75 bracket] - [table06.1 AP75])", 0.7),
        ("max([table05.1 AP], min(36, [table05.2 AP]))", 36),
        ("[figure3 DATE-F, from FCOS] - [figure3 OneNet]", 1.1),
        ("12 * [paper steps_per_epoch.coco]", 87960),
        ("[date_r-r50-coco-12e lambda_o2m]", 2),
    ],
)
def test_expressions_by_hand(expression: str, value: float) -> None:
    assert float(Quantities(load(), COUNTS).evaluate(expression).value.center) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[table01.44 AP]", "unknown reference 'table01.44'; did you mean 'table01.4'"),
        ("[table01.4 AP5]", "table01.4: unknown column 'AP5'; did you mean 'AP"),
        ("[table01.1 AP bracket]", "table01.1: unknown column in brackets 'AP'"),
        ("[figure3 DATE]", "figure3: unknown curve with a printed end 'DATE'"),
        ("[onenet-r50-coco-12e lamda_o2m]", "unknown field 'lamda_o2m'; did you mean 'lambda_o2m'"),
        ("[onenet-r50-coco-12e/infer flops]", "no network is counted as"),
        ("1 +", "is not an expression"),
        ("__import__('os')", "only + - * /, abs, min, max"),
        ("1 / ([table01.4 AP] - [table01.4 AP])", "divides by what may be zero"),
    ],
)
def test_mistakes_in_expressions(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace("+", r"\+").replace("*", r"\*")):
        Quantities(load(), COUNTS).evaluate(expression)


def test_text_and_json_list_every_check(checks: dict[str, Check]) -> None:
    text = to_text(list(checks.values()))
    assert text.startswith(f"DOES NOT AGREE: {len(DISAGREE)} of {len(checks)}\n")
    assert f"OK: {len(checks) - len(DISAGREE) - len(ROUNDING)} of {len(checks)}" in text
    assert all(len(line) <= 200 for line in text.splitlines())
    data = json.loads(to_json(list(checks.values())))
    assert [entry["name"] for entry in data] == list(checks)
    assert all(entry["judgement"].endswith(".") and entry["place"] for entry in data)


def test_a_statement_is_one_of_three_kinds() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Statement(name="a", place="p", quote="q", quantity="1")
    with pytest.raises(ValueError, match="or 'holds', or 'says'"):
        Statement(name="a", place="p", quote="q", quantity="1", printed="1", holds=["1 < 2"])


@pytest.mark.slow
def test_the_command_counts_the_networks_itself(checks: dict[str, Check]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "date", "lint-paper", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {entry["name"]: entry["verdict"] for entry in json.loads(done.stdout)} == {
        name: check.verdict for name, check in checks.items()
    }
