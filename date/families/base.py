"""The interface of a family of networks to the rest of the engine."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from date.experiments.entries import Entry
from date.experiments.fragments import merge
from date.experiments.variables import ModelVariables, fault

if TYPE_CHECKING:
    from torch import Tensor


class Facts(NamedTuple):
    """The facts about a network that its training and tier decide."""

    classes: int
    part: str
    """That the dataset plays."""
    channels: int
    """Of neck and towers."""
    levels: int
    """Of the feature pyramid."""
    object_scale: float
    """Of regression ranges and anchors."""
    groups: int
    """Of every GroupNorm of the head."""
    steps: int
    """Of the training."""
    batch_size: int


class NoOptions(Entry):
    """The options of a family whose trainings have nothing to choose."""


@dataclass(frozen=True)
class Branch:
    """A branch by which checkpoints can be evaluated."""

    one_to_one: bool
    """Whether an object has one point, so that there are no duplicates to be suppressed."""


class BranchView(NamedTuple):
    """A branch's view of a batch, for pictures."""

    candidates: Sequence[Any]
    """Per image boxes, scores and labels in pixels of the network's input."""
    test_cfg: Mapping[str, Any]
    """How the branch selects by itself."""
    positives: Callable[[int, Any], tuple[Tensor, Tensor, Tensor]] | None
    """Centres, strides and objects of the points that its loss calls positive, of an image of the batch by its index
    and sample; None where the family can't tell."""


class Family(ABC):
    """A family of networks, and one of its networks.

    Args:
        fragment: the variables of the network's model, see `date.experiments.fragments`.
        options: the training's, of `Options`.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Entry]] = NoOptions
    Variables: ClassVar[type[ModelVariables]] = ModelVariables
    """Those that its models may have."""
    towers: ClassVar[bool] = True
    """Whether backbone, neck and a pair of towers can start from those of another network."""
    pictured: ClassVar[bool] = True
    """Whether evaluations can record pictures."""

    def __init__(self, fragment: dict[str, Any], options: Entry) -> None:
        self.fragment, self.options = fragment, options

    def check(self) -> None:  # noqa: B027 - most families have nothing to check
        """Raise a `UserError` where the options name what the model does not have."""

    @property
    @abstractmethod
    def branches(self) -> dict[str, Branch]:
        """The branches by which its checkpoints can be evaluated, by name."""

    @property
    def cost(self) -> tuple[Any, ...]:
        """A key for the options that change the cost of a step, beside model, backbone and data."""
        return ()

    @property
    def label(self) -> str:
        """A label that tells its network from others of the same name in a table; may be empty."""
        return ""

    def pretrained(self, backbone: str) -> str:
        """Return which of a tier's pretrained weights a backbone of the network starts from.

        A model's variable ``pretrained`` names others than the backbone's own.
        """
        other = self.fragment.get("pretrained")
        return backbone if other is None else f"{backbone}_{other}"

    def config(self, facts: Facts, detector: dict[str, Any]) -> dict[str, Any]:
        """Return the detector's config.

        Args:
            facts: of training and tier.
            detector: what all detectors of the experiments share; it is changed.
        """
        merge(detector, copy.deepcopy(self.fragment["model"]))
        self.complete(detector, facts)
        if (adapt := self.fragment.get("adapt")) is not None:
            try:
                adapt(detector, facts)
            except Exception as error:  # the code is the user's: it may raise anything
                raise fault(error, Path(adapt.__code__.co_filename)) from error
        return detector

    @abstractmethod
    def complete(self, model: dict[str, Any], facts: Facts) -> None:
        """Fill options, classes and sizes into a detector's config, in place."""

    def deployed(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return the config of the network that is left for inference; the same where training needs no more."""
        return model

    @property
    def only_trained(self) -> bool:
        """Whether training needs parts that inference does not."""
        return False

    def has_anchors(self, branch: str) -> bool:
        """Return whether a branch predicts from anchors, of which several may share a point."""
        return False

    @property
    def shows_positives(self) -> bool:
        """Whether the points that its loss calls positive can be shown."""
        return True

    # ------------------------------------------------------------------------------------- of a network that is built

    @classmethod
    @abstractmethod
    def serves(cls, head: Any) -> bool:
        """Return whether a built head belongs to the family."""

    @classmethod
    def component(cls, part: str, *rest: str) -> str | None:
        """Return the part of the head that a parameter, named below ``bbox_head``, belongs to; None if not known."""
        return None

    @classmethod
    @abstractmethod
    def test_cfg(cls, head: Any, branch: str) -> Mapping[str, Any]:
        """Return how a branch of a built head selects its detections by itself."""

    @classmethod
    @abstractmethod
    def candidates(
        cls,
        model: Any,
        inputs: Tensor,
        samples: Sequence[Any],
        wanted: Iterable[tuple[str, float]],
        look: Callable[[str, Any], None],
    ) -> dict[tuple[str, float], Sequence[Any]]:
        """Run the network once and return candidates per image, with boxes in pixels of its input.

        Args:
            model: the detector.
            inputs: the preprocessed batch.
            samples: MMDetection's, of the batch.
            wanted: branches and the class probabilities that a candidate exceeds.
            look: is shown each branch's output, where the family has outputs by branch.
        """

    @classmethod
    def trace(cls, model: Any, inputs: Tensor) -> None:
        """Run the detector on images (B, 3, H, W) up to its head's raw outputs, to be watched."""
        model(inputs)

    @classmethod
    def views(cls, head: Any, feats: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, BranchView]:
        """Return what each branch makes of a batch, for pictures; see `pictured`."""
        raise NotImplementedError
