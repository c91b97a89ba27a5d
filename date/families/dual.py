"""Detectors with the dual-assignment head: a one-to-one branch, and a one-to-many branch beside it or none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from date.errors import UserError, unknown_name
from date.experiments.entries import Entry
from date.experiments.variables import ModelVariables
from date.families.base import Branch, BranchView, Facts, Family
from date.families.dense import anchor_centers
from date.families.sizes import size_dense_detector

if TYPE_CHECKING:
    from torch import Tensor

    from date.models.branches import Branch as BuiltBranch
    from date.models.branches import BranchOutput

BRANCHES = ("o2o", "o2m")
"""In the head's order."""


class DualOptions(Entry):
    """The options of a training with the dual-assignment head."""

    quality: str
    """One-to-one matching: one of the model's ``qualities``."""
    o2m: str | None = None
    """Style of the one-to-many branch: one of the model's ``o2m``, or none."""
    max_filter: bool = False
    """3D max filtering in the one-to-one branch."""
    share_towers: bool = True
    """False gives each branch towers of its own."""
    lambda_o2o: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the one-to-one branch's losses."""
    lambda_o2m: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the one-to-many branch's losses."""


class DualVariables(ModelVariables):
    """The variables of a model whose branches trainings choose."""

    needed = ("qualities", "o2m", "o2o")

    qualities: dict[str, Any] | None = None
    o2m: dict[str, Any] | None = None
    o2o: dict[str, Any] | None = None
    max_filter: dict[str, Any] | None = None
    test_cfg_by_part: dict[str, Any] | None = None
    test_cfg_beside: dict[str, Any] | None = None


class _DualHead(Family):
    """The base of all networks with the dual-assignment head."""

    @classmethod
    def serves(cls, head: Any) -> bool:
        """See `Family`."""
        from date.models.head import DualAssignmentHead

        return isinstance(head, DualAssignmentHead)

    @classmethod
    def component(cls, part: str, *rest: str) -> str | None:
        """See `Family`."""
        if part in ("branch_cls_convs", "branch_reg_convs"):
            return "o2m towers"
        return f"{BRANCHES[int(rest[0])]} predictors" if part == "predictors" else None

    @classmethod
    def test_cfg(cls, head: Any, branch: str) -> Mapping[str, Any]:
        """See `Family`."""
        return head.branch(BRANCHES.index(branch)).test_cfg

    @classmethod
    def candidates(
        cls,
        model: Any,
        inputs: Tensor,
        samples: Sequence[Any],
        wanted: Iterable[tuple[str, float]],
        look: Callable[[str, Any], None],
    ) -> dict[tuple[str, float], Sequence[Any]]:
        """See `Family`."""
        head, asked = model.bbox_head, list(wanted)
        shapes = [tuple(sample.metainfo["img_shape"][:2]) for sample in samples]
        outputs = head(model.extract_feat(inputs), sorted({BRANCHES.index(branch) for branch, _ in asked}))
        for index, output in outputs.items():
            look(BRANCHES[index], output)
        return {
            (name, threshold): head.branch(index).candidates(outputs[index], shapes, threshold)
            for name, threshold in asked
            for index in [BRANCHES.index(name)]
        }

    @classmethod
    def views(cls, head: Any, feats: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, BranchView]:
        """See `Family`."""
        shapes = [tuple(sample.img_shape[:2]) for sample in samples]

        def view(branch: BuiltBranch, output: BranchOutput) -> BranchView:
            def shown(image: int, sample: Any) -> tuple[Tensor, Tensor, Tensor]:
                return positives(branch, of_image(output, image), sample)

            return BranchView(branch.candidates(output, shapes), branch.test_cfg, shown)

        return {head.branch_name(i): view(head.branch(i), output) for i, output in head(feats).items()}


class OneBranch(_DualHead):
    """The dual-assignment head with its one-to-one branch alone, all of which the model states: DeFCN."""

    name = "one_to_one"

    @property
    def branches(self) -> dict[str, Branch]:
        """The one-to-one branch."""
        return {BRANCHES[0]: Branch(one_to_one=True)}

    def complete(self, model: dict[str, Any], facts: Facts) -> None:
        """See `Family`."""
        size_dense_detector(model, facts)


