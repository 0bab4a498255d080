"""EfficientDet-D0's recipe on COCO with a searched backbone (BN-NAS, Table 3, last row).

Give the weights of a retrain stage, or the training starts from random ones:

    --cfg-options model.backbone.checkpoint=network.pt

Published for this recipe: 33.46 mAP with EfficientNet-B0, 33.32 with BN-NAS's architecture. The
other configs of this folder change the backbone and nothing else.
"""
# MMEngine makes every name in a config a key of it: nothing may be imported.
# ruff: noqa: C408, I002

custom_imports = dict(imports=["detection"], allow_failed_imports=False)
default_scope = "mmdet"

data_root = "data/coco/"
image_size = (512, 512)
batch_size = 16  # a GPU, of eight
max_epochs = 300

model = dict(
    type="EfficientDet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],  # RGB, 0 to 255
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=128,  # the stride of P7
        batch_augments=[dict(type="BatchFixedSizePad", size=image_size)],  # in training
    ),
    backbone=dict(
        type="SearchedBackbone",
        space="spos",
        arch="3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2",
        out_strides=(8, 16, 32),
        checkpoint=None,
    ),
    neck=dict(type="BiFPN", out_channels=64, num_stages=3),  # in_channels are the backbone's
    bbox_head=dict(
        type="EfficientDetHead",
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=3,
        anchor_generator=dict(
            type="AnchorGenerator",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[1.0, 0.5, 2.0],
            strides=[8, 16, 32, 64, 128],
            center_offset=0.5,
        ),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, alpha=0.25, gamma=1.5, loss_weight=1.0),
        # 50 · Huber(δ = 0.1), meaned over a box's four numbers: see detection/head.py
        loss_bbox=dict(type="SmoothL1Loss", beta=0.1, loss_weight=50 * 0.1 / 4),
    ),
    train_cfg=dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type="PseudoSampler"),  # focal loss uses every anchor
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="soft_nms", iou_threshold=0.3, sigma=0.5, min_score=1e-3, method="gaussian"),
        max_per_img=100,
    ),
)
# Batch norm over all GPUs. PyTorch synchronises it on GPUs only: None trains on CPUs, with plain
# batch norm on every worker.
sync_bn = "torch"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=image_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=image_size, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(
    batch_size=batch_size,
    drop_last=True,  # batch norm needs more than the one image that a rest may be
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="UnroundedCocoMetric",
    ann_file=data_root + "annotations/instances_val2017.json",
)
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.16, momentum=0.9, weight_decay=4e-5),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
    clip_grad=dict(max_norm=10, norm_type=2),
)
auto_scale_lr = dict(enable=True, base_batch_size=128)  # lr is for this many images a step
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.1,
        begin=0,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min=0.0,
        begin=1,
        end=max_epochs,
        T_max=max_epochs - 1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",  # a shorter memory at the beginning
        momentum=0.0002,  # a decay of 0.9998
        update_buffers=True,
        priority=49,  # before the checkpoint
    ),
    dict(type="EpochSeedHook"),
    dict(type="SyncStatisticsHook"),
]
randomness = dict(seed=0)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
visualizer = dict(
    type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer"
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
