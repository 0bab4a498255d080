"""Supernet and subnet: the same weights give the same logits, and a seed gives the same weights."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch
from torch import Tensor, nn

from nas.blocks import MBConv
from nas.network import Subnet, Supernet, extract_subnet
from nas.space import SearchSpace, load_space
from tests.nas.examples import RAGGED, TINY, random_architectures

SPACES = {
    "tiny": TINY,
    "ragged": RAGGED,
    "spos": load_space("spos").for_images(resolution=64, num_classes=5),
}


def images(space: SearchSpace, count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (count, space.in_channels, space.resolution, space.resolution)
    return torch.randn(shape, generator=generator)


def digest(network: nn.Module) -> str:
    sha = hashlib.sha256()
    for name, value in network.state_dict().items():
        sha.update(name.encode())
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()


def used_supernet(space: SearchSpace) -> Supernet:
    """A supernet whose batch norms have statistics and weights of their own."""
    supernet = Supernet(space, seed=1).train()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for arch in random_architectures(space, 4):
            supernet(images(space), arch)
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
    return supernet


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_subnet_gives_the_logits_of_its_path(name: str, training: bool) -> None:
    space = SPACES[name]
    supernet = used_supernet(space).train(training)
    logits_by_arch = {}
    for arch in random_architectures(space, 3, seed=7):
        subnet = extract_subnet(supernet, arch)
        assert subnet.training == training
        with torch.no_grad():
            logits_BK = subnet(images(space))
            torch.testing.assert_close(logits_BK, supernet(images(space), arch))
        assert logits_BK.shape == (6, space.num_classes)
        logits_by_arch[arch] = logits_BK
    assert len(logits_by_arch) > 1
    for left, right in itertools.combinations(logits_by_arch.values(), 2):
        assert not torch.equal(left, right)


def test_changing_the_subnet_leaves_the_supernet_alone() -> None:
    supernet = used_supernet(TINY).requires_grad_(False)
    before = digest(supernet)
    subnet = extract_subnet(supernet, (0, -1, 1, 2, 0)).train()
    subnet(images(TINY)).sum().backward()
    assert all(parameter.grad is not None for parameter in subnet.parameters())
    with torch.no_grad():
        for tensor in [*subnet.parameters(), *subnet.buffers()]:
            tensor.add_(1)
    assert digest(supernet) == before
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_what_is_no_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="space 'tiny'"):
        Supernet(TINY, seed=0)(images(TINY), (0, -1, 0, 0))
    with pytest.raises(ValueError, match="space 'tiny'"):
        Subnet(TINY, (0, -1, 0, 0, 3), seed=0)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    def build(seed: int) -> tuple[str, str]:
        return digest(Supernet(TINY, seed=seed)), digest(Subnet(TINY, (0, -1, 1, 2, 0), seed=seed))

    before = torch.get_rng_state()
    weights = build(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert build(5) == weights
    assert all(a != b for a, b in zip(build(6), weights, strict=True))


def test_initial_weights_have_the_documented_distribution() -> None:
    subnet = Subnet(load_space("spos"), (3, -1, 0, 4, 0, -1, -1, *[0] * 2, -1, *[4] * 11), seed=0)
    for module in subnet.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
            assert abs(module.weight.mean().item()) < 0.03 * (2 / fan_out) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()
            assert module.running_mean is not None
            assert module.running_var is not None
            assert not module.running_mean.any()
            assert torch.equal(module.running_var, torch.ones_like(module.weight))
    # PyTorch's own: uniform between ±1/√1728, whose standard deviation is the bound / √3.
    bound = 1728**-0.5
    assert bound * 0.99 < subnet.classifier.weight.abs().max().item() <= bound
    assert subnet.classifier.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert not subnet.classifier.bias.any()


def test_gamma_init_sets_the_last_gamma_of_every_searched_block_and_nothing_else() -> None:
    ones, halves = Supernet(TINY, seed=0), Supernet(TINY, seed=0, gamma_init=0.5)
    last_gammas = {
        f"{name}.project.1.weight"
        for name, module in ones.named_modules()
        if isinstance(module, MBConv) and name.startswith("layers.")
    }
    assert last_gammas
    for (name, one), half in zip(
        ones.state_dict().items(), halves.state_dict().values(), strict=True
    ):
        assert torch.equal(half, one * 0.5 if name in last_gammas else one), name
