"""mmcv's operators without a compiler against independent implementations, and checkpoints under weights_only."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from date import compat
from date.errors import UserError

compat.activate()

import mmcv.ops  # noqa: E402
import mmcv.utils  # noqa: E402
from mmcv.ops import batched_nms, nms, roi_align, sigmoid_focal_loss, soft_nms  # noqa: E402
from mmdet.models.losses.focal_loss import FocalLoss, py_sigmoid_focal_loss  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.dataset import DefaultSampler  # noqa: E402
from mmengine.logging import HistoryBuffer  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from tests.support.examples import examples  # noqa: E402

# pytest stays green where a full mmcv is installed: then its own operators are what is tested against the references,
# and only the tests of the stand-in itself have nothing to test.
stand_in_only = pytest.mark.skipif(
    compat.stack_versions()["mmcv_operators"] == "compiled", reason="a full mmcv with compiled operators is installed"
)

# ---------------------------------------------------------------------------------------------------------------------
# Non-maximum suppression
# ---------------------------------------------------------------------------------------------------------------------


@st.composite
def boxes_and_scores(draw: st.DrawFn, max_boxes: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Crowded boxes on a quarter-pixel grid, whose float32 areas are exact, and scores with many ties."""
    count = draw(st.integers(0, max_boxes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corners = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 60, (count, 2))], axis=1) / 4
    return boxes.astype(np.float32), (rng.integers(1, 9, count) / 8).astype(np.float32)


def reference_iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.float32:
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = areas[0] + areas[1] - width * height
    return np.float32(width * height) / np.float32(union) if union > 0 else np.float32(0)


def reference_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int = 0) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(reference_iou(boxes[k], boxes[i], offset) <= np.float32(threshold) for k in kept):
            kept.append(i)
    return kept


@settings(max_examples=examples(150))
@given(boxes_and_scores(), st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.75]), st.sampled_from([0, 1]))
def test_nms_equals_brute_force(case: tuple[np.ndarray, np.ndarray], threshold: float, offset: int) -> None:
    boxes, scores = case
    dets, keep = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset=offset)
    assert keep.dtype == torch.int64
    assert keep.tolist() == reference_nms(boxes, scores, threshold, offset)
    np.testing.assert_array_equal(dets.numpy(), np.column_stack([boxes[keep.numpy()], scores[keep.numpy()]]))


def test_nms_keeps_a_box_whose_iou_equals_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 1], [1, 0, 5, 1]])  # IoU 3 / 5; the double 0.6 is below the float32 0.6
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.6)[1].tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.59)[1].tolist() == [0]


def test_nms_offset_counts_the_last_pixel() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 1, 2, 2]])  # they touch: IoU 0, or 1 / 7 if x2 and y2 are inside
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.1, offset=0)[1].tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.1, offset=1)[1].tolist() == [0]


def test_nms_score_threshold_and_max_num() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6], [8, 8, 9, 9], [3, 3, 4, 4]])
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7])
    assert nms(boxes, scores, 0.5, score_threshold=0.3)[1].tolist() == [1, 3, 2]
    assert nms(boxes, scores, 0.5, score_threshold=0.3, max_num=2)[1].tolist() == [1, 3]


@settings(max_examples=examples(80))
@given(boxes_and_scores(), st.booleans(), st.booleans())
def test_batched_nms_equals_brute_force_per_class(
    case: tuple[np.ndarray, np.ndarray], class_agnostic: bool, split: bool
) -> None:
    boxes, _ = case
    if not len(boxes) or (split and class_agnostic):  # mmcv takes no maximum of nothing, and splits by class only
        return
    rng = np.random.default_rng(len(boxes))
    scores = rng.permutation(len(boxes)).astype(np.float32) + 1
    labels = rng.integers(0, 3, len(boxes))
    groups = [np.arange(len(boxes))] if class_agnostic else [np.flatnonzero(labels == c) for c in range(3)]
    expected = np.concatenate([group[reference_nms(boxes[group], scores[group], 0.5)] for group in groups])
    expected = expected[np.argsort(-scores[expected])]

    config = {"type": "nms", "iou_threshold": 0.5, "split_thr": 1 if split else 10_000}
    dets, keep = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), config, class_agnostic=class_agnostic)
    assert keep.tolist() == expected.tolist()
    np.testing.assert_array_equal(dets.numpy(), np.column_stack([boxes[expected], scores[expected]]))


