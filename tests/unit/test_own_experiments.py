"""Own experiments beside the paper's: what a folder adds, what it may not change, and whose identity its code enters."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from date.catalogue import EXPERIMENTS, ROOT, load, load_dataset, load_tier
from date.catalogue.listing import experiments_markdown, listing
from date.catalogue.origin import origin, read_experiments_of, tier_of, training_of
from date.catalogue.schema import schemas
from date.catalogue.settings import load_settings
from date.catalogue.targets import find_target
from date.errors import UserError
from date.experiments.folders import VARIABLE, folders, of_paper
from date.identity.code import module_digests
from date.identity.config import resolve
from date.identity.digests import config_digest, run_digest
from date.identity.parts import module_parts
from date.reporting.claims import Outcome, judge_all
from date.reporting.report import write_report
from date.reporting.scores import load_scores
from date.results import load_results
from sealed import add_run, change, coco

EXAMPLE = ROOT / "examples" / "after-date"
STOP, FALL = "date_f_stop-r50-coco-12e", "date_f_fall-r50-coco-12e"
SMALL = {
    "trainings.yaml": {"mine": {"model": "fcos", "schedule": "12e", "why": "to see"}},
    "evaluations.yaml": {"evaluations": {"mine": ["head"]}},
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return folder


def read_everything() -> None:
    load_tier("mini")
    load_dataset("bccd")
    load()


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts folders beside the paper's.

    Other tests of this process may have imported the example's modules. For Python, copies of these would have the names of
    installed ones.
    """
    modules = EXAMPLE / "modules"
    for path in modules.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(modules)])

    def use(*places: Path) -> None:
        monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, places)))

    return use


def test_the_example_adds_to_the_paper_and_changes_nothing_of_it(beside: Any) -> None:
    before = load()
    digests = {name: config_digest(resolve(t, load_tier("smoke"), 0, None)) for name, t in before.trainings.items()}
    beside(EXAMPLE)
    assert folders() == (EXPERIMENTS, EXAMPLE)
    now = load()
    added = [name for name in now.trainings if name not in before.trainings]
    assert added == [STOP, FALL, "date_f_stop_fall-r50-coco-12e"]
    assert {now.trainings[name].folder for name in added} == {"examples/after-date"}
    assert now.of_the_paper() == before
    assert {n: config_digest(resolve(t, load_tier("smoke"), 0, None)) for n, t in before.trainings.items()} == digests
    assert list(now.tables)[-1] == "after_date" and now.tables["after_date"].rows[0].id == "after_date.1"
    assert [c.name for c in now.claims.values() if c.folder] == [
        "stopped_gradient_helps", "falling_weight_helps", "still_ahead_of_onenet",
    ]  # fmt: skip
    assert all(now.evaluations[f"{name}/o2o"].folder == "examples/after-date" for name in added)


def test_own_entries_are_listed_and_marked(beside: Any) -> None:
    beside(EXAMPLE)
    assert (listed := [cells for entry, cells in listing(load(), "trainings") if cells[0] == "own"])
    assert [cells[1] for cells in listed] == [STOP, FALL, "date_f_stop_fall-r50-coco-12e"]
    page = experiments_markdown(load())
    assert page.startswith(experiments_markdown(load().of_the_paper()).rstrip())
    assert f"| `{STOP}` | examples/after-date | o2o o2m |" in page and "The paper's 40 trainings" in page


def test_the_code_of_a_module_is_part_of_the_identity_of_its_users_alone(beside: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "mine"))
    beside(folder)
    smoke = load_tier("smoke")

    def identities() -> dict[str, str]:
        return {name: run_digest(load().training(name), smoke, 0, "") for name in (STOP, FALL, "date_f-r50-coco-12e")}

    assert module_parts(load().training("date_f-r50-coco-12e")) == []
    assert load().training(STOP).modules == ("after_date",)
    first = identities()
    path = folder / "modules" / "after_date.py"
    path.write_text(path.read_text().replace("What multiplies", "That multiplies") + "\n# a comment\n")
    assert identities() == first, "comments and docstrings mean nothing"
    path.write_text(path.read_text().replace("first + (last - first)", "last + (first - last)"))
    changed = identities()
    assert {name for name in first if first[name] != changed[name]} == {STOP, FALL}
    assert "date_f-r50-coco-12e" in first and len(module_digests(["after_date"])) == 1


