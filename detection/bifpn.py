"""EfficientDet's feature pyramid (Tan et al., CVPR 2020, Section 3).

Three levels from the backbone and two pooled from the last of them (P3 to P7) are fused top-down,
then bottom-up, `num_stages` times over. Each fusion is a weighted mean whose weights are learned
(fast normalised fusion, Section 3.3).

Departures from the authors' TensorFlow code, neither of which changes a size: max pooling pads by
one pixel on every side, where TensorFlow's "same" pads an even side at its end alone; and a
convolution in front of a batch norm has no bias, which that would cancel.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

# EfficientDet's batch norm: TensorFlow's momentum 0.99 is 0.01 to PyTorch.
EFFICIENTDET_BN = {"type": "BN", "momentum": 0.01, "eps": 1e-3}
# Variance 1/fan-in for every convolution, TensorFlow's default.
EFFICIENTDET_INIT = {
    "type": "Kaiming",
    "layer": "Conv2d",
    "mode": "fan_in",
    "nonlinearity": "linear",
}

_NUM_INPUTS = 3  # P3, P4, P5; P6 and P7 come from P5
_NUM_LEVELS = 5
_EPSILON = 1e-4


@MODELS.register_module()
class BiFPN(BaseModule):
    """Bidirectional feature pyramid, P3 to P7 from a backbone's features at strides 8, 16, 32.

    Input three tensors [B, `in_channels[i]`, H, W]; output five [B, `out_channels`, H, W], each
    with half the side of the one before, rounded up.

    Args:
        in_channels: channels of the three features.
        out_channels: channels of every level of the pyramid; 64 in D0.
        num_stages: how often the levels are fused; 3 in D0.
        norm_cfg: the batch norm.
        init_cfg: MMEngine's.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 64,
        num_stages: int = 3,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=EFFICIENTDET_INIT if init_cfg is None else init_cfg)
        if len(in_channels) != _NUM_INPUTS or num_stages < 1:
            raise ValueError(
                f"the BiFPN takes features of {_NUM_INPUTS} strides and fuses them at least once: "
                f"got in_channels={list(in_channels)} and num_stages={num_stages}."
            )
        norm_cfg = dict(EFFICIENTDET_BN if norm_cfg is None else norm_cfg)

        def project(level: int) -> ConvModule:
            return ConvModule(in_channels[level], out_channels, 1, norm_cfg=norm_cfg, act_cfg=None)

        self.lateral = nn.ModuleList(project(level) for level in range(_NUM_INPUTS))
        self.to_p6 = nn.ModuleList([project(_NUM_INPUTS - 1)])
        # In the first stage the bottom-up pass sees P4 and P5 through projections of its own.
        self.lateral_up = nn.ModuleList(project(level) for level in range(1, _NUM_INPUTS))
        self.stages = nn.ModuleList(BiFPNStage(out_channels, norm_cfg) for _ in range(num_stages))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """P3 to P7."""
        p6 = _pool(self.to_p6[0](features[-1]))
        pooled = [p6, _pool(p6)]
        down = [*(project(x) for project, x in zip(self.lateral, features, strict=True)), *pooled]
        up = [
            down[0],
            *(project(x) for project, x in zip(self.lateral_up, features[1:], strict=True)),
            *pooled,
        ]
        for stage in self.stages:
            down = up = stage(down, up)
        return tuple(down)


class BiFPNStage(nn.Module):
    """One top-down and one bottom-up pass through the levels, from finest to coarsest (Fig. 2d)."""

    def __init__(self, channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        num_nodes = _NUM_LEVELS - 1
        self.down = nn.ModuleList(Fusion(2, channels, norm_cfg) for _ in range(num_nodes))
        self.up = nn.ModuleList(
            Fusion(2 if level == num_nodes - 1 else 3, channels, norm_cfg)
            for level in range(num_nodes)
        )

    def forward(self, levels: Sequence[Tensor], levels_up: Sequence[Tensor]) -> list[Tensor]:
        """The fused levels; `levels_up` are the stage's inputs as the bottom-up pass sees them."""
        fused = list(levels)
        for level in reversed(range(_NUM_LEVELS - 1)):  # P6, P5, P4, P3
            coarser = F.interpolate(fused[level + 1], size=levels[level].shape[-2:], mode="nearest")
            fused[level] = self.down[level]([levels[level], coarser])
        for level in range(1, _NUM_LEVELS):  # P4, P5, P6, P7
            inputs = [levels_up[level]]
            if level < _NUM_LEVELS - 1:  # P7 has no top-down node
                inputs.append(fused[level])
            fused[level] = self.up[level - 1]([*inputs, _pool(fused[level - 1])])
        return fused


class Fusion(nn.Module):
    """Fast normalised fusion of `num_inputs` tensors of one shape, swish, separable convolution."""

    def __init__(self, num_inputs: int, channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(num_inputs))
        self.conv = DepthwiseSeparableConvModule(
            channels,
            channels,
            3,
            padding=1,
            bias=False,
            act_cfg=None,
            pw_norm_cfg=norm_cfg,
        )

    @property
    def shares(self) -> Tensor:
        """Each input's weight: max(w, 0) / (Σ max(w, 0) + ε); never negative, about 1 in all."""
        weights = self.weights.relu()
        return weights / (weights.sum() + _EPSILON)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """One tensor of the inputs' shape."""
        fused = sum(share * x for share, x in zip(self.shares, inputs, strict=True))
        return self.conv(F.silu(fused))


def _pool(features_BCHW: Tensor) -> Tensor:
    """Max pooling to half the side, rounded up."""
    return F.max_pool2d(features_BCHW, kernel_size=3, stride=2, padding=1)