def reference_soft_nms(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, sigma: float, min_score: float, method: str, offset: int
) -> tuple[list[int], list[float]]:
    """One box at a time, as in mmcv: swap the best to the front, decay the rest, replace a dropped one by the last."""
    live = [[i, score] for i, score in enumerate(scores.tolist())]
    done: list[list[Any]] = []
    while live:
        best = max(range(len(live)), key=lambda k: (live[k][1], -k))
        live[0], live[best] = live[best], live[0]
        done.append(live.pop(0))
        k = 0
        while k < len(live):
            iou = float(reference_iou(boxes[done[-1][0]], boxes[live[k][0]], offset))
            decay = {"naive": 0.0, "linear": 1 - iou, "gaussian": math.exp(-iou * iou / sigma)}[method]
            live[k][1] *= decay if method == "gaussian" or iou >= np.float32(threshold) else 1.0
            if live[k][1] < min_score:
                last = live.pop()
                if k < len(live):
                    live[k] = last
            else:
                k += 1
    return [i for i, _ in done], [score for _, score in done]


@settings(max_examples=examples(150))
@given(
    boxes_and_scores(),
    st.sampled_from(["naive", "linear", "gaussian"]),
    st.sampled_from([0.3, 0.6]),
    st.sampled_from([1e-3, 0.2, 0.4]),
    st.sampled_from([0, 1]),
)
def test_soft_nms_equals_the_sequential_algorithm(
    case: tuple[np.ndarray, np.ndarray], method: str, threshold: float, min_score: float, offset: int
) -> None:
    boxes, scores = (part.astype(np.float64) for part in case)  # no two scores differ by rounding alone
    dets, keep = soft_nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, 0.5, min_score, method, offset)
    indices, lowered = reference_soft_nms(boxes, scores, threshold, 0.5, min_score, method, offset)
    if method == "naive":
        assert keep.tolist() == indices
    np.testing.assert_allclose(dets[:, 4].numpy(), lowered, rtol=1e-6)
    np.testing.assert_array_equal(dets[:, :4].numpy(), boxes[keep.numpy()])


def test_soft_nms_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 4, 1]])  # IoU with box 2: 1 / 2 both; of 0 and 1: 1 / 3
    dets, keep = soft_nms(boxes, torch.tensor([0.8, 0.6, 0.9]), 0.4, method="linear")
    assert keep.tolist() == [2, 0, 1]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.4, 0.3])
    dets, keep = soft_nms(boxes, torch.tensor([0.8, 0.6, 0.9]), sigma=0.5, method="gaussian", min_score=0.2)
    assert keep.tolist() == [2, 0, 1]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.8 * math.exp(-0.5), 0.6 * math.exp(-0.5 - 2 / 9)])


def test_numpy_in_numpy_out() -> None:
    boxes, scores = np.array([[0, 0, 4, 1], [0, 0, 4, 1]], np.float32), np.array([0.5, 0.9], np.float32)
    for operator in (nms, soft_nms):
        dets, keep = operator(boxes, scores, 0.5)
        assert isinstance(dets, np.ndarray)
        assert keep.tolist()[0] == 1


# ---------------------------------------------------------------------------------------------------------------------
# Focal loss
# ---------------------------------------------------------------------------------------------------------------------

device = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)
needs_cpu_kernel = stand_in_only  # compiled mmcv computes the focal loss on GPUs only


