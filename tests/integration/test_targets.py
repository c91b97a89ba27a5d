"""What can be asked of the DAG by name, in dry runs: only what it needs is planned, each training once."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_pipeline import copy_project, jobs, snakemake

from date.catalogue import load


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("a clone"))


def plan(clone: Path, *targets: str, settings: tuple[str, ...] = ("tier=smoke",)) -> dict[str, int]:
    """Return the jobs of a dry run by rule, without the targets' own."""
    output = snakemake(clone, "-c1", "-n", "--config", *settings, "--", *targets)
    return {rule: n for rule, n in jobs(output).items() if rule not in ("total", *targets)}


def test_one_table_needs_its_own_evaluations_only(clone: Path) -> None:
    assert plan(clone, "table05") == {"prepare_data": 1, "train": 6, "evaluate": 6, "make_table": 1}


def test_the_table_of_networks_needs_no_training(clone: Path) -> None:
    assert plan(clone, "table08", settings=("tier=paper",)) == {"count_complexity": 1, "make_table": 1}


def test_the_crowd_table_needs_its_annotations(clone: Path) -> None:
    expected = {"prepare_data": 1, "train": 5, "evaluate": 5, "nms_recall": 1, "make_table": 1}
    assert plan(clone, "table04", settings=("tier=paper",)) == expected, (
        "asked for by name, though not in the tier's list"
    )


def test_tables_that_share_trainings_train_them_once(clone: Path) -> None:
    names = [f"table{i:02d}" for i in range(1, 12)]
    found = plan(clone, *names, "figure1", "figure3", "figure4", "figure5", settings=("tier=paper",))
    assert found == {
        "prepare_data": 2, "train": 40, "evaluate": 38, "nms_recall": 1, "count_complexity": 1, "make_table": 11, "make_figure": 4,
    }  # fmt: skip


def test_a_figure_needs_records_and_what_its_trainings_start_from(clone: Path) -> None:
    assert plan(clone, "figure3") == {"prepare_data": 1, "train": 4, "make_figure": 1}, (
        "FCOS, from which two of three start"
    )


def test_the_trade_off_needs_the_evaluations_of_the_grid(clone: Path) -> None:
    assert plan(clone, "figure5") == {"prepare_data": 1, "train": 14, "evaluate": 14, "make_figure": 1}


def test_pictures_need_the_evaluations_that_record_them(clone: Path) -> None:
    assert plan(clone, "figure1") == {"prepare_data": 1, "train": 3, "evaluate": 3, "make_figure": 1}
    assert plan(clone, "pictures_crowd") == {"prepare_data": 1, "train": 1, "evaluate": 1, "make_figure": 1}


def test_a_training_and_an_evaluation_by_name_for_every_seed(clone: Path) -> None:
    name, seeds = "date_f-r50-coco-12e", ("tier=smoke", "seeds=[0,1]", f"seeds_of={{{'date_f-r50-coco-12e'}: [0,1,2]}}")
    assert plan(clone, name, settings=seeds) == {"prepare_data": 1, "train": 3}
    assert plan(clone, f"{name}/o2m", settings=seeds) == {"prepare_data": 1, "train": 3, "evaluate": 3}
    assert plan(clone, "onenet-r50-coco-12e", settings=seeds)["train"] == 2


def test_a_resource_lets_fewer_images_through_a_network_at_a_time(clone: Path) -> None:
    def commands(*resources: str) -> str:
        tier = ("--config", "tier=paper")
        return snakemake(clone, "-c1", "-n", "-p", *resources, *tier, "--", "date_f-r101-coco-36e", "fcos-r50-coco-12e")

    assert commands().count(" --images-per-pass 0 ") == 2
    some = commands("--set-resources", "train:images_per_pass=4 if '-r101-' in wildcards.training else 0")
    assert (some.count(" --images-per-pass 4 "), some.count(" --images-per-pass 0 ")) == (1, 1)


def test_groups_of_targets_follow_the_chosen_trainings(clone: Path) -> None:
    common = {"prepare_data": 1, "train": 4}
    assert plan(clone, "tables") == {**common, "evaluate": 4, "count_complexity": 1, "make_tables": 1}
    figures = {**common, "evaluate": 4, "make_figures": 1}
    assert plan(clone, "figures") == figures, "the evaluations of DATE-F for Figure 5, of all for pictures"
    assert plan(clone, "report") == {**common, "evaluate": 4, "count_complexity": 1, "make_report": 1}
    everything = plan(clone, "all", settings=("tier=paper", 'trainings=["*"]'))
    assert everything == {
        "prepare_data": 2, "train": 40, "evaluate": 40, "nms_recall": 1, "count_complexity": 1, "make_report": 1,
    }  # fmt: skip


@pytest.mark.parametrize("target", ["all", "report", "tables", "figures"])
def test_a_report_without_its_results_is_not_done(tmp_path: Path, target: str) -> None:
    """As in a fresh clone, which has the committed report of mini."""
    folder = copy_project(tmp_path)
    before = plan(folder, target)
    report = folder / "reports" / "smoke"
    report.mkdir(parents=True)
    for name in ("index.html", "tables.md", "figures.md"):
        (report / name).write_text("made elsewhere\n")
    assert plan(folder, target) == before
    assert before["train"] == 4


def test_every_name_of_the_catalogue_is_a_target(clone: Path) -> None:
    catalogue = load()
    output = snakemake(clone, "--list-target-rules")
    listed = set(output.split())
    assert {*catalogue.trainings, *catalogue.evaluations, *catalogue.tables, *catalogue.figures} <= listed
    assert catalogue.pictures.sheets.keys() <= listed
    assert {"all", "report", "tables", "figures"} <= listed


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("table5", "unknown target 'table5'; did you mean 'table05'?"),
        ("onenet-r50-coco-12", "unknown target 'onenet-r50-coco-12'; did you mean 'onenet-r50-coco-12e'?"),
        (
            "date_f-r50-coco-12e/o2o_nms",
            "unknown target 'date_f-r50-coco-12e/o2o_nms'; did you mean 'date_f-r50-coco-12e/o2o",
        ),
        ("figure33", "unknown target 'figure33'; did you mean 'figure3'?"),
    ],
)
def test_an_unknown_target_gets_the_nearest(clone: Path, target: str, sentence: str) -> None:
    output = snakemake(clone, "-c1", "-n", "--config", "tier=smoke", "--", target, check=False)
    assert sentence in output
    assert "Traceback" not in output


def test_a_target_without_data_at_the_tier_says_so(clone: Path) -> None:
    output = snakemake(clone, "-c1", "-n", "--config", "tier=bccd", "--", "table04", check=False)
    assert "tier 'bccd' has no dataset in the part of 'crowdhuman', which retinanet-r50-crowdhuman-30k needs" in output


def test_a_file_is_a_target_as_ever(clone: Path) -> None:
    assert plan(clone, "reports/smoke/tables/table05.csv")["make_table"] == 1
