"""Exact search: the best architectures under the budgets, proven optimal.

A BN score (Eq. 4) and a cost such as FLOPs are both sums over layers, so maximising the one under
limits on the other (Eq. 5) is a multiple-choice knapsack. The paper samples 1000 architectures with
an evolutionary algorithm; this solves the problem outright, in milliseconds, by dynamic programming
over the layers. A state is a prefix of an architecture with its score and costs.

Why dropping dominated states loses nothing. Let A and B be prefixes of the same length, and let A
have at least B's score, at most B's cost in the first budget, and for every limit at most B's
*excess*, where

    upper limit:  excess = max(cost, max_cost − the most that the remaining layers can cost)
    lower limit:  excess = max(−cost, −(min_cost − the least that the remaining layers can cost))

The second argument of each max is where the limit is met whatever follows, so the lower limit's
excess orders states as its deficit max(0, min_cost − (cost + least remaining)) does. Complete B to
a legal architecture B+s. Then A+s is legal: where A's excess is the bound, the limit is met for
every suffix; otherwise A's cost is on the good side of B's and stays so when the same s is added.
A+s also scores and costs at least as well as B+s. If A strictly leads in score or first cost, or
ties in both and is lexicographically smaller, A+s precedes B+s in the result's order. Hence a
prefix with K such dominators has no completion among the best K, and with one it adds no new point
to the front.

Floats. Sums run from the first layer to the last, as in `nas.cost.gather_sum`, so that scores,
costs and legality are bit for bit the ones computed there; and adding the same number keeps ≤
between two floats, so the argument holds for rounded sums. Bounds that look ahead add in another
order: they are widened by more than any rounding error, and the limits themselves are tested on
complete sums. Only where rounding makes two different prefix sums meet later can the tie-break by
cost and lexicographic order among equal-scored architectures come out differently; sums of integers
or of float32 scores of like size are exact.

The number of states is what it costs: with upper limits on costs that go together (FLOPs, params)
it stays in the hundreds on `spos`. A narrow window on the first cost, or many unrelated budgets
with a large K, leave thousands, and take seconds to a minute.

Shape legend: L layers, N candidate operations, S states, C budgets, A extra dominance columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nas.cost import CostTable, FloatTable
from nas.search.budget import Budget, check_reachable, jointly_infeasible
from nas.search.dominance import FloatArray, IntArray, undominated
from nas.search.result import Ranked, SearchResult
from nas.space import IDENTITY, Architecture


def exact_search(
    scores_LN: FloatTable,
    costs_LN: FloatTable,
    max_cost: float,
    top_k: int = 1,
    *,
    constant: float = 0.0,
    min_cost: float = -math.inf,
    name: str = "cost",
) -> SearchResult:
    """The `top_k` best legal architectures and the whole front of score against cost.

    An architecture is legal if `min_cost` <= `constant` + Σ costs <= `max_cost`; for more budgets
    than this one see :func:`search_within`. `name` is what messages call the cost. In both tables
    NaN marks a choice that does not exist and a row of NaN a layer fixed to the identity. With
    `max_cost` infinite the front is the whole space's.

    Raises ValueError and InfeasibleBudgetError as :func:`search_within`.
    """
    cost = CostTable(name, np.asarray(costs_LN, dtype=np.float64), constant)
    return search_within(scores_LN, [Budget(cost, min_cost=min_cost, max_cost=max_cost)], top_k)


def search_within(scores_LN: FloatTable, budgets: Sequence[Budget], top_k: int = 1) -> SearchResult:
    """The `top_k` best legal architectures and the whole front of score against the first cost.

    An architecture is legal if all of the budgets, at least one, hold. In all tables NaN marks a
    choice that does not exist and a row of NaN a layer fixed to the identity. If fewer than `top_k`
    architectures are legal, all of them are returned.

    Raises ValueError for tables that do not fit together or scores that are infinite, and
    InfeasibleBudgetError if no architecture is legal.
    """
    scores_LN = np.asarray(scores_LN, dtype=np.float64)
    _check(scores_LN, budgets, top_k)
    check_reachable(budgets)

    limits = [_Limits(budget) for budget in budgets]
    score_S: FloatArray = np.zeros(1)
    cost_CS: FloatArray = np.zeros((len(budgets), 1))
    trail: list[tuple[IntArray, IntArray] | None] = []  # per layer: parent and choice of each state
    for layer, row_N in enumerate(scores_LN):
        choices = np.flatnonzero(~np.isnan(row_N))
        if not len(choices):
            trail.append(None)
            continue
        # Parents ascending, then choices ascending: the states stay in lexicographic order.
        score_S = np.add.outer(score_S, row_N[choices]).ravel()
        cost_CS = np.stack(
            [
                np.add.outer(cost_S, budget.cost.table_LN[layer, choices]).ravel()
                for cost_S, budget in zip(cost_CS, budgets, strict=True)
            ]
        )
        kept = _reachable(limits, cost_CS, layer)
        extra_AS, group_S = _columns(limits, cost_CS[:, kept], layer)
        kept = kept[undominated(score_S[kept], cost_CS[0, kept], extra_AS, group_S, top_k)]
        if not len(kept):
            raise jointly_infeasible(budgets)
        score_S, cost_CS = score_S[kept], cost_CS[:, kept]
        trail.append((kept // len(choices), choices[kept % len(choices)]))

    total_CS = np.array([[budget.cost.constant] for budget in budgets]) + cost_CS
    legal_S = np.ones(len(score_S), dtype=np.bool_)
    for budget, total_S in zip(budgets, total_CS, strict=True):
        legal_S &= (budget.min_cost <= total_S) & (total_S <= budget.max_cost)
    states = np.flatnonzero(legal_S)
    if not len(states):
        raise jointly_infeasible(budgets)
    score_S, total_S = score_S[states], total_CS[0, states]

    best = np.lexsort((total_S, -score_S))[:top_k]
    front = undominated(score_S, total_S, np.empty((0, len(states))), None, 1)
    front = front[np.argsort(total_S[front], kind="stable")]
    archs = _trace(trail, states[np.concatenate([best, front])])
    ranked = [
        Ranked(arch, float(score_S[state]), float(total_S[state]))
        for arch, state in zip(archs, np.concatenate([best, front]), strict=True)
    ]
    return SearchResult(tuple(ranked[: len(best)]), tuple(ranked[len(best) :]))


class _Limits:
    """One budget's limits on prefixes, per layer, widened by the rounding error.

    After layer l, a prefix that costs more than `dead_above_L[l]` or less than `dead_below_L[l]`
    cannot become legal; from `safe_below_L[l]` down, and from `safe_above_L[l]` up, a limit is met
    whatever follows.
    """

    def __init__(self, budget: Budget) -> None:
        extremes_L2 = budget.cost.extremes_L2
        remaining_L2 = extremes_L2[::-1].cumsum(axis=0)[::-1] - extremes_L2
        constant = budget.cost.constant
        low, high = budget.min_cost - constant, budget.max_cost - constant
        slack = budget.rounding()
        self.upper = not math.isinf(high)
        self.lower = not math.isinf(low)
        self.dead_above_L = high - remaining_L2[:, 0] + slack
        self.dead_below_L = low - remaining_L2[:, 1] - slack
        self.safe_below_L = high - remaining_L2[:, 1] - slack
        self.safe_above_L = low - remaining_L2[:, 0] + slack


def _reachable(limits: Sequence[_Limits], cost_CS: FloatArray, layer: int) -> IntArray:
    """Indices of the prefixes that no single limit rules out."""
    alive_S = np.ones(cost_CS.shape[1], dtype=np.bool_)
    for limit, cost_S in zip(limits, cost_CS, strict=True):
        if limit.upper:
            alive_S &= cost_S <= limit.dead_above_L[layer]
        if limit.lower:
            alive_S &= cost_S >= limit.dead_below_L[layer]
    return np.flatnonzero(alive_S)


def _columns(
    limits: Sequence[_Limits], cost_CS: FloatArray, layer: int
) -> tuple[FloatArray, FloatArray | None]:
    """The excesses beyond the first cost, and the groups that a lower limit on it makes.

    With the first cost pulling down and its lower limit pulling up, prefixes below the safe point
    compare only at equal cost, those above it all with each other: groups instead of a column.
    """
    columns: list[FloatArray] = []
    for limit, cost_S in zip(limits[1:], cost_CS[1:], strict=True):
        if limit.upper:
            columns.append(np.maximum(cost_S, limit.safe_below_L[layer]))
        if limit.lower:
            columns.append(np.maximum(-cost_S, -limit.safe_above_L[layer]))
    varying = [column_S for column_S in columns if len(column_S) and np.ptp(column_S) > 0]
    extra_AS = np.stack(varying) if varying else np.empty((0, cost_CS.shape[1]))
    first = limits[0]
    group_S = np.minimum(cost_CS[0], first.safe_above_L[layer]) if first.lower else None
    return extra_AS, group_S


def _trace(
    trail: Sequence[tuple[IntArray, IntArray] | None], states: IntArray
) -> list[Architecture]:
    """The architectures of the final `states`, walked back through parents and choices."""
    archs_SL: npt.NDArray[np.intp] = np.full((len(states), len(trail)), IDENTITY, dtype=np.intp)
    for layer in reversed(range(len(trail))):
        step = trail[layer]
        if step is not None:
            parents_S, choices_S = step
            archs_SL[:, layer] = choices_S[states]
            states = parents_S[states]
    return [tuple(arch) for arch in archs_SL.tolist()]


def _check(scores_LN: FloatTable, budgets: Sequence[Budget], top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    if np.isinf(scores_LN).any():
        raise ValueError(
            "the scores must be finite: mark a choice that does not exist with NaN, and look for "
            "what made a score infinite."
        )
    for budget in budgets:
        table_LN = budget.cost.table_LN
        if table_LN.shape != scores_LN.shape:
            raise ValueError(
                f"the scores have shape {list(scores_LN.shape)} and the costs {budget.name!r} "
                f"{list(table_LN.shape)}: both must be [layers, candidates] of one space."
            )
        differs_LN = np.isnan(table_LN) != np.isnan(scores_LN)
        if differs_LN.any():
            layer, choice = np.argwhere(differs_LN)[0].tolist()
            raise ValueError(
                f"the scores and the costs {budget.name!r} disagree on whether layer {layer} has a "
                f"candidate {choice} (NaN means that it has not): use tables of one space."
            )
