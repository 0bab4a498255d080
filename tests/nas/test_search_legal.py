"""Legal architectures: uniform, distinct, all of them when there are few, and always an end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nas.cost import flops_table, params_table
from nas.search import Budget, InfeasibleBudgetError, LegalSampler, draw_legal, legal_mask
from nas.search import legal as legal_module
from nas.space import Architecture, load_space, space_from_dict

SPOS = load_space("spos")
FLOPS = flops_table(SPOS)
# Three searched layers with 3, 3 and 2 candidates and one fixed identity: 18 architectures.
SMALL = space_from_dict(
    {
        "name": "small",
        "input": {"channels": 3, "resolution": 16, "num_classes": 10},
        "stem": {"channels": 4, "stride": 1},
        "first_block": {"channels": 4, "kernel": 3, "stride": 1},
        "candidates": [[3, 3], [3, 6], [5, 3]],
        "stages": [
            {"channels": 8, "layers": 3, "stride": 2},
            {"channels": 16, "layers": 1, "stride": 2, "candidates": [[3, 3], [3, 6]]},
        ],
        "head": {"channels": 16},
        "fixed_identity": [1],
    }
)


@pytest.fixture
def budgets() -> list[Budget]:
    """Limits of the small space that about half of it keeps."""
    flops = flops_table(SMALL)
    limit = flops.minimum + 0.6 * (flops.maximum - flops.minimum)
    return [Budget(flops, max_cost=limit), Budget(params_table(SMALL))]


def legal_archs(budgets: list[Budget]) -> list[Architecture]:
    choices = [
        [-1] if layer.fixed_identity else range(len(layer.candidates)) for layer in SMALL.layers
    ]
    archs = list(itertools.product(*choices))
    return list(itertools.compress(archs, legal_mask(budgets, archs).tolist()))


@pytest.mark.parametrize("counted", [False, True])
def test_draws_are_uniform_over_the_legal(counted: bool, budgets: list[Budget]) -> None:
    from scipy.stats import chisquare

    archs = legal_archs(budgets)
    assert 5 < len(archs) < SMALL.num_architectures
    rng = np.random.default_rng(0)
    sampler = LegalSampler(SMALL, budgets)
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


def test_excluded_architectures_are_never_drawn_and_the_rest_is(budgets: list[Budget]) -> None:
    archs = legal_archs(budgets)
    rng = np.random.default_rng(1)
    drawn = draw_legal(SMALL, budgets, rng, 100, exclude=archs[:3])
    assert sorted(drawn) == archs[3:]
    assert draw_legal(SMALL, budgets, rng, 5, exclude=archs) == ()
    assert draw_legal(SMALL, budgets, rng, 0) == ()


def test_tight_budgets_come_to_an_end_with_everything_there_is() -> None:
    space, flops = SPOS, FLOPS
    only_cheapest = [Budget(flops, max_cost=flops.minimum)]
    cheapest = tuple(-1 if layer.fixed_identity else 0 for layer in space.layers)
    assert draw_legal(space, only_cheapest, np.random.default_rng(0), 50) == (cheapest,)

    tight = [Budget(flops, max_cost=1.02 * flops.minimum)]
    drawn = draw_legal(space, tight, np.random.default_rng(0), 300)
    assert len(set(drawn)) == len(drawn) == 300
    assert legal_mask(tight, drawn).all()
    for arch in drawn:
        space.validate(arch)
    assert drawn == draw_legal(space, tight, np.random.default_rng(0), 300)


def test_a_window_too_narrow_for_rejection_still_gives_legal_architectures() -> None:
    budgets = [
        Budget(FLOPS, min_cost=420e6, max_cost=420.2e6),
        Budget(params_table(SPOS), max_cost=5.5e6),
    ]
    drawn = draw_legal(SPOS, budgets, np.random.default_rng(0), 50)
    assert len(set(drawn)) == 50
    assert legal_mask(budgets, drawn).all()


def test_counts_equal_enumeration_whatever_the_grid(
    budgets: list[Budget], monkeypatch: pytest.MonkeyPatch
) -> None:
    archs = legal_archs(budgets)
    assert LegalSampler(SMALL, budgets)._counts.total == len(archs)
    monkeypatch.setattr(legal_module, "_MAX_STATES", 4)  # a coarse grid lets in more, loses none
    coarse = LegalSampler(SMALL, budgets)._counts
    listed = [tuple(arch) for arch in coarse.list_all().tolist()]
    assert len(listed) == coarse.total
    assert set(archs) <= set(listed)


def test_impossible_budgets_raise() -> None:
    params, rng = params_table(SPOS), np.random.default_rng(0)
    both = [Budget(FLOPS, max_cost=FLOPS.minimum), Budget(params, min_cost=params.maximum)]
    with pytest.raises(InfeasibleBudgetError, match="together"):
        draw_legal(SPOS, both, rng, 1)
    with pytest.raises(ValueError, match="at least one budget"):
        draw_legal(SPOS, [], rng, 1)
    with pytest.raises(ValueError, match="compute it for this space"):
        draw_legal(SMALL, [Budget(FLOPS)], rng, 1)


def test_one_and_many_agree_on_what_is_legal() -> None:
    sampler = LegalSampler(SPOS, [Budget(FLOPS, max_cost=620e6)])
    archs_BL = sampler._uniform(np.random.default_rng(0), 300)
    mask_B = legal_mask(sampler.budgets, archs_BL)
    assert 50 < mask_B.sum() < 250
    assert [sampler.is_legal(tuple(arch)) for arch in archs_BL.tolist()] == mask_B.tolist()
    at_the_limit = tuple(archs_BL[0].tolist())
    exact = [Budget(FLOPS, max_cost=FLOPS.of(at_the_limit))]
    assert LegalSampler(SPOS, exact).is_legal(at_the_limit)
