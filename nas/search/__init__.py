"""Searchers: the best architectures under budgets (Eq. 5 of the paper).

`exact_search` proves the optimum where scores add up over layers; `Evolution` and `RandomSearch`
sample, work with any score, and report their `optimality_gap`. All of this is NumPy only.
Another searcher is another entry of `SEARCHERS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas.search.budget import Budget, InfeasibleBudgetError, legal_mask
from nas.search.evolution import Evolution
from nas.search.exact import exact_search, search_within
from nas.search.legal import LegalSampler, draw_legal
from nas.search.result import Ranked, SearchResult, optimality_gap, pareto_front
from nas.search.stratified import draw_stratified
from nas.search.suggest import Evaluate, RandomSearch, Suggester, run_search

__all__ = [
    "SEARCHERS",
    "Budget",
    "Evaluate",
    "Evolution",
    "InfeasibleBudgetError",
    "LegalSampler",
    "RandomSearch",
    "Ranked",
    "SearchResult",
    "Searcher",
    "Suggester",
    "check_indicator",
    "draw_legal",
    "draw_stratified",
    "exact_search",
    "legal_mask",
    "optimality_gap",
    "pareto_front",
    "run_search",
    "search_within",
]


@dataclass(frozen=True)
class Searcher:
    """`suggester` is what samples and asks for scores; None for `exact`, which needs the table.

    `additive_only`: works only with an indicator whose score is a sum over layers.
    """

    name: str
    description: str
    additive_only: bool
    suggester: type[Suggester] | None


SEARCHERS: dict[str, Searcher] = {
    searcher.name: searcher
    for searcher in (
        Searcher("exact", "proven optimum by dynamic programming", True, None),
        Searcher("evolution", "the evolutionary algorithm of SPOS", False, Evolution),
        Searcher("random", "uniform over the legal architectures", False, RandomSearch),
    )
}


def check_indicator(searcher: str, indicator: str, *, additive: bool) -> None:
    """Raise ValueError if `searcher` is unknown, or needs an additive indicator for another one."""
    if searcher not in SEARCHERS:
        known = ", ".join(SEARCHERS)
        raise ValueError(f"unknown searcher {searcher!r}: the known ones are {known}.")
    if SEARCHERS[searcher].additive_only and not additive:
        others = " or ".join(s.name for s in SEARCHERS.values() if not s.additive_only)
        raise ValueError(
            f"the searcher {searcher!r} needs a score that is a sum over layers, and the indicator "
            f"{indicator!r} is not one: use the searcher {others}, or the indicator 'bn'."
        )
