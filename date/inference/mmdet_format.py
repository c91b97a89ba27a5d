"""A trained network as a config and a checkpoint that plain MMDetection 3.3 loads, without this project.

Its FCOS head computes what the one-to-one branch does: with ``norm_on_bbox`` a box is ``relu(scale * conv) * stride``;
a centre-ness of weight 0 and a large bias is exactly 1; and with ``nms=None`` it keeps the best boxes as they are.

Its EfficientNet, with ReLU6 for an activation, computes what EfficientNet-Lite does. Its additional parts do nothing:
a squeeze-and-excitation of weight 0 and a large bias multiplies by exactly 1, a residual block whose last normalisation
is 0 adds nothing, and channels of weight 0 stay 0.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from date.errors import UserError
from date.inference.evaluate import Selection
from date.inference.network import Network
from date.models.branches import Branch, OneToOneBranch
from date.models.efficientnet_lite import EPS, EfficientNetLite
from date.models.head import DualAssignmentHead
from date.models.one_to_many import FCOSBranch

CONFIG, CHECKPOINT = "config.py", "checkpoint.pth"
CERTAIN = 100.0
"""Logit whose sigmoid is 1 in float32."""


def write_mmdet(
    model: nn.Module,
    config: dict[str, Any],
    network: Network,
    selection: Selection,
    text: Mapping[str, str],
    folder: Path,
) -> None:
    """Write ``config.py`` and ``checkpoint.pth`` into a folder.

    Args:
        model: the network that is left for inference.
        config: of its detector.
        network: that it comes from.
        selection: how detections are chosen.
        text: the export's metadata, kept in both files.
        folder: that gets the files.

    Raises:
        UserError: the network has what MMDetection has not.
    """
    for part in (model.backbone, model.neck):
        theirs = type(part).__module__.split(".")[0] in ("mmdet", "mmcv", "mmengine")
        if not theirs and not isinstance(part, EfficientNetLite):
            raise UserError(
                f"MMDetection has no {type(part).__name__}, which {network.name} needs; export it to another format."
            )
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if isinstance(model.backbone, EfficientNetLite):
        config, state = as_efficientnet(config, state)
    head = model.bbox_head
    if isinstance(head, DualAssignmentHead):
        config, state = _as_fcos(config, state, head.branch(0), network.name)
    elif config["bbox_head"]["type"] == "RetinaNetHead":
        config["bbox_head"]["type"] = "RetinaHead"  # ours differs in its loss alone
        config["bbox_head"].pop("reduce_normaliser", None)
    config["test_cfg"] = _test_cfg(config.get("test_cfg") or {}, selection)
    Config(_whole(config, network, text)).dump(str(folder / CONFIG))
    meta = {"dataset_meta": {"classes": tuple(network.classes)}, "export": dict(text)}
    torch.save({"state_dict": state, "meta": meta}, folder / CHECKPOINT)


def _test_cfg(own: dict[str, Any], selection: Selection) -> dict[str, Any]:
    nms = None if selection.nms is None else dict(type="nms", iou_threshold=selection.nms)
    return own | dict(
        nms_pre=selection.nms_pre, score_thr=selection.score_thr, max_per_img=selection.max_per_img, nms=nms
    )


LAYERS = {"expand": "expand_conv", "depthwise": "depthwise_conv", "project": "linear_conv"}
"""A block's layers in MMDetection."""


def as_efficientnet(config: dict[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and weights of a detector with MMDetection's EfficientNet in place of EfficientNet-Lite."""
    lite = config["backbone"]
    backbone = dict(
        type="EfficientNet",
        arch=lite["arch"].replace("lite", "b"),
        out_indices=[index + 2 for index in lite.get("out_indices", range(4))],  # the stem and the first stage before
        norm_cfg={"type": "BN", "eps": EPS} | dict(lite.get("norm_cfg") or {}),
        act_cfg=dict(type="ReLU6"),
        init_cfg=None,
    )
    whole = MODELS.build(copy.deepcopy(backbone)).state_dict()
    for name, value in whole.items():
        value.fill_(CERTAIN if name.endswith(".se.conv2.conv.bias") else float(name.endswith("running_var")))
    rest = {}
    for name, value in state.items():
        if not name.startswith("backbone."):
            rest[name] = value
            continue
        target = whole[_efficientnet_name(name.removeprefix("backbone."))]
        target[tuple(slice(side) for side in value.shape)] = value
    return config | {"backbone": backbone}, {f"backbone.{name}": value for name, value in whole.items()} | rest


def _efficientnet_name(name: str) -> str:
    """Return the name in MMDetection's EfficientNet of a parameter of EfficientNet-Lite."""
    *place, layer, kind, parameter = name.split(".")
    kind = {"conv": "conv", "norm": "bn"}[kind]
    if not place:
        return f"layers.0.{kind}.{parameter}"  # the stem
    _, stage, block = place
    return f"layers.{int(stage) + 1}.{block}.{LAYERS[layer]}.{kind}.{parameter}"


def _as_fcos(
    config: dict[str, Any], state: dict[str, Tensor], branch: Branch, name: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and weights with MMDetection's FCOS head in place of a head of one branch."""
    if not isinstance(branch, OneToOneBranch | FCOSBranch) or getattr(branch, "max3d", None) is not None:
        what = "3D max filtering" if isinstance(branch, OneToOneBranch) else "anchors whose deltas are scaled by level"
        raise UserError(f"MMDetection has no head with {what}, which {name} needs; export it to another format.")
    dual = config["bbox_head"]
    o2o = isinstance(branch, OneToOneBranch)
    levels = len(dual["strides"])
    bounds = [-1.0, *(8.0 * stride for stride in dual["strides"][:-1]), 1e8]  # used in training alone
    kept = ("num_classes", "in_channels", "feat_channels", "stacked_convs", "strides", "norm_cfg", "conv_bias")
    config["bbox_head"] = {key: dual[key] for key in kept if key in dual} | dict(
        type="FCOSHead",
        regress_ranges=[(bounds[i], bounds[i + 1]) for i in range(levels)],
        norm_on_bbox=o2o,
        conv_bias=dual.get("conv_bias", False),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    )
    renamed = {
        key.replace("bbox_head.predictors.0.conv_ctr.", "bbox_head.conv_centerness.").replace(
            "bbox_head.predictors.0.", "bbox_head."
        ): value
        for key, value in state.items()
    }
    if o2o:
        like = branch.conv_cls.weight
        renamed["bbox_head.conv_centerness.weight"] = torch.zeros(1, *like.shape[1:])
        renamed["bbox_head.conv_centerness.bias"] = torch.full((1,), CERTAIN)
    return config, renamed


def _whole(model: dict[str, Any], network: Network, text: Mapping[str, str]) -> dict[str, Any]:
    """Return a config of MMDetection's for testing, with the run's validation images."""
    source = network.source
    dataset = dict(
        type="CocoDataset",
        ann_file=str(source["ann_file"]),
        data_prefix=dict(img=str(source["data_prefix"]["img"])),
        metainfo=dict(classes=tuple(network.classes)),
        pipeline=[dict(step) for step in source["pipeline"]],
        test_mode=True,
    )
    loader = dict(
        batch_size=network.batch_size,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dataset,
    )
    evaluator = dict(type="CocoMetric", ann_file=str(source["ann_file"]), metric="bbox")
    return dict(
        default_scope="mmdet",
        model=model,
        test_dataloader=loader,
        test_evaluator=evaluator,
        test_cfg=dict(type="TestLoop"),
        export=dict(text),
    )
