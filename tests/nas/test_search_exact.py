"""Exact search against brute force, against an integer program, and on impossible budgets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from nas.cost import CostTable, FloatTable, flops_table, gather_sum, params_table
from nas.search import Budget, InfeasibleBudgetError, exact_search, search_within
from nas.space import Architecture, load_space

SPOS = load_space("spos")
FLOPS = flops_table(SPOS)


def all_archs(table_LN: FloatTable) -> list[Architecture]:
    """Every architecture, in lexicographic order."""
    choices = [np.flatnonzero(~np.isnan(row_N)).tolist() or [-1] for row_N in table_LN]
    return list(itertools.product(*choices))


def brute_force(
    scores_LN: FloatTable, budgets: list[Budget], top_k: int
) -> tuple[list[tuple[float, float, Architecture]], list[tuple[float, float, Architecture]]]:
    """The K best and the front as (score, cost, arch), by looking at everything."""
    archs = all_archs(scores_LN)
    legal_B = np.ones(len(archs), dtype=bool)
    for budget in budgets:
        total_B = budget.cost.of_many(archs)
        legal_B &= (budget.min_cost <= total_B) & (total_B <= budget.max_cost)
    scores = gather_sum(scores_LN, archs)[legal_B].tolist()
    costs = budgets[0].cost.of_many(archs)[legal_B].tolist()
    legal = list(itertools.compress(archs, legal_B.tolist()))
    everything = list(zip(scores, costs, legal, strict=True))
    everything.sort(key=lambda item: (-item[0], item[1], item[2]))
    front = [
        (score, cost, arch)
        for score, cost, arch in everything
        if not any(
            (s >= score and c <= cost and (s, c) != (score, cost))
            or ((s, c) == (score, cost) and a < arch)
            for s, c, a in everything
        )
    ]
    return everything[:top_k], sorted(front, key=lambda item: item[1])


def random_problem(rng: np.random.Generator) -> tuple[FloatTable, list[Budget]]:
    """A small problem full of ties: ragged and fixed rows, duplicate rows, limits on both sides."""
    num_layers, num_candidates = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    exists_LN = np.zeros((num_layers, num_candidates), dtype=bool)
    for row_N in exists_LN:
        if rng.random() < 0.8:
            row_N[: rng.integers(1, num_candidates + 1)] = True
    shape = exists_LN.shape
    digits = int(rng.integers(2, 9))
    scores_LN = rng.integers(-digits, digits, shape).astype(float)
    if rng.random() < 0.3:
        scores_LN = rng.standard_normal(shape)
    if num_layers > 1 and rng.random() < 0.5:
        scores_LN[1], exists_LN[1] = scores_LN[0], exists_LN[0]
    scores_LN[~exists_LN] = np.nan
    budgets = []
    for index in range(int(rng.integers(1, 4))):
        table_LN = rng.integers(0, digits, shape).astype(float)
        if rng.random() < 0.2:
            table_LN = rng.random(shape)
        table_LN[~exists_LN] = np.nan
        cost = CostTable(f"cost{index}", table_LN, float(rng.integers(0, 3)))
        reach = rng.uniform(cost.minimum, cost.maximum, size=2)
        reach = np.sort(np.round(reach) if rng.random() < 0.7 else reach)
        low = reach[0] if rng.random() < 0.4 else -math.inf
        high = reach[1] if rng.random() < 0.7 else math.inf
        budgets.append(Budget(cost, min_cost=float(low), max_cost=float(high)))
    return scores_LN, budgets


@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(40):
        scores_LN, budgets = random_problem(rng)
        top_k = int(rng.integers(1, 21))
        best, front = brute_force(scores_LN, budgets, top_k)
        if not best:
            with pytest.raises(InfeasibleBudgetError):
                search_within(scores_LN, budgets, top_k)
            continue
        result = search_within(scores_LN, budgets, top_k)
        assert [(r.score, r.cost, r.arch) for r in result.ranked] == best
        assert [(r.score, r.cost, r.arch) for r in result.front] == front


def test_hand_computed() -> None:
    scores_LN = np.array([[1.0, 4.0], [2.0, 3.0]])
    costs_LN = np.array([[1.0, 5.0], [1.0, 2.0]])
    ranked, front = exact_search(scores_LN, costs_LN, 6, 2)
    assert [(r.arch, r.score, r.cost) for r in ranked] == [((1, 0), 6, 6), ((0, 1), 4, 3)]
    assert [r.arch for r in front] == [(0, 0), (0, 1), (1, 0)]
    ranked, front = exact_search(scores_LN, costs_LN, math.inf, 20)  # fewer than asked for
    assert [r.arch for r in ranked] == [(1, 1), (1, 0), (0, 1), (0, 0)]
    assert [r.cost for r in front] == [2, 3, 6, 7]


def test_an_exact_float_sum_is_legal() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        costs_LN, scores_LN = rng.random((12, 3)), rng.random((12, 3))
        arch = tuple(rng.integers(3, size=12).tolist())
        for layer, choice in enumerate(arch):
            scores_LN[layer, choice] += 1
        constant = float(rng.random())
        exactly = float(constant + gather_sum(costs_LN, [arch])[0])
        result = exact_search(scores_LN, costs_LN, exactly, constant=constant, min_cost=exactly)
        assert result.ranked[0].cost == exactly
        unlimited = exact_search(scores_LN, costs_LN, exactly, constant=constant)
        assert unlimited.ranked[0].arch == arch
        assert unlimited.ranked[0].score == gather_sum(scores_LN, [arch])[0]


def milp_optimum(scores_LN: FloatTable, budgets: list[Budget]) -> float:
    """Eq. 5 as an integer program: one binary per choice, one choice per layer."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    exists_LN = ~np.isnan(scores_LN)
    layer_V = np.nonzero(exists_LN)[0]
    one_each = (layer_V == np.unique(layer_V)[:, None]).astype(float)
    constraints = [LinearConstraint(one_each, 1, 1)]
    for budget in budgets:
        low, high = (limit - budget.cost.constant for limit in (budget.min_cost, budget.max_cost))
        row_V = budget.cost.table_LN[exists_LN] / 1e6
        constraints.append(LinearConstraint(row_V, low / 1e6, high / 1e6))
    solution = milp(
        -scores_LN[exists_LN],
        constraints=constraints,
        integrality=np.ones(len(layer_V)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    assert solution.success
    return float(-solution.fun)


def spos_scores(seed: int) -> FloatTable:
    scores_LN = np.random.default_rng(seed).random(FLOPS.table_LN.shape)
    return np.where(np.isnan(FLOPS.table_LN), np.nan, scores_LN)


@pytest.mark.parametrize("seed", range(2))
def test_equals_an_integer_program_on_spos(seed: int) -> None:
    flops, params, scores_LN = FLOPS, params_table(SPOS), spos_scores(seed)
    for budgets in (
        [Budget(flops, max_cost=475e6)],
        [Budget(flops, max_cost=475e6), Budget(params, max_cost=5.6e6)],
        [Budget(params, max_cost=6e6), Budget(flops, min_cost=500e6)],
    ):
        best = search_within(scores_LN, budgets, 1).ranked[0]
        assert best.score == pytest.approx(milp_optimum(scores_LN, budgets), abs=1e-7)
        assert all(budget.allows([best.arch])[0] for budget in budgets)


def test_infeasible_says_the_cheapest_possible_cost() -> None:
    flops, scores_LN = FLOPS, spos_scores(0)
    with pytest.raises(
        InfeasibleBudgetError, match=f"flops of at most 100000000 .*cheapest.*{int(flops.minimum)}"
    ):
        exact_search(scores_LN, flops.table_LN, 100e6, constant=flops.constant, name="flops")
    with pytest.raises(InfeasibleBudgetError, match=f"most expensive.*{int(flops.maximum)}"):
        exact_search(
            scores_LN, flops.table_LN, math.inf, constant=flops.constant, min_cost=1e9, name="flops"
        )


def test_jointly_infeasible_names_every_range() -> None:
    one = Budget(CostTable("a", np.array([[0.0, 4.0]]), 0.0), max_cost=1)
    other = Budget(CostTable("b", np.array([[4.0, 0.0]]), 0.0), max_cost=3)
    message = (
        r"a of at most 1 and b of at most 3 together.* a ranges from 0 \(cheapest possible\) to 4"
        r".* b ranges from 0 \(cheapest possible\) to 4"
    )
    with pytest.raises(InfeasibleBudgetError, match=message):
        search_within(np.zeros((1, 2)), [one, other])


def test_bad_input_is_refused() -> None:
    scores_LN = np.ones((2, 3))
    ragged_LN = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, np.nan]])
    cases: list[tuple[FloatTable, FloatTable, float, dict[str, Any], str]] = [
        (scores_LN, scores_LN, 9, {"top_k": 0}, "top_k must be at least 1, got 0"),
        (scores_LN, np.ones((2, 2)), 9, {}, r"shape \[2, 3\] .* \[2, 2\]"),
        (scores_LN, ragged_LN, 9, {}, "disagree on whether layer 1 has a candidate 2"),
        (scores_LN, scores_LN, math.nan, {}, "limit is NaN"),
        (scores_LN, scores_LN, 4, {"min_cost": 5}, "lower limit 5 is above the upper limit 4"),
        (scores_LN * math.inf, scores_LN, 9, {}, "scores must be finite"),
        (scores_LN, scores_LN * math.inf, 9, {}, "costs must be finite"),
        (scores_LN, np.ones(3), 9, {}, r"must have shape \[layers, candidates\]"),
    ]
    for scores, costs, max_cost, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            exact_search(scores, costs, max_cost, **arguments)
