"""Counting by hand on tiny nets, against PyTorch's own counter, and against the paper's Tables 1, 8 and 9."""

from __future__ import annotations

import json

import pytest
import torch
from mmcv.cnn import Scale
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from date.catalogue import METRICS
from date.cli import main
from date.errors import UserError
from date.inference import complexity
from date.inference.complexity import Complexity, Counts, Network, Row, complexity_table, measure


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return complexity_table()


@pytest.fixture(scope="module")
def counts(rows: list[Row]) -> dict[str, Complexity]:
    """By label and phase, e.g. ``DATE-F train``; what is trained and used alike is ``both``."""
    return {f"{row.network.label} {row.network.phase}": row.complexity for row in rows}


def network(label: str) -> Network:
    return next(n for n in [*complexity.networks(), *complexity.alternatives()] if f"{n.label} {n.phase}" == label)


# --- the counting rules, worked by hand -------------------------------------------------------------------------


def test_every_rule_by_hand() -> None:
    with torch.device("meta"):
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 3x8x12 -> 8x4x6 = 192 outputs of 27 products
            nn.GroupNorm(2, 8),  # 192 elements
            nn.ReLU(),
            nn.Conv2d(8, 4, 1, groups=2, bias=False),  # 4x4x6 = 96 outputs of 4 products
            nn.BatchNorm2d(4, affine=False),
            nn.MaxPool2d(2),  # reads 96 elements
        ).eval()
    net[0].bias.requires_grad_(False)
    parts = measure(net, (3, 8, 12)).components
    assert parts["0"] == Counts(8 * 27, 8 * 27 + 8, 192 * 27, 192 * 27 + 192)
    assert parts["1"] == Counts(16, 16, 0, 2 * 192)
    assert parts["2"] == Counts(0, 0, 0, 192)
    assert parts["3"] == Counts(16, 16, 96 * 4, 96 * 4)
    assert parts["4"] == Counts(0, 0, 0, 96)
    assert parts["5"] == Counts(0, 0, 0, 96)


class Attending(nn.Module):
    """Two images of 3 queries and 5 keys, of width 4, as MMDetection calls attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.linear, self.drop = nn.LayerNorm(4), nn.Linear(4, 7), nn.Dropout(0.5)

    def forward(self, image: Tensor) -> Tensor:
        query, key = image.new_zeros(2, 3, 4), image.new_zeros(2, 5, 4)
        return self.linear(self.drop(self.norm(self.attention(query=query, key=key, value=key)[0])))


def test_rules_of_transformers_by_hand() -> None:
    with torch.device("meta"):
        net = Attending().eval()
    parts = measure(net, (1, 1, 1)).components
    # Projections of 6 queries, of 10 keys and 10 values, of 6 outputs, 16 products each; 3 x 5 scores and 3 x 5 weighted
    # values of width 4, for 2 images.
    macs = (6 + 10 + 10 + 6) * 16 + 2 * (2 * 3 * 5 * 4)
    assert parts["attention"] == Counts(4 * 16 + 4 * 4, 4 * 16 + 4 * 4, macs, macs + (6 + 10 + 10 + 6) * 4)
    assert parts["norm"] == Counts(8, 8, 0, 2 * 24)
    assert parts["linear"] == Counts(35, 35, 6 * 28, 6 * 28 + 42)
    assert parts.get("drop", Counts(0, 0, 0, 0)) == Counts(0, 0, 0, 0)


def test_components_add_up(counts: dict[str, Complexity]) -> None:
    for total in counts.values():
        for name in ("trainable_params", "params", "macs", "operations"):
            assert getattr(total, name) == sum(getattr(part, name) for part in total.components.values())


class TwoLevels(nn.Module):
    """One convolution on two levels, and under a second name; a ReLU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.same = self.conv
        self.scale = Scale(1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.scale(self.conv(x)).relu()
        return fine, self.same(fine[..., ::2, ::2])


def test_a_shared_module_computes_at_every_call_and_has_its_parameters_once() -> None:
    with torch.device("meta"):
        net = TwoLevels()
    found = measure(net, (2, 4, 6))
    outputs = 2 * 4 * 6 + 2 * 2 * 3
    assert found.components == {
        "conv": Counts(38, 38, outputs * 18, outputs * 19),
        "scale": Counts(1, 1, 0, 0),
    }
    assert found.params == 39


def test_counting_again_gives_the_same_and_leaves_no_hooks() -> None:
    with torch.device("meta"):
        net = TwoLevels()
    assert measure(net, (2, 4, 6)) == measure(net, (2, 4, 6))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_module_without_a_rule_is_an_error() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.PReLU())
    with pytest.raises(UserError, match="PReLU"):
        measure(net, (3, 4, 4))


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("gflops", 200.497, 201),  # 200.50 in the tool's output
        ("gflops", 200.494, 200),  # 200.49
        ("gflops", 233.491, 233),
        ("params", 33.549, 33.6),  # 33.55
        ("params_train", 33.544, 33.5),
    ],
)
def test_rounding_of_the_tool_and_then_of_the_paper(metric: str, value: float, expected: float) -> None:
    assert METRICS[metric].printed(value) == expected


