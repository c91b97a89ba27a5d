"""What the paper prints, as data: tables, figures and the quantities in its text, with where each number comes from."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from date.catalogue.pictures import View, trainings_in
from date.experiments.entries import Entry


@dataclass(frozen=True)
class Metric:
    """A column of numbers."""

    label: str
    index: str = ""
    """What is set as a subscript of the label."""
    better: Literal["higher", "lower"] | None = "higher"
    """Which numbers are the better ones; None where the paper marks none."""
    digits: int = 1
    """Decimals that the paper prints."""
    kind: Literal["score", "complexity"] = "score"
    """A score of a checkpoint, or a figure of the network alone, exact and the same at every tier."""
    phase: Literal["train", "infer"] | None = None
    """Of a network's figure: the network as trained or as used; None: the row says which."""

    @property
    def name(self) -> str:
        """Label and index as plain text, e.g. ``AP50``."""
        return f"{self.label}{self.index}" if self.kind == "score" else " ".join(filter(None, (self.label, self.index)))

    def printed(self, value: float) -> float:
        """Return a number at the paper's digits.

        Figures of a network are rounded twice, as the paper's are: to two decimals, as MMDetection 2's tool prints
        them, and then half up. This matters once: OneNet's 200.497 G, which the tool shows as 200.50, are
        201 in the paper.
        """
        if self.kind == "score":
            return float(f"{value:.{self.digits}f}")
        tool = Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
        return float(tool.quantize(Decimal(1).scaleb(-self.digits), ROUND_HALF_UP))


def _figures(key: str, label: str, digits: int) -> dict[str, Metric]:
    """Return a figure of a network: of the row's phase, and of each phase where the table has both as columns."""
    common = {"better": None, "digits": digits, "kind": "complexity"}
    return {
        key: Metric(label, **common),  # type: ignore[arg-type]
        f"{key}_train": Metric(label, "train", phase="train", **common),  # type: ignore[arg-type]
        f"{key}_infer": Metric(label, "infer", phase="infer", **common),  # type: ignore[arg-type]
    }


METRICS: dict[str, Metric] = {
    "AP": Metric("AP"),
    "AP50": Metric("AP", "50"),
    "AP75": Metric("AP", "75"),
    "APs": Metric("AP", "s"),
    "APm": Metric("AP", "m"),
    "APl": Metric("AP", "l"),
    "mMR": Metric("mMR", better="lower"),
    "Recall": Metric("Recall"),
    **_figures("params", "Params (M)", 1),
    **_figures("gflops", "GFLOPs", 0),
}
"""The columns of numbers of the paper's tables, by the name that the YAML files use."""


def own_mark(folder: str | None) -> str:
    """Return the remark on what is from a folder of own experiments; nothing for what is the paper's."""
    return "" if folder is None else f"Own experiments of {folder}, not of the paper."


class AnnotationEvaluation(Entry):
    """An evaluation that needs no checkpoint: NMS on the annotations, the recall that it leaves to any detector."""

    name: str
    data: str
    """Whose validation annotations."""
    iou: Annotated[float, Field(gt=0, lt=1)]
    """Threshold of the NMS."""
    also: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=list)
    """Further thresholds that are computed beside it."""
    source: Literal["official", "inferred"]
    why: str

    @property
    def thresholds(self) -> list[float]:
        """All thresholds, ascending."""
        return sorted({self.iou, *self.also})


class Bracket(Entry):
    """The numbers that a row shows in brackets behind its own."""

    difference_from: str | None = None
    """The row of the same table that is subtracted from this one."""
    evaluation: str | None = None
    """A second evaluation of the same network."""
    paper: dict[str, float]
    """The paper's numbers by column."""

    @model_validator(mode="after")
    def _one(self) -> Bracket:
        if (self.difference_from is None) == (self.evaluation is None):
            raise ValueError("brackets hold either a 'difference_from' a row or a second 'evaluation'")
        return self


