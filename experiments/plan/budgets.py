"""The budgets of an experiment: the limits of its search section over the space's cost tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nas.cost import COST_TABLES
from nas.search import Budget
from nas.space import SearchSpace


def budgets(search: Mapping[str, Any], space: SearchSpace) -> tuple[Budget, ...]:
    """The budgets of a search section; FLOPs come first, the cost that fronts are drawn over."""
    made = []
    for name, table in COST_TABLES.items():
        low, high = search.get(f"min_{name}"), search.get(f"max_{name}")
        if name == "flops" or low is not None or high is not None:
            made.append(
                Budget.from_cost(
                    table(space),
                    min_cost=-math.inf if low is None else low,
                    max_cost=math.inf if high is None else high,
                )
            )
    return tuple(made)
