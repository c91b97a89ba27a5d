"""Dense heads at the size of a tier: levels, strides, regression ranges, anchors, groups of channels."""

from __future__ import annotations

from typing import Any

from date.families.base import Facts


def size_dense_detector(model: dict[str, Any], facts: Facts) -> None:
    """Give neck and dense head of a detector's config the tier's channels, levels and scales, in place."""
    head = model["bbox_head"]
    model["neck"].update(out_channels=facts.channels, num_outs=facts.levels)
    head.update(num_classes=facts.classes, in_channels=facts.channels, feat_channels=facts.channels)
    set_groups(head, facts.groups)
    scale_levels(head, facts.levels, facts.object_scale)


def set_groups(config: Any, groups: int) -> None:
    """Set the groups of every GroupNorm in a head's config, in place."""
    if isinstance(config, list):
        for item in config:
            set_groups(item, groups)
    elif isinstance(config, dict):
        if config.get("type") == "GN":
            config["num_groups"] = groups
        for value in config.values():
            set_groups(value, groups)


def scale_levels(head: dict[str, Any], levels: int, object_scale: float) -> None:
    """Keep the first levels of a head and scale FCOS's regression ranges and RetinaNet's anchors, in place.

    The last range always ends at infinity, so that no object is too large for every level.
    """
    for key, value in head.items():
        if key == "strides":
            head[key] = list(value[:levels])
        elif key == "regress_ranges":
            kept = [[low if low < 0 else low * object_scale, high * object_scale] for low, high in value[:levels]]
            kept[-1][1] = 1e8
            head[key] = kept
        elif key == "octave_base_scale":
            head[key] = value * object_scale
        elif isinstance(value, dict):
            scale_levels(value, levels, object_scale)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    scale_levels(item, levels, object_scale)