# --- the paper's networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "params_m", "gops"),
    [
        ("RetinaNet both", 33.6, 233),
        ("FCOS both", 32.0, 201),
        ("OneNet both", 32.0, 201),
        ("DATE-F infer", 32.0, 201),
        ("DATE-F train", 32.2, 205),
        ("DATE-R train", 33.8, 238),
        ("DATE-R infer", 32.0, 201),
        ("DATE-R, own towers train", 38.5, 338),  # Table 9 has 388, the text 338
        ("DATE-R, own towers infer", 32.0, 201),
    ],
)
def test_the_papers_numbers(rows: list[Row], label: str, params_m: float, gops: float) -> None:
    row = next(row for row in rows if f"{row.network.label} {row.network.phase}" == label)
    assert row.printed == (params_m, gops)
    assert row.reproduced


def test_networks_are_the_papers_tables_in_order(rows: list[Row]) -> None:
    by_table = {
        table: [(r.network.label, r.network.phase, r.network.paper_gops) for r in rows if table in r.network.tables]
        for table in (1, 8, 9)
    }
    assert by_table[1] == [
        ("RetinaNet", "both", 233), ("FCOS", "both", 201), ("OneNet", "both", 201), ("DATE-F", "infer", 201),
    ]  # fmt: skip
    assert by_table[8] == [("OneNet", "both", 201), ("DATE-F", "infer", 201), ("DATE-F", "train", 205)]
    assert [gops for _, _, gops in by_table[9]] == [233, 238, 201, 388, 201]


def test_parts_of_the_detector(counts: dict[str, Complexity]) -> None:
    parts = counts["FCOS both"].components
    backbone, neck, towers, predictors = (parts[k] for k in ("backbone", "neck", "towers", "predictors"))
    assert round(backbone.trainable_params / 1e6, 4) == 23.2325
    assert round(backbone.params / 1e6, 3) == 23.508
    assert (round(backbone.macs / 1e9, 2), round(backbone.operations / 1e9, 2)) == (78.69, 79.33)
    assert (round(neck.params / 1e6, 4), round(neck.macs / 1e9, 2)) == (3.8687, 16.25)
    assert (round(towers.params / 1e6, 4), round(towers.macs / 1e9, 2)) == (4.7227, 100.65)
    assert round(towers.operations / 1e9, 2) == 100.78
    points = 100 * 160 + 50 * 80 + 25 * 40 + 13 * 20 + 7 * 10
    channels = 80 + 4 + 1
    assert predictors == Counts(
        channels * (256 * 9 + 1), channels * (256 * 9 + 1), channels * 256 * 9 * points, channels * (256 * 9 + 1) * points
    )  # fmt: skip
    assert parts["scales"] == Counts(5, 5, 0, 0)


