"""The suggest/update protocol that the sampling searchers share.

A suggester proposes architectures and takes their scores; it evaluates nothing and writes
nothing, so that the caller may score a generation in parallel, on another machine, or after a
restart: `state_dict` holds plain values that survive JSON, the generator's state among them, and a
search that was interrupted and restored proposes exactly what an uninterrupted one would.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nas.search.budget import Budget, legal_mask
from nas.search.legal import LegalSampler
from nas.search.result import Ranked, SearchResult, order, pareto_front
from nas.space import Architecture, SearchSpace, format_architecture

Evaluate = Callable[[Sequence[Architecture]], Sequence[float]]


class Suggester(ABC):
    """Proposes generations of `population` distinct legal architectures, none of them twice."""

    def __init__(
        self, space: SearchSpace, budgets: Sequence[Budget], *, seed: int, population: int = 50
    ) -> None:
        """Raises ValueError for a bad setting, InfeasibleBudgetError for an unreachable limit."""
        if population < 1:
            raise ValueError(f"population must be at least 1, got {population}.")
        self.space = space
        self.budgets = tuple(budgets)
        self.population = population
        self._sampler = LegalSampler(space, self.budgets)
        self._rng = np.random.default_rng(seed)
        self._scores: dict[Architecture, float] = {}
        self._pending: tuple[Architecture, ...] = ()

    @abstractmethod
    def _next_generation(self) -> tuple[Architecture, ...]:
        """Up to `population` distinct legal architectures that were never evaluated."""

    def settings(self) -> dict[str, Any]:
        """What must agree between a saved state and the search that loads it."""
        return {
            "searcher": type(self).__name__,
            "space": self.space.name,
            "population": self.population,
            "limits": [[budget.name, budget.description()] for budget in self.budgets],
        }

    def suggest(self) -> tuple[Architecture, ...]:
        """The generation to evaluate; the same one again until `update` has had all of it.

        Fewer than `population`, at last none, once the legal architectures run out.
        """
        if not self._pending:
            self._pending = self._next_generation()
        return self._pending

    def update(self, archs: Sequence[Architecture], scores: Sequence[float]) -> None:
        """Take the scores (higher is better) of some or all suggested architectures.

        −inf is the worst of all scores; NASWOT gives it to networks that confuse two images.
        Raises ValueError, and takes nothing, if lengths differ, a score is NaN or inf, or an
        architecture is not waiting for its score.
        """
        if len(archs) != len(scores):
            raise ValueError(f"got {len(archs)} architectures and {len(scores)} scores.")
        waiting = set(self._pending)
        for arch, score in zip(archs, scores, strict=True):
            if arch not in waiting:
                raise ValueError(
                    f"the architecture {format_architecture(arch)} is not waiting for a score: "
                    f"update with what suggest() returned, each once."
                )
            if math.isnan(score) or score == math.inf:
                raise ValueError(
                    f"the score of {format_architecture(arch)} is {score}; it must be a number "
                    f"that others can exceed."
                )
            waiting.remove(arch)
        self._scores.update((arch, float(score)) for arch, score in zip(archs, scores, strict=True))
        self._pending = tuple(arch for arch in self._pending if arch in waiting)

    @property
    def num_evaluated(self) -> int:
        """Number of architectures whose score is known."""
        return len(self._scores)

    @property
    def ranked(self) -> tuple[Ranked, ...]:
        """Everything evaluated so far, best first."""
        archs = list(self._scores)
        costs = self.budgets[0].cost.of_many(archs).tolist() if archs else []
        return tuple(sorted(map(Ranked, archs, self._scores.values(), costs), key=order))

    def result(self) -> SearchResult:
        """Everything evaluated so far, and the front of it."""
        ranked = self.ranked
        return SearchResult(ranked, pareto_front(ranked))

    def state_dict(self) -> dict[str, Any]:
        """The whole state as plain JSON-able values; between suggest and update, too."""
        return {
            "settings": self.settings(),
            "evaluated": [[list(arch), score] for arch, score in self._scores.items()],
            "pending": [list(arch) for arch in self._pending],
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises ValueError if it was taken from a search with other settings.
        """
        for key, mine in self.settings().items():
            theirs = state["settings"].get(key)
            if theirs != mine:
                raise ValueError(
                    f"the saved search has {key} {theirs!r} and this one {mine!r}: "
                    f"continue with the same settings, or start anew."
                )
        scores = {tuple(arch): float(score) for arch, score in state["evaluated"]}
        pending = tuple(tuple(arch) for arch in state["pending"])
        for arch in (*scores, *pending):
            self.space.validate(arch)
        if not legal_mask(self.budgets, [*scores, *pending]).all():
            raise ValueError("the saved search holds architectures that these budgets forbid.")
        self._scores, self._pending = scores, pending
        self._rng.bit_generator.state = state["rng"]


class RandomSearch(Suggester):
    """The baseline (the red dotted line in Fig. 5): uniform over the legal architectures."""

    def _next_generation(self) -> tuple[Architecture, ...]:
        return self._sampler.draw(self._rng, self.population, exclude=self._scores)


def run_search(
    suggester: Suggester,
    evaluate: Evaluate,
    num_iterations: int = 20,
    on_iteration: Callable[[int, Suggester], None] | None = None,
) -> SearchResult:
    """Suggest, evaluate, update, `num_iterations` times, or until nothing legal is left.

    `evaluate` scores a generation (higher is better). Returns everything evaluated, best first, and
    the front over the first budget's cost. `on_iteration(iteration, suggester)` is called after
    each, counting from 0: for progress and for saving `suggester.state_dict()`.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}.")
    for iteration in range(num_iterations):
        generation = suggester.suggest()
        if not generation:
            break
        suggester.update(generation, evaluate(generation))
        if on_iteration is not None:
            on_iteration(iteration, suggester)
    return suggester.result()
