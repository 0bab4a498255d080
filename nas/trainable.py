"""What the supernet trains: everything, every batch norm, or only each block's last batch norm.

`bn` is the paper's choice (section 3.4); `last_bn` is what the authors' released code does; `all`
is the one-shot baseline. Frozen means `requires_grad=False`: set it before the optimiser is built,
then autograd computes no weight gradient and keeps no activation for one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.blocks import MBConv
from nas.network import Supernet


def _all(supernet: Supernet) -> list[nn.Parameter]:
    return list(supernet.parameters())


def _bn(supernet: Supernet) -> list[nn.Parameter]:
    return [
        parameter
        for module in supernet.modules()
        if isinstance(module, _BatchNorm)
        for parameter in module.parameters()
    ]


def _last_bn(supernet: Supernet) -> list[nn.Parameter]:
    return [
        parameter
        for block in supernet.layers.modules()
        if isinstance(block, MBConv)
        for parameter in block.last_bn.parameters()
    ]


TRAINABLES: dict[str, Callable[[Supernet], list[nn.Parameter]]] = {
    "all": _all,
    "bn": _bn,
    "last_bn": _last_bn,
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
    parameters = TRAINABLES[trainable](supernet)
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters
