"""MMDetection's detectors with queries: DETR and its like, whose transformer lies between neck and head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from date.families.base import Branch, Facts, Family

if TYPE_CHECKING:
    from torch import Tensor

ONLY = "head"
"""Name of the only branch."""


class Queries(Family):
    """A detector of DETR's family; each query gives at most one detection, and no NMS is needed.

    Its model states every size; ``adapt`` takes those that a tier changes from the facts.
    """

    name = "queries"
    towers = False
    pictured = False

    @property
    def branches(self) -> dict[str, Branch]:
        """The head itself."""
        return {ONLY: Branch(one_to_one=True)}

    def complete(self, model: dict[str, Any], facts: Facts) -> None:
        """See `Family`."""
        model["bbox_head"]["num_classes"] = facts.classes

    @property
    def shows_positives(self) -> bool:
        """There are no points."""
        return False

    @classmethod
    def serves(cls, head: Any) -> bool:
        """See `Family`."""
        from mmdet.models.dense_heads import DETRHead

        return isinstance(head, DETRHead)

    @classmethod
    def component(cls, part: str, *rest: str) -> str | None:
        """See `Family`."""
        return None

    @classmethod
    def test_cfg(cls, head: Any, branch: str) -> Mapping[str, Any]:
        """Return the head's test settings, which take the best of all queries whatever their scores."""
        most = head.test_cfg["max_per_img"]
        return {"score_thr": 0.0, "nms_pre": most, "nms": None, **head.test_cfg}

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
        states = model.forward_transformer(model.extract_feat(inputs), samples)
        found = model.bbox_head.predict(**states, batch_data_samples=samples, rescale=False)
        return {
            (branch, threshold): [image[image.scores > threshold] if threshold else image for image in found]
            for branch, threshold in wanted
        }

    @classmethod
    def trace(cls, model: Any, inputs: Tensor) -> None:
        """Run the network on images without padding, which its masks ask for."""
        from mmdet.structures import DetDataSample

        shape = tuple(inputs.shape[-2:])
        meta = {"img_shape": shape, "batch_input_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
        model(inputs, [DetDataSample(metainfo=meta) for _ in inputs])
