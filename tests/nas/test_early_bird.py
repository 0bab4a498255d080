"""Rank vectors, Fig. 4's distances and the early-bird stop, all computed by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nas.early_bird import (
    EarlyBirdStop,
    distance_matrix,
    early_bird_epoch,
    max_rank_distance,
    rank_vector,
    similarity,
)

NAN = math.nan


def table(*rows: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(rows, dtype=np.float64)


def test_rank_vector_leaves_out_what_does_not_exist() -> None:
    scores_LN = table([0.1, 0.9, 0.5], [NAN, NAN, NAN], [2.0, 7.0, NAN], [1.0, 1.0, 3.0])
    assert rank_vector(scores_LN).tolist() == [3, 1, 2, 2, 1, 2, 3, 1]
    # A missing choice in the middle does not shift the ranks of its neighbours.
    assert rank_vector(table([5.0, NAN, 6.0])).tolist() == [2, 1]


def test_distance_matrix_and_similarity_by_hand() -> None:
    scores_ELN = np.stack(
        [
            table([3, 2, 1], [2, 1, NAN]),
            table([1, 2, 3], [1, 2, NAN]),
            table([9, 5, 4], [0, 1, NAN]),
        ]
    )
    # Ranks 123 12, 321 21, 123 21.
    root2, root8, root10 = math.sqrt(2), math.sqrt(8), math.sqrt(10)
    expected = [[0, root10, root2], [root10, 0, root8], [root2, root8, 0]]
    distances_EE = distance_matrix(scores_ELN)
    np.testing.assert_allclose(distances_EE, expected)
    np.testing.assert_allclose(similarity(distances_EE), 1 - np.array(expected) / root10)
    assert max_rank_distance(scores_ELN[0]) == pytest.approx(root10)
    np.testing.assert_array_equal(similarity(np.zeros((2, 2))), np.ones((2, 2)))


SAME, SWAPPED, REVERSED = table([3, 2, 1]), table([2, 3, 1]), table([1, 2, 3])


def test_stop_waits_for_the_whole_window() -> None:
    stop = EarlyBirdStop(window=2, threshold=0.0)
    epochs = [REVERSED, SAME, SAME, SAME, SAME, SWAPPED]
    assert [epoch for epoch, scores_LN in enumerate(epochs) if stop.update(scores_LN)] == [3, 4]
    assert early_bird_epoch(np.stack(epochs), 2, 0.0) == 3
    assert early_bird_epoch(np.stack(epochs[:3]), 2, 0.0) is None


def test_threshold_is_a_share_of_the_largest_distance() -> None:
    # A swap of neighbours is sqrt(2) of at most sqrt(8): exactly a half.
    epochs = np.stack([SAME, SWAPPED])
    assert early_bird_epoch(epochs, 1, 0.5) == 1
    assert early_bird_epoch(epochs, 1, 0.499) is None
    assert early_bird_epoch(np.stack([SAME, REVERSED]), 1, 1.0) == 1


def test_a_restored_stop_goes_on_alike() -> None:
    rng = np.random.default_rng(0)
    base_LN = rng.random((8, 6))
    epochs = [base_LN + rng.random((8, 6)) / (1 + epoch) for epoch in range(30)]
    whole, first, second = (EarlyBirdStop(3, 0.2) for _ in range(3))
    expected = [whole.update(scores_LN) for scores_LN in epochs]
    assert True in expected
    assert False in expected[4:]
    got = [first.update(scores_LN) for scores_LN in epochs[:9]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [second.update(scores_LN) for scores_LN in epochs[9:]]
    assert got == expected
    with pytest.raises(ValueError, match="window 3"):
        EarlyBirdStop(4, 0.2).load_state_dict(first.state_dict())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        EarlyBirdStop(window=0)
    with pytest.raises(ValueError, match="threshold"):
        EarlyBirdStop(threshold=1.5)
    stop = EarlyBirdStop()
    stop.update(table([1, 2, NAN]))
    with pytest.raises(ValueError, match="which choices exist"):
        stop.update(table([1, NAN, 2]))
    with pytest.raises(ValueError, match="which choices exist"):
        distance_matrix(np.stack([table([1, 2, NAN]), table([1, NAN, 2])]))
    with pytest.raises(ValueError, match="layers, candidates"):
        rank_vector(np.zeros(3))
