"""Training and evaluation of supernets and subnets, on one rank or many.

The step is the same for both; a supernet runs one pass per sampled path and adds the gradients up
before the one optimiser step (FairNAS runs N paths a step, SPOS one), a subnet runs one pass.
Parameters that no pass used keep `grad=None`: the optimiser leaves them, their momentum and their
weight decay alone, and no byte of them crosses the network. `DistributedDataParallel` would reduce
every parameter, or search the graph for the unused ones at each step; here every rank knows which
path a step uses (`nas.sampling`), so only the gradients that exist are summed, in one message.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nas.network import Supernet, extract_subnet
from nas.schedule import WarmupCosine
from nas.space import Architecture

Batches = Iterable[tuple[Tensor, Tensor]]
Passes = Callable[[int], Sequence[tuple[Any, ...]]]
AfterStep = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class EpochStats:
    """Means over the images that an epoch trained on, all ranks together."""

    loss: float
    top1: float
    num_steps: int


@dataclass(frozen=True)
class Evaluation:
    """Top-1 accuracy (0 to 1) and cross-entropy without smoothing, all ranks together."""

    top1: float
    loss: float
    num_images: int


def build_optimizer(
    network: nn.Module,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    decay_bn_and_bias: bool = False,
) -> torch.optim.SGD:
    """Nesterov SGD (section 4.1) over the parameters that train; call it after freezing.

    Weight decay leaves batch norm and biases alone unless `decay_bn_and_bias`: decaying γ would
    pull at the very numbers that the BN indicator reads. The paper does not say; the authors'
    released code decays the weights of convolutions and of the classifier, and the classifier's
    bias. The learning rate is set at every step by `train_epoch`.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                spare = isinstance(module, _BatchNorm) or name == "bias"
                (spared if spare and not decay_bn_and_bias else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=0.0, momentum=momentum, nesterov=True
    )


def train_epoch(
    network: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    schedule: WarmupCosine,
    *,
    first_step: int,
    totals: Tensor | None = None,
    after_step: AfterStep = lambda step, totals: None,
    global_batch: int | None = None,
    passes: Passes = lambda step: [()],
    label_smoothing: float = 0.1,
    clip_norm: float | None = None,
    device: str = "cpu",
    autocast: torch.dtype | None = None,
) -> EpochStats:
    """Train on `batches`; `first_step` counts from the start of the training.

    An epoch that was left in its middle goes on with its remaining batches, the number of its next
    step, and on one rank the `totals` [3] that it had: the sums over all ranks of loss, correct
    answers and images. `after_step(step, totals)` is called after every step with this rank's.

    `global_batch` is how many images a step has on all ranks together; without it one rank has all.

    `passes(step)` gives the arguments after the images for every forward pass of a step: `[()]` for
    a subnet, `[(arch,), …]` for a supernet. On several ranks each gets its share of every batch,
    of whatever size, all must get the same `passes`, and the network's batch norms are those of
    `nas.sync_batch_norm`: then the ranks together do what one does with the whole batch.
    """
    network.train()
    # Summed loss, correct answers and images over all passes, kept where the network is.
    if totals is None:
        totals = torch.zeros(3, dtype=torch.float64, device=device)
    device_type = torch.device(device).type
    step = first_step
    for images_BCHW, labels_B in batches:
        images_BCHW = to_device(images_BCHW, device)
        labels_B = labels_B.to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        optimizer.zero_grad(set_to_none=True)
        # With what part of the global batch this rank's mean loss counts.
        share = 1.0 if global_batch is None else len(labels_B) / global_batch
        for arguments in passes(step):
            with torch.autocast(device_type, autocast, enabled=autocast is not None):
                logits_BK = network(images_BCHW, *arguments)
                loss = F.cross_entropy(logits_BK, labels_B, label_smoothing=label_smoothing)
            (loss * share).backward()
            totals[0] += loss.detach() * len(labels_B)
            totals[1] += (logits_BK.detach().argmax(dim=1) == labels_B).sum()
            totals[2] += len(labels_B)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        sum_gradients(parameters)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        step += 1
        after_step(step, totals)
    loss_sum, num_correct, num_images = sum_over_ranks(totals).tolist()
    return EpochStats(
        loss=loss_sum / num_images, top1=num_correct / num_images, num_steps=step - first_step
    )


@torch.no_grad()
def evaluate(
    network: nn.Module, batches: Batches, arguments: tuple[Any, ...] = (), *, device: str = "cpu"
) -> Evaluation:
    """Accuracy and cross-entropy of `network(images, *arguments)` over `batches`."""
    network.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # correct, summed loss, images
    for images_BCHW, labels_B in batches:
        if len(labels_B) == 0:  # this rank's share of the last batch can be empty
            continue
        logits_BK = network(to_device(images_BCHW, device), *arguments)
        labels_B = labels_B.to(device)
        totals[0] += (logits_BK.argmax(dim=1) == labels_B).sum()
        totals[1] += F.cross_entropy(logits_BK, labels_B, reduction="sum")
        totals[2] += len(labels_B)
    num_correct, loss_sum, num_images = sum_over_ranks(totals).tolist()
    return Evaluation(
        top1=num_correct / num_images, loss=loss_sum / num_images, num_images=int(num_images)
    )


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Batches, *, device: str = "cpu") -> None:
    """Recompute every batch norm's statistics as plain averages over `batches`, in place.

    A supernet's statistics mix all the paths that were sampled, so a subnet with inherited weights
    must be recalibrated on training images before its accuracy means anything (SPOS, section 3.3).
    """
    torch.optim.swa_utils.update_bn(
        (to_device(images_BCHW, device) for images_BCHW, _ in batches), network
    )


def subnet_accuracy(
    supernet: Supernet,
    arch: Architecture,
    *,
    recalibration: Callable[[], Batches],
    validation: Callable[[], Batches],
    device: str = "cpu",
) -> Evaluation:
    """The accuracy indicator, SPOS's way of ranking, which BN-NAS replaces.

    The subnet inherits the supernet's weights, is recalibrated on training images and evaluated on
    held-out *training* images, never on the test set. The supernet stays as it is.
    `recalibration` and `validation` start a fresh pass over the training images that recalibrate
    the statistics and over the search-validation images.
    """
    subnet = extract_subnet(supernet, arch)
    recalibrate(subnet, recalibration(), device=device)
    return evaluate(subnet, validation(), device=device)


def to_device(images_BCHW: Tensor, device: str) -> Tensor:
    """Images on the device, channels last: on CPUs and tensor cores the faster layout."""
    return images_BCHW.to(device, memory_format=torch.channels_last, non_blocking=True)


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over all ranks."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def sum_gradients(parameters: Iterable[nn.Parameter]) -> int:
    """Sum the gradients that exist over all ranks, in place; returns how many numbers moved.

    The ranks must have run the same paths, so that the same gradients exist on each.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world_size() == 1 or not gradients:
        return 0
    flat = sum_over_ranks(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return flat.numel()
