"""Where a network's features of each stride come from, for whatever is built on top of them.

A detector mixes features at strides 8, 16 and 32; every stride is tapped behind the last block that
has it. Plain functions, so that a network without those strides is refused before anything is
started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.space import SearchSpace

# The last part at each stride that comes before the classifier's own layers, by family.
_TORCHVISION: dict[str, dict[int, str]] = {
    "efficientnet_b": {4: "2", 8: "3", 16: "5", 32: "7"},
    "mobilenet_v2": {4: "3", 8: "6", 16: "13", 32: "17"},
    "resnet": {4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"},
    "shufflenet_v2": {4: "maxpool", 8: "stage2", 16: "stage3", 32: "stage4"},
}


@dataclass(frozen=True)
class Tap:
    """Where features of one stride come from.

    Attributes:
        position: of the block, counted from the stem (0) and the first block (1).
        channels: of its features.
    """

    position: int
    channels: int


def space_taps(space: SearchSpace) -> dict[int, Tap]:
    """The tap of every stride that the space has; in `spos`, 128 channels at stride 16."""
    blocks = [
        (space.stem_stride, space.stem_channels),
        (space.first_stride, space.first_channels),
        *((layer.stride, layer.out_channels) for layer in space.layers),
    ]
    taps: dict[int, Tap] = {}
    total = 1
    for position, (stride, channels) in enumerate(blocks):
        total *= stride
        taps[total] = Tap(position, channels)  # a later block of the same stride takes its place
    return taps


def select_taps(space: SearchSpace, strides: Sequence[int]) -> tuple[Tap, ...]:
    """The taps of a space at these strides; raises ValueError naming the strides that it has."""
    taps = space_taps(space)
    remedy = "a space with more strides, or other out_strides"
    _check_strides(f"space {space.name!r}", sorted(taps), strides, remedy)
    return tuple(taps[stride] for stride in strides)


def torchvision_taps(name: str, strides: Sequence[int]) -> list[str]:
    """The parts of a classifier of torchvision that have these strides, in their order.

    Raises ValueError for a network of another family, or naming the strides that it has.
    """
    taps = next((taps for family, taps in _TORCHVISION.items() if name.startswith(family)), None)
    if taps is None:
        raise ValueError(
            f"unknown backbone {name!r}: expected torchvision's name of a network of the families "
            f"{', '.join(_TORCHVISION)}, such as 'resnet18'."
        )
    _check_strides(name, list(taps), strides, "others as out_strides")
    return [taps[stride] for stride in strides]


def _check_strides(
    network: str, existing: Sequence[int], strides: Sequence[int], remedy: str
) -> None:
    if not strides or not set(strides) <= set(existing):
        exist, asked = (", ".join(map(str, each)) or "none" for each in (existing, strides))
        raise ValueError(
            f"{network} has features at the strides {exist}, but the detector asks for {asked}: "
            f"take {remedy}."
        )
