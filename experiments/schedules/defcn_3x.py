# DeFCN's recipe as released: 270,000 iterations with images of several sizes.
iterations = 270000
milestones = [210000, 250000]
# Learning rate: released config; momentum and weight decay: cvpods' defaults, as is base.py's warm-up. No clipping, one
# learning rate for the whole network, and no weight decay of normalisation layers.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomChoiceResize", scales=[(1333, short) for short in range(640, 801, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
