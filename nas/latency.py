"""Measured latency as a cost table, so that exact search can keep a budget in milliseconds.

Every candidate operation is timed alone on the device that the network is meant for. Their sum
ignores what happens between layers (caches, fusion); check the winner as a whole.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas.cost import CostTable
from nas.network import Supernet
from nas.space import SearchSpace
from nas.training import to_device


def latency_table(
    space: SearchSpace, *, device: str = "cpu", batch_size: int = 1, num_repeats: int = 20
) -> CostTable:
    """Median forward time in milliseconds of every candidate operation, shape [L, N].

    The constant is the time of stem, first block, head and classifier.
    """
    supernet = Supernet(space, seed=0).eval().to(device).to(memory_format=torch.channels_last)
    table_LN = np.full((len(space.layers), space.num_candidates), np.nan)
    for index in space.searched_layers:
        layer = space.layers[index]
        shape = (batch_size, layer.in_channels, layer.resolution, layer.resolution)
        for choice in range(len(layer.candidates)):
            table_LN[index, choice] = _median_ms(
                supernet.candidate(index, choice), shape, device, num_repeats
            )
    stem_shape = (batch_size, space.in_channels, space.resolution, space.resolution)
    first = space.first_resolution
    last = space.layers[-1]
    features_shape = (batch_size, last.out_channels, last.out_resolution, last.out_resolution)
    constant_ms = (
        _median_ms(supernet.stem, stem_shape, device, num_repeats)
        + _median_ms(
            supernet.first_block,
            (batch_size, space.stem_channels, first, first),
            device,
            num_repeats,
        )
        + _median_ms(supernet.classify, features_shape, device, num_repeats)
    )
    return CostTable("latency_ms", table_LN, constant_ms)


@torch.no_grad()
def _median_ms(
    module: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int, int],
    device: str,
    num_repeats: int,
) -> float:
    images_BCHW = to_device(torch.zeros(shape), device)
    times_ms = []
    for repeat in range(num_repeats + 2):
        start_s = time.perf_counter()
        module(images_BCHW)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        if repeat >= 2:  # the first passes choose kernels and fill caches
            times_ms.append(1e3 * (time.perf_counter() - start_s))
    return statistics.median(times_ms)