def test_only_the_backbone_has_frozen_parameters(counts: dict[str, Complexity]) -> None:
    frozen = {k: v.params - v.trainable_params for k, v in counts["OneNet both"].components.items()}
    backbone = network("OneNet both").build().backbone
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    stem_and_first_stage = [m for part in (backbone.conv1, backbone.layer1) for m in part.modules()]
    expected = sum(m.weight.numel() for m in stem_and_first_stage if isinstance(m, nn.Conv2d))
    expected += sum(2 * m.num_features for m in norms)
    assert frozen.pop("backbone") == expected
    assert set(frozen.values()) == {0}


def test_inference_of_date_is_onenet(counts: dict[str, Complexity]) -> None:
    for label in ("DATE-F infer", "DATE-R infer", "DATE-R, own towers infer"):
        assert counts[label] == counts["OneNet both"]


def test_the_one_to_many_branch_costs_its_predictors_and_nothing_else(counts: dict[str, Complexity]) -> None:
    for label, baseline in (("DATE-F train", "FCOS both"), ("DATE-R train", "RetinaNet both")):
        parts = dict(counts[label].components)
        assert parts.pop("o2m predictors") == counts[baseline].components["predictors"]
        assert parts == counts["OneNet both"].components


def test_own_towers_are_a_second_pair(counts: dict[str, Complexity]) -> None:
    parts = dict(counts["DATE-R, own towers train"].components)
    assert parts.pop("o2m towers") == parts["towers"]
    assert parts == counts["DATE-R train"].components


def test_leaving_a_branch_out_computes_what_running_one_branch_does(counts: dict[str, Complexity]) -> None:
    model = network("DATE-R, own towers train").build()
    feats = [torch.empty(1, 256, *size, device="meta") for size in ((100, 160), (50, 80), (25, 40), (13, 20), (7, 10))]
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model.bbox_head(feats, branches=[0])
    parts = counts["OneNet both"].components
    assert flops.get_total_flops() == 2 * (parts["towers"].macs + parts["o2o predictors"].macs)


@pytest.mark.parametrize("label", ["RetinaNet both", "FCOS both", "DATE-F train", "DATE-R, own towers train"])
def test_macs_are_half_the_flops_of_pytorchs_counter(counts: dict[str, Complexity], label: str) -> None:
    model = network(label).build()
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.empty(1, *complexity.INPUT_SHAPE, device="meta"))
    assert flops.get_total_flops() == 2 * counts[label].macs


def test_group_norm_in_retinanets_towers_is_ruled_out(rows: list[Row]) -> None:
    (row,) = [row for row in rows if not row.network.tables]
    assert (row.network.label, row.printed) == ("RetinaNet, GroupNorm", (33.6, 234))


# --- what is printed --------------------------------------------------------------------------------------------


def test_text_has_all_rows_and_the_explanations(rows: list[Row]) -> None:
    text = complexity.to_text(rows)
    lines = text.splitlines()
    assert lines[0].split() == " ".join(complexity.HEADER).split()
    assert [line.split("  ")[0] for line in lines[2:12]] == [row.network.label for row in rows]
    assert len({len(line) for line in lines[:12]}) == 1
    assert complexity.CONVENTION in " ".join(lines)
    assert "9 of 9 networks" in text
    assert "388 G and the text (sec. 4.7) 338 G; the network has 338.44 G" in text
    assert "OneNet; DATE-F; DATE-R; DATE-R, own towers: 200.497 G are 200.50" in text


def test_markdown_is_a_table(rows: list[Row]) -> None:
    lines = complexity.to_text(rows, markdown=True).splitlines()
    table = lines[: lines.index("")]
    assert len(table) == 2 + len(rows)
    assert {line.count("|") for line in table} == {len(complexity.HEADER) + 1}
    assert table[1].replace("-", "").replace(" ", "") == "||||" + 6 * ":|"  # numbers flush right


def test_command_prints_text_or_json(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity"]) == 0
    assert capsys.readouterr().out == complexity.to_text(rows)
    assert main(["complexity", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["input_shape"] == [3, 800, 1280]
    assert [n["operations"] for n in data["networks"]] == [row.complexity.operations for row in rows]
    assert [n["reproduced"] for n in data["networks"]] == [True] * 9 + [None]
    assert data["networks"][7]["components"]["o2m towers"]["params"] == 8 * (256 * 256 * 9 + 2 * 256)
