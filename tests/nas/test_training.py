"""Training against plain tensor code, and an epoch that is interrupted against one that is not."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from nas.data import load_data
from nas.network import Subnet, Supernet, extract_subnet
from nas.sampling import SAMPLERS
from nas.schedule import WarmupCosine
from nas.space import Architecture
from nas.trainable import freeze_except
from nas.training import (
    EpochStats,
    build_optimizer,
    evaluate,
    recalibrate,
    subnet_accuracy,
    to_device,
    train_epoch,
)
from tests.interrupted import assert_same_value
from tests.nas.examples import TINY, digit_batches, random_architectures

if TYPE_CHECKING:
    from tests.nas.examples import Batch

SCHEDULE = WarmupCosine(start=0.1, peak=0.4, warmup_steps=2, num_steps=8)
ARCH = (0, -1, 1, 2, 0)


def linear_network() -> nn.Sequential:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Linear(10, 10))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.double()


def double_batches(num_batches: int) -> list[Batch]:
    return [(images.double(), labels) for images, labels in digit_batches(num_batches)]


@pytest.mark.parametrize("arguments", [{}, {"label_smoothing": 0.3}])
def test_steps_equal_nesterov_sgd_written_out(arguments: dict[str, Any]) -> None:
    """Loss with smoothing 0.1, decay 1e-4 on weights only, momentum 0.9, three steps."""
    smoothing: float = arguments.get("label_smoothing", 0.1)
    network, batches = linear_network(), double_batches(3)
    names = [name for name, _ in network.named_parameters()]
    values = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = build_optimizer(network)
    stats = train_epoch(network, batches, optimizer, SCHEDULE, first_step=1, **arguments)

    velocity = {name: torch.zeros_like(value) for name, value in values.items()}
    loss_sum, num_correct = 0.0, 0
    rates = (0.25, 0.4, 0.2 * (1 + 3**0.5 / 2))  # of steps 1, 2 and 3
    for rate, (images_BCHW, labels_B) in zip(rates, batches, strict=True):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        hidden_BK = images_BCHW.flatten(1) @ leaves["1.weight"].T + leaves["1.bias"]
        centred_BK = hidden_BK - hidden_BK.mean(dim=0)
        normed_BK = centred_BK / (centred_BK.square().mean(dim=0) + 1e-5).sqrt()
        normed_BK = normed_BK * leaves["2.weight"] + leaves["2.bias"]
        logits_BK = normed_BK @ leaves["3.weight"].T + leaves["3.bias"]
        target_BK = torch.full((16, 10), smoothing / 10, dtype=torch.float64)
        target_BK[torch.arange(16), labels_B] += 1 - smoothing
        log_BK = logits_BK - logits_BK.exp().sum(dim=1, keepdim=True).log()
        loss = -(target_BK * log_BK).sum(dim=1).mean()
        gradients = torch.autograd.grad(loss, [leaves[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            if name in ("1.weight", "3.weight"):
                gradient = gradient + 1e-4 * values[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            values[name] = values[name] - rate * (gradient + 0.9 * velocity[name])
        loss_sum += loss.item()
        num_correct += int((logits_BK.argmax(dim=1) == labels_B).sum())

    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), values[name], rtol=1e-9, atol=1e-11)
    assert stats.loss == pytest.approx(loss_sum / 3, rel=1e-9)
    assert stats.top1 == num_correct / 48
    assert stats.num_steps == 3


def train_subnet(num_batches: int = 1, **arguments: Any) -> tuple[Subnet, EpochStats]:
    """A new subnet after one epoch."""
    subnet = Subnet(TINY, ARCH, seed=0)
    optimizer, batches = build_optimizer(subnet), digit_batches(num_batches)
    return subnet, train_epoch(subnet, batches, optimizer, SCHEDULE, first_step=0, **arguments)


@pytest.mark.parametrize(("trainable", "sampler"), [("all", "uniform"), ("bn", "fair")])
def test_resumed_training_equals_uninterrupted_bit_for_bit(trainable: str, sampler: str) -> None:
    def train(first_step: int, num_steps: int, seed: int, saved: Any = None) -> dict[str, Any]:
        supernet = Supernet(TINY, seed=seed)
        freeze_except(supernet, trainable)
        optimizer = build_optimizer(supernet)
        if saved is not None:
            supernet.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
        train_epoch(
            supernet,
            digit_batches(8)[first_step : first_step + num_steps],
            optimizer,
            SCHEDULE,
            first_step=first_step,
            passes=lambda step: [(arch,) for arch in SAMPLERS[sampler](TINY, 4, step)],
            clip_norm=5.0,
        )
        return {"network": supernet.state_dict(), "optimizer": optimizer.state_dict()}

    whole = train(0, 6, seed=0)
    file = io.BytesIO()
    torch.save(train(0, 3, seed=0), file)
    file.seek(0)
    torch.manual_seed(12345)  # neither the global generator matters, nor other initial weights
    resumed = train(3, 3, seed=99, saved=torch.load(file, weights_only=True))
    assert whole["optimizer"]["state"]
    assert_same_value(resumed, whole)


def test_clipping_limits_the_norm_of_the_whole_gradient() -> None:
    def gradient_norm(clip_norm: float | None) -> float:
        subnet, _ = train_subnet(clip_norm=clip_norm)
        squares = [p.grad.square().sum() for p in subnet.parameters() if p.grad is not None]
        return float(torch.stack(squares).sum().sqrt())

    unclipped = gradient_norm(None)
    assert gradient_norm(unclipped / 3) == pytest.approx(unclipped / 3, rel=1e-4)
    assert gradient_norm(unclipped * 3) == unclipped


def test_autocast_computes_in_the_lower_precision() -> None:
    (_, full), (subnet, low) = (train_subnet(2, autocast=a) for a in (None, torch.bfloat16))
    assert all(parameter.dtype == torch.float32 for parameter in subnet.parameters())
    assert low.loss != full.loss
    assert low.loss == pytest.approx(full.loss, rel=0.02)


def test_evaluation_equals_counting_by_hand() -> None:
    supernet = Supernet(TINY, seed=0)
    with torch.no_grad():  # larger logits, so that losses differ between images
        supernet.classifier.weight.mul_(100)
    images_NCHW = torch.cat([images for images, _ in digit_batches(3)])
    labels_N = torch.cat([labels for _, labels in digit_batches(3)])
    cuts = [0, 20, 41, 41, 48]  # uneven batches, one of them empty
    batches = [(images_NCHW[a:b], labels_N[a:b]) for a, b in itertools.pairwise(cuts)]
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    result = evaluate(supernet, batches, (ARCH,))
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())

    num_correct, losses = 0, []
    for image_CHW, label in zip(images_NCHW, labels_N.tolist(), strict=True):
        with torch.no_grad():
            logits_K = supernet.eval()(image_CHW[None], ARCH)[0].double()
        num_correct += int(logits_K.argmax()) == label
        losses.append(float(logits_K.logsumexp(dim=0) - logits_K[label]))
    assert result.num_images == 48
    assert result.top1 == num_correct / 48
    assert result.loss == pytest.approx(sum(losses) / 48, rel=1e-5)


def averages_by_hand(
    subnet: Subnet, batches: Sequence[Batch]
) -> dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]:
    """Means and variances over every batch norm's inputs, averaged over the batches."""
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    inputs: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}
    hooks = [
        norm.register_forward_pre_hook(lambda module, args: inputs[module].append(args[0]))
        for norm in norms
    ]
    with torch.no_grad():
        for images_BCHW, _ in batches:
            subnet.train()(images_BCHW)
    for hook in hooks:
        hook.remove()
    averages = {}
    for norm in norms:
        columns = [values.transpose(0, 1).flatten(1) for values in inputs[norm]]
        assert len(columns) == len(batches)
        means = torch.stack([values_CN.mean(dim=1) for values_CN in columns])
        variances = torch.stack([values_CN.var(dim=1, correction=1) for values_CN in columns])
        averages[norm] = (means.mean(dim=0), variances.mean(dim=0))
    return averages


