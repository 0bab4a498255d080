"""A small head, and scenes whose loss it is asked for."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from detection.head import EfficientDetHead

STRIDES = (8, 16, 32, 64, 128)
NUM_CLASSES = 3
TRAIN_CFG = ConfigDict(
    assigner={
        "type": "mmdet.MaxIoUAssigner",
        "pos_iou_thr": 0.5,
        "neg_iou_thr": 0.5,
        "min_pos_iou": 0,
        "ignore_iof_thr": -1,
    },
    sampler={"type": "mmdet.PseudoSampler"},
    allowed_border=-1,
    pos_weight=-1,
)
SIDE = 64
META = dict.fromkeys(("img_shape", "pad_shape", "batch_input_shape"), (SIDE, SIDE))


def make_head(**changes: Any) -> EfficientDetHead:
    head = EfficientDetHead(
        NUM_CLASSES, in_channels=8, feat_channels=8, train_cfg=TRAIN_CFG, **changes
    )
    head.init_weights()
    return head


def pyramid(side: int = SIDE, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sides = [-(-side // stride) for stride in STRIDES]
    return [torch.randn(batch, 8, s, s, generator=generator) for s in sides]


def objects(boxes: list[list[float]], labels: list[int]) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.tensor(labels).long())


SCENES = [
    objects([[13.0, 5, 44, 36], [2, 30, 62, 61]], [1, 2]),
    objects([[20.0, 10, 29, 55]], [0]),  # so narrow that no anchor reaches an IoU of 0.5
]


def head_loss(images: slice) -> float:
    """Loss of some of the scenes, with the same weights in every process."""
    torch.manual_seed(0)
    head = make_head().eval()
    scenes = SCENES[images]
    with torch.no_grad():
        levels = [level[images] for level in pyramid(batch=2)]
        losses = head.loss_by_feat(*head(levels), scenes, [META] * len(scenes))
    return float(sum(sum(parts) for parts in losses.values()))
