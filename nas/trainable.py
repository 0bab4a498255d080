"""What the supernet trains: everything, every batch norm, or only each block's last batch norm.

`bn` is the paper's choice (section 3.4); `last_bn` is what the authors' released code does; `all`
is the one-shot baseline. Frozen means `requires_grad=False`: set it before the optimiser is built,
then autograd computes no weight gradient and keeps no activation for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.blocks import MBConv
from nas.network import Supernet

TRAINABLES: dict[str, Callable[[Supernet], Iterable[nn.Module]]] = {
    "all": lambda supernet: [supernet],
    "bn": lambda supernet: (m for m in supernet.modules() if isinstance(m, _BatchNorm)),
    "last_bn": lambda supernet: (
        block.last_bn for block in supernet.layers.modules() if isinstance(block, MBConv)
    ),
}


def freeze_except(supernet: Supernet, trainable: str) -> list[nn.Parameter]:
    """Freeze all parameters but those of `trainable`; returns the ones that train.

    Raises ValueError for an unknown name.
    """
    if trainable not in TRAINABLES:
        raise ValueError(
            f"unknown trainable {trainable!r}: the known ones are {', '.join(TRAINABLES)}."
        )
    supernet.requires_grad_(False)
    modules = TRAINABLES[trainable](supernet)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters
