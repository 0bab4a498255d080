"""Random search: the baseline to beat (the red dotted line in the paper's Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nas.search.budget import Budget
from nas.search.result import SearchResult
from nas.search.suggest import Evaluate, Suggester, run_search
from nas.space import Architecture, SearchSpace


class RandomSearch(Suggester):
    """Suggests distinct architectures, uniform over the legal ones not yet evaluated."""

    def __init__(
        self, space: SearchSpace, budgets: Sequence[Budget], *, seed: int, population: int = 50
    ) -> None:
        super().__init__(space, budgets, seed=seed, population=population)

    def _next_generation(self) -> tuple[Architecture, ...]:
        return self._sampler.draw(self._rng, self.population, exclude=self._scores)


def random_search(
    evaluate: Evaluate,
    space: SearchSpace,
    budgets: Sequence[Budget],
    *,
    seed: int,
    num_iterations: int = 20,
    population: int = 50,
    on_iteration: Callable[[int, Suggester], None] | None = None,
) -> SearchResult:
    """`num_iterations` · `population` random legal architectures, or all if there are fewer."""
    search = RandomSearch(space, budgets, seed=seed, population=population)
    return run_search(search, evaluate, num_iterations, on_iteration)
