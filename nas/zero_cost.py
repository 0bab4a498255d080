"""Zero-cost proxies: rank an architecture by a network that was never trained.

Two from the literature, for comparison with the BN indicator: NASWOT (Mellor et al., ICML 2021,
"Neural Architecture Search without Training") and SynFlow (Tanaka et al., NeurIPS 2020, as an
architecture score in Abdelfattah et al., ICLR 2021, "Zero-Cost Proxies for Lightweight NAS").

Shape legend: B images, C channels, H height, W width, U activation units.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas.network import Subnet


@torch.no_grad()
def naswot(subnet: Subnet, images_BCHW: Tensor) -> float:
    """log |det K| of the kernel of activation patterns over one batch; larger is better.

    K[i, j] counts the ReLU6 units that are in the same state (positive or not) for images i and j.
    The published score takes ReLU networks; ReLU6's upper kink is ignored here. Batch norm uses the
    batch's statistics. Returns −inf where two images have the same pattern. Computed on a copy: the
    subnet stays as it is.
    """
    subnet = copy.deepcopy(subnet).train()
    kernel_BB = torch.zeros(len(images_BCHW), len(images_BCHW), dtype=torch.float64)

    def add_patterns(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        active_BU = (output.flatten(1) > 0).float()  # counts up to 2^24 units are exact
        both_active_BB = (active_BU @ active_BU.T).double().cpu()
        active_B = both_active_BB.diagonal()
        num_units = active_BU.shape[1]
        kernel_BB.add_(num_units - active_B[:, None] - active_B[None, :] + 2.0 * both_active_BB)

    for module in subnet.modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_hook(add_patterns)
    subnet(images_BCHW)
    num_same_states = kernel_BB.clone().fill_diagonal_(-1.0).max()
    if num_same_states == kernel_BB[0, 0]:  # rounding would make the determinant's log finite
        return float("-inf")
    return float(torch.linalg.slogdet(kernel_BB).logabsdet)


def synflow(subnet: Subnet) -> float:
    """log Σ |θ · ∂R/∂θ| with R the summed output for an input of ones and weights |θ|.

    Needs no data. Batch norm is bypassed, as in Abdelfattah et al., and so its parameters do not
    count; the logarithm keeps deep networks in range and the order the same. Computed on a float64
    copy: the subnet stays as it is.
    """
    space = subnet.space
    network = Subnet(space, subnet.arch, seed=0).double().eval()
    network.load_state_dict(subnet.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.ReLU6):  # it would cap the flow that SynFlow measures
                setattr(module, name, nn.ReLU())
    ones_BCHW = torch.ones(
        1, space.in_channels, space.resolution, space.resolution, dtype=torch.float64
    )
    network(ones_BCHW).sum().backward()
    flow = sum(
        (parameter * parameter.grad).abs().sum().item()
        for parameter in network.parameters()
        if parameter.grad is not None
    )
    return float(torch.tensor(flow, dtype=torch.float64).log())


ZERO_COST_PROXIES: dict[str, Callable[[Subnet, Tensor], float]] = {
    "naswot": naswot,
    "synflow": lambda subnet, images_BCHW: synflow(subnet),
}
