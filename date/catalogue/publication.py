"""The paper itself: ``paper.yaml`` states everything that the engine has to know about it."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from date.experiments.entries import Entry, parse, read_yaml, shown
from date.experiments.folders import PAPER, folders


class Part(Entry):
    """A part that datasets play in the paper."""

    steps_per_epoch: Annotated[int, Field(ge=1)]
    """Of the paper's own dataset and batch size."""
    objects_per_image: Annotated[int, Field(ge=1)]
    """Mean of the paper's own dataset, for timing without data."""


class Recipe(Entry):
    """Constants of the paper's trainings, which tiers scale."""

    lr: Annotated[float, Field(gt=0)]
    """Learning rate of AdamW; a tier multiplies every recipe's by its own over this."""
    batch_size: Annotated[int, Field(ge=1)]
    evaluations_by_iteration: Annotated[int, Field(ge=1)]
    """Evaluations during a schedule given in iterations."""
    channels_per_group: Annotated[int, Field(ge=1)]
    """Of GroupNorm."""
    precision: str
    """As the paper is read, where it does not state one."""


class Headline(Entry):
    """The figure at the top of the report: AP during a table's trainings of one schedule."""

    table: str
    schedule: str
    title: str
    caption: str


class Released(Entry):
    """The machine on which the released configurations were run."""

    gpus: Annotated[int, Field(ge=1)]


class Probe(Entry):
    """The network that ``doctor`` builds to see that the stack works."""

    training: str
    tier: str


class Defaults(Entry):
    """The data and backbone of trainings that name none."""

    data: str
    backbone: str


class Alternative(Entry):
    """A network that the paper does not report, but that a reader could take for one of its own; it is counted, too."""

    label: str
    training: str
    """Whose network is changed."""
    changes: dict[str, Any]
    """What is merged into its model's config."""


class Look(Entry):
    """The colour and marker of some networks in every figure."""

    trainings: str
    """A name or pattern; the first look that a training matches counts."""
    colour: Literal["sky", "blue", "pink", "orange", "vermilion", "green", "brown"]
    marker: Literal["o", "s", "D", "v", "^", "P", "X"]
    hollow: bool = False
    """Hollow markers and a dashed line, for another start of the same network."""


class Paper(Entry):
    """``paper.yaml``: the paper that a folder of experiments reproduces."""

    title: str
    short: str
    """What reports call it."""
    authors: Annotated[list[str], Field(min_length=1)]
    arxiv: Annotated[str, Field(pattern=r"^\d{4}\.\d{4,5}$")] | None = None
    """Its number at arXiv."""
    reference_tier: str
    """The tier that is the paper's own size."""
    training_ids: str
    """A regular expression for the ids of the paper's trainings."""
    defaults: Defaults
    parts: Annotated[dict[str, Part], Field(min_length=1)]
    """The parts that datasets play, by name."""
    recipe: Recipe
    noise: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)
    """By part and column, how much two runs of one configuration differ; read as two standard deviations of a run."""
    noise_sources: str = ""
    """Where that is stated, as a sentence."""
    bounds: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)
    """By part and column without stated noise: half the width of the widest interval that can reproduce a number."""
    bound_sources: str = ""
    """Where those come from, as a sentence."""
    headline: Headline | None = None
    looks: list[Look] = Field(default_factory=list)
    """How networks look in figures; those without get what is left, in the catalogue's order."""
    released: Released | None = None
    """Where configurations were released."""
    stack: str = "not stated"
    """The libraries that the paper names."""
    setting_labels: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Symbol and index of the descriptive columns that are not set as they are written."""
    own_suffix: str = ""
    """What marks the paper's own networks in its tables; other labels go without."""
    tuned_on: list[str] = Field(default_factory=list)
    """The networks on which tiers may tune settings, as tables call them: never the paper's own."""
    probe: Probe
    alternatives: list[Alternative] = Field(default_factory=list)
    latency: list[str] = Field(default_factory=list)
    """Evaluations whose networks `date latency` measures, in one run."""
    gpu_hours_basis: str
    """What ``gpu_hours`` of the trainings rest on."""
    parameters: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Of the networks by backbone: what disk space is estimated from before any run is there."""

    @field_validator("training_ids")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return value

    def stated_noise(self, part: str, metric: str) -> float | None:
        """Return how much two runs are stated to differ in a column, or None."""
        return self.noise.get(part, {}).get(metric)

    def bound(self, part: str, metric: str) -> float | None:
        """Return half the width of the widest interval that can reproduce a number of a column, or None."""
        return self.bounds.get(part, {}).get(metric)

    def stated_sd(self, part: str, metric: str) -> float | None:
        """Return the stated noise as a standard deviation of a run, or None."""
        noise = self.stated_noise(part, metric)
        return None if noise is None else noise / 2

    def label(self, label: str) -> str:
        """Return a row's label without what marks the paper's own networks."""
        return label.removesuffix(self.own_suffix)


def load_paper() -> Paper:
    """Read ``paper.yaml`` of the paper's folder.

    Raises:
        UserError: an unknown or missing key, or a value that does not fit.
    """
    return read_paper(folders()[0])


@functools.cache
def read_paper(folder: Path) -> Paper:
    """Read ``paper.yaml`` of a folder; see `load_paper`."""
    path = folder / PAPER
    return parse(Paper, read_yaml(path), shown(path))
