"""MMDetection 3.3 on a current PyTorch, without a compiler.

MMDetection imports ``mmcv.ops``, whose operators live in a compiled module ``mmcv._ext`` that is built for one
PyTorch and CUDA release at a time. The pure-Python ``mmcv-lite`` has the same ``mmcv.ops`` sources but no such module.
:func:`activate` puts a small one in its place, backed by PyTorch and torchvision, and lets the checkpoints of
MMEngine's Runner through ``torch.load(weights_only=True)``, which PyTorch applies unless told otherwise.

Call :func:`activate` before the first import of ``mmdet`` or ``mmcv.ops``, in every process.
Heavy packages are imported where they are used, so that asking for :func:`stack_versions` stays cheap.
"""

from __future__ import annotations

import importlib.util
import pickle
import platform
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from date.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

EXTENSION = "mmcv._ext"
_INSTALL = "install the pinned requirements: pip install -r requirements.lock"
_AVERAGE_POOLING = 1  # mmcv's code of pool_mode="avg"; 0 is "max"
_SOFT_NMS_NAIVE, _SOFT_NMS_LINEAR, _SOFT_NMS_GAUSSIAN = 0, 1, 2
_FLT_MIN = (
    1.1754943508222875e-38  # smallest normal float32: mmcv's kernel clamps at it before a logarithm, in any dtype
)


class OperatorUnavailableError(UserError):
    """An operator of ``mmcv.ops`` was called that exists only compiled."""

    def __init__(self, operator: str) -> None:
        super().__init__(
            f"mmcv operator {operator!r} needs compiled code, which mmcv-lite does not have; "
            "install a full mmcv>=2.0.0,<2.2.0 with compiled operators instead of mmcv-lite."
        )


def activate() -> None:
    """Make ``import mmdet`` and loading MMEngine checkpoints work; calling it again changes nothing.

    A real ``mmcv._ext``, loaded or merely installed, is left alone.

    Raises:
        UserError: mmcv is not installed at all.
    """
    import torch

    torch.serialization.add_safe_globals(checkpoint_globals())
    # MMDetection's point generator omits `indexing`, whose default may change one day; users can do nothing about it,
    # and PyTorch is pinned.
    warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
    if EXTENSION not in sys.modules and not _compiled_operators():
        sys.modules[EXTENSION] = _substitute_extension()


