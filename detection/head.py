"""EfficientDet's head: one classifier and one box regressor for all levels of the pyramid.

Both are a stack of depthwise-separable convolutions whose weights every level shares, while each
level has batch norms of its own, since the statistics differ from level to level (Tan et al., CVPR
2020, and the authors' code). Anchors, targets, decoding and suppression are MMDetection's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from mmcv.cnn import DepthwiseSeparableConvModule, build_norm_layer
from mmdet.models.dense_heads import AnchorHead
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.model import bias_init_with_prob, normal_init
from torch import Tensor, nn
from torch.nn import functional as F

from detection.bifpn import EFFICIENTDET_BN, EFFICIENTDET_INIT

# Squares of 4 strides, 2^⅓ and 2^⅔ times that, and two other shapes, at every cell's centre.
ANCHORS = {
    "type": "AnchorGenerator",
    "octave_base_scale": 4,
    "scales_per_octave": 3,
    "ratios": [1.0, 0.5, 2.0],
    "strides": [8, 16, 32, 64, 128],
    "center_offset": 0.5,
}
FOCAL_LOSS = {
    "type": "FocalLoss",
    "use_sigmoid": True,
    "alpha": 0.25,
    "gamma": 1.5,
    "loss_weight": 1.0,
}
# EfficientDet's box loss is 50 · Huber(δ = 0.1), meaned over the four numbers of every positive
# anchor. Huber(δ) is δ · smooth L1(β = δ), and MMDetection sums the four numbers.
BOX_LOSS = {"type": "SmoothL1Loss", "beta": 0.1, "loss_weight": 50 * 0.1 / 4}

_PRIOR = 0.01  # probability of an object that an untrained classifier gives


@MODELS.register_module()
class EfficientDetHead(AnchorHead):
    """Shared separable convolutions per branch, batch norm per level, nine anchors per cell.

    Args:
        num_classes: categories, without background.
        in_channels: channels of every level.
        feat_channels: channels within the branches; 64 in D0.
        stacked_convs: convolutions in a branch before the one that predicts; 3 in D0.
        norm_cfg: the batch norm.
        anchor_generator: one entry of `strides` for every level of the pyramid.
        loss_cls: focal loss with α 0.25 and γ 1.5.
        loss_bbox: Huber loss with δ 0.1 and weight 50.
        init_cfg: MMEngine's.
        kwargs: `bbox_coder`, `train_cfg` and `test_cfg`, as of every anchor head of MMDetection.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 64,
        feat_channels: int = 64,
        stacked_convs: int = 3,
        norm_cfg: dict[str, Any] | None = None,
        anchor_generator: dict[str, Any] | None = None,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.stacked_convs = stacked_convs
        self.norm_cfg = dict(EFFICIENTDET_BN if norm_cfg is None else norm_cfg)
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            anchor_generator=dict(ANCHORS if anchor_generator is None else anchor_generator),
            loss_cls=dict(FOCAL_LOSS if loss_cls is None else loss_cls),
            loss_bbox=dict(BOX_LOSS if loss_bbox is None else loss_bbox),
            init_cfg=EFFICIENTDET_INIT if init_cfg is None else init_cfg,
            **kwargs,
        )

    def _init_layers(self) -> None:
        """Build the branches; `AnchorHead.__init__` calls this."""

        def branch(num_outputs: int) -> Branch:
            return Branch(
                self.in_channels,
                self.feat_channels,
                self.num_base_priors * num_outputs,
                num_convs=self.stacked_convs,
                num_levels=self.prior_generator.num_levels,
                norm_cfg=self.norm_cfg,
            )

        self.classify = branch(self.cls_out_channels)
        self.regress = branch(self.bbox_coder.encode_size)

    def init_weights(self) -> None:
        """As `init_cfg` says; then predictions near 0, and classes at a probability of 0.01."""
        super().init_weights()
        for predict, bias in (
            (self.classify.predict, bias_init_with_prob(_PRIOR)),
            (self.regress.predict, 0.0),
        ):
            normal_init(predict.pointwise_conv.conv, std=0.01, bias=bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits [B, 9 · classes, H, W] and box deltas [B, 9 · 4, H, W] of every level."""
        logits = [self.classify(level, index) for index, level in enumerate(levels)]
        return logits, [self.regress(level, index) for index, level in enumerate(levels)]

    def get_targets(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """MMDetection's targets, with the number of positive anchors meaned over the ranks.

        Gradients are meaned over the ranks, too, and so N ranks learn what one would from all the
        images, although some ranks see more objects than others.
        """
        labels, label_weights, box_targets, box_weights, num_positive, *rest = super().get_targets(
            *args, **kwargs
        )
        mean = reduce_mean(torch.tensor(float(num_positive), device=labels[0].device))
        return labels, label_weights, box_targets, box_weights, max(mean.item(), 1.0), *rest


class Branch(nn.Module):
    """Separable convolutions that all levels share, each followed by the level's own batch norm."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        num_convs: int,
        num_levels: int,
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            DepthwiseSeparableConvModule(
                in_channels if index == 0 else channels,
                channels,
                3,
                padding=1,
                bias=False,
                act_cfg=None,
            )
            for index in range(num_convs)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(build_norm_layer(norm_cfg, channels)[1] for _ in range(num_convs))
            for _ in range(num_levels)
        )
        self.predict = DepthwiseSeparableConvModule(
            channels if num_convs else in_channels,
            out_channels,
            3,
            padding=1,
            bias=True,
            act_cfg=None,
        )

    def forward(self, features_BCHW: Tensor, level: int) -> Tensor:
        """Predictions of one level, which is counted from the finest."""
        for conv, norm in zip(self.convs, cast(nn.ModuleList, self.norms[level]), strict=True):
            features_BCHW = F.silu(norm(conv(features_BCHW)))
        return self.predict(features_BCHW)