class Row(Entry):
    """A line of one of the paper's tables; at least one of its three sources is named."""

    id: str
    """The table's name and a number; rows of own tables get theirs."""
    label: str
    evaluation: str | None = None
    """Whose scores these are."""
    network: str | None = None
    """The training whose network is counted."""
    phase: Literal["train", "infer"] = "infer"
    """Whether the network is counted as trained or as used, where a column does not say."""
    annotations: str | None = None
    """The evaluation of annotations that the row shows."""
    setting: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Columns that describe the row, e.g. epoch and NMS."""
    default: bool = False
    """Whether the table marks the row; see ``mark_defaults``."""
    paper: dict[str, float] = Field(default_factory=dict)
    """The paper's numbers by column; in an own table the paper's evaluations have those of the paper's tables."""
    bracket: Bracket | None = None

    @model_validator(mode="after")
    def _source(self) -> Row:
        if not (self.evaluation or self.network or self.annotations):
            raise ValueError("a row needs a source: 'evaluation', 'network' or 'annotations'")
        return self

    @property
    def evaluations(self) -> list[str]:
        """The evaluations of checkpoints that the row needs."""
        second = self.bracket.evaluation if self.bracket else None
        return [name for name in (self.evaluation, second) if name]


class Table(Entry):
    """One of the paper's tables, or one of own experiments."""

    name: str
    """That of its file, e.g. ``table01``."""
    folder: str | None = None
    """The folder of own experiments that it is from."""
    number: int | None = None
    """In the paper."""
    title: str
    caption: str = ""
    row_header: str = "Model"
    settings: list[str] = Field(default_factory=list)
    """Descriptive columns, in the paper's order."""
    metrics: list[str]
    """Columns of numbers, in the paper's order."""
    near_best: float | None = None
    """Underlines the APs that are below their group's best by this much or less."""
    mark_defaults: str | None = None
    """What the rows with ``default: true`` have in common, for a note that names them."""
    groups: list[list[Row]]
    """Rows between the paper's rules; the best number of each column is bold within its group."""

    @property
    def short(self) -> str:
        """The name of the table in texts, e.g. ``Table 1``; of an own table its own name."""
        return f"Table {self.number}" if self.number is not None else f"table {self.name}"

    @property
    def heading(self) -> str:
        """Number and title."""
        return self.title if self.number is None else f"Table {self.number}. {self.title}"

    @property
    def rows(self) -> list[Row]:
        """All rows in order."""
        return [row for group in self.groups for row in group]

    @property
    def evaluations(self) -> list[str]:
        """The evaluations of checkpoints that the table needs, each once."""
        return list(dict.fromkeys(name for row in self.rows for name in row.evaluations))

    @property
    def networks(self) -> list[tuple[str, Literal["train", "infer"]]]:
        """The networks that the table counts: training and phase, each once."""
        columns = [METRICS[name] for name in self.metrics if METRICS[name].kind == "complexity"]
        pairs = [(row.network, m.phase or row.phase) for row in self.rows if row.network for m in columns]
        return list(dict.fromkeys(pairs))


class Panel(Entry):
    """One pair of axes of a figure."""

    metric: str
    """A key of the records of ``metrics.jsonl``: ``AP`` after each epoch, or a loss such as ``o2o.loss_cls``."""
    label: str


class Curve(Entry):
    """A line of a figure."""

    label: str
    training: str
    end: float | None = None
    """The number that the paper gives for the end of the curve, where it does."""
    place: str = ""
    """Where the paper gives it."""


class WeightGrid(Entry):
    """Trainings that differ in the weights of their two branches alone."""

    label: str
    trainings: Annotated[list[str], Field(min_length=1)]


