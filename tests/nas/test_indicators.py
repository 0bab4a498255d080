"""Eq. 3 and 4 by hand, and the baselines that rank without training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.cost import flops_table, gather_sum, params_table
from nas.indicators import INDICATORS, additive_scores, bn_scores
from nas.network import Supernet
from nas.space import load_space
from tests.nas.examples import RAGGED, TINY, random_architectures


def test_equations_3_and_4_by_hand() -> None:
    supernet = Supernet(TINY, seed=0, gamma_init=100.0)  # what is not set below would show
    gammas = {
        (0, 0): [1.0, -1.0, 3.0, -3.0, 0.0, 0.0, 0.0, 0.0],  # mean |γ| = 1
        (0, 1): [-2.0] * 8,  # 2
        (2, 2): [0.5] * 4 + [-0.25] * 4,  # 0.375
        (3, 0): [12.0] + [0.0] * 11,  # 1
        (4, 1): [-6.0, 6.0] * 6,  # 6
    }
    with torch.no_grad():
        for (layer, choice), gamma in gammas.items():
            supernet.candidate(layer, choice).last_bn.weight.copy_(torch.tensor(gamma))
    scores_LN = bn_scores(supernet)
    assert scores_LN.shape == (5, 3)
    assert [scores_LN[at] for at in gammas] == [1.0, 2.0, 0.375, 1.0, 6.0]
    assert np.isnan(scores_LN[1]).all()  # the fixed identity
    assert scores_LN[4, 0] == 100.0
    archs = [(0, -1, 2, 0, 1), (1, -1, 2, 0, 1)]
    assert gather_sum(scores_LN, archs).tolist() == [1 + 0.375 + 1 + 6, 2 + 0.375 + 1 + 6]


def test_baselines_are_nan_where_there_is_no_choice() -> None:
    for space in (TINY, RAGGED):
        expected_LN = np.isnan(bn_scores(Supernet(space, seed=0)))
        for name in ("flops", "params", "random"):
            assert np.array_equal(np.isnan(additive_scores(name, space)), expected_LN)


def test_cost_baselines_rank_by_cost() -> None:
    space = load_space("spos")
    archs = random_architectures(space, 30)
    for name, table in (("flops", flops_table(space)), ("params", params_table(space))):
        scores_B = gather_sum(additive_scores(name, space), archs)
        assert np.array_equal(np.argsort(scores_B), np.argsort(table.of_many(archs)))


def test_random_is_a_function_of_its_seed() -> None:
    once, again = (additive_scores("random", TINY, seed=4) for _ in range(2))
    assert np.array_equal(once, again, equal_nan=True)
    other = additive_scores("random", TINY, seed=5)
    assert not (once == other).any()
    assert ((once >= 0) & (once < 1))[~np.isnan(once)].all()


def test_what_has_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="'bn' needs the scores of a trained supernet"):
        additive_scores("bn", TINY)
    with pytest.raises(ValueError, match="'naswot'.*additive ones are bn, flops, params, random"):
        additive_scores("naswot", TINY)
    with pytest.raises(ValueError, match=f"unknown indicator 'acc'.*{', '.join(INDICATORS)}"):
        additive_scores("acc", TINY)