def test_recalibration_is_the_plain_average_over_batches() -> None:
    subnet = Subnet(TINY, ARCH, seed=0)
    averages = averages_by_hand(subnet, digit_batches(3))
    for norm in averages:  # stale statistics must leave no trace
        assert norm.running_mean is not None
        norm.running_mean.fill_(7.0)
    recalibrate(subnet.eval(), digit_batches(3))
    assert not subnet.training
    for norm, (mean_C, variance_C) in averages.items():
        assert norm.momentum == 0.1
        torch.testing.assert_close(norm.running_mean, mean_C)
        torch.testing.assert_close(norm.running_var, variance_C)


def test_accuracy_is_of_inherited_weights_with_averaged_statistics() -> None:
    supernet = Supernet(TINY, seed=0)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    validation = list(load_data("digits").search_val.batches(50, training=False))
    for training, arch in zip((False, True), random_architectures(TINY, 2, seed=1), strict=True):
        supernet.train(training)
        subnet = extract_subnet(supernet, arch)
        stale = evaluate(subnet, validation)
        recalibrate(subnet, digit_batches(10))
        for _ in range(2):
            found = subnet_accuracy(
                supernet,
                arch,
                recalibration=lambda: digit_batches(10),
                validation=lambda: validation,
            )
            assert found == evaluate(subnet, validation) != stale
            assert found.num_images == 144
        assert supernet.training == training
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_images_become_channels_last_and_stay_the_same() -> None:
    images_BCHW = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    moved_BCHW = to_device(images_BCHW, "cpu")
    assert torch.equal(moved_BCHW, images_BCHW)
    assert moved_BCHW.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_of_a_fair_step_is_the_sum_of_its_paths() -> None:
    """And every candidate operation gets exactly one contribution."""
    paths = SAMPLERS["fair"](TINY, 5, 0)

    def gradients(archs: Sequence[Architecture]) -> dict[str, Tensor]:
        supernet = Supernet(TINY, seed=0)
        train_epoch(
            supernet,
            digit_batches(1),
            build_optimizer(supernet),
            SCHEDULE,
            first_step=0,
            passes=lambda step: [(arch,) for arch in archs],
        )
        return {n: p.grad for n, p in supernet.named_parameters() if p.grad is not None}

    together = gradients(paths)
    alone = [gradients([path]) for path in paths]
    assert set(together) == {name for name, _ in Supernet(TINY, seed=0).named_parameters()}
    for name, gradient in together.items():
        parts = [single[name] for single in alone if name in single]
        assert len(parts) == (1 if name.startswith("layers.") else 3)
        torch.testing.assert_close(gradient, torch.stack(parts).sum(dim=0), rtol=1e-4, atol=1e-6)
