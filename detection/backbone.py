"""A searched network as a detector's backbone.

The blocks are the classifier's own (`nas.network.Subnet`), so that weights from a retrain stage
give the same features here as there; what lies behind the last tap is left out.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detection.weights import load_weights
from nas.network import Subnet
from nas.space import load_space, parse_architecture, space_from_dict
from nas.taps import select_taps


@MODELS.register_module()
class SearchedBackbone(BaseModule):
    """An architecture of a search space, with its features at several strides.

    Input [B, C, H, W]; output one tensor [B, `out_channels[i]`, ⌈H/s⌉, ⌈W/s⌉] for each stride s.

    Args:
        space: a built-in space by name, a user's by the path of its YAML file, or the content of
            such a file.
        arch: one choice per layer, in the published form `"3 -1 0 …"` or as a sequence.
        out_strides: strides of the features, in the order in which they are wanted.
        checkpoint: file with the weights of the trained classifier, or of this backbone; every key
            has to fit. Without one the initial values are a function of `seed`.
        in_channels: channels of the images, where they are not those of the space: 1 for a
            classifier that was trained on greyscale images.
        norm_eval: keep batch norm's statistics as they are, for batches too small to replace them.
        seed: decides the initial weights.
        init_cfg: MMEngine's, applied after all this.

    Raises:
        ValueError: no such space, not an architecture of it, no features at a stride, or weights
            that do not fit.
    """

    def __init__(
        self,
        space: str | Path | Mapping[str, Any],
        arch: str | Sequence[int],
        out_strides: Sequence[int] = (8, 16, 32),
        checkpoint: str | Path | None = None,
        in_channels: int | None = None,
        norm_eval: bool = False,
        seed: int = 0,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        found = space_from_dict(space) if isinstance(space, Mapping) else load_space(space)
        self.space = found.for_images(in_channels=in_channels)
        self.arch = parse_architecture(arch) if isinstance(arch, str) else tuple(arch)
        self.out_strides = tuple(out_strides)
        self.norm_eval = norm_eval
        self._taps = select_taps(self.space, self.out_strides)
        subnet = Subnet(self.space, self.arch, seed=seed)
        last = max(tap.position for tap in self._taps)
        self.stem, self.first_block = subnet.stem, subnet.first_block
        self.layers = subnet.layers[: last - 1]  # the stem is position 0, the first block 1
        if checkpoint is not None:
            behind = subnet.state_dict().keys() - self.state_dict().keys()
            load_weights(self, checkpoint, ignored=behind)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the features, in the order of `out_strides`."""
        return tuple(tap.channels for tap in self._taps)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The features at each stride."""
        outputs: list[Tensor] = []
        features_BCHW = images_BCHW
        for block in (self.stem, self.first_block, *self.layers):
            features_BCHW = block(features_BCHW)
            outputs.append(features_BCHW)
        return tuple(outputs[tap.position] for tap in self._taps)

    def train(self, mode: bool = True) -> SearchedBackbone:
        """Training or inference mode; with `norm_eval` batch norm stays in the latter."""
        super().train(mode)
        if self.norm_eval:
            freeze_norm(self)
        return self


def freeze_norm(network: nn.Module) -> None:
    """Put every batch norm into inference mode: it uses its statistics and leaves them alone."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
