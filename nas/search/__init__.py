"""Searchers: the best architectures under budgets (Eq. 5 of the paper).

`exact_search` proves the optimum where scores add up over layers; `Evolution` and `RandomSearch`
sample, work with any score, and report their `optimality_gap`. All of this is NumPy only.
"""

from __future__ import annotations

from nas.search.budget import Budget, InfeasibleBudgetError, legal_mask
from nas.search.evolution import Evolution, evolution_search
from nas.search.exact import exact_search
from nas.search.legal import LegalSampler, draw_legal
from nas.search.random import RandomSearch, random_search
from nas.search.registry import SEARCHERS, Searcher, check_indicator, get_searcher
from nas.search.result import Ranked, SearchResult, optimality_gap, pareto_front
from nas.search.stratified import draw_stratified
from nas.search.suggest import Evaluate, Suggester, run_search

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
    "evolution_search",
    "exact_search",
    "get_searcher",
    "legal_mask",
    "optimality_gap",
    "pareto_front",
    "random_search",
    "run_search",
]
