"""Paths are a pure function of (seed, step), uniform or strictly fair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from nas.sampling import SAMPLERS, fair_paths, step_generator, uniform_paths
from nas.space import load_space, space_from_dict
from tests.nas.examples import RAGGED, TINY


def test_fair_paths_are_one_permutation_per_layer() -> None:
    space = load_space("spos")
    orders = set()
    for step in range(20):
        paths = fair_paths(space, 3, step)
        assert len(paths) == 6
        for path in paths:
            space.validate(path)
        for layer, column in zip(space.layers, zip(*paths, strict=True), strict=True):
            expected = [-1] * 6 if layer.fixed_identity else [0, 1, 2, 3, 4, 5]
            assert sorted(column) == expected
            orders.add(column)
    assert len(orders) > 100  # layers and steps have permutations of their own


def test_fair_is_refused_where_layers_have_different_numbers_of_candidates() -> None:
    with pytest.raises(ValueError, match=r"'ragged' has layers with 1 and 2 and 6.*'uniform'"):
        fair_paths(RAGGED, 0, 0)


def test_fair_counts_only_the_candidates_of_layers_that_have_a_choice() -> None:
    data = TINY.to_dict()
    data["stages"].insert(
        1, {"channels": 8, "layers": 1, "stride": 1, "candidates": [[k, 1] for k in (1, 3, 5, 7)]}
    )
    data["fixed_identity"] = [1, 3]
    space = space_from_dict(data)
    assert space.num_candidates == 4
    paths = fair_paths(space, 0, 0)
    assert len(paths) == 3
    for path in paths:
        space.validate(path)


def test_uniform_frequencies_pass_chi_square() -> None:
    for space in (TINY, RAGGED):
        draws_TL = np.array([uniform_paths(space, 11, step)[0] for step in range(3000)])
        p_values = []
        for index in space.searched_layers:
            num_choices = len(space.layers[index].candidates)
            counts = np.bincount(draws_TL[:, index], minlength=num_choices)
            assert len(counts) == num_choices
            if num_choices > 1:
                p_values.append(stats.chisquare(counts).pvalue)
        for left, right in itertools.combinations(space.searched_layers, 2):
            table = stats.contingency.crosstab(draws_TL[:, left], draws_TL[:, right]).count
            if min(table.shape) > 1:  # layers are drawn independently of each other
                p_values.append(stats.chi2_contingency(table).pvalue)
        assert min(p_values) > 0.01 / len(p_values)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_and_steps_differ_and_are_independent_of_order(name: str) -> None:
    space = load_space("spos")
    draws = {
        (seed, step): SAMPLERS[name](space, seed, step) for seed in range(5) for step in range(20)
    }
    assert len(set(draws.values())) == len(draws)
    for (seed, step), paths in reversed(draws.items()):
        assert SAMPLERS[name](space, seed, step) == paths


def test_negative_seed_or_step_is_refused() -> None:
    for seed, step in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match=f"seed {seed} and step {step}"):
            step_generator(seed, step)
