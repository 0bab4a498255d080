"""What only CUDA does, on PyTorch's fake tensors: they have its devices, and no GPU is needed.

Autograd's engine wants a real one, so a stand-in fills the gradients; `tests/test_gpu.py` trains.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from nas.network import Supernet
from nas.schedule import WarmupCosine
from nas.sync_batch_norm import synchronise_batch_norm
from nas.training import build_optimizer, evaluate, train_epoch
from tests.nas.examples import TINY

ARCH = tuple(0 if layer in TINY.searched_layers else -1 for layer in range(len(TINY.layers)))


@pytest.fixture
def network() -> nn.Module:
    return Supernet(TINY, seed=0)


@pytest.fixture
def gpu(network: nn.Module) -> Iterator[FakeTensorMode]:
    """Within it the network lies on a GPU that is not there; new tensors lie on the CPU."""
    with FakeTensorMode() as mode:
        for module in network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                value = mode.from_tensor(parameter).detach().to("cuda")
                setattr(module, name, nn.Parameter(value))
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, mode.from_tensor(buffer).to("cuda"))
        yield mode


def batches() -> list[tuple[Tensor, Tensor]]:
    """Two, on the CPU as loaders give them."""
    images_BCHW = torch.zeros(4, TINY.in_channels, TINY.resolution, TINY.resolution)
    return [(images_BCHW, torch.zeros(4, dtype=torch.long))] * 2


def test_a_training_step_mixes_no_devices(
    network: nn.Module,
    gpu: FakeTensorMode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    optimizer = build_optimizer(network, momentum=0.9, weight_decay=1e-4)
    losses: list[Tensor] = []
    steps: list[tuple[int, torch.device]] = []

    def backward(loss: Tensor) -> None:
        losses.append(loss)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    with pytest.raises(DataDependentOutputException):  # the sums are read at the end alone
        train_epoch(
            network,
            batches(),
            optimizer,
            WarmupCosine(0.1, 1.0, 1, 10),
            first_step=0,
            passes=lambda step: [(ARCH,)],
            after_step=lambda step, totals: steps.append((step, totals.device)),
            clip_norm=1.0,
            device="cuda",
        )
    assert {loss.device.type for loss in losses} == {"cuda"}
    assert [(step, device.type) for step, device in steps] == [(1, "cuda"), (2, "cuda")]
    momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
    assert {buffer.device.type for buffer in momentum} == {"cuda"}


def test_an_evaluation_mixes_no_devices(network: nn.Module, gpu: FakeTensorMode) -> None:
    with pytest.raises(DataDependentOutputException):
        evaluate(network, batches(), (ARCH,), device="cuda")


def test_on_gpus_batch_norm_is_synchronised_by_pytorch(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    synchronised = synchronise_batch_norm(network, "cuda:1")
    kinds = {type(module) for module in synchronised.modules()}
    assert nn.SyncBatchNorm in kinds
    assert nn.BatchNorm2d not in kinds
    after = synchronised.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
