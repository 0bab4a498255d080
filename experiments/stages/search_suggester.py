"""The suggester that a search section asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.plan.budgets import budgets
from nas.search import SEARCHERS, Suggester
from nas.space import SearchSpace


def make_suggester(
    name: str, search: Mapping[str, Any], space: SearchSpace, seed: int
) -> Suggester:
    """Evolution, or random search over as many architectures, within the section's budgets."""
    settings = dict(search["evolution"])
    del settings["num_iterations"]
    if name == "random":
        settings = {"population": settings["population"]}
    suggester = SEARCHERS[name].suggester
    assert suggester is not None, "exact search suggests nothing"
    return suggester(space, budgets(search, space), seed=seed, **settings)
