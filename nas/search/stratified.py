"""Architectures spread evenly over a cost, for studies in which size must not stand for quality.

Architectures drawn uniformly crowd in the middle of the FLOPs range, where they hardly differ in
size, and where an indicator cannot be distinguished from one that measures nothing but size. Here
every stratum of the cost gives its share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nas.search.budget import Budget, InfeasibleBudgetError
from nas.search.legal import draw_legal
from nas.space import Architecture, SearchSpace


def draw_stratified(
    space: SearchSpace,
    budgets: Sequence[Budget],
    rng: np.random.Generator,
    num: int,
    *,
    num_strata: int,
) -> tuple[Architecture, ...]:
    """`num` distinct legal architectures, as many from every stratum of the first budget's cost.

    Strata are equally wide, between the least and the greatest cost that the limits allow. What a
    stratum cannot give, because it holds too few, the following ones give. Within a stratum the
    draw is uniform; the order is that of the strata.

    Args:
        space: the space.
        budgets: limits; the first is the cost that is stratified.
        rng: of the draws.
        num: architectures.
        num_strata: at least 1.

    Raises:
        ValueError: fewer than one stratum, or, as InfeasibleBudgetError, no architecture is legal.
    """
    if num_strata < 1:
        raise ValueError(f"the number of strata is {num_strata}; give at least 1.")
    first, *others = budgets
    low = max(first.min_cost, first.cost.minimum)
    high = min(first.max_cost, first.cost.maximum)
    if low > high:
        draw_legal(space, budgets, rng, 1)  # raises, with how far off the limits are
    edges = np.linspace(low, high, num_strata + 1)
    edges[0], edges[-1] = low, high  # the very ends are legal, whatever rounding says
    drawn: list[Architecture] = []
    for stratum in range(num_strata):
        wanted = math.ceil((num - len(drawn)) / (num_strata - stratum))
        part = replace(first, min_cost=float(edges[stratum]), max_cost=float(edges[stratum + 1]))
        try:
            drawn += draw_legal(space, [part, *others], rng, wanted, exclude=drawn)
        except InfeasibleBudgetError:
            continue
    if not drawn:
        return draw_legal(space, budgets, rng, num)
    return tuple(drawn)
