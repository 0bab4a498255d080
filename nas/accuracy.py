"""The accuracy indicator: SPOS's way of ranking, which BN-NAS replaces.

A candidate inherits the supernet's weights, its batch norms are recalibrated on training images,
and its accuracy is measured on held-out *training* images, never on the test set.
"""

from __future__ import annotations

from collections.abc import Callable

from nas.network import Supernet, extract_subnet
from nas.space import Architecture
from nas.training import Batches, Evaluation, evaluate, recalibrate


def subnet_accuracy(
    supernet: Supernet,
    arch: Architecture,
    *,
    recalibration: Callable[[], Batches],
    validation: Callable[[], Batches],
    device: str = "cpu",
) -> Evaluation:
    """Evaluate `arch` with inherited weights on search-validation images; the supernet stays as is.

    `recalibration` and `validation` start a fresh pass over the training images that recalibrate
    the statistics and over the search-validation images.
    """
    subnet = extract_subnet(supernet, arch)
    recalibrate(subnet, recalibration(), device=device)
    return evaluate(subnet, validation(), device=device)
