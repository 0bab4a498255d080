"""Search by a table of scores, where the indicator is a sum over layers.

Everything is a matter of milliseconds, so all searchers run: the one that was asked for decides,
and the others are reported beside it with their optimality gap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.plan.budgets import budgets
from experiments.stages.search_outcome import describe, search_outcome
from experiments.stages.search_suggester import make_suggester
from nas.cost import gather_sum
from nas.indicators import ScoreTable
from nas.search import SEARCHERS, Budget, Ranked, exact_search, optimality_gap, run_search
from nas.space import Architecture, SearchSpace
from orchestration.jobs.runner import Outcome


def search_table(stage: Mapping[str, Any], space: SearchSpace, scores_LN: ScoreTable) -> Outcome:
    """Search by exact search, evolution and at random; `stage` is the stage's config."""
    search, seed = stage["search"], stage["seed"]
    limits = budgets(search, space)

    def evaluate(archs: Sequence[Architecture]) -> list[float]:
        scores_B: list[float] = gather_sum(scores_LN, archs).tolist()
        return scores_B

    found: dict[str, dict[str, Any]] = {}
    rankings: dict[str, tuple[Ranked, ...]] = {}
    for name in SEARCHERS:
        start_s = time.perf_counter()
        if name == "exact":
            ranked = _exact(scores_LN, limits, search["top_k"])
        else:
            suggester = make_suggester(name, search, space, seed)
            ranked = run_search(suggester, evaluate, search["evolution"]["num_iterations"]).ranked
        found[name] = {
            "wall_s": time.perf_counter() - start_s,
            "num_evaluated": None if name == "exact" else len(ranked),
            **describe(ranked[0], space),
        }
        rankings[name] = ranked[: search["top_k"]]
    for best in found.values():
        best["optimality_gap"] = optimality_gap(best["score"], found["exact"]["score"])
    # The front of the whole space shows what lies on either side of the budget.
    flops = limits[0]
    front = exact_search(scores_LN, flops.table_LN, math.inf, constant=flops.constant).front
    chosen = search["searcher"]
    return search_outcome(
        stage,
        space,
        best=rankings[chosen],
        found=found,
        front=front,
        scores_LN=scores_LN,
        metrics={
            "optimality_gap": found[chosen]["optimality_gap"],
            **{
                f"{name}/{number}": best[number]
                for name, best in found.items()
                for number in ("wall_s", "score", "optimality_gap", "num_evaluated")
                if best[number] is not None
            },
        },
    )


def _exact(scores_LN: ScoreTable, limits: Sequence[Budget], top_k: int) -> tuple[Ranked, ...]:
    flops, *others = limits
    return exact_search(
        scores_LN,
        flops.table_LN,
        flops.max_cost,
        top_k,
        constant=flops.constant,
        min_cost=flops.min_cost,
        name=flops.name,
        also=others,
    ).ranked
