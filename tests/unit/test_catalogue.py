"""The catalogue as shipped, and the sentence for each mistake that can be made in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from date.catalogue import EXPERIMENTS, Dataset, load, load_dataset, load_tier, parse
from date.catalogue.settings import load_settings
from date.catalogue.targets import find_target
from date.errors import UserError


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A copy of ``experiments/`` to spoil."""
    return Path(shutil.copytree(EXPERIMENTS, tmp_path / "experiments"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))


def test_mini_and_paper_train_all_and_smoke_the_first_of_table_1() -> None:
    catalogue = load()
    ids = {tier: {t.id for t in catalogue.select(load_tier(tier).trainings)} for tier in ("smoke", "mini", "paper")}
    assert ids == {"smoke": {"T1", "T2", "T3", "T8"}, "mini": ids["paper"], "paper": {f"T{i}" for i in range(1, 41)}}


def test_the_papers_forty_trainings() -> None:
    assert {t.id for t in load().trainings.values()} == {f"T{i}" for i in range(1, 41)}


def test_crowd_datasets_name_the_protocol_of_their_evaluation(tmp_path: Path) -> None:
    for tier in map(load_tier, ("smoke", "mini", "paper")):
        assert {part: load_dataset(name).protocol for part, name in tier.datasets.items()} == {
            "coco": "coco",
            "crowdhuman": "crowdhuman",
        }
    two = tmp_path / "two.yaml"
    two.write_text("classes: [a, b]\nprotocol: crowdhuman\nscenes: {kind: crowd}\n")
    with pytest.raises(UserError, match="the protocol 'crowdhuman' judges one class"):
        load_dataset(str(two))


def test_every_training_has_an_evaluation() -> None:
    catalogue = load()
    assert all(catalogue.evaluations_of(name) for name in catalogue.trainings)


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "tiers").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_tier_is_valid(path: Path) -> None:
    tier = load_tier(path.stem)
    assert (tier.option, tier.file) == (path.stem, None)
    assert load().select(tier.trainings)
    for name in tier.datasets.values():
        assert load_dataset(name).classes
    assert (tier.watermark is None) == (tier.name == "paper")


def test_a_number_without_its_zeros_means_the_one_with_them() -> None:
    with pytest.raises(UserError, match="unknown target 'table1'; did you mean 'table01'"):
        find_target(load(), "table1", [])
    with pytest.raises(UserError, match="did you mean 'table11'"):
        find_target(load(), "table111", [])


