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
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas.space import IDENTITY, Architecture, Candidate, SearchSpace, downsampled

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
        """Cost of the most expensive architecture."""
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
    return _table(space, "flops")


def params_table(space: SearchSpace) -> CostTable:
    """Number of parameters of every candidate operation of the space."""
    return _table(space, "params")


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
    stem, first_block, head, classifier = _fixed_parts(space)
    rows = [_choice_cost(space, index, choice) for index, choice in enumerate(arch)]
    return (stem, first_block, *rows, head, classifier)


def se_channels(mid_channels: int) -> int:
    """Width of squeeze-and-excitation's bottleneck: a quarter of the expanded channels.

    The paper does not say where its SE squeezes; a quarter of the *expanded* channels adds 1.9 M
    parameters to the published architecture, and Table 2 reports 2.2 M more.
    """
    return max(1, mid_channels // 4)


def _table(space: SearchSpace, name: Literal["flops", "params"]) -> CostTable:
    table_LN = np.full((len(space.layers), space.num_candidates), np.nan)
    for index in space.searched_layers:
        for choice in range(len(space.layers[index].candidates)):
            table_LN[index, choice] = getattr(_choice_cost(space, index, choice), name)
    return CostTable(name, table_LN, float(sum(getattr(p, name) for p in _fixed_parts(space))))


def _choice_cost(space: SearchSpace, index: int, choice: int) -> LayerCost:
    layer = space.layers[index]
    shape = (layer.in_channels, layer.out_channels, layer.stride, layer.resolution)
    if choice == IDENTITY:
        return LayerCost(f"layer {index}", "identity", *shape, flops=0, params=0)
    return _mbconv(f"layer {index}", layer.candidates[choice], *shape, se=space.se)


def _mbconv(
    name: str,
    candidate: Candidate,
    in_channels: int,
    out_channels: int,
    stride: int,
    resolution: int,
    *,
    se: bool = False,
) -> LayerCost:
    mid = in_channels * candidate.expansion
    expand = in_channels * mid if candidate.expansion > 1 else 0
    convolve, project = mid * candidate.kernel**2, mid * out_channels
    num_normalised = (mid if expand else 0) + mid + out_channels  # a γ and a β each
    excite = 2 * mid * se_channels(mid) if se else 0
    excite_biases = se_channels(mid) + mid if se else 0
    return LayerCost(
        name=name,
        operation=str(candidate),
        in_channels=in_channels,
        out_channels=out_channels,
        stride=stride,
        resolution=resolution,
        flops=expand * resolution**2
        + (convolve + project) * downsampled(resolution, stride) ** 2
        + excite,
        params=expand + convolve + project + 2 * num_normalised + excite + excite_biases,
    )


def _fixed_parts(space: SearchSpace) -> tuple[LayerCost, LayerCost, LayerCost, LayerCost]:
    """Stem, first block, head and classifier."""
    last, stem, head = space.layers[-1], space.stem_channels, space.head_channels
    stem_weights = space.in_channels * stem * 3**2
    head_weights = last.out_channels * head
    return (
        LayerCost(
            name="stem",
            operation="conv k3",
            in_channels=space.in_channels,
            out_channels=stem,
            stride=space.stem_stride,
            resolution=space.resolution,
            flops=stem_weights * space.first_resolution**2,
            params=stem_weights + 2 * stem,
        ),
        _mbconv(
            "first block",
            Candidate(space.first_kernel, 1),
            stem,
            space.first_channels,
            space.first_stride,
            space.first_resolution,
        ),
        LayerCost(
            name="head",
            operation="conv k1",
            in_channels=last.out_channels,
            out_channels=head,
            stride=1,
            resolution=last.out_resolution,
            flops=head_weights * last.out_resolution**2,
            params=head_weights + 2 * head,
        ),
        LayerCost(
            name="classifier",
            operation="linear",
            in_channels=head,
            out_channels=space.num_classes,
            stride=1,
            resolution=1,
            flops=head * space.num_classes,
            params=(head + 1) * space.num_classes,
        ),
    )