def test_a_module_that_a_module_imports_counts_too(beside: Any, tmp_path: Path) -> None:
    files = SMALL | {
        "models/mine.py": 'base = "fcos"\nmodules = ["outer_mine"]\n',
        "trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}},
        "modules/outer_mine.py": "from inner_mine import X\n",
        "modules/inner_mine.py": "X = 1\n",
        "modules/unused_mine.py": "Y = 1\n",
    }
    beside(write(tmp_path, files))
    training = load().training("mine")
    assert set(training.modules) == {"outer_mine", "inner_mine"}
    before = run_digest(training, load_tier("smoke"), 0, "")
    write(tmp_path, {"modules/unused_mine.py": "Y = 2\n"})
    assert run_digest(training, load_tier("smoke"), 0, "") == before
    write(tmp_path, {"modules/inner_mine.py": "X = 2\n"})
    assert run_digest(training, load_tier("smoke"), 0, "") != before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"trainings.yaml": {"fcos-r50-coco-12e": {}}}, r"trainings.yaml: the training 'fcos-r50-coco-12e' is in experiments/trainings.yaml already"),
        ({"evaluations.yaml": {"evaluations": {"fcos-r50-coco-12e": ["head"]}}}, "the evaluation 'fcos-r50-coco-12e/head' is in experiments/evaluations.yaml already"),
        ({"evaluations.yaml": {"variants": {"o2o": {}}}}, "the variant 'o2o' is in experiments/evaluations.yaml already"),
        ({"claims.yaml": {"init_passes_onenet": {}}}, "the claim 'init_passes_onenet' is in experiments/claims.yaml already"),
        ({"tables/table01.yaml": {"groups": []}}, "tables/table01.yaml: the table 'table01' is in experiments/paper/table01.yaml already"),
        ({"tiers/mini.yaml": {"extends": "smoke"}}, "tiers/mini.yaml: the tier 'mini' is in experiments/tiers/mini.yaml already"),
        ({"models/fcos.py": ""}, "models/fcos.py: the model 'fcos' is in experiments/models/fcos.py already"),
        ({"datasets/bccd.yaml": {}}, "the dataset 'bccd' is in experiments/datasets/bccd.yaml already"),
        ({"modules/torch.py": ""}, "modules/torch.py has the name of an installed module"),
        ({"trainings.yaml": {"mine": {"model": "fcas", "schedule": "12e", "why": ""}}}, "mine: unknown model 'fcas'; did you mean 'fcos'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "12", "why": "", "gpu_hours": 1}}}, "mine: unknown schedule '12'; did you mean '12e'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "12ee", "why": ""}}}, "mine: unknown schedule '12ee'; did you mean '12e'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "plan": "12e", "why": ""}}}, "mine: the key 'schedule' is missing; add it; unknown key 'plan'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "12e", "why": "", "id": "T41"}}}, "mine: 'id' is only for the paper's trainings"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "12e", "why": "", "folder": "x"}}}, "mine: unknown key 'folder'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": ""}}, "schedules/brief.py": 'base = "12e"\nepochs = 1\n'}, "to take 'gpu_hours' from; state them"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcoss"\n'}, "models/mine.py, base: unknown model 'fcoss'; did you mean 'fcos'"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "yours"\n', "models/yours.py": 'base = "mine"\n'}, "models/yours.py, base: mine, yours build upon one another"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}, "schedules/brief.py": 'base = "brief"\n'}, "schedules/brief.py, base: brief builds upon itself"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "30k_crowdhuman", "data": "crowdhuman", "init": "fcos-r50-coco-12e", "why": ""}}}, "mine, init: mine has the data of 'crowdhuman' and fcos-r50-coco-12e those of 'coco', .*; name the file of its weights"),
        ({"trainings.yaml": ["mine"]}, "has to map names to entries"),
        ({"trainings.yaml": {"mine": None}}, "mine has to be a mapping of keys to values"),
        ({"models/mine.py": 'base = "fcos"\nmodules = ["nowhere"]\n', "trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}}, "models/mine.py, modules: unknown module 'nowhere'"),
        ({"evaluations.yaml": {"evaluations": {"mine": ["head"]}}}, "unknown training 'mine'"),
        ({"tables/mine.yaml": {"title": "", "metrics": ["AP"], "number": 12, "groups": [[{"label": "a", "evaluation": "fcos-r50-coco-12e/head"}]]}}, "a table of your own has none"),
        ({"tables/mine.yaml": {"title": "", "metrics": ["AP"], "groups": [{"label": "a"}]}}, "'groups' has to be a list of lists"),
        ({"tables/mine.yaml": {"title": "", "metrics": ["AP"], "groups": [[{"label": "a", "evaluation": "fcos-r50-coco-12/head"}]]}}, r"mine.1: unknown evaluation .*did you mean 'fcos-r50-coco-12e/head'"),
        ({"claims.yaml": {"a": {"sentence": "", "predicate": {"kind": "higher", "above": "x", "below": "y"}}}}, "claims.yaml, a: unknown evaluation"),
        ({"pictures.yaml": {"floor": 0.5}}, "your own pictures.yaml takes only 'sheets'"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodel = dict(\n'}, "models/mine.py, line 2: '\\(' was never closed; correct it"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodel = dict(bbox_head=nothing)\n'}, "models/mine.py, line 2: NameError: name 'nothing' is not defined; correct it"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodle = dict(bbox_head=dict())\n'}, "models/mine.py: unknown variable 'modle'; did you mean 'model'"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "dual"\ntest_cfg_by_parts = dict(crowdhuman=dict())\n'}, "models/mine.py: unknown variable 'test_cfg_by_parts'; did you mean 'test_cfg_by_part'"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodel = 3\n'}, 'models/mine.py: model: .*not 3'),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodel = dict(bbox_head=3)\n'}, 'models/mine.py: model.bbox_head: .*not 3'),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = 3\n'}, 'models/mine.py: base: .*not 3'),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodules = "abc"\n'}, "models/mine.py: modules: .*not 'abc'"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'family = "dual"\nmodel = dict(bbox_head=dict(type="DualAssignmentHead"))\n'}, "models/mine.py: the variable 'qualities' is missing; add it"),
        ({"trainings.yaml": {"mine": {"model": "mine", "schedule": "12e", "why": ""}}, "models/mine.py": 'base = "fcos"\nmodel = dict(bbox_head=dict(loss_bbox=dict(loss_weight="2")))\n'}, "models/mine.py, model, bbox_head, loss_bbox, loss_weight: '2' is text in place of 1.0; give a number"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}, "schedules/brief.py": 'epochs = 3\ntrain_pipeline = []\n'}, "schedules/brief.py: the variable 'milestones' is missing; add it"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}, "schedules/brief.py": 'milestones = [3]\ntrain_pipeline = []\n'}, "schedules/brief.py: a schedule has 'epochs' or 'iterations'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}, "schedules/brief.py": 'base = "12e"\nepochs = "3"\n'}, "schedules/brief.py: epochs: .*not '3'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}, "schedules/brief.py": 'base = "12e"\nepoch = 3\n'}, "schedules/brief.py: unknown variable 'epoch'; did you mean 'epochs'"),
        ({"trainings.yaml": {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}, "schedules/brief.py": 'base = "12e"\noptim_wrapper = dict(optimizer=dict(type="AdamW"))\n'}, "schedules/brief.py: the key 'optim_wrapper.optimizer.lr' is missing; add it"),
    ],
)  # fmt: skip
def test_mistakes_in_own_experiments(beside: Any, tmp_path: Path, files: dict[str, Any], message: str) -> None:
    beside(write(tmp_path / "my ideas", files))
    with pytest.raises(UserError, match=message):
        read_everything()


