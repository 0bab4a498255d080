"""EfficientDet-D0 itself (Table 3): EfficientNet-B0 as the backbone, and nothing else changed."""
# ruff: noqa: C408, I002

_base_ = ["./efficientdet_d0_searched.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="TorchvisionBackbone",
        name="efficientnet_b0",
        out_strides=(8, 16, 32),
        weights="IMAGENET1K_V1",
    ),
)
