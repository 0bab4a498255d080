"""Evolution and random search: what they suggest, and that an interruption changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nas.cost import FloatTable, flops_table, gather_sum
from nas.search import (
    Budget,
    Evolution,
    RandomSearch,
    Suggester,
    check_indicator,
    exact_search,
    legal_mask,
    optimality_gap,
    run_search,
)
from nas.space import Architecture, load_space

SPACE = load_space("spos")
FLOPS = flops_table(SPACE)
BUDGETS = [Budget(FLOPS, max_cost=475e6)]


def scores(seed: int) -> FloatTable:
    table_LN = np.random.default_rng(seed).random(FLOPS.table_LN.shape)
    table_LN[np.isnan(FLOPS.table_LN)] = np.nan
    return table_LN


def evaluate(archs: Sequence[Architecture]) -> list[float]:
    return [float(score) for score in gather_sum(scores(0), archs)]


def test_evolution_sees_a_thousand_distinct_legal_architectures() -> None:
    generations: list[float] = []
    result = run_search(
        Evolution(SPACE, BUDGETS, seed=0),
        evaluate,
        on_iteration=lambda _, suggester: generations.append(suggester.ranked[0].score),
    )
    archs = [ranked.arch for ranked in result.ranked]
    assert len(archs) == len(set(archs)) == 1000
    assert legal_mask(BUDGETS, archs).all()
    for arch in archs:
        SPACE.validate(arch)
    assert len(generations) == 20
    assert generations == sorted(generations)
    assert generations[-1] > generations[0]
    assert [r.score for r in result.ranked] == pytest.approx(evaluate(archs))
    assert [r.cost for r in result.ranked] == FLOPS.of_many(archs).tolist()

    exact = exact_search(scores(0), FLOPS.table_LN, 475e6, constant=FLOPS.constant)
    assert result.ranked[0].score <= exact.ranked[0].score
    for point in result.front:
        best = max(p.score for p in exact.front if p.cost <= point.cost)
        assert point.score <= best
    by_chance = run_search(RandomSearch(SPACE, BUDGETS, seed=0), evaluate)
    assert len({r.arch for r in by_chance.ranked}) == 1000
    gaps = [optimality_gap(r.ranked[0].score, exact.ranked[0].score) for r in (result, by_chance)]
    assert 0 <= gaps[0] < gaps[1]


@pytest.mark.parametrize("kind", [Evolution, RandomSearch])
def test_seven_and_thirteen_iterations_are_twenty(kind: type[Suggester]) -> None:
    whole = kind(SPACE, BUDGETS, seed=1, population=50)
    run_search(whole, evaluate, 20)

    first = kind(SPACE, BUDGETS, seed=1, population=50)
    run_search(first, evaluate, 7)
    waiting = first.suggest()  # interrupted between suggest and update, half of it evaluated
    first.update(waiting[:20], evaluate(waiting[:20]))
    second = kind(SPACE, BUDGETS, seed=999, population=50)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.suggest() == waiting[20:]
    result = run_search(second, evaluate, 13)
    assert result == whole.result()
    assert result != run_search(kind(SPACE, BUDGETS, seed=2), evaluate, 20)  # the seed decides
    assert second.num_evaluated == 1000
    assert second.state_dict() == whole.state_dict()


def test_children_come_from_the_parents() -> None:
    evolution = Evolution(SPACE, BUDGETS, seed=0, num_parents=1, num_crossovers=0)
    run_search(evolution, evaluate, 1)
    parent = evolution.ranked[0].arch
    children = evolution.suggest()
    assert children == evolution.suggest()
    distances = [sum(a != b for a, b in zip(parent, child, strict=True)) for child in children]
    # p = 0.1 over 17 layers: 1.4 changes on average; a random architecture differs in about 14.
    assert np.mean(distances[:25]) < 4
    assert np.mean(distances[25:]) > 8


def test_a_small_space_runs_out_and_stops() -> None:
    few = [Budget(FLOPS, max_cost=1.003 * FLOPS.minimum)]
    by_chance = run_search(RandomSearch(SPACE, few, seed=0), evaluate, 50)
    evolved = run_search(Evolution(SPACE, few, seed=0), evaluate, 50)
    assert 1 < len(by_chance.ranked) < 2500
    assert evolved.ranked == by_chance.ranked
    best = exact_search(scores(0), FLOPS.table_LN, few[0].max_cost, constant=FLOPS.constant)
    assert evolved.ranked[0].arch == best.ranked[0].arch
    assert evolved.front == best.front


def test_update_refuses_what_it_did_not_ask_for() -> None:
    search = RandomSearch(SPACE, BUDGETS, seed=0, population=3)
    a, b, c = search.suggest()
    with pytest.raises(ValueError, match="2 architectures and 1 scores"):
        search.update([a, b], [1.0])
    with pytest.raises(ValueError, match="must be a number"):
        search.update([a, b], [1.0, math.nan])
    assert search.num_evaluated == 0
    search.update([a, b], [1.0, 2.0])
    with pytest.raises(ValueError, match="not waiting for a score"):
        search.update([a], [1.0])
    with pytest.raises(ValueError, match="not waiting for a score"):
        search.update([c, c], [1.0, 2.0])
    search.update([c], [-math.inf])
    assert [ranked.arch for ranked in search.ranked] == [b, a, c]


def test_a_state_from_another_search_is_refused() -> None:
    state = Evolution(SPACE, BUDGETS, seed=0).state_dict()
    tighter = [Budget(FLOPS, max_cost=470e6)]
    for search, message in (
        (
            Evolution(SPACE, BUDGETS, seed=0, mutation_prob=0.2),
            "mutation_prob 0.1 and this one 0.2",
        ),
        (RandomSearch(SPACE, BUDGETS, seed=0), "searcher 'Evolution'"),
        (Evolution(SPACE, tighter, seed=0), "the saved search has limits"),
    ):
        with pytest.raises(ValueError, match=message):
            search.load_state_dict(state)


def test_settings_out_of_range_are_refused() -> None:
    for arguments, message in (
        ({"population": 10}, "no more than the population"),
        ({"population": 0}, "population must be at least 1"),
        ({"mutation_prob": 1.5}, "mutation_prob must lie between"),
        ({"num_parents": 0}, "num_parents must be at least 1"),
    ):
        settings: dict[str, Any] = arguments
        with pytest.raises(ValueError, match=message):
            Evolution(SPACE, BUDGETS, seed=0, **settings)


def test_optimality_gap() -> None:
    assert optimality_gap(3.0, 4.0) == 0.25
    assert optimality_gap(-5.0, -4.0) == 0.25
    assert optimality_gap(4.0, 4.0) == 0
    assert optimality_gap(0.0, 0.0) == 0
    assert optimality_gap(-1.0, 0.0) == math.inf
    with pytest.raises(ValueError, match="above the proven optimum"):
        optimality_gap(4.1, 4.0)


def test_an_unknown_searcher_lists_the_known() -> None:
    with pytest.raises(ValueError, match="known ones are exact, evolution, random"):
        check_indicator("anneal", "bn", additive=True)
