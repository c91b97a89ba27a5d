# ruff: noqa: E402 - MMDetection is imported by `stack`
"""Parameters and operations of the networks of the paper's Tables 1, 8 and 9, counted on the real modules.

The modules are built at the paper's size, whatever the tier in use, on PyTorch's ``meta`` device: shapes are computed,
numbers are not, so that nothing needs weights, data or a GPU. `CONVENTION` says what is counted.
"""

from __future__ import annotations

import copy
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from date import stack

stack.load()

import torch
from mmcv.cnn import Scale
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import date.models  # noqa: F401  registers the head and its branches
from date.catalogue import METRICS, Catalogue, Statement, Table, Training, load, load_tier
from date.catalogue import Row as TableRow
from date.catalogue.modules import import_modules
from date.catalogue.publication import load_paper
from date.errors import UserError
from date.experiments.fragments import merge
from date.families import FAMILIES, family_of
from date.identity.config import resolve

INPUT_SHAPE = (3, 800, 1280)
"""Channels, height and width of the image, the default of MMDetection 2's ``get_flops``."""

CONVENTION = (
    "Params are trainable parameters, as MMDetection 2's get_flops counts them: the backbone's stem, first stage and "
    "batch normalisation are frozen and left out; all params has them. "
    "GMACs are multiply-accumulates of the convolutions on one 3x800x1280 image; G is what that tool calls FLOPs and "
    "the paper reports: GMACs, plus 1 per output of a convolution with bias, 2 per element of an affine normalisation, "
    "1 per output of a ReLU and 1 per input of a max-pooling, of modules only (no function calls, no losses, no NMS). "
    "Of linear layers the same is counted as of convolutions, of attention its projections and its two products."
)


@dataclass(frozen=True)
class Counts:
    """Parameters and operations of a part of a network, for one image."""

    trainable_params: int
    params: int
    """Trainable or not."""
    macs: int
    """Multiply-accumulates of convolutions."""
    operations: int
    """``macs`` and the cheaper operations of `CONVENTION`: what MMDetection 2 calls FLOPs."""

    @property
    def params_m(self) -> float:
        """Trainable parameters in millions, the paper's "Params"."""
        return self.trainable_params / 1e6

    @property
    def gflops(self) -> float:
        """Operations in thousand millions, the paper's "GFLOPs"."""
        return self.operations / 1e9


@dataclass(frozen=True)
class Complexity(Counts):
    """A network's totals, and the same by `component`, which add up to them."""

    components: dict[str, Counts]


def component(name: str) -> str:
    """Return the part of a detector to which a module or parameter belongs; elsewhere the first part of its name."""
    part, *rest = name.split(".")
    if part != "bbox_head":
        return part
    named = (family.component(*rest) for family in reversed(FAMILIES.values()))
    return next((found for found in named if found is not None), "predictors")


def module_cost(module: nn.Module, module_input: Tensor, output: Tensor) -> tuple[int, int]:
    """Return the multiply-accumulates and the operations of one call of a module, by `CONVENTION`.

    Raises:
        UserError: a kind of module for which the convention has no rule.
    """
    from mmdet.models.layers import SinePositionalEncoding

    if isinstance(module, nn.Conv2d):
        macs = output.numel() * module.weight[0].numel()
        return macs, macs + (0 if module.bias is None else output.numel())
    if isinstance(module, nn.Linear):
        macs = output.numel() * module.in_features
        return macs, macs + (0 if module.bias is None else output.numel())
    if isinstance(module, _BatchNorm | nn.GroupNorm):
        return 0, output.numel() * (2 if module.affine else 1)
    if isinstance(module, nn.LayerNorm):
        return 0, output.numel() * (2 if module.elementwise_affine else 1)
    if isinstance(module, nn.Dropout | nn.Identity | SinePositionalEncoding):  # nothing, or the same for every image
        return 0, 0
    if isinstance(module, nn.ReLU):
        return 0, output.numel()
    if isinstance(module, nn.MaxPool2d):
        return 0, module_input.numel()
    if isinstance(module, Scale):  # unknown to MMDetection 2's tool
        return 0, 0
    raise UserError(f"no counting rule for {type(module).__name__}; add one to module_cost and to CONVENTION.")


