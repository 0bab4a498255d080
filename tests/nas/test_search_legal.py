"""Legal architectures: uniform, distinct, all of them when there are few, and always an end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas.cost import flops_table, params_table
from nas.search import Budget, InfeasibleBudgetError, LegalSampler, draw_legal, legal_mask
from nas.search import legal as legal_module
from nas.space import Architecture, SearchSpace, load_space, space_from_dict


def small_space() -> SearchSpace:
    """Three searched layers with 3, 3 and 2 candidates and one fixed identity: 18 architectures."""
    pairs = [[3, 3], [3, 6], [5, 3]]
    return space_from_dict(
        {
            "name": "small",
            "input": {"channels": 3, "resolution": 16, "num_classes": 10},
            "stem": {"channels": 4, "stride": 1},
            "first_block": {"channels": 4, "kernel": 3, "stride": 1},
            "stages": [
                {"channels": 8, "layers": 3, "stride": 2, "candidates": pairs},
                {"channels": 16, "layers": 1, "stride": 2, "candidates": pairs[:2]},
            ],
            "head": {"channels": 16},
            "fixed_identity": [1],
        }
    )


def legal_archs(space: SearchSpace, budgets: list[Budget]) -> list[Architecture]:
    choices = [
        [-1] if layer.fixed_identity else range(len(layer.candidates)) for layer in space.layers
    ]
    archs = list(itertools.product(*choices))
    return list(itertools.compress(archs, legal_mask(budgets, archs).tolist()))


def budgets_of(space: SearchSpace, share: float) -> list[Budget]:
    flops = flops_table(space)
    limit = flops.minimum + share * (flops.maximum - flops.minimum)
    return [Budget(flops, max_cost=limit), Budget(params_table(space))]


@pytest.mark.parametrize("counted", [False, True])
def test_draws_are_uniform_over_the_legal(counted: bool) -> None:
    from scipy.stats import chisquare

    space = small_space()
    budgets = budgets_of(space, 0.6)
    archs = legal_archs(space, budgets)
    assert 5 < len(archs) < space.num_architectures
    rng = np.random.default_rng(0)
    sampler = LegalSampler(space, budgets)
    if counted:
        drawn_BL = sampler._counts.sample(rng, 6000)
        drawn_BL = drawn_BL[legal_mask(budgets, drawn_BL)]
        assert len(drawn_BL) > 5000
        drawn = [tuple(arch) for arch in drawn_BL.tolist()]
    else:
        drawn = [sampler.draw(rng, 1)[0] for _ in range(2000)]
    counts = [drawn.count(arch) for arch in archs]
    assert sum(counts) == len(drawn)
    assert chisquare(counts).pvalue > 1e-3


def test_excluded_architectures_are_never_drawn_and_the_rest_is() -> None:
    space = small_space()
    budgets = budgets_of(space, 0.6)
    archs = legal_archs(space, budgets)
    rng = np.random.default_rng(1)
    drawn = draw_legal(space, budgets, rng, 100, exclude=archs[:3])
    assert sorted(drawn) == archs[3:]
    assert draw_legal(space, budgets, rng, 5, exclude=archs) == ()
    assert draw_legal(space, budgets, rng, 0) == ()


def test_tight_budgets_come_to_an_end_with_everything_there_is() -> None:
    space = load_space("spos")
    flops = flops_table(space)
    only_cheapest = [Budget(flops, max_cost=flops.minimum)]
    cheapest = tuple(-1 if layer.fixed_identity else 0 for layer in space.layers)
    assert draw_legal(space, only_cheapest, np.random.default_rng(0), 50) == (cheapest,)

    # A room smaller than any step up: counting alone finds that one architecture is left.
    almost = LegalSampler(space, [Budget(flops, max_cost=1.0005 * flops.minimum)])
    assert almost._counts.total == 1

    tight = [Budget(flops, max_cost=1.02 * flops.minimum)]
    drawn = draw_legal(space, tight, np.random.default_rng(0), 300)
    assert len(set(drawn)) == len(drawn) == 300
    assert legal_mask(tight, drawn).all()
    for arch in drawn:
        space.validate(arch)
    assert drawn == draw_legal(space, tight, np.random.default_rng(0), 300)


def test_a_window_too_narrow_for_rejection_still_gives_legal_architectures() -> None:
    space = load_space("spos")
    flops, params = flops_table(space), params_table(space)
    budgets = [
        Budget(flops, min_cost=420e6, max_cost=420.2e6),
        Budget(params, max_cost=5.5e6),
    ]
    drawn = draw_legal(space, budgets, np.random.default_rng(0), 50)
    assert len(set(drawn)) == 50
    assert legal_mask(budgets, drawn).all()


def test_counts_equal_enumeration_whatever_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    space = small_space()
    budgets = budgets_of(space, 0.6)
    archs = legal_archs(space, budgets)
    assert LegalSampler(space, budgets)._counts.total == len(archs)
    monkeypatch.setattr(legal_module, "_MAX_STATES", 4)  # a coarse grid lets in more, loses none
    coarse = LegalSampler(space, budgets)._counts
    listed = [tuple(arch) for arch in coarse.list_all().tolist()]
    assert len(listed) == coarse.total
    assert set(archs) <= set(listed)


def test_impossible_budgets_raise() -> None:
    space = load_space("spos")
    flops, params = flops_table(space), params_table(space)
    rng = np.random.default_rng(0)
    with pytest.raises(InfeasibleBudgetError, match=str(int(flops.minimum))):
        draw_legal(space, [Budget(flops, max_cost=1e6)], rng, 1)
    both = [
        Budget(flops, max_cost=flops.minimum),
        Budget(params, min_cost=params.maximum),
    ]
    with pytest.raises(InfeasibleBudgetError, match="together"):
        draw_legal(space, both, rng, 1)
    with pytest.raises(ValueError, match="at least one budget"):
        draw_legal(space, [], rng, 1)
    with pytest.raises(ValueError, match="compute it for this space"):
        draw_legal(small_space(), [Budget(flops, max_cost=math.inf)], rng, 1)


def test_one_and_many_agree_on_what_is_legal() -> None:
    space = load_space("spos")
    flops = flops_table(space)
    sampler = LegalSampler(space, [Budget(flops, max_cost=620e6)])
    archs_BL = sampler._uniform(np.random.default_rng(0), 300)
    mask_B = legal_mask(sampler.budgets, archs_BL)
    assert 50 < mask_B.sum() < 250
    assert [sampler.is_legal(tuple(arch)) for arch in archs_BL.tolist()] == mask_B.tolist()
    at_the_limit = tuple(archs_BL[0].tolist())
    exact = [Budget(flops, max_cost=flops.of(at_the_limit))]
    assert LegalSampler(space, exact).is_legal(at_the_limit)
