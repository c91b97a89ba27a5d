"""`date plan`: what is cached, what would run and why, how long it takes and how much it fills."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import ROOT, Tier, load, load_tier
from date.catalogue.settings import load_settings
from date.errors import UserError
from date.identity.code import code_fingerprint
from date.identity.config import resolve
from date.identity.digests import config_digest, run_digest, run_name
from date.planning.dag import ranks
from date.planning.durations import INFERENCE_SHARE, Durations, published_step, speed_digest
from date.planning.plan import Plan, make_plan, to_dict
from date.planning.plan_text import to_text
from date.runs.state import Runs, State, flat, read_config

NAME, INIT = "fcos-r50-coco-12e", "date_f_init-r50-coco-30k"
MANIFEST = "da7a" * 16


@pytest.fixture
def tier() -> Tier:
    return load_tier("smoke")


class Project:
    """Results and runs of the smoke tier, made up."""

    def __init__(self, folder: Path, tier: Tier) -> None:
        self.results, self.runs, self.tier = folder / "results", folder / "runs", tier
        self.results.mkdir()

    def verify_data(self, digest: str = MANIFEST) -> None:
        self._write(self.results / self.tier.name / "data" / "scenes-smoke.json", {"digest": digest})

    def seal(self, name: str, seconds: float = 36.0, manifest: str = MANIFEST, **changes: Any) -> dict[str, Any]:
        training = load().training(name)
        digest = run_digest(training, self.tier, 0, manifest)
        provenance = {
            "training": name,
            "tier": self.tier.name,
            "seed": 0,
            "run": run_name(training, self.tier, 0, digest),
            "run_digest": digest,
            "config_sha256": config_digest(resolve(training, self.tier, 0, None)),
            "code_sha256": code_fingerprint(),
            "data": {"dataset": "scenes-smoke", "digest": manifest, "splits": {"val": {"images": 16}}},
            "steps": 12,
            "segments": [{"seconds": seconds / 2}, {"seconds": seconds / 4, "processes": 2}],
        } | changes
        folder = self.results / self.tier.name / name / "seed0"
        self._write(folder / "provenance.json", provenance)
        lines = [{"kind": "train", "step": 12}, {"kind": "eval", "step": 12, "AP": 1.0, "seconds": 8.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return provenance

    def evaluate(self, name: str, **changes: Any) -> None:
        folder = self.results / self.tier.name / name / "seed0"
        digest = json.loads((folder / "provenance.json").read_text())["run_digest"]
        variants = dict.fromkeys(e.variant for e in load().evaluations_of(name))
        self._write(folder / "evaluation.json", {"run_digest": digest, "variants": variants} | changes)
        self._write(folder / "pictures.json", {"run_digest": digest, "images": []})

    def interrupt(self, name: str, step: int, steps: int) -> None:
        training = load().training(name)
        run = run_name(training, self.tier, 0, run_digest(training, self.tier, 0, MANIFEST))
        work = self.runs / ".work" / run
        (work / "checkpoints").mkdir(parents=True)
        (work / "checkpoints" / f"step-{step:08d}-{'0' * 16}.ckpt").touch()
        (work / "checkpoints" / f"step-{step // 2:08d}-{'1' * 16}.ckpt").touch()
        self._write(work / "status.json", {"state": "interrupted", "steps": steps, "step": step + 1})
        lines = [{"event": "begin", "began": "2026-01-01T00:00:00Z"}, {"event": "end", "ended": "2026-01-01T00:01:00Z"}]
        (work / "segments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def look(self) -> Runs:
        return Runs(self.tier, self.results, self.runs)

    def trained(self, name: str) -> State:
        return self.look().trained(load().training(name), 0)

    def plan(self, *targets: str, gpus: tuple[int, ...] = (1, 2), seeds: tuple[int, ...] = (0,)) -> Plan:
        settings = load_settings({"tier": self.tier.name, "seeds": list(seeds)})
        return make_plan(targets, self.tier, settings, self.results, self.runs, gpus)

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


@pytest.fixture
def project(tmp_path: Path, tier: Tier) -> Project:
    return Project(tmp_path, tier)


def would_run(plan: Plan) -> dict[str, str]:
    return {job.task.name: job.state.why for job in plan.jobs}


# --------------------------------------------------------------------------------------------- what would run and why


def test_a_run_of_the_present_identity_is_cached(project: Project) -> None:
    project.verify_data()
    assert project.trained(NAME) == State("new", "never trained")
    project.seal(NAME)
    assert project.trained(NAME) == State("cached")


def test_a_cached_job_has_no_time(project: Project) -> None:
    """It had said ``0 s``, as if the training had taken none."""
    project.verify_data()
    project.seal(NAME)
    lines = to_text(project.plan(NAME), every=True).splitlines()
    assert lines[-4:] == ["cached: 1 training", f"  train  {NAME}  seed 0  for table01, pictures_fcos", "", "would run: nothing"]  # fmt: skip
    (new,) = (line for line in to_text(project.plan("onenet-r50-coco-12e")).splitlines() if "never trained" in line)
    assert re.search(r"seed 0  [\d.]+ \w+  never trained  for ", new)


def test_without_data_config_and_code_are_compared(project: Project) -> None:
    project.seal(NAME, manifest="another")
    assert project.trained(NAME).state == "cached"
    assert "the data are not known" in project.trained(NAME).why
    project.seal(NAME, code_sha256="old")
    assert project.trained(NAME) == State("changed", "training code changed")
    assert project.plan(NAME).data_known == {"scenes-smoke": False}
    assert "the results have no manifest" in to_text(project.plan(NAME))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"code_sha256": "old"}, "training code changed"),
        ({"data": {"dataset": "scenes-smoke", "digest": "old"}}, "data of scenes-smoke changed"),
        ({"config_sha256": "old"}, "config changed ("),
    ],
)
def test_the_part_of_the_identity_that_changed_is_named(project: Project, changes: dict[str, Any], why: str) -> None:
    project.verify_data()
    project.seal(NAME, run_digest="another", **changes)
    state = project.trained(NAME)
    assert state.state == "changed" and state.why.startswith(why)


def test_changed_keys_of_the_config_are_named_and_paths_do_not_count(project: Project, tmp_path: Path) -> None:
    from mmengine.config import Config

    project.verify_data()
    provenance = project.seal(NAME, run_digest="another", config_sha256="old")
    old = resolve(load().training(NAME), project.tier, 0, tmp_path / "elsewhere")
    old["optim_wrapper"]["optimizer"]["lr"] = 0.5
    old["train_dataloader"]["num_workers"] = 7
    folder = project.runs / provenance["run"]
    folder.mkdir(parents=True)
    Config(old).dump(str(folder / "config.py"))
    assert project.trained(NAME).why == "config changed: optim_wrapper.optimizer.lr 0.5 -> 0.002"


def test_a_run_that_starts_from_another_one_names_it(project: Project) -> None:
    project.verify_data()
    project.seal(INIT, run_digest="of another FCOS")
    assert project.trained(INIT) == State("changed", f"starts from {NAME}, which is another now")


def test_an_interrupted_run_resumes_from_its_last_checkpoint(project: Project) -> None:
    project.verify_data()
    project.interrupt(NAME, 9, 12)
    state = project.trained(NAME)
    assert (state.state, state.done, state.steps, state.left) == ("interrupted", 9, 12, 0.25)
    assert state.why == "interrupted: resumes from step 9 of 12"
    [job] = project.plan(NAME).jobs
    assert job.task.hours == pytest.approx(job.duration.hours / 4)


def test_imports_count_as_cached_whatever_the_code(project: Project) -> None:
    project.seal(NAME, imported={"file": "a.pth"}, run_digest="x", code_sha256="old")
    assert project.trained(NAME) == State("cached", "imported")


def test_a_sealed_run_without_results_is_cached(project: Project) -> None:
    project.verify_data()
    provenance = project.seal(NAME)
    result = project.results / "smoke" / NAME / "seed0" / "provenance.json"
    folder = project.runs / provenance["run"]
    folder.mkdir(parents=True)
    result.rename(folder / "provenance.json")
    assert project.trained(NAME).state == "cached"


def test_evaluations_of_other_runs_and_missing_variants_are_made_anew(project: Project) -> None:
    project.verify_data()
    project.seal(NAME)
    look, training = project.look, load().training(NAME)
    assert look().evaluated(training, 0, State("cached")) == State("new", "never evaluated")
    project.evaluate(NAME)
    assert look().evaluated(training, 0, State("cached")) == State("cached")
    assert look().evaluated(training, 0, State("new")) == State("changed", "its training runs")
    project.evaluate(NAME, run_digest="x")
    assert look().evaluated(training, 0, State("cached")).why == "it judges another run"
    project.evaluate(NAME, variants={})
    assert look().evaluated(training, 0, State("cached")).why == "not judged yet: head"
    project.evaluate(NAME)
    (project.results / "smoke" / NAME / "seed0" / "pictures.json").unlink()
    assert look().evaluated(training, 0, State("cached")).why == "it has no pictures yet"


def test_a_damaged_result_is_a_sentence(project: Project) -> None:
    project.seal(NAME)
    (project.results / "smoke" / NAME / "seed0" / "provenance.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        project.trained(NAME)


# ------------------------------------------------------------------------------------------------------------- targets


def test_a_table_needs_its_evaluations_and_a_figure_trainings_alone(project: Project) -> None:
    table = project.plan("table05")
    assert len(table.jobs) == 12 and all(job.asked_by == ["table05"] for job in table.jobs)
    figure = project.plan("figure3")
    assert [job.task.kind for job in figure.jobs] == ["train"] * 4
    asked = {job.task.training: job.asked_by for job in figure.jobs}
    assert asked[NAME] == ["date_f_init-r50-coco-30k", "onenet_poto_init-r50-coco-30k"], "which start from it"


def test_what_a_finished_training_started_from_is_not_trained_for_it(project: Project) -> None:
    project.verify_data()
    assert set(would_run(project.plan(INIT))) == {f"train {NAME} seed 0", f"train {INIT} seed 0"}
    project.seal(INIT)
    assert would_run(project.plan(INIT)) == {}
    project.seal(INIT, code_sha256="old", run_digest="old")
    assert set(would_run(project.plan(INIT))) == {f"train {NAME} seed 0", f"train {INIT} seed 0"}


def test_an_unknown_target_gets_the_nearest_and_one_without_data_says_so(project: Project) -> None:
    with pytest.raises(UserError, match="unknown target 'table5'; did you mean 'table05'"):
        project.plan("table5")
    bccd = load_tier("bccd")
    settings = load_settings({"tier": "bccd"})
    with pytest.raises(UserError, match="tier 'bccd' has no dataset in the part of 'crowdhuman'"):
        make_plan(["table04"], bccd, settings, project.results, project.runs, [1])


# ------------------------------------------------------------------------------------------------------------ durations


def test_the_paper_costs_what_the_catalogue_says(tmp_path: Path) -> None:
    paper = load_tier("paper")
    settings = load_settings({"tier": "paper", "trainings": ["*"]})
    plan = make_plan(["all"], paper, settings, tmp_path, tmp_path, [8])
    published = sum(training.gpu_hours for training in load().trainings.values())
    trained = sum(job.task.hours for job in plan.jobs if job.task.kind == "train")
    assert trained == pytest.approx(published)
    assert {job.duration.basis for job in plan.jobs} == {"catalogue"} and plan.known
    # OneNet, by hand: 5,000 images at a third of 0.28 s x 8 GPUs / 16 images.
    onenet = next(j for j in plan.jobs if j.task.name == "evaluate onenet-r50-coco-12e seed 0")
    assert onenet.task.hours == pytest.approx(5000 * 0.28 * 8 / 16 / 3 / 3600, rel=0.01)
    assert [task.training for task in plan.critical_path] == ["fcos-r50-coco-36e", *["onenet_init-r50-coco-36e"] * 2]
    text = to_text(plan)
    assert "0.28 s per iteration of 16 images on 8 V100" in text and "critical path: 13 d 16 h" in text
    assert "more than 11 GPUs hardly help: the critical path dominates" in text
    alone = to_text(make_plan(["onenet-r50-coco-12e"], paper, settings, tmp_path, tmp_path, [1]))
    assert "more than 1 GPU hardly helps: the critical path dominates" in alone and " on 1 GPU\n" in alone
    assert plan.bills[0].lower_bound == pytest.approx(plan.gpu_hours / 8)


def test_three_seeds_cost_thrice(tmp_path: Path) -> None:
    paper = load_tier("paper")
    costs = [
        make_plan(["all"], paper, load_settings({"seeds": seeds}), tmp_path, tmp_path, [8]).gpu_hours
        for seeds in ([0], [0, 1, 2])
    ]
    assert costs[1] == pytest.approx(3 * costs[0])


def test_hours_are_unknown_where_nothing_gives_them(project: Project) -> None:
    plan = project.plan("table05")
    assert not plan.known and plan.sealed_bytes > 0
    answer = to_dict(plan)
    assert answer["gpu_hours"] is None and answer["schedules"][0]["makespan"] is None
    assert "date calibrate --tier smoke" in to_text(plan)


def test_measured_runs_count_first_and_scale_others(project: Project, tier: Tier) -> None:
    trainings = load().trainings
    project.seal(NAME, seconds=36.0)  # 18 s, and 9 s of two processes
    durations = Durations(tier, project.results, project.runs)
    measured = durations.training(trainings[NAME])
    assert measured.basis == "measured" and measured.hours * 3600 == pytest.approx(36)
    assert durations.evaluation(trainings[NAME]).hours * 3600 == pytest.approx(
        8.0 * durations.length(trainings[NAME]).images / 16
    )
    longer = trainings["fcos-r50-coco-36e"]
    same_kind = durations.training(longer)
    ratio = published_step(longer) / published_step(trainings[NAME])
    assert same_kind.hours * 3600 == pytest.approx(36 / 12 * durations.length(longer).steps * ratio)
    assert "same kind" in same_kind.source
    other = trainings["retinanet-r50-coco-12e"]
    ratio = published_step(other) / published_step(trainings[NAME])
    assert durations.training(other).hours * 3600 == pytest.approx(36 * ratio)
    assert "other networks" in durations.training(other).source


def test_sealed_runs_without_results_are_measured_too(project: Project, tier: Tier) -> None:
    training = load().trainings[NAME]
    for seconds, age, manifest in ((36.0, 1, MANIFEST), (72.0, 9, "older")):
        provenance = project.seal(NAME, seconds=seconds, manifest=manifest)
        result = project.results / "smoke" / NAME / "seed0"
        folder = project.runs / provenance["run"]
        folder.parent.mkdir(exist_ok=True)
        result.rename(folder)
        os.utime(folder / "provenance.json", (1e9 - age, 1e9 - age))
    durations = Durations(tier, project.results, project.runs)
    assert durations.training(training).basis == "measured"
    assert durations.training(training).hours * 3600 == pytest.approx(36), "of two runs of a seed, the last one"
    assert durations.evaluation(training).basis == "measured"
    plan = project.plan("fcos-r50-coco-36e")
    assert plan.known and "sealed runs of the same kind of network" in to_text(plan)
    project.seal(NAME, seconds=12.0)
    found = Durations(tier, project.results, project.runs).training(training)
    assert found.hours * 3600 == pytest.approx(12), "the result counts, where there is one"
    assert Durations(load_tier("mini"), project.results, project.runs).training(training).basis == "relative"


def calibration(project: Project, names: list[str], **changes: Any) -> None:
    entries = {
        name: {
            "seconds_per_step": 2.0,
            "seconds_per_image": 0.5,
            "parameters": 1000,
            "speed_sha256": speed_digest(resolve(load().training(name), project.tier, 0, None)),
        }
        | changes
        for name in names
    }
    content = {"schema_version": 1, "date": "2026-01-02T00:00:00Z", "device": "a GPU", "trainings": entries}
    project._write(project.results / "smoke" / "calibration.json", content)


def test_calibrated_steps_count_after_measured_runs_of_the_kind(project: Project, tier: Tier) -> None:
    training = load().training(NAME)
    calibration(project, [NAME])
    durations = Durations(tier, project.results, project.runs)
    work = durations.length(training)
    found = durations.training(training)
    assert found.basis == "calibrated" and found.source == "calibration of 2026-01-02T00:00:00Z on a GPU"
    assert found.hours * 3600 == pytest.approx(2.0 * work.steps + 0.5 * work.validations * work.images)
    assert durations.evaluation(training).hours * 3600 == pytest.approx(0.5 * work.images)
    project.seal("fcos-r50-coco-36e")
    assert Durations(tier, project.results, project.runs).training(training).basis == "measured"
    other = load().training("retinanet-r50-coco-12e")
    assert Durations(tier, project.results, project.runs).training(other).basis == "calibrated"


def test_a_calibration_of_another_network_does_not_count(project: Project, tier: Tier) -> None:
    calibration(project, [NAME], speed_sha256="of a larger network")
    assert Durations(tier, project.results, project.runs).training(load().training(NAME)).basis == "relative"


def test_unknown_evaluations_take_a_third_of_training(project: Project, tier: Tier) -> None:
    training = load().training(NAME)
    durations = Durations(tier, project.results, project.runs)
    hours = durations.length(training).images * published_step(training) / tier.batch_size * INFERENCE_SHARE / 3600
    assert durations.evaluation(training).hours == pytest.approx(hours)


# ----------------------------------------------------------------------------------------------------------------- disk


def test_disk_from_parameters_and_images(project: Project) -> None:
    calibration(project, [NAME])
    plan = project.plan(f"{NAME}/head")
    images = 4 * 1000
    detections = (
        Durations(project.tier, project.results, project.runs).length(load().training(NAME)).images * 100 * 7 * 4
    )
    assert plan.sealed_bytes == images + detections
    assert plan.bills[0].checkpoints == 3 * 3 * images, "three checkpoints of weights and two moments"


def test_disk_measured_on_sealed_runs(project: Project) -> None:
    calibration(project, [NAME])
    folder = project.runs / f"smoke-{NAME}-s1-0123456789"
    folder.mkdir(parents=True)
    (folder / "final.safetensors").write_bytes(b"x" * 500)
    plan = project.plan(NAME)
    assert plan.sealed_bytes == 500 and "sealed runs" in plan.disk_basis


def test_disk_of_networks_that_nobody_measured_is_counted(project: Project) -> None:
    plan = project.plan(NAME)
    assert plan.disk_basis[-1] == "parameters counted"
    from mmdet.registry import MODELS
    from mmengine.config import Config

    import date.models  # noqa: F401 - registers the heads

    network = MODELS.build(Config(resolve(load().training(NAME), project.tier, 0, None)).model)
    assert plan.sealed_bytes == 4 * sum(parameter.numel() for parameter in network.parameters())


# ---------------------------------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize("name", ["date_f_3dmf-r50-coco-36e", "defcn-r50-coco-1x", "retinanet-r50-crowdhuman-30k"])
def test_a_dumped_config_is_read_without_running_it(name: str, tmp_path: Path) -> None:
    from mmengine.config import Config

    config = resolve(load().training(name), load_tier("paper"), 0, tmp_path)
    Config(config).dump(str(tmp_path / "config.py"))
    assert dict(flat(read_config((tmp_path / "config.py").read_text()))) == dict(flat(config))
    with pytest.raises(ValueError):
        read_config("import os")
    with pytest.raises(ValueError):
        read_config("a = open('x')")


def test_plan_needs_no_torch() -> None:
    code = (
        "import sys; from date.cli import main; main(['plan', '--tier', 'paper', '--json']);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'mmengine', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tier"] == "paper"


def test_a_tier_without_a_backbone_orders_what_it_can_train(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("extends: smoke\nbackbones: {r50: {depth: 18}}\n")
    tier = load_tier(str(path))
    ranked = {training for _, training in ranks(load(), tier, Durations(tier, tmp_path, tmp_path))}
    assert ranked == {t.name for t in load().trainings.values() if t.backbone == "r50"}
    with pytest.raises(UserError, match=r"'small' has no backbone in the part of 'r101'.*add it to 'backbones'"):
        resolve(load().training("fcos-r101-coco-36e"), tier, 0, None)