def focal_case(dtype: torch.dtype, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(40, 5, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, 6, (40,), generator=generator)  # class 5 is background


@needs_cpu_kernel
@device
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.7)])
def test_focal_loss_equals_mmdet_python_version(device: str, gamma: float, alpha: float) -> None:
    logits, target = (part.to(device) for part in focal_case(torch.float64))
    one_hot = torch.nn.functional.one_hot(target, 6)[:, :5]
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = sigmoid_focal_loss(mine, target, gamma, alpha, None, "none")
    expected = py_sigmoid_focal_loss(theirs, one_hot, gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    upstream = torch.linspace(-1, 2, loss.numel(), dtype=torch.float64, device=device).reshape(loss.shape)
    loss.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@needs_cpu_kernel
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_focal_loss_gradient_is_that_of_its_value(reduction: str) -> None:
    logits, target = focal_case(torch.float64)
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)
    foreground = target.clamp(max=4)
    torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, foreground, 2.0, 0.25, weight, reduction), (logits.requires_grad_(),)
    )


@needs_cpu_kernel
def test_focal_loss_class_weight_follows_the_target() -> None:
    logits, target = focal_case(torch.float64)
    foreground = target.clamp(max=4)
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)
    plain = sigmoid_focal_loss(logits, foreground, 2.0, 0.25, None, "none")
    weighted = sigmoid_focal_loss(logits, foreground, 2.0, 0.25, weight, "none")
    torch.testing.assert_close(weighted, plain * torch.stack([weight[t] for t in foreground])[:, None])
    with pytest.raises(UserError, match="background"):
        sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "none")


@needs_cpu_kernel
@device
def test_focal_loss_at_saturated_logits_is_that_of_the_kernel(device: str) -> None:
    # In single precision sigmoid(30) is 1, so that the kernel takes the logarithm of the smallest float32, 2 ** -126.
    logits = torch.tensor([[30.0, -30.0], [-90.0, 90.0]], device=device, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([2, 0], device=device), 2.0, 0.25, None, "none")
    floor = 126 * math.log(2)
    torch.testing.assert_close(loss.detach().cpu(), torch.tensor([[0.75 * floor, 0], [0.25 * floor, 0.75 * floor]]))
    loss.sum().backward()
    torch.testing.assert_close(logits.grad.cpu(), torch.tensor([[0.75, 0], [-0.25, 0.75]]))