def test_unknown_names_get_the_nearest_valid_one() -> None:
    with pytest.raises(UserError, match=r"unknown training 'onenet-r50-coco-12'; did you mean 'onenet-r50-coco-12e'\?"):
        load().training("onenet-r50-coco-12")
    with pytest.raises(UserError, match=r"unknown tier 'minni'; did you mean 'mini'\?"):
        load_tier("minni")
    with pytest.raises(UserError, match=r"unknown dataset 'coco2018'; did you mean 'coco2017'\?"):
        load_dataset("coco2018")
    with pytest.raises(UserError, match="unknown training or pattern 'yolo'; valid names: .*onenet"):
        load().select(["yolo"])


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("trainings.yaml", {"x": {"id": "T9", "model": "dual", "schedule": "12e", "options": {"lamda_o2m": 2}}}, "x, options: .*'lamda_o2m'; did you mean 'lambda_o2m'"),
        ("trainings.yaml", {"x": {"id": "T9", "model": "yolo"}}, "trainings.yaml, x: unknown model 'yolo'; valid names: defcn, dual"),
        ("trainings.yaml", {"x": {"id": "T9", "model": "dual", "schedule": "12e", "source": "official", "why": "", "gpu_hours": 1}}, "x, options: the key 'quality' is missing"),
        ("trainings.yaml", {"x": {"id": "T9", "model": "dual", "schedule": "12", "options": {"quality": "poto"}, "source": "official", "why": "", "gpu_hours": 1}}, "x: unknown schedule '12'; did you mean '12e'"),
        ("trainings.yaml", {"x": {"id": "T9", "model": "dual", "schedule": "12e", "options": {"quality": "pato"}, "source": "official", "why": "", "gpu_hours": 1}}, "x, options: unknown quality 'pato'; did you mean 'poto'"),
        ("trainings.yaml", {"x": {"id": "T9", "model": "dual", "schedule": "12e", "options": {"quality": "poto", "share_towers": False}, "source": "official", "why": "", "gpu_hours": 1}}, "needs a second branch"),
        ("trainings.yaml", {"x": {"id": "T9", "model": "fcos", "schedule": "12e", "options": {"quality": "poto"}, "source": "official", "why": "", "gpu_hours": 1}}, "x, options: unknown key 'quality'"),
        ("trainings.yaml", {"x": {"id": "41", "model": "fcos", "schedule": "12e", "source": "official", "why": "", "gpu_hours": 1}}, "the id '41' does not fit"),
        ("trainings.yaml", {"x": {"id": "T41", "model": "fcos", "data": "coca", "schedule": "12e", "source": "official", "why": "", "gpu_hours": 1}}, "x, data: unknown part 'coca'; did you mean 'coco'"),
        ("paper.yaml", {"reference_tier": "papre"}, "unknown tier 'papre'; did you mean 'paper'"),
        ("paper.yaml", {"headline": {"table": "table12", "schedule": "12e", "title": "", "caption": ""}}, "headline: unknown table 'table12'"),
        ("paper.yaml", {"noise": {"coca": {"AP": 1}}}, "noise: unknown part 'coca'"),
        ("paper.yaml", {"arxiw": ""}, "unknown key 'arxiw'; did you mean 'arxiv'"),
        ("paper.yaml", {"training_ids": "["}, "not a regular expression"),
        ("evaluations.yaml", {"evaluations": {"onenet-r50-coco": ["o2o"]}}, "unknown training 'onenet-r50-coco'; did you mean"),
        ("evaluations.yaml", {"evaluations": {"onenet-r50-coco-12e": ["o2o_nms5"]}}, "unknown variant 'o2o_nms5'; did you mean 'o2o_nms50'"),
        ("evaluations.yaml", {"evaluations": {"onenet-r50-coco-12e": ["o2m"]}}, "has no branch 'o2m' for variant 'o2m'; variants that it has: o2o, "),
        ("evaluations.yaml", {"extra": {"onenet-r50-coco-12e": ["o2o"]}}, "onenet-r50-coco-12e/o2o is listed twice"),
        ("evaluations.yaml", {"extra": {"onenet-r50-coco-12e": ["head"]}}, "has no branch 'head'"),
        ("evaluations.yaml", {"variants": {"o2o": {"branch": "o2o", "max_per_img": 0, "about": ""}}}, "max_per_img: "),
        ("claims.yaml", {"x": {"sentence": "", "place": "", "predicate": {"kind": "higher", "above": "onenet-r50-coco-12e/o2m", "below": ""}}}, "unknown evaluation"),
        ("paper/table01.yaml", {"metrics": ["AP"]}, "unknown column"),
        ("paper/table01.yaml", {"metrics": ["AP", "AP500"]}, "table01.yaml: unknown column 'AP500'; did you mean 'AP50'"),
        ("paper/table08.yaml", {"groups": [[{"id": "a", "label": "a", "paper": {}}]]}, "needs a source: 'evaluation', 'network'"),
        ("paper/table08.yaml", {"groups": [[{"id": "a", "label": "a", "network": "x", "papr": {}}]]}, "unknown key 'papr'; did you mean 'paper'"),
        ("paper/table08.yaml", {"groups": [[{"id": "a", "label": "a", "network": "onenet-r50-coco-12", "paper": {}}]]}, "table08.yaml, a: unknown training 'onenet-r50-coco-12'"),
        ("paper/table06.yaml", {"groups": [[{"id": "a", "label": "a", "evaluation": "fcos-r50-coco-12e/head", "paper": {}, "bracket": {"difference_from": "b", "paper": {}}}]]}, "table06.yaml, a: unknown row 'b'"),
        ("paper/table06.yaml", {"groups": [[{"id": "a", "label": "a", "evaluation": "fcos-r50-coco-12e/head", "paper": {}, "bracket": {"paper": {}}}]]}, "either a 'difference_from' a row or a second 'evaluation'"),
        ("paper/table04.yaml", {"groups": [[{"id": "a", "label": "a", "annotations": "crowd_nms", "paper": {}}]]}, "unknown evaluation of annotations 'crowd_nms'; did you mean 'crowdhuman_nms'"),
        ("paper/figure3.yaml", {"curves": [{"label": "a", "training": "onenet"}]}, "figure3.yaml: unknown training 'onenet'"),
        ("paper/text.yaml", {"a": {"place": "", "quote": "", "printed": "1"}}, "'printed' and 'quantity' belong together"),
        ("paper/text.yaml", {"a": {"place": "", "quote": ""}}, "either 'printed' and 'quantity', or 'holds', or 'says'"),
    ],
)  # fmt: skip
def test_mistakes_in_the_catalogue(experiments: Path, file: str, changes: dict[str, Any], message: str) -> None:
    edit(experiments / file, **changes)
    with pytest.raises(UserError, match=message):
        load(experiments)


