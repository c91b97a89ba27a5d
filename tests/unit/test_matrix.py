"""Claims side by side over data sets: each column is what its own results say, of the same networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from date.catalogue import Ordered, Within, load, load_tier
from date.cli import main
from date.reporting.matrix import columns, counterpart, matrix, transposed
from date.reporting.scores import MINUS
from tests.sealed import add_run

MINI, BCCD = load_tier("mini"), load_tier("bccd")


def ap(value: float) -> dict[str, float | None]:
    return {"AP": value}


def crowd(value: float) -> dict[str, float | None]:
    return {"AP": value, "mMR": 50.0, "Recall": 90.0}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """DATE-F ahead of OneNet by 2 on scenes and behind by 3 on real images; on crowds FCOS is behind OneNet."""
    folder = tmp_path / "results"
    for seed in range(4):
        noise = 0.1 * (-1) ** seed
        add_run(folder, "mini", "date_f-r50-coco-12e", seed, {"o2o": ap(40 + noise), "o2o_nms50": ap(40 + 0.9 * noise)})
        add_run(folder, "mini", "onenet-r50-coco-12e", seed, {"o2o": ap(38 - noise)})
        add_run(folder, "mini", "fcos-r50-coco-12e", seed, {"head": ap(41 + noise)})
        add_run(folder, "mini", "retinanet-r50-coco-12e", seed, {"head": ap(42 + noise)})
        for name, value in {"fcos": 70, "retinanet": 75, "onenet": 80}.items():
            variant = "o2o" if name == "onenet" else "head"
            add_run(folder, "mini", f"{name}-r50-crowdhuman-30k", seed, {variant: crowd(value + noise)})
        add_run(folder, "bccd", "date_f-r50-coco-12e", seed, {"o2o": ap(50 + noise), "o2o_nms50": ap(50 + 0.9 * noise)})
        add_run(folder, "bccd", "onenet-r50-coco-12e", seed, {"o2o": ap(53 - noise)})
    return folder


def rows(text: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0].split("`")[1] if "`" in line[0] else line[0]: line[1:] for line in cells}


def test_each_column_is_what_its_results_say(results: Path) -> None:
    found = rows(matrix([MINI, BCCD], results))
    assert found["claim"] == ["scenes-mini", "crowd-mini", "bccd"]
    scenes, crowds, bccd = found["date_f_over_onenet_12e"]
    assert scenes.startswith("**SUPPORTED**<br>+2.0 (+") and scenes.endswith("<br>4 seeds")
    assert bccd.startswith(f"**CONTRADICTED**<br>{MINUS}3.0 ({MINUS}")
    assert crowds == "—", "DATE-F with POTO was not trained on crowds"
    scenes, crowds, bccd = found["nms_detectors_ahead_of_onenet"]
    assert scenes.startswith("**SUPPORTED**<br>+3.0") and crowds.startswith(f"**CONTRADICTED**<br>{MINUS}10.0")
    assert bccd == "—"
    scenes, _, bccd = found["nms_changes_nothing_12e"]
    assert scenes.endswith(f"<br>claimed above {MINUS}0.3<br>4 seeds") and scenes.startswith("**SUPPORTED**<br>0.0")
    assert not {"date_f_with_fcos_12e", "date_f_over_onenet_36e", "few_parameters"} & found.keys(), "one column or none"
    assert found["onenet-r50-coco-12e"] == ["38.0 ± 0.1 (4)", "80.0 ± 0.1 (4)", "53.0 ± 0.1 (4)"]


def test_a_network_has_one_counterpart_on_other_data() -> None:
    catalogue = load()
    assert counterpart("onenet-r50-coco-12e/o2o", "crowdhuman", catalogue) == "onenet-r50-crowdhuman-30k/o2o"
    assert counterpart("onenet-r50-coco-12e/o2o", "coco", catalogue) == "onenet-r50-coco-12e/o2o"
    assert counterpart("date_f-r50-coco-12e/o2o_nms50", "crowdhuman", catalogue) is None
    assert counterpart("onenet-r101-coco-36e/o2o", "crowdhuman", catalogue) is None
    assert counterpart("date_f_init-r50-coco-30k/o2o", "crowdhuman", catalogue) is None, "it starts from another run"
    assert counterpart("crowdhuman_nms", "coco", catalogue) is None


def test_claims_on_ap_are_asked_of_the_same_networks(results: Path) -> None:
    catalogue = load()
    crowds = columns([MINI], results, catalogue)[1]
    ahead = transposed(catalogue.claims["nms_detectors_ahead_of_onenet"], crowds, catalogue)
    assert ahead is not None and isinstance(ahead.predicate, Ordered)
    assert ahead.predicate.groups == [
        ["retinanet-r50-crowdhuman-30k/head", "fcos-r50-crowdhuman-30k/head"],
        ["onenet-r50-crowdhuman-30k/o2o"],
    ]
    assert ahead.predicate.metrics == ["AP50"]
    near = transposed(catalogue.claims["date_r_with_retinanet_12e"], crowds, catalogue)
    assert near is None or isinstance(near.predicate, Within)
    for name in ("date_converges_faster", "few_parameters", "stronger_backbone_widens", "equal_weights_date_f"):
        assert transposed(catalogue.claims[name], crowds, catalogue) is None, name


def test_what_is_not_there_is_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "mini", "deeppcb", "--results", str(results)]) == 2
    said = capsys.readouterr().err
    assert "tier 'deeppcb' has no results" in said and "unpack its packed results" in said
    assert main(["matrix", "bccd", "--results", str(results)]) == 2
    assert "no claim can be judged by two of bccd" in capsys.readouterr().err
    assert main(["matrix", "mini", "bccd", "--results", str(results)]) == 0
    assert capsys.readouterr().out == matrix([MINI, BCCD], results)
