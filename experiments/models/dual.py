# The dual-assignment head. A training takes `o2o` with one of the qualities, and one of the `o2m` branches or none.
family = "dual"
model = dict(
    bbox_head=dict(
        type="DualAssignmentHead",
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        branches=[],
    )
)

qualities = dict(
    hungarian=dict(type="OneNetQuality", cls_weight=2.0, reg_weight=5.0, iou_weight=2.0),
    poto=dict(type="POTOQuality", alpha=0.8, center_radius=1.5, outside=0.0),
)

o2o = dict(
    type="OneToOneBranch",
    cls_weight=2.0,
    reg_weight=5.0,
    iou_weight=2.0,
    test_cfg=dict(score_thr=0.01, nms_pre=100, nms=None, max_per_img=100),
)

# 3D max filtering: the product of probabilities in log space; eps=1e-5 would clamp it as the official code does.
max_filter = dict(norm_cfg=dict(type="GN", num_groups=32, requires_grad=True), eps=None)

# The one-to-one branch's test_cfg elsewhere: by the part of the dataset, which counts first, or by the branch beside.
# The released DATE-R keeps more candidates per level than DATE-F, CrowdHuman more detections per image.
test_cfg_by_part = dict(crowdhuman=dict(score_thr=0.01, nms_pre=1000, nms=None, max_per_img=500))
test_cfg_beside = dict(retinanet=dict(score_thr=0.01, nms_pre=1000, nms=None, max_per_img=100))

o2m = dict(
    fcos=dict(
        type="FCOSBranch",
        regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)),
        test_cfg=dict(score_thr=0.05, nms_pre=1000, nms=0.5, max_per_img=100),
    ),
    retinanet=dict(
        type="RetinaBranch",
        reduce_normaliser=True,  # False: each process divides by its own number of positives, as the official code
        anchor_generator=dict(
            type="AnchorGenerator",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        test_cfg=dict(score_thr=0.05, nms_pre=1000, nms=0.5, max_per_img=100),
    ),
)
