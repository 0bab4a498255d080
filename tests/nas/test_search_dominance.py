"""Dropping states: never one with fewer than K dominators, always one with a long chain of them."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search.dominance import undominated


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("num_extra", [0, 1, 2])
@pytest.mark.parametrize("grouped", [False, True])
def test_keeps_exactly_those_with_fewer_dominators(
    depth: int, num_extra: int, grouped: bool
) -> None:
    rng = np.random.default_rng(depth + 10 * num_extra)
    num_states = 900
    score_S = rng.integers(0, 40, num_states).astype(float)
    cost_S = rng.integers(0, 40, num_states).astype(float)
    extra_ES = rng.integers(0, 10, (num_extra, num_states)).astype(float)
    group_S = np.minimum(cost_S, 25) if grouped else None

    index_S = np.arange(num_states)
    earlier_SS = (cost_S[:, None] < cost_S) | (
        (cost_S[:, None] == cost_S)
        & (
            (score_S[:, None] > score_S)
            | ((score_S[:, None] == score_S) & (index_S[:, None] < index_S))
        )
    )
    beats_SS = earlier_SS & (score_S[:, None] >= score_S)
    for column_S in extra_ES:
        beats_SS &= column_S[:, None] <= column_S
    if group_S is not None:
        beats_SS &= group_S[:, None] == group_S
    expected = np.flatnonzero(beats_SS.sum(axis=0) < depth)

    kept = undominated(score_S, cost_S, extra_ES, group_S, depth)
    np.testing.assert_array_equal(kept, expected)
