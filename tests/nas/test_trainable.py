"""What each trainable scope moves, and what it must leave bit-identical, in real training steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from nas.network import Supernet
from nas.sampling import SAMPLERS
from nas.schedule import WarmupCosine
from nas.space import Architecture
from nas.trainable import TRAINABLES, freeze_except
from nas.training import build_optimizer, train_epoch
from tests.nas.examples import TINY, digit_batches

SCHEDULE = WarmupCosine(start=0.1, peak=0.4, warmup_steps=2, num_steps=20)


def bn_names(supernet: Supernet) -> set[str]:
    return {
        f"{name}.{kind}"
        for name, module in supernet.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }


def last_bn_names() -> set[str]:
    """Written out by hand: the batch norm after the 1×1 projection that ends every candidate."""
    return {
        f"layers.{layer}.{choice}.project.1.{kind}"
        for layer in (0, 2, 3, 4)
        for choice in range(3)
        for kind in ("weight", "bias")
    }


def names_on(path: Architecture) -> tuple[str, ...]:
    """Prefixes of the parameters that the path uses."""
    chosen = (f"layers.{layer}.{choice}." for layer, choice in enumerate(path) if choice >= 0)
    return ("stem.", "first_block.", "head.", "classifier.", *chosen)


def snapshot(supernet: Supernet) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in supernet.named_parameters()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def train(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    paths: Sequence[Sequence[Architecture]],
    first_step: int = 0,
) -> None:
    train_epoch(
        supernet,
        digit_batches(8)[first_step : first_step + len(paths)],
        optimizer,
        SCHEDULE,
        first_step=first_step,
        passes=lambda step: [(arch,) for arch in paths[step - first_step]],
    )


@pytest.mark.parametrize(
    ("trainable", "sampler"), [("all", "uniform"), ("bn", "fair"), ("last_bn", "uniform")]
)
def test_only_the_scope_moves_and_all_of_it_on_the_sampled_paths(
    trainable: str, sampler: str
) -> None:
    supernet = Supernet(TINY, seed=0)
    in_scope = {
        "all": {name for name, _ in supernet.named_parameters()},
        "bn": bn_names(supernet),
        "last_bn": last_bn_names(),
    }[trainable]
    freeze_except(supernet, trainable)
    paths = [SAMPLERS[sampler](TINY, 1, step) for step in range(5)]
    sampled = tuple({prefix for step in paths for path in step for prefix in names_on(path)})
    before = snapshot(supernet)
    train(supernet, build_optimizer(supernet), paths)
    expected = {name for name in in_scope if name.startswith(sampled)}
    assert moved(before, snapshot(supernet)) == expected
    if sampler == "fair":
        assert expected == in_scope


@pytest.mark.parametrize("trainable", TRAINABLES)
def test_unsampled_candidates_stay_bit_identical_momentum_or_not(trainable: str) -> None:
    supernet = Supernet(TINY, seed=0)
    freeze_except(supernet, trainable)
    optimizer = build_optimizer(supernet, weight_decay=0.1, decay_bn_and_bias=True)
    first, second = (0, -1, 0, 0, 0), (1, -1, 1, 1, 1)

    def state() -> dict[str, Tensor]:
        """Parameters, statistics and momentum of candidate 0 in every layer."""
        values = {**snapshot(supernet), **{n: b.clone() for n, b in supernet.named_buffers()}}
        for name, parameter in supernet.named_parameters():
            if parameter in optimizer.state:
                momentum = optimizer.state[parameter]["momentum_buffer"]
                values[f"{name}, momentum"] = momentum.clone()
        return {
            name: value
            for name, value in values.items()
            if name.startswith("layers.") and name.split(".")[2] == "0"
        }

    train(supernet, optimizer, [[first]] * 2)
    after_first = state()
    momenta = {name for name in after_first if name.endswith("momentum")}
    assert momenta
    assert all(after_first[name].any() for name in momenta)
    train(supernet, optimizer, [[second]] * 2, first_step=2)
    after_second = state()
    assert after_second.keys() == after_first.keys()
    assert not moved(after_first, after_second)
    train(supernet, optimizer, [[first]], first_step=4)
    assert {f"{name}, momentum" for name in moved(after_first, state()) if "," not in name} >= (
        momenta
    )


def test_frozen_parameters_get_no_gradient_and_no_place_in_the_optimizer() -> None:
    supernet = Supernet(TINY, seed=0)
    images_BCHW, labels_B = digit_batches(1)[0]
    for trainable in ("bn", "all", "last_bn"):  # freezing again replaces the scope
        training = freeze_except(supernet, trainable)
        supernet.zero_grad()
        for arch in SAMPLERS["fair"](TINY, 0, 0):
            nn.functional.cross_entropy(supernet(images_BCHW, arch), labels_B).backward()
        expected = {id(p) for p in training}
        assert {id(p) for p in supernet.parameters() if p.grad is not None} == expected
        assert {id(p) for p in supernet.parameters() if p.requires_grad} == expected
        held = [p for group in build_optimizer(supernet).param_groups for p in group["params"]]
        assert len(held) == len(training)
        assert {id(p) for p in held} == expected
    assert {n for n, p in supernet.named_parameters() if p.requires_grad} == last_bn_names()


def test_weight_decay_spares_batch_norm_and_biases() -> None:
    supernet = Supernet(TINY, seed=0)
    names = {id(p): name for name, p in supernet.named_parameters()}

    def decay(optimizer: torch.optim.Optimizer) -> dict[str, float]:
        return {
            names[id(p)]: group["weight_decay"]
            for group in optimizer.param_groups
            for p in group["params"]
        }

    spared = bn_names(supernet) | {"classifier.bias"}
    for name, value in decay(build_optimizer(supernet, weight_decay=0.3)).items():
        assert value == (0.0 if name in spared else 0.3), name
    everything = decay(build_optimizer(supernet, weight_decay=0.3, decay_bn_and_bias=True))
    assert set(everything) == set(names.values())
    assert set(everything.values()) == {0.3}


def test_unknown_trainable_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown trainable 'bias'.*all, bn, last_bn"):
        freeze_except(Supernet(TINY, seed=0), "bias")
