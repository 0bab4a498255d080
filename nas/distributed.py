"""What ranks tell each other, and nothing more; without a process group, nothing at all.

`DistributedDataParallel` reduces every parameter, or searches the graph for the unused ones at each
step. A supernet's step uses one path, every rank knows which (`nas.sampling`), and so only the
gradients that exist are averaged, in one flat message.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over all ranks."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def average_gradients(parameters: Iterable[nn.Parameter]) -> int:
    """Average the gradients that exist over all ranks, in place; returns how many numbers moved.

    The ranks must have run the same paths, so that the same gradients exist on each.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return _average(gradients)


def average_buffers(network: nn.Module) -> int:
    """Average batch norm's running statistics over all ranks, in place; returns how many moved."""
    return _average([buffer for buffer in network.buffers() if buffer.is_floating_point()])


def _average(tensors: list[Tensor]) -> int:
    if world_size() == 1 or not tensors:
        return 0
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
    return flat.numel()
