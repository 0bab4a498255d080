"""Classifiers as a detector's backbones: searched networks, and torchvision's for Table 3's rows.

A classifier is a row of blocks, and running them one after the other gives the features between
them; what lies behind the last tap is left out. The blocks of a searched network are the
classifier's own (`nas.network.Subnet`), so that weights from a retrain stage give the same features
here as there. torchvision's own feature extractor traces the network instead, and a deep copy of
what it returns no longer knows training from inference: its stochastic depth stays on, and the
moving average of the weights is a deep copy.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detection.weights import load_weights
from nas.network import Subnet
from nas.space import load_space, parse_architecture, space_from_dict
from nas.taps import select_taps, torchvision_taps


class _TappedBackbone(BaseModule):
    """A row of blocks, of which some have the features that are wanted."""

    out_channels: tuple[int, ...]  # of the features, in the order of `out_strides`
    _positions: Sequence[int]  # of the blocks whose outputs they are

    def __init__(
        self, out_strides: Sequence[int], norm_eval: bool, init_cfg: dict[str, Any] | None
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.out_strides = tuple(out_strides)
        self.norm_eval = norm_eval

    @abstractmethod
    def _blocks(self) -> Iterable[nn.Module]:
        """The row, up to the last block whose features are wanted."""

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The features at each stride."""
        outputs: list[Tensor] = []
        features_BCHW = images_BCHW
        for block in self._blocks():
            features_BCHW = block(features_BCHW)
            outputs.append(features_BCHW)
        return tuple(outputs[position] for position in self._positions)

    def train(self, mode: bool = True) -> Self:
        """Training or inference mode; with `norm_eval` batch norm stays in the latter."""
        super().train(mode)
        for module in self.modules() if self.norm_eval else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


@MODELS.register_module()
class SearchedBackbone(_TappedBackbone):
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
        super().__init__(out_strides, norm_eval, init_cfg)
        loaded = space_from_dict(space) if isinstance(space, Mapping) else load_space(space)
        self.space = loaded.for_images(in_channels=in_channels)
        self.arch = parse_architecture(arch) if isinstance(arch, str) else tuple(arch)
        taps = select_taps(self.space, self.out_strides)
        self.out_channels = tuple(tap.channels for tap in taps)
        self._positions = [tap.position for tap in taps]
        subnet = Subnet(self.space, self.arch, seed=seed)
        self.stem, self.first_block = subnet.stem, subnet.first_block
        # The stem is position 0, the first block 1.
        self.layers = subnet.layers[: max(self._positions) - 1]
        if checkpoint is not None:
            behind = subnet.state_dict().keys() - self.state_dict().keys()
            load_weights(self, checkpoint, ignored=behind)

    def _blocks(self) -> Iterable[nn.Module]:
        return self.stem, self.first_block, *self.layers


@MODELS.register_module()
class TorchvisionBackbone(_TappedBackbone):
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
        super().__init__(out_strides, norm_eval, init_cfg)
        taps = torchvision_taps(name, out_strides)
        from torchvision.models import get_model

        network = get_model(name, weights=weights)
        parts = dict(getattr(network, "features", network).named_children())
        self._positions = [list(parts).index(tap) for tap in taps]
        self.parts = nn.ModuleDict(dict(islice(parts.items(), max(self._positions) + 1)))
        side = max(self.out_strides)
        self.eval()  # batch norm's statistics stay as they are
        with torch.no_grad():
            self.out_channels = tuple(f.shape[1] for f in self(torch.zeros(1, 3, side, side)))
        self.train()

    def _blocks(self) -> Iterable[nn.Module]:
        return self.parts.values()
