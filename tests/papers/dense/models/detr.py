# MMDetection's DETR, with fewer queries and layers, at the tier's width.
family = "queries"
attention = dict(embed_dims=256, num_heads=4, dropout=0.1, batch_first=True)
ffn = dict(embed_dims=256, feedforward_channels=512, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU", inplace=True))
model = dict(
    type="DETR",
    num_queries=20,
    backbone=dict(out_indices=(3,)),
    neck=dict(_delete_=True, type="ChannelMapper", in_channels=[512], kernel_size=1, out_channels=256, act_cfg=None),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
        return_intermediate=True,
    ),
    positional_encoding=dict(num_feats=128, normalize=True),
    bbox_head=dict(
        type="DETRHead",
        num_classes=80,
        embed_dims=256,
        loss_cls=dict(type="CrossEntropyLoss", bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)


def adapt(model, facts):
    """Give neck, transformer and head the tier's width."""

    def widen(part):
        for key, value in part.items():
            if key == "embed_dims":
                part[key] = facts.channels
            elif isinstance(value, dict):
                widen(value)

    widen(model)
    model["neck"]["out_channels"] = facts.channels
    model["positional_encoding"]["num_feats"] = facts.channels // 2