@needs_cpu_kernel
@device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_focal_loss_in_lower_precision(device: str, dtype: torch.dtype) -> None:
    logits, target = focal_case(dtype)
    low, high = (logits.to(to, copy=True).requires_grad_() for to in (device, torch.float64))
    loss = sigmoid_focal_loss(low, target.to(device), 2.0, 0.25, None, "none")
    expected = sigmoid_focal_loss(high, target, 2.0, 0.25, None, "none")
    loss.sum().backward()
    expected.sum().backward()
    tolerance = {"rtol": max(torch.finfo(dtype).eps, 1e-5), "atol": max(torch.finfo(dtype).tiny, 1e-7)}
    torch.testing.assert_close(loss.detach().cpu().double(), expected.detach(), **tolerance)
    torch.testing.assert_close(low.grad.cpu().double(), high.grad, **tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_mmdet_focal_loss_is_the_same_on_gpu_and_cpu() -> None:
    logits, target = focal_case(torch.float32)
    losses, gradients = [], []
    for place in ("cpu", "cuda"):
        x = logits.to(place).detach().requires_grad_()
        loss = FocalLoss()(x, target.to(place), weight=torch.ones(40, device=place), avg_factor=7)
        loss.backward()
        losses.append(loss.detach().cpu())
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


# ---------------------------------------------------------------------------------------------------------------------
# RoIAlign
# ---------------------------------------------------------------------------------------------------------------------


def bilinear(feature: np.ndarray, y: float, x: float) -> float:
    """Sample (H, W) at feature centres: 0 beyond one feature outside, the border's value up to there."""
    height, width = feature.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = feature[y0, x0] * (1 - (x - x0)) + feature[y0, x1] * (x - x0)
    bottom = feature[y1, x0] * (1 - (x - x0)) + feature[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


def reference_roi_align(
    features: np.ndarray, roi: np.ndarray, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> np.ndarray:
    x1, y1, x2, y2 = roi[1:] * scale - (0.5 if aligned else 0)
    height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
    rows, columns = ratio or math.ceil(height / size[0]), ratio or math.ceil(width / size[1])
    out = np.zeros((features.shape[1], *size))
    for c, i, j in np.ndindex(out.shape):
        ys = [y1 + height / size[0] * (i + (k + 0.5) / rows) for k in range(rows)]
        xs = [x1 + width / size[1] * (j + (k + 0.5) / columns) for k in range(columns)]
        out[c, i, j] = np.mean([bilinear(features[int(roi[0]), c], y, x) for y, x in itertools.product(ys, xs)])
    return out


ROIS = np.array([[0, 0.3, 1.2, 30.5, 21.7], [1, -6, -6, 9, 13], [1, 20, 11, 47, 44], [0, 8, 8, 8.5, 8.25]])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_equals_brute_force(ratio: int, aligned: bool) -> None:
    features = np.random.default_rng(0).normal(size=(2, 3, 9, 11))
    pooled = roi_align(torch.from_numpy(features), torch.from_numpy(ROIS), (3, 2), 0.25, ratio, "avg", aligned)
    expected = [reference_roi_align(features, roi, (3, 2), 0.25, ratio, aligned) for roi in ROIS]
    np.testing.assert_allclose(pooled.numpy(), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_gradient(aligned: bool) -> None:
    features = torch.randn(2, 2, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.autograd.gradcheck(
        lambda x: roi_align(x, torch.from_numpy(ROIS), 2, 0.25, 0, "avg", aligned), (features.requires_grad_(),)
    )


@stand_in_only
def test_roi_align_by_maximum_is_refused() -> None:
    with pytest.raises(compat.OperatorUnavailableError, match=r"pool_mode='max'.*install a full mmcv"):
        roi_align(torch.zeros(2, 1, 4, 4), torch.tensor(ROIS, dtype=torch.float32), 2, 1.0, 0, "max")


# ---------------------------------------------------------------------------------------------------------------------
# The module itself
# ---------------------------------------------------------------------------------------------------------------------

PROVIDED = {
    "nms",
    "softnms",
    "roi_align_forward",
    "roi_align_backward",
    "sigmoid_focal_loss_forward",
    "sigmoid_focal_loss_backward",
    "get_compiler_version",
    "get_compiling_cuda_version",
}


def requested_operators() -> list[str]:
    """The names that the sources of mmcv.ops ask the extension for when they are imported."""
    sources = [path.read_text() for path in Path(mmcv.ops.__file__).parent.glob("*.py")]
    lists = [found for text in sources for found in re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", text, re.DOTALL)]
    return sorted({name for names in lists for name in re.findall(r"'(\w+)'", names)})


def test_the_sources_ask_for_the_provided_operators_and_many_others() -> None:
    assert set(requested_operators()) > PROVIDED
    assert len(requested_operators()) > 100


@stand_in_only
@pytest.mark.parametrize("name", sorted(set(requested_operators()) - PROVIDED))
def test_other_operators_exist_and_refuse_to_run(name: str) -> None:
    extension = mmcv.utils.ext_loader.load_ext("_ext", [name])
    with pytest.raises(compat.OperatorUnavailableError, match=rf"'{name}' needs compiled code.*install a full mmcv"):
        getattr(extension, name)(torch.zeros(1), key=1)


@stand_in_only
def test_the_error_reaches_a_caller_of_mmcv_ops() -> None:
    with pytest.raises(UserError, match="deform_conv_forward"):
        mmcv.ops.deform_conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 18, 4, 4), torch.zeros(1, 1, 3, 3), 1, 1)


@stand_in_only
def test_python_finds_no_dunder_operators() -> None:
    extension = sys.modules["mmcv._ext"]
    assert not hasattr(extension, "__path__")
    assert not hasattr(extension, "__wrapped__")
    assert importlib.util.find_spec("mmcv._ext") is not None
    assert mmcv.utils.collect_env()["MMCV Compiler"] == "n/a"


def test_the_meshgrid_warning_of_mmdet_is_silenced_and_no_other(recwarn: pytest.WarningsRecorder) -> None:
    torch.set_warn_always(True)  # else PyTorch warns once in a process
    try:
        torch.meshgrid(torch.arange(2), torch.arange(2))
        assert [warning.category for warning in recwarn] == [UserWarning]
        recwarn.clear()
        compat.activate()
        torch.meshgrid(torch.arange(2), torch.arange(2))
        assert len(recwarn) == 0
        warnings.warn("another", UserWarning, stacklevel=1)
        assert len(recwarn) == 1
    finally:
        torch.set_warn_always(False)


def test_activate_twice_keeps_the_module() -> None:
    before = sys.modules["mmcv._ext"]
    compat.activate()
    assert sys.modules["mmcv._ext"] is before


def test_a_loaded_real_extension_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", real)
    compat.activate()
    assert sys.modules["mmcv._ext"] is real
    assert compat.stack_versions()["mmcv_operators"] == "compiled"


def run_python(code: str, *path: Path) -> str:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, [*path, Path(compat.__file__).parents[1]])))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installed_real_extension_is_left_alone_and_mmcv_not_imported(tmp_path: Path) -> None:
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text("nms = 'the real one'")
    code = (
        "import sys; from date import compat; compat.activate(); assert 'mmcv' not in sys.modules; "
        "import mmcv._ext; print(mmcv._ext.nms, compat.stack_versions()['mmcv_operators'])"
    )
    assert run_python(code, tmp_path) == "the real one compiled"


def test_mmcv_missing_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mmcv is not installed; install .*requirements.lock"):
        compat.activate()


def test_versions_are_those_of_the_packages_and_need_none_of_them() -> None:
    import mmdet
    import mmengine
    import torchvision

    versions = compat.stack_versions()
    assert versions["mmcv"] == mmcv.__version__
    assert versions["mmdet"] == mmdet.__version__
    assert versions["mmengine"] == mmengine.__version__
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert versions["torchvision"] == torchvision.__version__.partition("+")[0]
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    code = "import sys; from date.compat import stack_versions; stack_versions(); print(*sys.modules)"
    assert not {"torch", "numpy", "mmcv", "mmengine", "mmdet"} & set(run_python(code).split())


def test_a_missing_package_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"no-such-package or neither-this is not installed; install .*requirements"):
        compat._version("no-such-package", "neither-this")


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ---------------------------------------------------------------------------------------------------------------------


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs: list[torch.Tensor], mode: str = "loss") -> Any:
        return {"loss": self.layer(torch.stack(list(inputs))).square().mean()}