def test_a_mistake_in_a_models_function_names_its_line(beside: Any, tmp_path: Path) -> None:
    model = 'base = "fcos"\n\n\ndef adapt(model, facts):\n    model["nothing"]["x"] = 1\n'
    training = {"mine": {"model": "mine", "schedule": "12e", "why": ""}}
    beside(write(tmp_path, {"models/mine.py": model, "trainings.yaml": training}))
    with pytest.raises(UserError, match="models/mine.py, line 5: KeyError: 'nothing'; correct it"):
        resolve(load().training("mine"), load_tier("smoke"), 0, None)


def test_a_variable_that_the_file_itself_reads_is_its_own_business(beside: Any, tmp_path: Path) -> None:
    model = 'base = "fcos"\nweight = 2.0\nmodel = dict(bbox_head=dict(loss_bbox=dict(loss_weight=weight)))\n'
    training = {"mine": {"model": "mine", "schedule": "12e", "why": ""}}
    beside(write(tmp_path, {"models/mine.py": model, "trainings.yaml": training}))
    config = resolve(load().training("mine"), load_tier("smoke"), 0, None)
    assert config["model"]["bbox_head"]["loss_bbox"] == {"type": "IoULoss", "loss_weight": 2.0}


def test_an_optimiser_needs_no_rates_by_parameter(beside: Any, tmp_path: Path) -> None:
    schedule = 'base = "12e"\noptim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))\n'
    training = {"mine": {"model": "fcos", "schedule": "brief", "why": "", "gpu_hours": 1}}
    beside(write(tmp_path, {"schedules/brief.py": schedule, "trainings.yaml": training}))
    tier = load_tier("smoke")
    wrapper = resolve(load().training("mine"), tier, 0, None)["optim_wrapper"]
    assert wrapper["optimizer"]["lr"] == pytest.approx(0.01 * tier.batch_size / 16)
    assert "paramwise_cfg" not in wrapper


