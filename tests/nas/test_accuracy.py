"""The accuracy indicator: inherited weights, recalibrated statistics, an untouched supernet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.data import load_data
from nas.network import Supernet, extract_subnet
from nas.sampling import fair_paths
from nas.schedule import WarmupCosine
from nas.training import Batches, build_optimizer, evaluate, subnet_accuracy, train_epoch
from tests.nas.examples import TINY, Batch, digit_batches, random_architectures

NUM_STEPS = 80


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    network = Supernet(TINY, seed=0)
    train_epoch(
        network,
        digit_batches(NUM_STEPS),
        build_optimizer(network),
        WarmupCosine(start=0.05, peak=0.1, warmup_steps=10, num_steps=NUM_STEPS),
        first_step=0,
        passes=lambda step: [(arch,) for arch in fair_paths(TINY, 0, step)],
    )
    return network


@pytest.fixture(scope="module")
def validation() -> list[Batch]:
    splits = load_data("digits", augment=False)
    return list(splits.search_val.batches(50, training=False))


def recalibration() -> Batches:
    return digit_batches(10)


def by_hand(supernet: Supernet, arch: tuple[int, ...], validation: list[Batch]) -> float:
    """Top-1 with every batch norm's statistics averaged by hooks, layer after layer."""
    subnet = extract_subnet(supernet, arch).train()
    statistics: dict[nn.BatchNorm2d, list[tuple[Tensor, Tensor]]] = {}

    def observe(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        variance_C, mean_C = torch.var_mean(inputs[0].detach(), dim=(0, 2, 3))
        statistics.setdefault(module, []).append((mean_C, variance_C))

    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(observe) for norm in norms]
    with torch.no_grad():
        for images_BCHW, _ in recalibration():
            subnet(images_BCHW)
        for hook in hooks:
            hook.remove()
        for norm in norms:
            means, variances = zip(*statistics[norm], strict=True)
            norm.running_mean = torch.stack(means).mean(dim=0)
            norm.running_var = torch.stack(variances).mean(dim=0)
        subnet.eval()
        num_correct = sum(
            int((subnet(images_BCHW).argmax(dim=1) == labels_B).sum())
            for images_BCHW, labels_B in validation
        )
    return num_correct / sum(len(labels_B) for _, labels_B in validation)


def test_accuracy_equals_an_independent_computation(
    supernet: Supernet, validation: list[Batch]
) -> None:
    for arch in random_architectures(TINY, 3, seed=1):
        result = subnet_accuracy(
            supernet, arch, recalibration=recalibration, validation=lambda: validation
        )
        assert result.top1 == by_hand(supernet, arch, validation)
        assert result.num_images == sum(len(labels_B) for _, labels_B in validation)
        assert result.top1 > 0.15  # chance is a tenth


def test_recalibration_changes_the_accuracy(supernet: Supernet, validation: list[Batch]) -> None:
    archs = random_architectures(TINY, 5, seed=1)
    recalibrated = [
        subnet_accuracy(supernet, a, recalibration=recalibration, validation=lambda: validation)
        for a in archs
    ]
    stale = [evaluate(extract_subnet(supernet, arch), validation) for arch in archs]
    assert all(a.loss != b.loss for a, b in zip(recalibrated, stale, strict=True))
    assert [a.top1 for a in recalibrated] != [b.top1 for b in stale]


@pytest.mark.parametrize("training", [False, True])
def test_the_supernet_stays_as_it_is(
    supernet: Supernet, validation: list[Batch], training: bool
) -> None:
    supernet.train(training)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    results = [
        subnet_accuracy(
            supernet, (0, -1, 1, 2, 0), recalibration=recalibration, validation=lambda: validation
        )
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert supernet.training == training
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