def toy_runner(work_dir: Path, epochs: int, resume: bool = False) -> Runner:
    dataset = [{"inputs": torch.tensor([float(i), 1.0])} for i in range(3)]
    return Runner(
        Toy(),
        str(work_dir),
        train_dataloader={
            "dataset": dataset,
            "sampler": {"type": DefaultSampler, "shuffle": True},
            "batch_size": 1,
            "num_workers": 0,
        },
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}},
        param_scheduler={"type": "MultiStepLR", "milestones": [1], "by_epoch": True},
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        default_hooks={"logger": {"type": "LoggerHook", "interval": 1}},
        default_scope="mmdet",
        experiment_name=f"toy-{work_dir.name}-{epochs}",
        resume=resume,
        log_level="ERROR",
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("toy")
    toy_runner(work_dir, epochs=1).train()
    return work_dir / "epoch_1.pth"


@pytest.fixture
def no_safe_globals() -> Iterator[None]:
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(before)


def test_a_runner_checkpoint_loads_under_weights_only(checkpoint: Path) -> None:
    loaded = torch.load(checkpoint, weights_only=True)
    assert loaded["meta"]["iter"] == 3
    history, counts = loaded["message_hub"]["log_scalars"]["train/loss"].data
    assert len(history) == len(counts) == 3
    assert loaded["message_hub"]["log_scalars"]["train/loss"].statistics("max") == history.max()


