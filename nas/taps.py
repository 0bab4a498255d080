"""Where a network's features of each stride come from, for whatever is built on top of them.

A detector mixes features at strides 8, 16 and 32; every stride is tapped behind the last block that
has it. A plain function of the space, so that a space without those strides is found out before
anything is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.space import SearchSpace


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
    missing = [stride for stride in strides if stride not in taps]
    if missing or not strides:
        raise ValueError(
            f"space {space.name!r} has features at the strides {_listed(sorted(taps))}, but the "
            f"detector asks for {_listed(strides)}: take a space with more strides, or other "
            f"out_strides."
        )
    return tuple(taps[stride] for stride in strides)


def _listed(strides: Sequence[int]) -> str:
    return ", ".join(str(stride) for stride in strides) or "none"
