"""NASWOT and SynFlow against references small enough to count."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas.network import Subnet
from nas.space import SearchSpace, space_from_dict
from nas.zero_cost import ZERO_COST_PROXIES, naswot, synflow
from tests.nas.examples import TINY, digit_batches

ARCH = (0, -1, 1, 2, 0)


def images(count: int = 6) -> Tensor:
    return digit_batches(1)[0][0][:count]


def states(subnet: Subnet, images_BCHW: Tensor) -> list[list[bool]]:
    """For every image, which units let something pass: read off the batch norms before ReLU6."""
    patterns: list[list[bool]] = [[] for _ in images_BCHW]

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for pattern, values in zip(patterns, output.flatten(1).tolist(), strict=True):
            pattern.extend(value > 0 for value in values)

    hooks = [
        block[1].register_forward_hook(record)
        for block in subnet.modules()
        if isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[2], nn.ReLU6)
    ]
    with torch.no_grad():
        subnet.train()(images_BCHW)
    for hook in hooks:
        hook.remove()
    return patterns


@pytest.mark.parametrize("space", [TINY, replace(TINY, se=True)], ids=["plain", "se"])
def test_naswot_equals_counting_units_one_by_one(space: SearchSpace) -> None:
    patterns = states(Subnet(space, ARCH, seed=3), images())
    # 6 + 6 channels at 8×8; e1: 4 at 4×4; e2: 16 at 4×4; e3: 24 at 2×2; e1: 12 at 2×2; head: 16.
    num_units = 12 * 64 + 4 * 16 + 16 * 16 * 2 + 24 * 16 + 24 * 4 + 12 * 4 + 16 * 4
    assert {len(pattern) for pattern in patterns} == {num_units}
    kernel = [
        [sum(a == b for a, b in zip(left, right, strict=True)) for right in patterns]
        for left in patterns
    ]
    determinant = sum(  # Leibniz' formula in whole numbers; the sign is the parity of inversions
        (-1) ** sum(a > b for a, b in itertools.combinations(order, 2))
        * math.prod(kernel[row][column] for row, column in enumerate(order))
        for order in itertools.permutations(range(len(kernel)))
    )
    expected = math.log(determinant)
    for training in (True, False):  # statistics are the batch's in either mode
        subnet = Subnet(space, ARCH, seed=3).train(training)
        assert naswot(subnet, images()) == pytest.approx(expected, rel=1e-10)


def test_naswot_of_equal_images_is_minus_infinity() -> None:
    for seed, count in ((0, 3), (1, 16), (2, 16)):
        images_BCHW = images(count).clone()
        images_BCHW[-1] = images_BCHW[0]
        assert naswot(Subnet(TINY, ARCH, seed=seed), images_BCHW) == -math.inf


def one_by_one_space(*, out_channels: int) -> SearchSpace:
    """One searched layer, k3 e2, from 3 channels; images of a single pixel; no residual before."""
    return space_from_dict(
        {
            "name": "pixel",
            "input": {"channels": 1, "resolution": 1, "num_classes": 2},
            "stem": {"channels": 2, "stride": 1},
            "first_block": {"channels": 3, "kernel": 3, "stride": 1},
            "candidates": [[3, 2]],
            "stages": [{"channels": out_channels, "layers": 1, "stride": 1}],
            "head": {"channels": 5},
        }
    )


def with_weights(space: SearchSpace, value: float) -> Subnet:
    subnet = Subnet(space, (0,), seed=0)
    with torch.no_grad():
        for module in subnet.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.fill_(value)
    return subnet


def test_synflow_of_a_chain_by_hand() -> None:
    # A chain of n weight layers without bias has Σ |θ·∂R/∂θ| = n·R. All weights are 1, so a pixel
    # becomes 1 (stem) · 1 (depthwise) · 2 (projection) · 3 (expansion) · 1 (depthwise)
    # · 6 (projection) · 4 (head) · 5 (classifier) = 720 in each of two logits.
    score = synflow(with_weights(one_by_one_space(out_channels=4), 1.0))
    assert score == pytest.approx(math.log(8 * 2 * 720), rel=1e-12)


def test_synflow_with_a_residual_by_hand() -> None:
    # The layer's input, 2 in each of 3 channels, is added to its output, 36: R = 2 · 5 · 3 · 38.
    # The three weight layers inside the residual branch carry 36/38 of R, the five others all.
    flow = 2 * 5 * 3 * 38
    score = synflow(with_weights(one_by_one_space(out_channels=3), 1.0))
    assert score == pytest.approx(math.log(5 * flow + 3 * flow * 36 / 38), rel=1e-12)


def test_synflow_ignores_signs_batch_norm_and_relu6() -> None:
    space = one_by_one_space(out_channels=4)
    expected = math.log(8 * 2 * 720 * 0.5**8)
    subnet = with_weights(space, -0.5)
    assert synflow(subnet) == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():
        for module in subnet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(3.0)
                module.bias.fill_(2.0)
                assert module.running_var is not None
                module.running_var.fill_(9.0)
    assert synflow(subnet) == pytest.approx(expected, rel=1e-12)
    doubled = synflow(with_weights(space, 64.0)) - synflow(with_weights(space, 32.0))
    assert doubled == pytest.approx(8 * math.log(2), rel=1e-12)  # not capped by ReLU6


@pytest.mark.parametrize("name", ZERO_COST_PROXIES)
@pytest.mark.parametrize("mode", [True, False])
def test_proxies_are_deterministic_and_leave_the_subnet_alone(name: str, mode: bool) -> None:
    subnet = Subnet(replace(TINY, se=True), ARCH, seed=3).train(mode)
    before = {key: value.clone() for key, value in subnet.state_dict().items()}
    torch.manual_seed(1)
    once = ZERO_COST_PROXIES[name](subnet, images())
    torch.manual_seed(2)
    assert ZERO_COST_PROXIES[name](subnet, images()) == once
    assert math.isfinite(once)
    assert all(torch.equal(value, before[key]) for key, value in subnet.state_dict().items())
    assert all(parameter.grad is None for parameter in subnet.parameters())
    assert not any(module._forward_hooks for module in subnet.modules())
    assert subnet.training == mode
    assert sum(isinstance(module, nn.ReLU6) for module in subnet.modules()) == 9
    other = ZERO_COST_PROXIES[name](Subnet(replace(TINY, se=True), ARCH, seed=4), images())
    assert other != once
