"""Small spaces and real digits that the tests of the method share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import yaml

from nas.data import load_data
from nas.space import Architecture, SearchSpace, space_from_dict

if TYPE_CHECKING:
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]

# A user's space with all that the built-in ones do not have: candidates that differ in kind and
# number from group to group, an expansion of 1, odd sides, strides in stem and first block, SE.
RAGGED_YAML = """
name: ragged
input: {channels: 2, resolution: 29, num_classes: 7}
stem: {channels: 6, stride: 2}
first_block: {channels: 5, kernel: 5, stride: 2}
candidates: [[3, 1], [7, 4]]
stages:
  - {channels: 9, layers: 2, stride: 2}
  - {channels: 9, layers: 2, stride: 1, candidates: {kernels: [1, 3, 5], expansions: [1, 2]}}
  - {channels: 12, layers: 1, stride: 2, candidates: [[5, 3]]}
head: {channels: 11}
fixed_identity: [3]
se: true
"""
RAGGED = space_from_dict(yaml.safe_load(RAGGED_YAML))

# Three candidates in every layer, one of them without an expansion; layer 1 is a fixed identity.
TINY = space_from_dict(
    {
        "name": "tiny",
        "input": {"channels": 1, "resolution": 8, "num_classes": 10},
        "stem": {"channels": 6, "stride": 1},
        "first_block": {"channels": 4, "kernel": 3, "stride": 1},
        "candidates": [[3, 1], [3, 2], [5, 3]],
        "stages": [
            {"channels": 8, "layers": 3, "stride": 2},
            {"channels": 12, "layers": 2, "stride": 2},
        ],
        "head": {"channels": 16},
        "fixed_identity": [1],
    }
)


def random_architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.random_architecture(rng) for _ in range(count)]


@cache
def digit_batches(num_batches: int, batch_size: int = 16) -> tuple[Batch, ...]:
    """The first training batches of scikit-learn's digits, normalised and not augmented."""
    batches = load_data("digits", augment=False).train.batches(batch_size, training=True, seed=0)
    return tuple(batch for _, batch in zip(range(num_batches), batches, strict=False))
