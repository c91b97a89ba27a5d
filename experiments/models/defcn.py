# DeFCN, as its official code has it: one branch with POTO, 3D max filtering and the auxiliary one-to-many loss, no L1.
family = "one_to_one"
pretrained = "msra"  # of a tier's weights, those of the backbone with this ending
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675]),  # of the MSRA ResNet-50 that DeFCN starts from
    bbox_head=dict(
        type="DualAssignmentHead",
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        conv_bias=True,
        branches=[
            dict(
                type="OneToOneBranch",
                quality=dict(type="POTOQuality", alpha=0.8, center_radius=1.5, outside=-1.0),
                cls_weight=1.0,
                reg_weight=0.0,
                iou_weight=2.0,
                aux_weight=1.0,
                min_box_normaliser=1.0,
                max_filter=dict(norm_cfg=dict(type="GN", num_groups=32, requires_grad=True), eps=None),
                # Threshold, candidates and detections: the defaults of DeFCN's framework, cvpods, for FCOS.
                test_cfg=dict(score_thr=0.05, nms_pre=1000, nms=None, max_per_img=100),
            )
        ],
    ),
)
