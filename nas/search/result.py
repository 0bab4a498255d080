"""What a search returns: ranked architectures and the score-cost front.

One order is used everywhere: score descending, then cost ascending, then the architecture itself in
lexicographic order, so that a result never depends on the order of evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from nas.space import Architecture


@dataclass(frozen=True)
class Ranked:
    """An architecture with its score and its cost in the first budget (the constant included)."""

    arch: Architecture
    score: float
    cost: float


class SearchResult(NamedTuple):
    """`ranked`, best first; `front`, ascending in cost and in score, no member dominated.

    Of several architectures with the same score and cost, the front holds the first in order.
    """

    ranked: tuple[Ranked, ...]
    front: tuple[Ranked, ...]


def order(ranked: Ranked) -> tuple[float, float, Architecture]:
    """Sort key of the order above."""
    return -ranked.score, ranked.cost, ranked.arch


def pareto_front(candidates: Iterable[Ranked]) -> tuple[Ranked, ...]:
    """Those that no other one beats in both score and cost, ascending in cost."""
    front: list[Ranked] = []
    best = -math.inf
    for ranked in sorted(candidates, key=lambda ranked: (ranked.cost, -ranked.score, ranked.arch)):
        if ranked.score > best:
            front.append(ranked)
            best = ranked.score
    return tuple(front)


def optimality_gap(best_score: float, exact_score: float) -> float:
    """How far a search stayed below the optimum: (exact − best) / |exact|, at least 0.

    Infinite when the optimum is 0 and was missed. Raises ValueError for NaN and when the search
    beat the optimum by more than rounding, because then the two did not solve the same problem.
    """
    if math.isnan(best_score) or math.isnan(exact_score):
        raise ValueError(f"the scores must be numbers, got {best_score} and {exact_score}.")
    if best_score > exact_score and not math.isclose(best_score, exact_score, abs_tol=1e-12):
        raise ValueError(
            f"the score {best_score} is above the proven optimum {exact_score}: compare searches "
            f"over the same scores and budgets."
        )
    missed = max(0.0, exact_score - best_score)
    if missed == 0.0:
        return 0.0
    return missed / abs(exact_score) if exact_score else math.inf
