"""What an architecture costs, as tables: FLOPs and parameters.

Both are sums over layers plus a constant for stem, first block, head and classifier. A table [L, N]
therefore costs a million architectures with one gather, and exact search can use it.

FLOPs are multiply-adds of convolutions and linear layers; parameters count every learned number,
those of batch norm included. The authors of BN-NAS report 473.5 M and 468.8 M FLOPs for their two
released architectures; they count the classifier's linear layer as (2·in − 1)·out operations, which
is a constant 1.7 M more than its multiply-adds, so the tables here give 471.8 M and 467.1 M.

Shape legend: B architectures, L layers, N candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.space import IDENTITY, Architecture, SearchSpace, downsampled

FloatTable = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CostTable:
    """An additive cost: `table_LN` per choice, `constant` for what does not vary.

    A choice that does not exist (fewer candidates than N, or a layer fixed to the identity) is NaN.
    """

    name: str
    table_LN: FloatTable
    constant: float

    def of(self, arch: Architecture) -> float:
        """Cost of one architecture."""
        return float(self.of_many([arch])[0])

    def of_many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> FloatTable:
        """Costs of B architectures, shape [B]; `archs` are tuples, or rows of an array [B, L]."""
        return self.constant + gather_sum(self.table_LN, archs)

    @property
    def minimum(self) -> float:
        """Cost of the cheapest architecture."""
        return float(self.constant + self.extremes_L2[:, 0].cumsum()[-1])

    @property
    def maximum(self) -> float:
        """Cost of the dearest architecture."""
        return float(self.constant + self.extremes_L2[:, 1].cumsum()[-1])

    @cached_property
    def extremes_L2(self) -> FloatTable:
        """Least and greatest cost of every layer; 0 for a layer fixed to the identity."""
        missing_LN = np.isnan(self.table_LN)
        least_L = np.where(missing_LN, np.inf, self.table_LN).min(axis=1)
        greatest_L = np.where(missing_LN, -np.inf, self.table_LN).max(axis=1)
        extremes_L2 = np.stack([least_L, greatest_L], axis=1)
        return np.where(missing_LN.all(axis=1, keepdims=True), 0.0, extremes_L2)


def gather_sum(
    table_LN: FloatTable, archs: Sequence[Architecture] | npt.NDArray[np.integer]
) -> FloatTable:
    """Σ over layers of table[l, arch[l]] for B architectures, shape [B]; an identity counts 0.

    This is Eq. 4 when the table holds BN scores, and the FLOPs when it holds FLOPs.
    """
    total_B = np.zeros(len(archs))
    if len(archs) == 0:
        return total_B
    archs_BL = np.asarray(archs)
    assert archs_BL.shape[1:] == (len(table_LN),), "not one choice per layer"
    for layer, row_N in enumerate(table_LN):  # layer by layer: B numbers in memory, not B·L
        choice_B = archs_BL[:, layer]
        if np.isnan(row_N).all():
            assert (choice_B == IDENTITY).all(), "a fixed identity was given a choice"
            continue
        assert (choice_B >= 0).all(), "a layer with a choice was given the identity"
        total_B += row_N[choice_B]
    return total_B


def flops_table(space: SearchSpace) -> CostTable:
    """FLOPs (multiply-adds) of every candidate operation of the space."""
    return _table("flops", space, _mbconv_flops, _fixed_flops(space))


def params_table(space: SearchSpace) -> CostTable:
    """Number of parameters of every candidate operation of the space."""
    return _table("params", space, _mbconv_params, _fixed_params(space))


COST_TABLES: dict[str, Callable[[SearchSpace], CostTable]] = {
    "flops": flops_table,
    "params": params_table,
}


@dataclass(frozen=True)
class LayerCost:
    """One row of `bnnas inspect`: what a part of the network is and costs."""

    name: str
    operation: str
    in_channels: int
    out_channels: int
    stride: int
    resolution: int
    flops: int
    params: int


def layer_costs(space: SearchSpace, arch: Architecture) -> tuple[LayerCost, ...]:
    """Cost of every part of one architecture, in order; the rows add up to the tables' totals."""
    space.validate(arch)
    flops_LN, params_LN = flops_table(space).table_LN, params_table(space).table_LN
    rows = [_stem_cost(space), _first_block_cost(space)]
    for index, (choice, layer) in enumerate(zip(arch, space.layers, strict=True)):
        identity = choice == IDENTITY
        rows.append(
            LayerCost(
                name=f"layer {index}",
                operation="identity" if identity else str(layer.candidates[choice]),
                in_channels=layer.in_channels,
                out_channels=layer.out_channels,
                stride=layer.stride,
                resolution=layer.resolution,
                flops=0 if identity else int(flops_LN[index, choice]),
                params=0 if identity else int(params_LN[index, choice]),
            )
        )
    return (*rows, _head_cost(space), _classifier_cost(space))


