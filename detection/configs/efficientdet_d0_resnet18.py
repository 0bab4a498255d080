"""Table 3's row with ResNet-18: another backbone, and nothing else."""
# ruff: noqa: C408, I002

_base_ = ["./efficientdet_d0_searched.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="TorchvisionBackbone",
        name="resnet18",
        out_strides=(8, 16, 32),
        weights="IMAGENET1K_V1",
    ),
)