def test_yaml_that_is_not_yaml(experiments: Path) -> None:
    (experiments / "claims.yaml").write_text("a: [1")
    with pytest.raises(UserError, match="claims.yaml is not valid YAML: .*line 1"):
        load(experiments)


def test_a_tier_says_what_was_tuned_and_that_is_never_date(tmp_path: Path) -> None:
    mini = load_tier("mini")
    both = ["FCOS", "OneNet"]
    assert mini.tuned == {"datasets": both, "lr": both, "batch_size": both, "epoch_scale": both}
    assert load_tier("demo").tuned == mini.tuned, "it changes none of them"
    assert load_tier("bccd").tuned == {k: v for k, v in mini.tuned.items() if k not in ("datasets", "epoch_scale")}, (
        "other data and their epochs were not chosen by trial"
    )
    assert load_tier("smoke").tuned == {}
    path = tmp_path / "mine.yaml"
    path.write_text("extends: mini\ntuned: {lr: [DATE-F]}\n")
    with pytest.raises(UserError, match="tuned, lr: unknown network 'DATE-F'; valid names: FCOS, OneNet"):
        load_tier(str(path))
    path.write_text("extends: mini\ntuned: {rate: [FCOS]}\n")
    with pytest.raises(UserError, match="'tuned' names rate, which no tier has"):
        load_tier(str(path))


def test_a_tier_by_path_extends_another(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text("extends: mini\nchannels: 128\n")
    tier, mini = load_tier(str(path)), load_tier("mini")
    assert (tier.name, tier.channels) == ("wide", 128)
    assert (tier.option, tier.file) == (str(path), path)
    assert tier.model_dump(exclude={"name", "channels"}) == mini.model_dump(exclude={"name", "channels"})
    path.write_text("extends: mini\nchanels: 128\n")
    with pytest.raises(UserError, match="unknown key 'chanels'; did you mean 'channels'"):
        load_tier(str(path))


def test_a_dataset_is_either_stored_or_generated() -> None:
    with pytest.raises(UserError, match="either 'scenes', or 'root', 'train' and 'val'"):
        parse(Dataset, {"name": "x", "classes": ["a"], "root": "x"}, "x.yaml")


def test_settings() -> None:
    assert load_settings({"tier": "smoke"}).tier == "smoke"
    with pytest.raises(UserError, match="unknown key 'seed'; did you mean 'seeds'"):
        load_settings({"seed": 3})
    with pytest.raises(UserError, match="names a seed twice"):
        load_settings({"seeds": [1, 2, 1]})
    with pytest.raises(UserError, match="seeds"):
        load_settings({"seeds": [-1]})


def test_seeds_per_training() -> None:
    settings = load_settings({"seeds": [0], "seeds_of": {"date_f-*": [0, 1], "date_f-r50-coco-12e": [0, 1, 2]}})
    assert settings.seeds_for("date_f-r50-coco-12e") == [0, 1, 2], "the last that matches counts"
    assert settings.seeds_for("date_f-r101-coco-36e") == [0, 1]
    assert settings.seeds_for("onenet-r50-coco-12e") == [0]
    with pytest.raises(
        UserError, match="unknown training or pattern 'date-f-r50-coco-12e'; did you mean 'date_f-r50-coco-12e'"
    ):
        load_settings({"seeds_of": {"date-f-r50-coco-12e": [1]}})
    with pytest.raises(UserError, match=r"seeds_of, onenet-\*: \[1, 1\] names a seed twice"):
        load_settings({"seeds_of": {"onenet-*": [1, 1]}})
    with pytest.raises(UserError, match="seeds_of"):
        load_settings({"seeds_of": {"onenet-*": []}})
