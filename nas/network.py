"""Supernet and subnet: all candidates with shared weights, and one architecture on its own.

Both are the same network around different layers, so that a subnet cut out of a supernet computes
exactly what the supernet computes along that path. The architecture is an argument of the
supernet's `forward` and never module state: any number of paths can be run in any order.

Shape legend: B images, C channels, H height, W width, L layers, N candidate operations, K classes.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from nas.blocks import ConvBNAct, MBConv
from nas.space import IDENTITY, Architecture, SearchSpace


class _Network(nn.Module):
    """Stem, first block, head and classifier, which supernet and subnet share."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        self.stem = ConvBNAct(
            space.in_channels, space.stem_channels, kernel=3, stride=space.stem_stride
        )
        self.first_block = MBConv(
            space.stem_channels,
            space.first_channels,
            kernel=space.first_kernel,
            expansion=1,
            stride=space.first_stride,
        )
        self.layers = nn.ModuleList()
        self.head = ConvBNAct(space.layers[-1].out_channels, space.head_channels)
        self.classifier = nn.Linear(space.head_channels, space.num_classes)

    def classify(self, features_BCHW: Tensor) -> Tensor:
        """Logits [B, K] from the last layer's features."""
        return cast(Tensor, self.classifier(self.head(features_BCHW).mean(dim=(2, 3))))


class Supernet(_Network):
    """All candidate operations of a space with shared weights.

    `layers[l][n]` is candidate n of layer l; a layer fixed to the identity holds none.

    Args:
        space: the search space, already adapted to the images (`SearchSpace.for_images`).
        seed: decides every initial weight; nothing reads a global generator.
        gamma_init: initial γ of the last batch norm of every searched block, the one that Eq. 3
            reads; all others start at 1. A small one keeps blocks with a residual close to the
            identity, so that a path means much the same whatever its neighbours are, and a
            supernet learns in far fewer steps.
    """

    def __init__(self, space: SearchSpace, *, seed: int, gamma_init: float = 1.0) -> None:
        with torch.device("meta"):
            super().__init__(space)
            for index, layer in enumerate(space.layers):
                choices = range(0 if layer.fixed_identity else len(layer.candidates))
                self.layers.append(
                    nn.ModuleList(_candidate_block(space, index, choice) for choice in choices)
                )
        _materialise(self, seed, gamma_init)

    def candidate(self, layer: int, choice: int) -> MBConv:
        """The block of candidate operation `choice` in `layer`."""
        return cast(MBConv, cast(nn.ModuleList, self.layers[layer])[choice])

    def path(self, arch: Architecture) -> list[MBConv]:
        """The blocks that `arch` activates, in order, identities left out."""
        self.space.validate(arch)
        return [
            self.candidate(layer, choice) for layer, choice in enumerate(arch) if choice != IDENTITY
        ]

    def forward(self, images_BCHW: Tensor, arch: Architecture) -> Tensor:
        """Logits [B, K] of the images along the path `arch`."""
        features_BCHW = self.first_block(self.stem(images_BCHW))
        for block in self.path(arch):
            features_BCHW = block(features_BCHW)
        return self.classify(features_BCHW)


class Subnet(_Network):
    """One architecture as a stand-alone network; arguments as for `Supernet`."""

    def __init__(
        self, space: SearchSpace, arch: Architecture, *, seed: int, gamma_init: float = 1.0
    ) -> None:
        space.validate(arch)
        with torch.device("meta"):
            super().__init__(space)
            self.arch = arch
            for index, choice in enumerate(arch):
                self.layers.append(
                    nn.Identity() if choice == IDENTITY else _candidate_block(space, index, choice)
                )
        _materialise(self, seed, gamma_init)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] of the images."""
        features_BCHW = self.first_block(self.stem(images_BCHW))
        for layer in self.layers:
            features_BCHW = layer(features_BCHW)
        return self.classify(features_BCHW)


def extract_subnet(supernet: Supernet, arch: Architecture) -> Subnet:
    """The subnet of `arch` with a copy of the supernet's weights and BN statistics.

    Its logits equal the supernet's along `arch`; changing it leaves the supernet alone.
    """
    subnet = Subnet(supernet.space, arch, seed=0)
    inherited: dict[str, Tensor] = {}
    for name, value in supernet.state_dict().items():
        part, _, rest = name.partition(".")
        if part != "layers":
            inherited[name] = value
            continue
        layer, choice, tail = rest.split(".", 2)
        if arch[int(layer)] == int(choice):
            inherited[f"layers.{layer}.{tail}"] = value
    subnet.load_state_dict(inherited, strict=True)
    subnet.train(supernet.training)
    return subnet.to(next(supernet.parameters()).device)


def _candidate_block(space: SearchSpace, layer_index: int, choice: int) -> MBConv:
    layer = space.layers[layer_index]
    candidate = layer.candidates[choice]
    return MBConv(
        layer.in_channels,
        layer.out_channels,
        kernel=candidate.kernel,
        expansion=candidate.expansion,
        stride=layer.stride,
        se=space.se,
    )


def _materialise(network: _Network, seed: int, gamma_init: float) -> None:
    """Give a network built on the meta device its initial values, as a pure function of `seed`.

    Convolutions are He-normal by fan-out, as MobileNetV2's; batch norm then takes care of scale.
    Biases are 0. The classifier's weights are PyTorch's own, uniform in ±1/√in, and not
    MobileNetV2's normal of standard deviation 0.01: where only batch norm trains, they keep their
    initial values, and with such small ones hardly any gradient reaches a γ.
    """
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for block in network.layers.modules():
        if isinstance(block, MBConv):
            nn.init.constant_(block.last_bn.weight, gamma_init)
