"""Figures that show images: which validation images are chosen, and what of which network is drawn on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from date.experiments.entries import Entry

Score = Annotated[float, Field(gt=0, lt=1)]


class View(Entry):
    """The boxes or points that one panel draws on an image."""

    label: str
    shows: Literal["objects", "positives", "before_nms", "after_nms"]
    """The annotated objects; the points that a branch's loss calls positive; or a branch's boxes."""
    training: str | None = None
    branch: str | None = None
    """As the network's family names it."""
    score: Score | None = None
    """Boxes from this score on are drawn."""

    @model_validator(mode="after")
    def _fitting(self) -> View:
        if (self.shows == "objects") == (self.training is not None) or (self.training is None) != (self.branch is None):
            raise ValueError("a view of 'objects' has no 'training' and no 'branch', every other has both")
        if (self.shows in ("before_nms", "after_nms")) != (self.score is not None):
            raise ValueError("views of boxes have a 'score', others have none")
        return self


class Choice(Entry):
    """The rule that chooses validation images."""

    images: Annotated[int, Field(ge=1, le=8)]
    """How many."""
    objects: tuple[Annotated[int, Field(ge=1)], int]
    """Least and largest number of objects of an image, ignored ones not counted."""
    prefer: Literal["first", "overlapping"] = "first"
    """The first in the annotations' order, or those with the most pairs of objects of a class that overlap."""

    @model_validator(mode="after")
    def _ordered(self) -> Choice:
        if self.objects[1] < self.objects[0]:
            raise ValueError("'objects' has the least number before the largest")
        return self


class Sheet(Entry):
    """A figure of ours: some images, one below the other, with the same views of each."""

    name: str
    folder: str | None = None
    """The folder of own experiments that it is from."""
    title: str
    caption: str
    views: Annotated[list[View], Field(min_length=1, max_length=3)]

    @property
    def trainings(self) -> list[str]:
        """The trainings whose pictures it needs."""
        return trainings_in(self.views)

    @property
    def judged(self) -> list[str]:
        """The trainings that have to be evaluated for it: all."""
        return self.trainings


class Pictures(Entry):
    """``pictures.yaml``: the validation images of which evaluations record pictures, and the figures made of them."""

    choices: dict[str, Choice]
    """By the part that the dataset plays."""
    floor: Score
    """Boxes from this score on are recorded; no view draws lower ones."""
    nms: Annotated[float, Field(gt=0, lt=1)]
    """IoU of the class-wise NMS of views after it."""
    sheets: dict[str, Sheet]


def trainings_in(views: list[View]) -> list[str]:
    """Return the trainings of some views, each once."""
    return list(dict.fromkeys(view.training for view in views if view.training is not None))