def _table(name: str, space: SearchSpace, cost: Callable[..., int], constant: int) -> CostTable:
    table_LN = np.full((len(space.layers), space.num_candidates), np.nan)
    for index in space.searched_layers:
        layer = space.layers[index]
        for choice, candidate in enumerate(layer.candidates):
            table_LN[index, choice] = cost(
                layer.in_channels,
                layer.out_channels,
                candidate.kernel,
                candidate.expansion,
                layer.resolution,
                layer.stride,
                space.se,
            )
    return CostTable(name, table_LN, float(constant))


def _mbconv_flops(
    inp: int, out: int, kernel: int, expansion: int, resolution: int, stride: int, se: bool
) -> int:
    mid = inp * expansion
    out_area = downsampled(resolution, stride) ** 2
    expand = inp * mid * resolution**2 if expansion > 1 else 0
    excite = 2 * mid * se_channels(mid) if se else 0
    return expand + mid * kernel**2 * out_area + excite + mid * out * out_area


def _mbconv_params(
    inp: int, out: int, kernel: int, expansion: int, resolution: int, stride: int, se: bool
) -> int:
    mid = inp * expansion
    expand = inp * mid + 2 * mid if expansion > 1 else 0
    squeezed = se_channels(mid)
    excite = (mid + 1) * squeezed + (squeezed + 1) * mid if se else 0
    return expand + mid * kernel**2 + 2 * mid + excite + mid * out + 2 * out


def se_channels(mid_channels: int) -> int:
    """Width of squeeze-and-excitation's bottleneck: a quarter of the expanded channels.

    The paper does not say where its SE squeezes; a quarter of the *expanded* channels adds 1.9 M
    parameters to the published architecture, and Table 2 reports 2.2 M more.
    """
    return max(1, mid_channels // 4)


def _stem_cost(space: SearchSpace) -> LayerCost:
    weights = space.in_channels * space.stem_channels * 9
    return LayerCost(
        name="stem",
        operation="conv k3",
        in_channels=space.in_channels,
        out_channels=space.stem_channels,
        stride=space.stem_stride,
        resolution=space.resolution,
        flops=weights * space.first_resolution**2,
        params=weights + 2 * space.stem_channels,
    )


def _first_block_cost(space: SearchSpace) -> LayerCost:
    shape = (
        space.stem_channels,
        space.first_channels,
        space.first_kernel,
        1,
        space.first_resolution,
        space.first_stride,
        False,
    )
    return LayerCost(
        name="first block",
        operation=f"k{space.first_kernel}e1",
        in_channels=space.stem_channels,
        out_channels=space.first_channels,
        stride=space.first_stride,
        resolution=space.first_resolution,
        flops=_mbconv_flops(*shape),
        params=_mbconv_params(*shape),
    )


def _head_cost(space: SearchSpace) -> LayerCost:
    last = space.layers[-1]
    weights = last.out_channels * space.head_channels
    return LayerCost(
        name="head",
        operation="conv k1",
        in_channels=last.out_channels,
        out_channels=space.head_channels,
        stride=1,
        resolution=last.out_resolution,
        flops=weights * last.out_resolution**2,
        params=weights + 2 * space.head_channels,
    )


def _classifier_cost(space: SearchSpace) -> LayerCost:
    weights = space.head_channels * space.num_classes
    return LayerCost(
        name="classifier",
        operation="linear",
        in_channels=space.head_channels,
        out_channels=space.num_classes,
        stride=1,
        resolution=1,
        flops=weights,
        params=weights + space.num_classes,
    )


def _fixed_parts(space: SearchSpace) -> tuple[LayerCost, ...]:
    return (
        _stem_cost(space),
        _first_block_cost(space),
        _head_cost(space),
        _classifier_cost(space),
    )


def _fixed_flops(space: SearchSpace) -> int:
    return sum(part.flops for part in _fixed_parts(space))


def _fixed_params(space: SearchSpace) -> int:
    return sum(part.params for part in _fixed_parts(space))
