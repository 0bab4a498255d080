"""Indicators: what ranks architectures before anything is retrained.

Additive indicators are a table [L, N] of scores, summed along the architecture (Eq. 4): `bn` is the
paper's, `flops`, `params` and `random` are the baselines that it has to beat. Exact search needs an
additive one. The others score whole architectures: `accuracy` is SPOS's indicator, `naswot` and
`synflow` are zero-cost proxies from the literature (`nas.zero_cost`).

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.cost import COST_TABLES, FloatTable, flops_table
from nas.space import SearchSpace

if TYPE_CHECKING:
    from nas.network import Supernet

_RANDOM_STREAM = 1  # apart from the searchers' generators, which the same seed starts


@dataclass(frozen=True)
class Indicator:
    """What an indicator needs and whether its scores add up over layers."""

    name: str
    additive: bool
    needs_supernet: bool
    meaning: str


INDICATORS: dict[str, Indicator] = {
    indicator.name: indicator
    for indicator in (
        Indicator("bn", True, True, "mean |γ| of the block's last batch norm, Eq. 3"),
        Indicator("accuracy", False, True, "search-validation top-1 with inherited weights"),
        Indicator("flops", True, False, "FLOPs: the more the better"),
        Indicator("params", True, False, "parameters: the more the better"),
        Indicator("random", True, False, "drawn at random"),
        Indicator("naswot", False, False, "overlap of activation patterns at initialisation"),
        Indicator("synflow", False, False, "synaptic flow at initialisation"),
    )
}


def bn_scores(supernet: Supernet) -> FloatTable:
    """Eq. 3: mean |γ| of the last batch norm of every candidate operation, shape [L, N].

    A choice that does not exist is NaN.
    """
    space = supernet.space
    scores_LN = np.full((len(space.layers), space.num_candidates), np.nan)
    for layer in space.searched_layers:
        for choice in range(len(space.layers[layer].candidates)):
            gamma_C = supernet.candidate(layer, choice).last_bn.weight
            scores_LN[layer, choice] = gamma_C.detach().abs().double().mean().item()
    return scores_LN


def additive_scores(
    name: str, space: SearchSpace, *, bn_scores_LN: FloatTable | None = None, seed: int = 0
) -> FloatTable:
    """The table [L, N] of an additive indicator; NaN where a choice does not exist.

    `bn` needs the table that `bn_scores` read off a trained supernet; `random` draws uniformly from
    `seed`. Raises ValueError for an indicator that is unknown or not additive.
    """
    if name not in INDICATORS:
        raise ValueError(f"unknown indicator {name!r}: the known ones are {', '.join(INDICATORS)}.")
    if name == "bn":
        if bn_scores_LN is None:
            raise ValueError("the indicator 'bn' needs the scores of a trained supernet.")
        return bn_scores_LN
    if name in COST_TABLES:
        return COST_TABLES[name](space).table_LN
    if name == "random":
        flops_LN = flops_table(space).table_LN
        rng = np.random.default_rng((seed, _RANDOM_STREAM))
        return np.where(np.isnan(flops_LN), np.nan, rng.random(flops_LN.shape))
    additive = [indicator.name for indicator in INDICATORS.values() if indicator.additive]
    raise ValueError(
        f"the indicator {name!r} scores whole architectures and does not add up over layers: "
        f"the additive ones are {', '.join(additive)}."
    )
