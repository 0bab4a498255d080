"""Evolutionary search as SPOS does it and the paper uses it (Guo et al., ECCV 2020; section 4.1).

Population 50, 20 iterations, 1000 distinct legal architectures in all. The first generation is
random; each later one has 25 mutations and 25 crossovers of the ten best architectures seen so far.

Departures from the paper, or what it leaves open: a mutation or crossover that is illegal or was
seen before is tried again, at most ten tries per wanted child in all, and what is then missing is
drawn at random, as in the authors' released code. A mutated layer draws among all its candidates,
its present one included. The first, random generation is one of the 20, which makes the 1000
architectures that the paper reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nas.search.budget import Budget
from nas.search.suggest import Suggester
from nas.space import Architecture, SearchSpace

_TRIES_PER_CHILD = 10


class Evolution(Suggester):
    """Suggests generations; `update` it with their scores."""

    def __init__(
        self,
        space: SearchSpace,
        budgets: Sequence[Budget],
        *,
        seed: int,
        population: int = 50,
        num_parents: int = 10,
        num_mutations: int = 25,
        num_crossovers: int = 25,
        mutation_prob: float = 0.1,
    ) -> None:
        """Raises ValueError for settings out of range, and the errors of `Suggester`."""
        super().__init__(space, budgets, seed=seed, population=population)
        if num_parents < 1:
            raise ValueError(f"num_parents must be at least 1, got {num_parents}.")
        if min(num_mutations, num_crossovers) < 0 or num_mutations + num_crossovers > population:
            raise ValueError(
                f"num_mutations ({num_mutations}) and num_crossovers ({num_crossovers}) must be at "
                f"least 0 and no more than the population ({population}) together."
            )
        if not 0 <= mutation_prob <= 1:
            raise ValueError(f"mutation_prob must lie between 0 and 1, got {mutation_prob}.")
        self.num_parents = num_parents
        self.num_mutations = num_mutations
        self.num_crossovers = num_crossovers
        self.mutation_prob = mutation_prob

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "num_parents": self.num_parents,
            "num_mutations": self.num_mutations,
            "num_crossovers": self.num_crossovers,
            "mutation_prob": self.mutation_prob,
        }

    def _next_generation(self) -> tuple[Architecture, ...]:
        parents = [ranked.arch for ranked in self.ranked[: self.num_parents]]
        children: dict[Architecture, None] = {}
        if parents:
            self._breed(children, self.num_mutations, lambda: self._mutation(parents))
            self._breed(children, self.num_crossovers, lambda: self._crossover(parents))
        missing = self.population - len(children)
        seen = self._scores.keys() | children.keys()
        return (*children, *self._sampler.draw(self._rng, missing, exclude=seen))

    def _breed(
        self, children: dict[Architecture, None], num: int, child: Callable[[], Architecture]
    ) -> None:
        """Add up to `num` new legal children."""
        wanted = len(children) + num
        for _ in range(_TRIES_PER_CHILD * num):
            if len(children) == wanted:
                break
            arch = child()
            if arch not in children and arch not in self._scores and self._sampler.is_legal(arch):
                children[arch] = None

    def _mutation(self, parents: Sequence[Architecture]) -> Architecture:
        child = list(parents[int(self._rng.integers(len(parents)))])
        mutates = self._rng.random(len(child)) < self.mutation_prob
        for layer in self.space.searched_layers:
            if mutates[layer]:
                child[layer] = int(self._rng.integers(len(self.space.layers[layer].candidates)))
        return tuple(child)

    def _crossover(self, parents: Sequence[Architecture]) -> Architecture:
        first, second = (parents[i] for i in self._rng.integers(len(parents), size=2).tolist())
        from_first = (self._rng.random(len(first)) < 0.5).tolist()
        return tuple(a if own else b for a, b, own in zip(first, second, from_first, strict=True))