def checkpoint_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the globals that a checkpoint of MMEngine's Runner needs, for ``torch.serialization.add_safe_globals``.

    These are MMEngine's ``HistoryBuffer`` (the logged scalars), and the reconstruction of numpy arrays and scalars of
    boolean, integer and floating dtype. A pair gives an object and the name that it has in the file.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    reconstruct_array, reconstruct_scalar = np.empty(0).__reduce__()[0], np.float64().__reduce__()[0]
    numeric_dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return [
        HistoryBuffer,
        (_history_buffer_statistic, "builtins.getattr"),
        np.ndarray,
        np.dtype,
        *sorted(numeric_dtypes, key=lambda dtype: dtype.__name__),
        *((reconstruct_array, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),  # numpy 2, 1
        *((reconstruct_scalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    ]


def stack_versions() -> dict[str, str]:
    """Return the versions of the software under a result, for provenance, without importing any of it.

    The key ``mmcv_operators`` tells who computes the operators: mmcv's ``compiled`` code, or ``torchvision``.

    Raises:
        UserError: one of the packages is not installed.
    """
    versions = {name: _version(name) for name in ("torch", "torchvision", "mmengine", "mmdet")}
    return {
        "python": platform.python_version(),
        **versions,
        "mmcv": _version("mmcv", "mmcv-lite"),
        "mmcv_operators": "compiled" if _compiled_operators() else "torchvision",
    }


def _version(*names: str) -> str:
    """Return the version of the first of these distributions that is installed."""
    found = next((found for name in names for found in metadata.distributions(name=name)), None)
    if found is None:
        raise UserError(f"{' or '.join(names)} is not installed; {_INSTALL}")
    return found.version


def _compiled_operators() -> bool:
    """Return whether a real ``mmcv._ext`` is loaded or installed; does not import mmcv."""
    if EXTENSION in sys.modules:
        return not isinstance(sys.modules[EXTENSION], _SubstituteExtension)
    package = importlib.util.find_spec("mmcv")
    if package is None:
        raise UserError(f"mmcv is not installed; {_INSTALL}")
    return PathFinder.find_spec(EXTENSION, package.submodule_search_locations) is not None


def _history_buffer_statistic(owner: Any, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in checkpoints.

    MMEngine pickles a HistoryBuffer with its statistics methods, as ``getattr(HistoryBuffer, "mean")`` and the like.
    The real ``getattr`` would let a crafted file reach anything from any object, hence these four and nothing else.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r}) is not allowed in a checkpoint")
    return getattr(HistoryBuffer, name)


class _SubstituteExtension(ModuleType):
    """``mmcv._ext`` as far as PyTorch and torchvision can provide it; any other operator raises when it is called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # mmcv.ops asks for all its operators at import, so that each has to exist. Dunder names are Python's own
        # probes (__path__, __wrapped__, ...), which have to fail as on any module.
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def operator(*args: Any, **kwargs: Any) -> NoReturn:
            raise OperatorUnavailableError(name)

        return operator


def _substitute_extension() -> _SubstituteExtension:
    module = _SubstituteExtension(EXTENSION, "Operators of mmcv, provided by torchvision.")
    # A spec without loader: mmengine and mmcv ask pkgutil for one to learn whether mmcv is the full one; it isn't.
    module.__spec__ = ModuleSpec(EXTENSION, loader=None)
    operators = (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
    )
    vars(module).update({operator.__name__: operator for operator in operators})
    # Not operators: mmcv.utils.collect_env prints them, and "n/a" is what it says without operators.
    vars(module).update(get_compiler_version=lambda: "n/a", get_compiling_cuda_version=lambda: "n/a")
    return module


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Suppress boxes greedily (NMS): a box goes where its IoU with a better box is above the threshold.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,). Of equal scores, the box with the lower index is the better one.
        iou_threshold: applied in single precision, as mmcv does.
        offset: 0, or 1 where x2 and y2 are the last pixels inside the box, so that its width is x2 - x1 + 1.

    Returns:
        Indices of the boxes that stay, int64, by descending score.
    """
    import torch
    from torchvision.ops import nms as torchvision_nms

    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # torchvision on CPU compares the float32 IoU with the threshold in double: an IoU of 3/5 would exceed 0.6.
    return torchvision_nms(boxes, scores, torch.tensor(iou_threshold, dtype=torch.float32).item())


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one, instead of dropping the boxes (Soft-NMS, arXiv 1704.04503).

    The outcome is mmcv's, order among equal scores included; only the IoU of two boxes without area is 0 here, not NaN.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        dets: (N, 5) written in place: row k is the k-th box that stays and its lowered score.
        iou_threshold: from this IoU on, "naive" and "linear" lower a score.
        sigma: width of the "gaussian" method.
        min_score: boxes whose lowered score is below are dropped.
        method: 0 naive (NMS), 1 linear (times 1 - IoU), 2 gaussian (times exp(-IoU^2 / sigma)).
        offset: 0, or 1 where x2 and y2 are the last pixels inside the box.

    Returns:
        Indices of the K boxes that stay, int64, in the order of ``dets[:K]``.
    """
    import torch

    candidates = torch.arange(len(boxes), device=boxes.device)
    scores = scores.clone()
    kept: list[Tensor] = []
    while len(candidates):
        best = int(scores.argmax())
        index = candidates[best].clone()
        dets[len(kept), :4], dets[len(kept), 4] = boxes[index], scores[best]
        kept.append(index)
        candidates[best], scores[best] = candidates[0].clone(), scores[0].clone()
        candidates, scores = candidates[1:], scores[1:]

        iou = _iou(boxes[index], boxes[candidates], offset)
        if method == _SOFT_NMS_GAUSSIAN:
            scores = scores * torch.exp(-iou * iou / sigma)
        else:
            lowered = scores * (1 - iou) if method == _SOFT_NMS_LINEAR else torch.zeros_like(scores)
            scores = torch.where(iou >= iou_threshold, lowered, scores)
        survivors = _swap_remove(scores < min_score)
        candidates, scores = candidates[survivors], scores[survivors]
    return torch.stack(kept) if kept else candidates


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """Return the IoU (N,) of a box (4,) with boxes (N, 4); 0 where neither has an area."""
    top_left, bottom_right = box[:2].maximum(boxes[:, :2]), box[2:].minimum(boxes[:, 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(1)
    union = (box[2:] - box[:2] + offset).prod() + (boxes[:, 2:] - boxes[:, :2] + offset).prod(1) - intersection
    return (intersection / union).nan_to_num(nan=0.0)


def _swap_remove(removed: Tensor) -> Tensor:
    """Return the order (K,) of the K entries not removed, if each removed one is replaced by the list's last one.

    That is how mmcv drops boxes; the order decides which of two equal scores comes first in the next round.
    """
    import torch

    stay = ~removed
    count = int(stay.sum())
    order = torch.arange(count, device=removed.device)
    holes = removed[:count].nonzero().flatten()
    order[holes] = count + stay[count:].nonzero().flatten().flip(0)
    return order


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Sample features in regions by RoIAlign with average pooling.

    Args:
        input: (B, C, H, W) features.
        rois: (N, 5) as batch index, x1, y1, x2, y2 in pixels of the image.
        output: (N, C, aligned_height, aligned_width) written in place.
        argmax_y: unused, belongs to max pooling.
        argmax_x: unused, belongs to max pooling.
        aligned_height: bins per RoI.
        aligned_width: bins per RoI.
        spatial_scale: features per pixel, 1 / stride.
        sampling_ratio: samples per bin and axis; 0 takes as many as the bin has features.
        pool_mode: 1 average; 0, the maximum, is not provided.
        aligned: shift by half a feature, so that features are sampled at their centres.

    Raises:
        OperatorUnavailableError: ``pool_mode`` asks for the maximum.
    """
    from torchvision.ops import roi_align

    if pool_mode != _AVERAGE_POOLING:
        raise OperatorUnavailableError("roi_align_forward with pool_mode='max'")
    output.copy_(roi_align(input, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of :func:`roi_align_forward` into ``grad_input`` (B, C, H, W); arguments as there."""
    import torch
    from torchvision.ops import roi_align

    if pool_mode != _AVERAGE_POOLING:
        raise OperatorUnavailableError("roi_align_backward with pool_mode='max'")
    with torch.enable_grad():  # RoIAlign is linear in its input: the gradient is the same at any input
        features = torch.zeros_like(grad_input, requires_grad=True)
        pooled = roi_align(features, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    grad_input.copy_(torch.autograd.grad(pooled, features, grad_output)[0])


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Compute the focal loss (arXiv 1708.02002) of each logit; MMDetection computes it so on GPUs only.

    Half precision is computed in single. As in mmcv's kernel, the logarithm stops at the smallest float32: a logit
    that saturates the sigmoid on the wrong side costs 87.3 (times the factors), not its distance from zero.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class of each row; C (or any other number outside of 0..C-1) is background.
        weight: (C,) factor of the rows of each class, or empty.
        output: (N, C) written in place.
        gamma: exponent of the modulating factor.
        alpha: factor of the positives; negatives have 1 - alpha.

    Raises:
        UserError: class weights are given, and a target has no class to look up.
    """
    _, factor, wrong, right = _focal_terms(input, target, weight, alpha)
    output.copy_(-factor * wrong.pow(gamma) * right.clamp(min=_FLT_MIN).log())


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the derivative of :func:`sigmoid_focal_loss_forward` into ``grad_input`` (N, C); arguments as there."""
    positive, factor, wrong, right = _focal_terms(input, target, weight, alpha)
    slope = factor * wrong.pow(gamma) * (wrong - gamma * right * right.clamp(min=_FLT_MIN).log())
    grad_input.copy_(slope.where(~positive, -slope))


def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, each (N, C): which entries are positive, their factor, the probability of the wrong and right answer."""
    import torch

    num_classes = input.size(1)
    logits = input.to(torch.promote_types(input.dtype, torch.float32))
    positive = target[:, None] == torch.arange(num_classes, device=target.device)
    factor = torch.where(positive, logits.new_full((), alpha), logits.new_full((), 1 - alpha))
    if weight.numel():
        if not bool(((target >= 0) & (target < num_classes)).all()):
            raise UserError("sigmoid_focal_loss has no class weight for background; leave out `weight` or background.")
        factor = factor * weight[target][:, None]
    p = logits.sigmoid()
    return positive, factor, torch.where(positive, 1 - p, p), torch.where(positive, p, 1 - p)