@pytest.mark.usefixtures("no_safe_globals")
def test_a_runner_checkpoint_does_not_load_without_activation(checkpoint: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(checkpoint, weights_only=True)


def test_a_runner_resumes_from_its_checkpoint(checkpoint: Path) -> None:
    runner = toy_runner(checkpoint.parent, epochs=2, resume=True)
    before = torch.load(checkpoint, weights_only=True)["message_hub"]["log_scalars"]["train/loss"].data[0]
    runner.train()
    assert runner.iter == 6
    after = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(after) == 6
    np.testing.assert_array_equal(after[:3], before)


@pytest.mark.parametrize(
    "value",
    [np.arange(3), np.ones(2, np.float32), np.array([True]), np.float64(0.1), np.int64(7), np.uint8(3), np.float16(2)],
    ids=repr,
)
def test_numbers_of_numpy_survive(value: Any, tmp_path: Path) -> None:
    torch.save({"metric": value}, tmp_path / "numbers.pth")
    loaded = torch.load(tmp_path / "numbers.pth", weights_only=True)["metric"]
    np.testing.assert_array_equal(loaded, value)
    assert loaded.dtype == value.dtype


def test_arrays_pickled_by_numpy_1_load(tmp_path: Path) -> None:
    torch.save(np.arange(3.0), tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            assert (b"numpy._core.multiarray" in content) == name.endswith("data.pkl")
            old.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(torch.load(tmp_path / "old.pth", weights_only=True), np.arange(3.0))


class Payload:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_a_payload_is_refused_and_does_not_run(tmp_path: Path) -> None:
    live, refused = tmp_path / "live", tmp_path / "refused"
    pickle.loads(pickle.dumps(Payload(os.mkdir, str(live))))
    assert live.exists()  # the payload would work

    torch.save({"state_dict": Payload(os.mkdir, str(refused))}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.pth", weights_only=True)
    assert not refused.exists()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (HistoryBuffer, "__init__"),
        (HistoryBuffer, "register_statistics"),
        (np.ndarray, "tofile"),
        (torch.Tensor, "mean"),
    ],
)
def test_getattr_reaches_nothing_but_the_statistics(owner: type, name: str, tmp_path: Path) -> None:
    torch.save(Payload(getattr, owner, name), tmp_path / "reach.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "reach.pth", weights_only=True)


def test_getattr_reaches_the_statistics(tmp_path: Path) -> None:
    torch.save(Payload(getattr, HistoryBuffer, "mean"), tmp_path / "mean.pth")
    assert torch.load(tmp_path / "mean.pth", weights_only=True) is HistoryBuffer.mean


# ---------------------------------------------------------------------------------------------------------------------
# A detector
# ---------------------------------------------------------------------------------------------------------------------


def test_fcos_from_the_registry_trains_and_predicts() -> None:
    torch.manual_seed(0)
    config = ConfigDict(
        {
            "type": "FCOS",
            "data_preprocessor": {"type": "DetDataPreprocessor", "pad_size_divisor": 32},
            "backbone": {"type": "ResNet", "depth": 18, "init_cfg": None},
            "neck": {
                "type": "FPN",
                "in_channels": [64, 128, 256, 512],
                "out_channels": 32,
                "start_level": 1,
                "add_extra_convs": "on_output",
                "num_outs": 5,
            },
            "bbox_head": {"type": "FCOSHead", "num_classes": 3, "in_channels": 32, "feat_channels": 32},
            "test_cfg": {
                "nms_pre": 100,
                "min_bbox_size": 0,
                "score_thr": 0.0,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 10,
            },
        }
    )
    model = MODELS.build(config)
    sample = DetDataSample(metainfo={"img_shape": (256, 256), "ori_shape": (256, 256), "scale_factor": (1.0, 1.0)})
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 140, 148]]), labels=torch.tensor([1]))
    batch = model.data_preprocessor({"inputs": [torch.randint(0, 255, (3, 256, 256))], "data_samples": [sample]}, True)

    losses = model(**batch, mode="loss")
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_centerness"}
    sum(losses.values()).backward()
    assert model.bbox_head.conv_reg.weight.grad.abs().sum() > 0

    model.eval()
    with torch.no_grad():
        predicted = model(**batch, mode="predict")[0].pred_instances
    assert len(predicted) == 10
    assert torch.equal(predicted.scores, predicted.scores.sort(descending=True)[0])
    for label in predicted.labels.unique():
        same = predicted.bboxes[predicted.labels == label].numpy()
        assert all(reference_iou(a, b, 0) <= 0.5 + 1e-6 for a, b in itertools.combinations(same, 2))