class TradeOff(Entry):
    """How the weights of the losses trade one branch's AP for the other's, on the same checkpoints."""

    across: str
    """The variant whose AP is on the horizontal axis."""
    up: str
    """The other one's."""
    across_label: str
    up_label: str
    setting: str
    """What names a point: a format of the options of its training, e.g. ``{lambda_o2o:g}/{lambda_o2m:g}``."""
    setting_label: str
    """What that is called."""
    grids: Annotated[list[WeightGrid], Field(min_length=1)]

    @property
    def trainings(self) -> list[str]:
        """The trainings of all grids."""
        return [name for grid in self.grids for name in grid.trainings]

    @property
    def evaluations(self) -> list[str]:
        """The evaluations of the trainings."""
        return [f"{name}/{variant}" for name in self.trainings for variant in (self.across, self.up)]


class Figure(Entry):
    """One of the paper's figures: curves, what our trainings show of an illustration, or images and what networks see.

    It has either ``panels`` and ``curves``, or a ``trade_off``, or ``views``.
    """

    name: str
    """That of its file, e.g. ``figure3``."""
    folder: str | None = None
    """The folder of own experiments that it is from."""
    number: int | None = None
    """In the paper."""
    title: str
    caption: str = ""
    panels: list[Panel] = Field(default_factory=list)
    curves: list[Curve] = Field(default_factory=list)
    trade_off: TradeOff | None = None
    views: list[View] = Field(default_factory=list)
    """What is drawn on one of the chosen validation images; see `pictures.yaml`."""

    @property
    def short(self) -> str:
        """The name of the figure in texts, e.g. ``Figure 3``; of an own figure its own name."""
        return f"Figure {self.number}" if self.number is not None else f"figure {self.name}"

    @property
    def heading(self) -> str:
        """Number and title."""
        return self.title if self.number is None else f"Figure {self.number}. {self.title}"

    @property
    def marked_caption(self) -> str:
        """The caption; of own experiments with the remark that they are."""
        return " ".join(filter(None, [self.caption, own_mark(self.folder)]))

    @property
    def trainings(self) -> list[str]:
        """The trainings whose records, evaluations or pictures the figure needs."""
        return list(dict.fromkeys([*(curve.training for curve in self.curves), *self.judged]))

    @property
    def judged(self) -> list[str]:
        """The trainings that have to be evaluated for the figure."""
        return self.trade_off.trainings if self.trade_off else trainings_in(self.views)

    @model_validator(mode="after")
    def _either(self) -> Figure:
        kinds = bool(self.curves) + bool(self.trade_off) + bool(self.views)
        if kinds != 1 or bool(self.panels) != bool(self.curves):
            raise ValueError("a figure has either 'panels' and 'curves', or a 'trade_off', or 'views'")
        return self


class Statement(Entry):
    """A quantity or a comparison in the paper's text, to be recomputed from its tables and from the networks."""

    name: str
    place: str
    quote: str
    """The words of the paper that say it."""
    printed: Annotated[str, Field(pattern=r"^[+-]?\d+(\.\d+)?$")] | None = None
    """The number as printed, a string so that its digits count."""
    quantity: str | None = None
    """What the number is: an expression; see `date.paperlint.expressions`."""
    holds: list[str] = Field(default_factory=list)
    """In place of a quantity: comparisons that the sentence implies, e.g. ``[table07.2 AP] > [table07.1 AP]``."""
    says: dict[str, str] = Field(default_factory=dict)
    """In place of a quantity: what the sentence says of things that must be the same wherever they are said."""
    cites: str | None = None
    """The table that the sentence names as its source."""
    instead: dict[str, str] = Field(default_factory=dict)
    """What a number that does not agree may be instead: words and expression."""
    reading: str = ""
    """How the sentence is read, where that is not plain."""

    @model_validator(mode="after")
    def _either(self) -> Statement:
        if (self.printed is None) != (self.quantity is None):
            raise ValueError("'printed' and 'quantity' belong together")
        if sum(map(bool, (self.quantity, self.holds, self.says))) != 1:
            raise ValueError("a statement has either 'printed' and 'quantity', or 'holds', or 'says'")
        return self
