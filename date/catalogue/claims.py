"""Comparative sentences of the paper, each with a predicate over results that decides whether it holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from date.experiments.entries import Entry

ScoreMetric = Literal["AP", "AP50", "AP75", "APs", "APm", "APl", "mMR", "Recall"]


class Higher(Entry):
    """Claims that one evaluation scores above another."""

    kind: Literal["higher"]
    above: str
    """The evaluation that is claimed to score higher."""
    below: str
    """The other one, or an evaluation of annotations."""
    metric: ScoreMetric = "AP"
    paper: float | None = None
    """The paper's difference."""

    @property
    def evaluations(self) -> list[str]:
        """The evaluations that the claim needs."""
        return [self.above, self.below]


class Within(Entry):
    """Claims that an evaluation lies within a distance of others."""

    kind: Literal["within"]
    evaluation: str
    of: list[str]
    by: Annotated[float, Field(gt=0)]
    """The distance that counts as none."""
    better_too: bool = False
    """Whether being better by more than the distance is as good: only falling behind contradicts."""
    metric: ScoreMetric = "AP"
    paper: list[float]
    """The paper's differences from each of ``of``."""

    @model_validator(mode="after")
    def _as_many(self) -> Within:
        if len(self.paper) != len(self.of):
            raise ValueError("'paper' needs one difference for each evaluation of 'of'")
        return self

    @property
    def evaluations(self) -> list[str]:
        """The evaluations that the claim needs."""
        return [self.evaluation, *self.of]


class Ordered(Entry):
    """Claims that every evaluation of a group scores above every one of the next group."""

    kind: Literal["ordered"]
    groups: Annotated[list[list[str]], Field(min_length=2)]
    metrics: list[ScoreMetric]

    @property
    def evaluations(self) -> list[str]:
        """The evaluations that the claim needs."""
        return [name for group in self.groups for name in group]


class Gap(Entry):
    """Claims that one difference is larger than another."""

    kind: Literal["gap"]
    wide: tuple[str, str]
    """The two evaluations whose difference is claimed to be the larger one."""
    narrow: tuple[str, str]
    metric: ScoreMetric = "AP"
    paper: float

    @property
    def evaluations(self) -> list[str]:
        """The evaluations that the claim needs."""
        return [*self.wide, *self.narrow]


class Convergence(Entry):
    """Claims that one training learns faster than another, by the AP of the validation images during training."""

    kind: Literal["curve"]
    fast: str
    slow: str
    """Trainings."""
    measure: Literal["area", "reaches"]
    """``area``: mean AP over the iterations that both have; ``reaches``: its AP by a fraction of the other's
    iterations, against the other's final AP."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    paper: float | None = None

    @property
    def trainings(self) -> list[str]:
        """The trainings that the claim needs."""
        return [self.fast, self.slow]


class Loss(Entry):
    """Claims that a training loss is lower in one training than in another, on average over equal iterations."""

    kind: Literal["loss"]
    low: str
    high: str
    """Trainings."""
    loss: str
    """A key of the records, e.g. ``o2o.loss_cls``."""

    @property
    def trainings(self) -> list[str]:
        """The trainings that the claim needs."""
        return [self.low, self.high]


class Complexity(Entry):
    """Claims that a network is at most a number of percent larger or slower than another."""

    kind: Literal["complexity"]
    network: tuple[str, Literal["train", "infer"]]
    than: tuple[str, Literal["train", "infer"]]
    at_most: dict[Literal["params", "gflops"], Annotated[float, Field(ge=0)]]
    """Percent more, of trainable parameters and of operations, from the figures at the paper's digits."""
    time_at_most: Annotated[float, Field(ge=0)] | None = None
    """Percent more time for an image, where latency has been measured; None where the claim is not about time."""

    @property
    def trainings(self) -> list[str]:
        """The trainings whose networks are compared."""
        return [self.network[0], self.than[0]]


Predicate = Annotated[Higher | Within | Ordered | Gap | Convergence | Loss | Complexity, Field(discriminator="kind")]


class Claim(Entry):
    """A comparative sentence of the paper."""

    name: str
    folder: str | None = None
    """The folder of own experiments that it is from."""
    sentence: str
    """In the paper's words; an ellipsis where it is shortened."""
    place: str = ""
    """Where the paper says it; a claim of one's own has none."""
    predicate: Predicate
    reading: str = ""
    """How the sentence is read, where the predicate does not follow from it plainly."""

    @property
    def evaluations(self) -> list[str]:
        """The evaluations that it needs, of checkpoints or of annotations."""
        return self.predicate.evaluations if isinstance(self.predicate, Higher | Within | Ordered | Gap) else []

    @property
    def trainings(self) -> list[str]:
        """The trainings whose records or networks it needs."""
        return self.predicate.trainings if isinstance(self.predicate, Convergence | Loss | Complexity) else []