def attention_cost(module: nn.MultiheadAttention, query: Tensor, key: Tensor) -> tuple[int, int]:
    """Return the same of one call of an attention: its four projections with bias, and its two products.

    Args:
        module: of width E.
        query: (B, L, E) or (L, B, E).
        key: (B, S, E) or (S, B, E).
    """
    width, images = module.embed_dim, query.shape[0 if module.batch_first else 1]
    queries, keys = query.numel() // width, key.numel() // width
    macs = 2 * (queries + keys) * width * width + 2 * queries * (keys // images) * width
    return macs, macs + (0 if module.in_proj_bias is None else 2 * (queries + keys) * width)


def measure(model: nn.Module, input_shape: Sequence[int] = INPUT_SHAPE) -> Complexity:
    """Count a model that lies on the ``meta`` device.

    A module that is called several times (the head, once per level) computes each time but has its parameters once.

    Args:
        model: called with one image (1, *input_shape); detectors return their heads' raw maps.
        input_shape: channels, height, width.
    """
    macs: Counter[str] = Counter()
    operations: Counter[str] = Counter()

    def count(part: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if isinstance(module, nn.MultiheadAttention):
            query, key = (named[k] if k in named else inputs[i] for i, k in enumerate(("query", "key")))
            cost = attention_cost(module, query, key)
        else:
            cost = module_cost(module, inputs[0], output)
        macs[part] += cost[0]
        operations[part] += cost[1]

    whole = {name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    leaves = [
        (name, module)
        for name, module in model.named_modules()
        if name in whole or (next(module.children(), None) is None and name.rpartition(".")[0] not in whole)
    ]
    handles = [
        module.register_forward_hook(partial(count, component(name)), with_kwargs=True) for name, module in leaves
    ]
    with torch.no_grad():
        run = family_of(model.bbox_head).trace if hasattr(model, "bbox_head") else nn.Module.__call__
        run(model, torch.empty(1, *input_shape, device="meta"))
    for handle in handles:
        handle.remove()

    params: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        params[component(name)] += parameter.numel()
        trainable[component(name)] += parameter.numel() if parameter.requires_grad else 0

    parts = dict.fromkeys([*params, *macs])
    components = {part: Counts(trainable[part], params[part], macs[part], operations[part]) for part in parts}
    return Complexity(trainable.total(), params.total(), macs.total(), operations.total(), components)


@dataclass(frozen=True)
class Network:
    """A network as it is trained or as it is used, with the paper's numbers."""

    label: str
    phase: Literal["train", "infer", "both"]
    """``both`` where training and inference run the same network."""
    trainings: tuple[str, ...]
    """The catalogue's trainings of this network."""
    tables: tuple[int | str, ...]
    """The paper's tables that report it; none for a network that only explains a number."""
    model: dict[str, Any] = field(repr=False)
    """MMEngine config of the detector."""
    paper_params_m: float | None = None
    paper_gops: float | None = None
    text_gops: float | None = None
    """The number in the paper's text, where the table's contradicts it."""
    text_place: str = ""
    """Where the text says it, e.g. ``sec. 4.7``."""

    def build(self) -> nn.Module:
        """Return the detector on the ``meta`` device, in evaluation mode; no weights are drawn or read."""
        with torch.device("meta"), DefaultScope.overwrite_default_scope("mmdet"):
            return MODELS.build(copy.deepcopy(self.model)).eval()


def networks() -> list[Network]:
    """Return the distinct networks that the paper's tables count, in the order in which they appear there.

    At inference DATE is its head without the one-to-many branch, OneNet's network.
    """
    catalogue = load()
    found: dict[str, Network] = {}
    for table in catalogue.tables.values():
        for row, metric, phase in counted_columns(table):
            assert row.network is not None
            training = catalogue.training(row.network)
            model = paper_model(training)
            network = training.network
            if phase == "infer":
                model = network.deployed(model)
            key = json.dumps(model, sort_keys=True)
            known = found.get(key) or Network(
                label=", ".join(filter(None, [load_paper().label(row.label), network.label])),
                phase=phase if network.only_trained else "both",
                trainings=(),
                tables=(),
                model=model,
            )
            numbers = {"params": "paper_params_m", "gflops": "paper_gops"}
            stated = row.paper.get(metric)
            paper = {} if stated is None else {numbers[metric.split("_")[0]]: stated}
            said = None if stated is None else _text_number(catalogue, row, metric)
            if said is not None and said.printed is not None:
                paper["text_gops"] = float(said.printed)
                known = replace(known, text_place=said.place[:1].lower() + said.place[1:])
            found[key] = replace(
                known,
                trainings=tuple(dict.fromkeys([*known.trainings, training.name])),
                tables=tuple(dict.fromkeys([*known.tables, table.number if table.number is not None else table.name])),
                **paper,  # type: ignore[arg-type]
            )
    return list(found.values())


def counted_columns(table: Table) -> Iterator[tuple[TableRow, str, Literal["train", "infer"]]]:
    """Yield row, column and phase of each number of a table that is a network's and no checkpoint's."""
    for row in table.rows:
        for name in table.metrics:
            if METRICS[name].kind == "complexity" and row.network is not None:
                yield row, name, METRICS[name].phase or row.phase


def _text_number(catalogue: Catalogue, row: TableRow, metric: str) -> Statement | None:
    """Return where the paper's text gives operations for a cell that differ from the cell's."""
    for statement in catalogue.statements.values():
        if metric.startswith("gflops") and statement.printed and statement.quantity == f"[{row.id} {metric}]":
            return statement if float(statement.printed) != row.paper[metric] else None
    return None


def alternatives() -> list[Network]:
    """Return networks that the paper does not report, but that a reader could take for one of its own."""
    return [
        Network(entry.label, "both", (), (), paper_model(load().training(entry.training), **entry.changes))
        for entry in load_paper().alternatives
    ]


def paper_model(training: Training, **changes: Any) -> dict[str, Any]:
    """Return the config of a training's detector at the paper's size, with keys merged into it."""
    import_modules(training.modules)
    model: dict[str, Any] = resolve(training, load_tier(load_paper().reference_tier), seed=0, root=None)["model"]
    merge(model, changes)
    return model


@dataclass(frozen=True)
class Row:
    """A network and its counts."""

    network: Network
    complexity: Complexity

    @property
    def printed(self) -> tuple[float, float]:
        """Trainable parameters in M and operations in G at the paper's digits; see `Metric.printed`."""
        counts = self.complexity
        return METRICS["params"].printed(counts.params_m), METRICS["gflops"].printed(counts.gflops)

    @property
    def reproduced(self) -> bool:
        """Whether the paper's numbers come out, the text's where the table's contradicts it."""
        return self.printed == (self.network.paper_params_m, self.network.text_gops or self.network.paper_gops)


def complexity_table() -> list[Row]:
    """Count `networks` and, after them, `alternatives`."""
    return [Row(network, measure(network.build())) for network in [*networks(), *alternatives()]]


HEADER = ("network", "phase", "tables", "params M", "all params M", "GMACs", "G", "paper params M", "paper G")
COMPONENT_HEADER = ("component", "of", "params M", "all params M", "GMACs", "G")


def to_text(rows: Sequence[Row], markdown: bool = False) -> str:
    """Render the table, the convention, the table of components and the notes as aligned plain text or Markdown."""
    cells = [
        (
            row.network.label,
            {"both": "train, infer"}.get(row.network.phase, row.network.phase),
            ", ".join(map(str, row.network.tables)) or "-",
            *_numbers(row.complexity, 2),
            "-" if row.network.paper_params_m is None else f"{row.network.paper_params_m:.1f}",
            "-" if row.network.paper_gops is None else f"{row.network.paper_gops:.0f}",
        )
        for row in rows
    ]
    parts = [(name, of, *_numbers(counts, 4)) for name, of, counts in distinct_components(rows)]
    blocks = [
        _aligned(HEADER, cells, markdown),
        CONVENTION if markdown else textwrap.fill(CONVENTION, 120),
        _aligned(COMPONENT_HEADER, parts, markdown),
        "\n".join(f"- {note}" for note in notes(rows)),
    ]
    return "\n\n".join(blocks) + "\n"


def distinct_components(rows: Sequence[Row]) -> list[tuple[str, str, Counts]]:
    """Return each different (component, counts) with the labels of the networks that have it."""
    found: dict[tuple[str, Counts], dict[str, None]] = {}
    for row in rows:
        for name, counts in row.complexity.components.items():
            found.setdefault((name, counts), {})[row.network.label] = None
    labels = dict.fromkeys(row.network.label for row in rows)
    return [
        (name, "all" if len(having) == len(labels) else "; ".join(having), counts)
        for (name, counts), having in sorted(found.items(), key=lambda item: _place(item[0][0]))
    ]


_COMPONENTS = ("backbone", "neck", "towers", "o2m towers", "scales", "predictors", "o2o predictors", "o2m predictors")


def _place(name: str) -> int:
    """Return a component's place in the table; those that only some networks have come last."""
    return _COMPONENTS.index(name) if name in _COMPONENTS else len(_COMPONENTS)


def notes(rows: Sequence[Row]) -> list[str]:
    """Return sentences on the last digits and on the networks that the paper does not report."""
    reported = [row for row in rows if row.network.tables]
    sentences = [
        "Rounded to two decimals, as the tool prints them, and then half up to the paper's digits, "
        f"{sum(row.reproduced for row in reported)} of {len(reported)} networks have the numbers of the paper (of its "
        "text, where a table contradicts it)."
    ]
    twice_rounded: dict[float, dict[str, None]] = {}
    for row in rows:
        network, gops, printed = row.network, row.complexity.operations / 1e9, row.printed[1]
        if network.text_gops is not None:
            sentences.append(
                f"{network.label}: Table {network.tables[-1]} prints {network.paper_gops:.0f} G and the text "
                f"({network.text_place}) {network.text_gops:.0f} G; the network has {gops:.2f} G."
            )
        if not network.tables:
            sentences.append(f"{network.label}: {gops:.3f} G would be {printed:.0f} in the paper.")
        if round(gops) != printed:
            twice_rounded.setdefault(gops, {})[network.label] = None
    sentences += [
        f"{'; '.join(labels)}: {gops:.3f} G are {gops:.2f} in the tool's output, hence rounded up."
        for gops, labels in twice_rounded.items()
    ]
    return sentences


def to_json(rows: Sequence[Row]) -> str:
    """Render everything as one JSON object, counts as integers; for programs."""
    entries = []
    for row in rows:
        network = {k: v for k, v in vars(row.network).items() if k not in ("model", "text_place")}
        reproduced = row.reproduced if row.network.tables else None
        counts = asdict(row.complexity) | {"params_m": row.complexity.params_m, "gflops": row.complexity.gflops}
        entries.append(network | counts | {"reproduced": reproduced})
    return json.dumps({"input_shape": INPUT_SHAPE, "convention": CONVENTION, "networks": entries}, indent=1)


def _numbers(counts: Counts, digits: int) -> list[str]:
    scaled = (counts.trainable_params / 1e6, counts.params / 1e6, counts.macs / 1e9, counts.operations / 1e9)
    return [f"{value:.{digits}f}" for value in scaled]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Lay out a table; columns of numbers are flush right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    right = [title.endswith((" M", "GMACs", "G")) for title in header]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * (w - 1) + ":" if r and markdown else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join(map(line, [header, rule, *rows]))
