"""Stratified draws: every stratum gives its share, all are legal and distinct."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nas.cost import flops_table, params_table
from nas.search import Budget, InfeasibleBudgetError, draw_stratified
from nas.space import load_space
from tests.nas.examples import TINY

MICRO = load_space("micro")
FLOPS = flops_table(MICRO)


def strata_of(archs: tuple[tuple[int, ...], ...], low: float, high: float, num: int) -> list[int]:
    cost_B = FLOPS.of_many(archs)
    strata_B = np.minimum((cost_B - low) // ((high - low) / num), num - 1)
    return [int(stratum) for stratum in strata_B]


@pytest.mark.parametrize("num_strata", [1, 7])
def test_every_stratum_gives_as_many(num_strata: int) -> None:
    archs, again = (
        draw_stratified(
            MICRO,
            [Budget(FLOPS)],
            np.random.default_rng(0),
            3 * num_strata,
            num_strata=num_strata,
        )
        for _ in range(2)
    )
    assert archs == again
    assert len(set(archs)) == len(archs) == 3 * num_strata
    counts = Counter(strata_of(archs, FLOPS.minimum, FLOPS.maximum, num_strata))
    assert counts == dict.fromkeys(range(num_strata), 3)


def test_strata_lie_between_the_limits_and_other_limits_hold() -> None:
    low, high = FLOPS.minimum * 1.5, FLOPS.maximum * 0.7
    params = params_table(MICRO)
    few = Budget(params, max_cost=(params.minimum + params.maximum) / 2)
    budget = Budget(FLOPS, min_cost=low, max_cost=high)
    archs = draw_stratified(MICRO, [budget, few], np.random.default_rng(1), 12, num_strata=3)
    assert Counter(strata_of(archs, low, high, 3)) == {0: 4, 1: 4, 2: 4}
    assert few.allows(archs).all()


def test_what_a_stratum_lacks_the_next_ones_give() -> None:
    flops = flops_table(TINY)
    total = TINY.num_architectures
    archs = draw_stratified(TINY, [Budget(flops)], np.random.default_rng(0), total, num_strata=5)
    assert len(set(archs)) == len(archs) <= total
    assert len(archs) > total // 2


def test_limits_that_nothing_meets_are_named() -> None:
    budget = Budget(FLOPS, max_cost=FLOPS.minimum - 1)
    with pytest.raises(InfeasibleBudgetError, match="cheapest"):
        draw_stratified(MICRO, [budget], np.random.default_rng(0), 4, num_strata=2)
    with pytest.raises(ValueError, match="strata is 0"):
        draw_stratified(MICRO, [Budget(FLOPS)], np.random.default_rng(0), 4, num_strata=0)