def test_a_target_of_a_folder_that_is_not_named_says_where_it_is(beside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    place = "examples/after-date"
    named = f"--config experiments='[experiments, {place}]' of Snakemake, or --experiments {place}."
    for target in ("after_date", STOP, f"{STOP}/o2o"):
        with pytest.raises(UserError, match=f"^unknown target '{target}'; {place} has it: add {re.escape(named)}$"):
            find_target(load(), target, [])
    with pytest.raises(
        UserError, match="unknown target 'xyzzy'; valid names: .* If it is your own, name its folder by"
    ):
        find_target(load(), "xyzzy", [])
    beside(EXAMPLE)
    assert find_target(load(), STOP, []).trainings == [STOP]
    with pytest.raises(UserError, match=f"'{STOP}s'; did you mean '{STOP}'\\? Targets are .* of experiments, {place} "):
        find_target(load(), f"{STOP}s", [])


def test_a_target_like_a_known_one_may_be_of_a_folder_elsewhere(beside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError) as error:
        find_target(load(), "my_table05", [])
    assert str(error.value) == (
        "unknown target 'my_table05'; did you mean 'table05'? Targets are the tables, figures, trainings and "
        "evaluations of experiments (python -m date list experiments) and all, report, tables, figures, latency. If it "
        "is your own, name its folder by --config experiments='[experiments, DIR]' of Snakemake, or --experiments DIR."
    )


def test_two_own_folders_may_not_use_one_name(beside: Any, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", SMALL), write(tmp_path / "b", SMALL)
    beside(first, second)
    with pytest.raises(
        UserError, match=re.escape(f"{second}/trainings.yaml: the training 'mine' is in {first}/trainings.yaml already")
    ):
        load()


def test_names_are_found_across_folders(beside: Any, tmp_path: Path) -> None:
    files = SMALL | {
        "tiers/tiny.yaml": {"extends": "smoke", "trainings": ["mine"]},
        "datasets/cats.yaml": {"classes": ["cat"], "scenes": {"kind": "crowd", "version": 1}},
    }
    beside(write(tmp_path, files))
    assert load_tier("tiny").trainings == ["mine"] and load_dataset("cats").classes == ["cat"]
    with pytest.raises(UserError, match="unknown tier 'tinny'; did you mean 'tiny'"):
        load_tier("tinny")
    with pytest.raises(UserError, match="unknown dataset 'cat'; did you mean 'cats'"):
        load_dataset("cat")
    assert 55 <= load().training("mine").gpu_hours <= 58  # of the paper's 12-epoch trainings with ResNet-50


def test_folders_come_from_setting_command_line_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert folders() == (EXPERIMENTS,)
    monkeypatch.setenv(VARIABLE, "")  # so that what the settings set is undone
    mine = write(tmp_path, SMALL)
    settings = load_settings({"experiments": ["experiments", str(mine)]})
    assert folders() == (EXPERIMENTS, mine) and settings.experiments == ["experiments", str(mine)]
    with pytest.raises(UserError, match="give a list of folders"):
        load_settings({"experiments": "mine"})
    with pytest.raises(UserError, match="nowhere, named as a folder of experiments, is no folder"):
        load_settings({"experiments": ["nowhere"]})
    with pytest.raises(UserError, match=r"both have a paper.yaml; name one paper at a time"):
        load_settings({"experiments": ["experiments", str(shutil.copytree(EXPERIMENTS, tmp_path / "copy"))]})


def test_editors_get_schemas_with_the_names_of_all_folders(beside: Any) -> None:
    beside(EXAMPLE)
    stored = {path.stem: json.loads(path.read_text()) for path in (EXAMPLE / "schema").glob("*.json")}
    assert stored == schemas(), (
        "run: python -m date --experiments examples/after-date schema --output examples/after-date/schema"
    )
    for kind, name in (("trainings", "trainings"), ("evaluations", "evaluations"), ("claims", "claims"), ("table", "tables/after_date")):  # fmt: skip
        path = EXAMPLE / f"{name}.yaml"
        jsonschema.validate(yaml.safe_load(path.read_text()), stored[kind])
        target = path.read_text().splitlines()[0].split("$schema=")[1]
        assert (path.parent / target).resolve() == EXAMPLE / "schema" / f"{kind}.json"
    wrong = {"x": {"model": "date_stopp", "schedule": "12e", "why": ""}}
    with pytest.raises(jsonschema.ValidationError, match="'date_stopp' is not one of .*'date_stop'.*'fcos'"):
        jsonschema.validate(wrong, stored["trainings"])
    wrong = {"x": {"model": "date_stop", "schedule": "12e", "why": "", "options": {"qualty": "poto"}}}
    with pytest.raises(jsonschema.ValidationError, match="qualty"):
        jsonschema.validate(wrong, stored["trainings"])


SECOND = ROOT / "tests" / "papers" / "dense"


def test_each_paper_keeps_its_results_apart_and_own_experiments_are_kept_with_theirs(
    beside: Any, tmp_path: Path
) -> None:
    results = Path("results")
    beside(EXPERIMENTS)
    assert of_paper(results) == results
    beside(EXAMPLE)
    assert of_paper(results) == results
    beside(SECOND)
    assert of_paper(results) == Path("results/papers/tests/papers/dense") == of_paper(results)
    beside(EXAMPLE, SECOND)
    assert of_paper(ROOT / "runs") == ROOT / "runs/papers/tests/papers/dense"
    elsewhere = [Path(shutil.copytree(SECOND, tmp_path / name / "dense")) for name in ("a", "b")]
    kept = set()
    for place in elsewhere:
        beside(place)
        kept.add(of_paper(results))
    assert len(kept) == 2 and all(path.parent == Path("results/papers") for path in kept)
    assert all(re.fullmatch(r"dense-[0-9a-f]{8}", path.name) for path in kept)


def test_a_run_names_the_folders_and_the_file_that_define_it(beside: Any, tmp_path: Path) -> None:
    mini, paper_training = load_tier("mini"), load().training("fcos-r50-coco-12e")
    assert origin(paper_training, mini) == {}
    mine = write(tmp_path / "mine", SMALL | {"tiers/tiny.yaml": {"extends": "mini"}})
    beside(mine)
    named = {"experiments": ["experiments", str(mine)]}
    assert origin(load().training("mine"), mini) == named
    assert origin(paper_training, mini) == {}, "what is the paper's alone needs no other folder"
    assert origin(paper_training, load_tier("tiny")) == named
    elsewhere = write(tmp_path, {"other.yaml": {"extends": "mini"}}) / "other.yaml"
    assert origin(paper_training, load_tier(str(elsewhere))) == {"tier_file": str(elsewhere)}
    assert origin(paper_training, load_tier(str(EXPERIMENTS / "tiers" / "mini.yaml"))) == {}
    beside(SECOND)
    assert origin(load().training("atss"), load_tier("quick")) == {"experiments": ["tests/papers/dense"]}


def test_a_runs_folders_are_read_for_it(beside: Any, tmp_path: Path) -> None:
    """Also where the folders in use have another training of that name."""
    run, tier = tmp_path / "run", write(tmp_path, {"other.yaml": {"extends": "mini"}}) / "other.yaml"
    first = write(tmp_path / "a", SMALL)
    other = {"trainings.yaml": {"mine": {"model": "retinanet", "schedule": "12e", "why": ""}}}
    second = write(tmp_path / "b", SMALL | other)
    of_first = {"training": "mine", "tier": "other", "experiments": ["experiments", str(first)], "tier_file": str(tier)}
    for in_use in ((), (second,), (first, EXAMPLE)):
        beside(*in_use or (EXPERIMENTS,))
        assert training_of(run, of_first).model == "fcos"
        assert folders()[-1] == (EXAMPLE if len(in_use) == 2 else first)
        assert tier_of(run, of_first).file == tier
    beside(EXAMPLE)
    read_experiments_of({"training": "fcos-r50-coco-12e"})
    assert folders() == (EXPERIMENTS, EXAMPLE), "a run of the paper's needs no change"
    shutil.rmtree(first)
    with pytest.raises(UserError, match=rf"of the training 'mine', which experiments.* does not have \({first} is gone\); name the folder"):  # fmt: skip
        training_of(run, of_first)
    with pytest.raises(UserError, match=r"'mine', which .* does not have \(it is of others\); name the folder .*--experiments DIR"):  # fmt: skip
        training_of(run, {"training": "mine", "tier": "mini"})
    tier.unlink()
    with pytest.raises(UserError, match=f"the tier 'other', read from {tier}, which is gone; name its file by --tier"):
        tier_of(run, of_first)
    with pytest.raises(UserError, match="which is none of experiments/tiers; name its file by --tier"):
        tier_of(run, {"training": "mine", "tier": "other"})


def test_a_report_refuses_results_of_another_folders_training_of_that_name(beside: Any, tmp_path: Path) -> None:
    table = {"title": "", "metrics": ["AP"], "groups": [[{"label": "Mine", "evaluation": "mine/head"}]]}
    small = SMALL | {"tables/own.yaml": table}
    first, results = write(tmp_path / "a", small), tmp_path / "results"
    beside(first)
    training, mini = load().training("mine"), load_tier("mini")
    folder = add_run(results, "mini", "mine", 0, {"head": coco(33.0)})
    change(folder, config_sha256=config_digest(resolve(training, mini, 0, None)), **origin(training, mini))
    for place in (first, Path(shutil.copytree(first, tmp_path / "moved"))):
        beside(place)
        assert "33.0" in write_report("mini", results, tmp_path / place.name, ["own"]).read_text()
    other = {"trainings.yaml": {"mine": {"model": "retinanet", "schedule": "12e", "why": ""}}}
    second = write(tmp_path / "b", small | other)
    beside(second)
    with pytest.raises(UserError, match=f"of mine with seed 0 are of the experiments in experiments and {first} and not of {second}"):  # fmt: skip
        write_report("mini", results, tmp_path / "reports", ["own"])


def test_own_trainings_change_nothing_that_is_said_of_the_paper(beside: Any, tmp_path: Path) -> None:
    """Neither its verdicts nor their intervals, though own trainings of its schedule lie much further apart."""
    for seed in range(4):
        add_run(tmp_path, "mini", "date_f-r50-coco-12e", seed, {"o2o": {"AP": 40 + 0.3 * (-1) ** seed}})
        add_run(tmp_path, "mini", "onenet-r50-coco-12e", seed, {"o2o": {"AP": 39 + 0.2 * seed}})

    def judged() -> dict[str, Outcome]:
        catalogue, results = load(), load_results(tmp_path, "mini")
        scores = load_scores(results, tmp_path, "mini", catalogue)
        return {o.claim.name: o for o in judge_all(scores, results, load_tier("mini"), catalogue)}

    before = judged()
    beside(EXAMPLE)
    for seed in range(4):
        add_run(tmp_path, "mini", STOP, seed, {"o2o": {"AP": 30 + 5 * (-1) ** seed}})
    after = judged()
    own = {name for name, outcome in after.items() if outcome.claim.folder is not None}
    assert after["stopped_gradient_helps"].verdict == "CONTRADICTED" and len(own) == 3
    assert before["date_f_over_onenet_12e"].parts[0].estimate.error
    for name, outcome in before.items():
        assert after[name].verdict == outcome.verdict
        assert [part.estimate for part in after[name].parts] == [part.estimate for part in outcome.parts], name
