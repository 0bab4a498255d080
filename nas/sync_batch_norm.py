"""Batch norm over the images of all ranks, on CPUs too, whatever each rank's share of them is.

With it a network learns from a global batch what one rank would learn from it, to rounding. On GPUs
that is PyTorch's own `SyncBatchNorm`, which refuses tensors on CPUs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; every rank's term has the sum of the ranks' gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics in training are those of the images of all ranks.

    Mean and variance are sums over ranks that autograd knows of, so that gradients cross ranks as
    they cross images. Every rank must take part in every forward and backward pass.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # PyTorch's name
        """Normalise images [B, C, H, W]; B may differ between ranks."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        at_least = torch.promote_types(input.dtype, torch.float32)  # bfloat16 counts to 256
        images = input.to(at_least)
        size = images.new_tensor([images.numel() // images.shape[1]])
        sums = torch.cat([images.sum(dim=(0, 2, 3)), size])
        sums_C, count = _sum(sums).split([images.shape[1], 1])
        mean_C = sums_C / count
        centred_BCHW = images - mean_C[:, None, None]
        var_C = _sum(centred_BCHW.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = (
                1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            )
            self.running_mean.lerp_(mean_C, momentum)
            self.running_var.lerp_(var_C * (count / (count - 1)), momentum)
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        normalised: Tensor = centred_BCHW * scale_C[:, None, None] + self.bias[:, None, None]
        return normalised.to(input.dtype)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(values)
    return total


def synchronise_batch_norm(network: nn.Module, device: str) -> nn.Module:
    """The network with its batch norms synchronised, in place; parameters and names stay."""
    if device.startswith("cuda"):
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return synchronised
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CPUSyncBatchNorm
    return network
