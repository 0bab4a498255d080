"""The budgets of an experiment: the limits of its search section over the space's cost tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.cost import COST_TABLES, FloatTable
from nas.search import Budget, SearchResult, exact_search
from nas.space import SearchSpace


def budgets(search: Mapping[str, Any], space: SearchSpace) -> tuple[Budget, ...]:
    """The budgets of a search section; FLOPs come first, the cost that fronts are drawn over."""
    limits = []
    for name, table in COST_TABLES.items():
        low, high = search.get(f"min_{name}"), search.get(f"max_{name}")
        if name == "flops" or low is not None or high is not None:
            limits.append(
                Budget(
                    table(space),
                    min_cost=-math.inf if low is None else low,
                    max_cost=math.inf if high is None else high,
                )
            )
    return tuple(limits)


def search_within(scores_LN: FloatTable, limits: Sequence[Budget], top_k: int = 1) -> SearchResult:
    """Exact search under the budgets of :func:`budgets`; the front is over FLOPs.

    Raises InfeasibleBudgetError (a ValueError) where no architecture keeps them all.
    """
    flops, *others = limits
    return exact_search(
        scores_LN,
        flops.cost.table_LN,
        flops.max_cost,
        top_k,
        constant=flops.cost.constant,
        min_cost=flops.min_cost,
        name=flops.name,
        also=others,
    )
