"""torchvision's classifiers as backbones: the other rows of Table 3, not written again.

Such a classifier is a sequence of parts, and running them one after the other gives the features
between them. torchvision's own feature extractor traces the network instead, and a deep copy of
what it returns no longer knows training from inference: its stochastic depth stays on, and the
moving average of the weights is a deep copy.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from detection.backbone import freeze_norm
from nas.taps import torchvision_taps


@MODELS.register_module()
class TorchvisionBackbone(BaseModule):
    """A classifier of torchvision with its features at several strides.

    Args:
        name: `efficientnet_b0`, `mobilenet_v2`, `resnet18`, `shufflenet_v2_x1_0` or another size of
            one of these families.
        out_strides: strides of the features, in the order in which they are wanted.
        weights: name of torchvision's weights, such as `IMAGENET1K_V1`, which it downloads into
            its cache; without them the weights are random.
        norm_eval: keep batch norm's statistics as they are.
        init_cfg: MMEngine's, applied after all this.

    Raises:
        ValueError: another network, other weights, or no features at a stride.
    """

    def __init__(
        self,
        name: str,
        out_strides: Sequence[int] = (8, 16, 32),
        weights: str | None = None,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        names = torchvision_taps(name, out_strides)
        from torchvision.models import get_model

        network = get_model(name, weights=weights)
        parts = dict(getattr(network, "features", network).named_children())
        positions = [list(parts).index(tap) for tap in names]
        self.out_strides = tuple(out_strides)
        self.norm_eval = norm_eval
        self._positions = positions
        self.parts = nn.ModuleDict(dict(islice(parts.items(), max(positions) + 1)))
        self.out_channels = self._measured_channels()

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The features at each stride."""
        outputs: list[Tensor] = []
        features_BCHW = images_BCHW
        for part in self.parts.values():
            features_BCHW = part(features_BCHW)
            outputs.append(features_BCHW)
        return tuple(outputs[position] for position in self._positions)

    def train(self, mode: bool = True) -> TorchvisionBackbone:
        """Training or inference mode; with `norm_eval` batch norm stays in the latter."""
        super().train(mode)
        if self.norm_eval:
            freeze_norm(self)
        return self

    @torch.no_grad()
    def _measured_channels(self) -> tuple[int, ...]:
        side = max(self.out_strides)
        self.eval()
        features = self(torch.zeros(1, 3, side, side))
        self.train()
        return tuple(feature.shape[1] for feature in features)