class DualAssignment(_DualHead):
    """The dual-assignment head whose branches a training chooses from those of the model.

    The model has, beside ``model``: ``qualities`` and ``o2m``, from which the options choose, ``o2o``, ``max_filter``,
    and the one-to-one branch's ``test_cfg_by_part`` and ``test_cfg_beside`` where it differs.
    """

    name = "dual"
    Options = DualOptions
    Variables = DualVariables
    options: DualOptions

    def check(self) -> None:
        """See `Family`."""
        for kind, name, valid in (
            ("quality", self.options.quality, self.fragment["qualities"]),
            ("o2m", self.options.o2m, self.fragment["o2m"]),
        ):
            if name is not None and name not in valid:
                raise unknown_name(kind, name, valid)
        if not self.options.share_towers and self.options.o2m is None:
            raise UserError("'share_towers: false' needs a second branch; name it by 'o2m'.")

    @property
    def branches(self) -> dict[str, Branch]:
        """The one or two branches."""
        found = {BRANCHES[0]: Branch(one_to_one=True)}
        return found if self.options.o2m is None else found | {BRANCHES[1]: Branch(one_to_one=False)}

    @property
    def cost(self) -> tuple[Any, ...]:
        """See `Family`."""
        return self.options.o2m, self.options.max_filter, self.options.share_towers

    @property
    def label(self) -> str:
        """See `Family`."""
        return "" if self.options.share_towers else "own towers"

    def complete(self, model: dict[str, Any], facts: Facts) -> None:
        """See `Family`."""
        head, fragment = model["bbox_head"], copy.deepcopy(self.fragment)
        o2o = fragment["o2o"] | dict(
            quality=fragment["qualities"][self.options.quality], loss_weight=self.options.lambda_o2o
        )
        if self.options.max_filter:
            o2o["max_filter"] = fragment["max_filter"]
        beside = fragment.get("test_cfg_beside", {}).get(self.options.o2m, o2o["test_cfg"])
        o2o["test_cfg"] = fragment.get("test_cfg_by_part", {}).get(facts.part, beside)
        head["branches"] = [o2o]
        if self.options.o2m is not None:
            head["branches"].append(fragment["o2m"][self.options.o2m] | dict(loss_weight=self.options.lambda_o2m))
        head["share_towers"] = self.options.share_towers
        size_dense_detector(model, facts)

    def deployed(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return the detector with its first branch only."""
        model = copy.deepcopy(model)
        del model["bbox_head"]["branches"][1:]
        return model

    @property
    def only_trained(self) -> bool:
        """See `Family`."""
        return self.options.o2m is not None

    def has_anchors(self, branch: str) -> bool:
        """See `Family`."""
        return branch == BRANCHES[1] and "anchor_generator" in self.fragment["o2m"][self.options.o2m]


def of_image(output: BranchOutput, image: int) -> BranchOutput:
    """Return a branch's output for one image of the batch."""
    extra = None if output.extra is None else output.extra[image : image + 1]
    return replace(output, cls=output.cls[image : image + 1], reg=output.reg[image : image + 1], extra=extra)


def positives(branch: BuiltBranch, output: BranchOutput, sample: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return which points a branch's loss calls positive on an image, by the branch's own assignment.

    A branch that is not of `date.models` may say so itself by a method ``positives(output, objects)``.

    Args:
        branch: of the dual-assignment head.
        output: of the branch, for this image alone.
        sample: MMDetection's, with ``gt_instances`` in pixels of the network's input.

    Returns:
        Centres (K, 2) in pixels of the network's input, strides (K,) and indices of the objects (K,). An anchor is
        where its centre is.
    """
    import torch

    from date.models.branches import OneToOneBranch
    from date.models.objects import objects_of
    from date.models.one_to_many import FCOSBranch, RetinaBranch

    objects = objects_of([sample])
    if (own := getattr(branch, "positives", None)) is not None:
        return own(output, objects)
    if isinstance(branch, RetinaBranch):
        anchors = branch.anchors(output)
        (index,) = branch.assign(output, objects)
        chosen = ((index >= 0) & (index < len(objects.labels))).nonzero(as_tuple=True)[0]
        strides = torch.cat(
            [anchors.new_full((n,), s) for n, s in zip(output.level_sizes, branch.strides, strict=True)]
        )
        return anchor_centers(anchors[chosen]), strides[chosen], index[chosen]
    points = branch.points(output)
    if isinstance(branch, OneToOneBranch):
        (matched,) = branch.match(output, objects)
        index = (matched >= 0).nonzero(as_tuple=True)[0]
        return points.centers[matched[index]], points.strides[matched[index]], index
    if not isinstance(branch, FCOSBranch):
        return points.centers[:0], points.strides[:0], points.strides[:0].long()
    (index,) = branch.assign(output, objects)
    chosen = (index < len(objects.labels)).nonzero(as_tuple=True)[0]
    return points.centers[chosen], points.strides[chosen], index[chosen]
