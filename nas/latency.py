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

    def median_ms(module: Callable[[Tensor], Tensor], channels: int, resolution: int) -> float:
        shape = (batch_size, channels, resolution, resolution)
        return _median_ms(module, to_device(torch.zeros(shape), device), num_repeats)

    table_LN = np.full((len(space.layers), space.num_candidates), np.nan)
    for index in space.searched_layers:
        layer = space.layers[index]
        for choice in range(len(layer.candidates)):
            block = supernet.candidate(index, choice)
            table_LN[index, choice] = median_ms(block, layer.in_channels, layer.resolution)
    last = space.layers[-1]
    constant_ms = (
        median_ms(supernet.stem, space.in_channels, space.resolution)
        + median_ms(supernet.first_block, space.stem_channels, space.first_resolution)
        + median_ms(supernet.classify, last.out_channels, last.out_resolution)
    )
    return CostTable("latency_ms", table_LN, constant_ms)


@torch.no_grad()
def _median_ms(module: Callable[[Tensor], Tensor], images_BCHW: Tensor, num_repeats: int) -> float:
    times_ms = []
    for repeat in range(num_repeats + 2):
        start_s = time.perf_counter()
        module(images_BCHW)
        if images_BCHW.is_cuda:
            torch.cuda.synchronize(images_BCHW.device)
        if repeat >= 2:  # the first passes choose kernels and fill caches
            times_ms.append(1e3 * (time.perf_counter() - start_s))
    return statistics.median(times_ms)
