"""Between and within: hand-computed, and found again where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.spread import spread


def test_hand_computed() -> None:
    # Means 2 and 6, variance 8; within variances 2 and 2; between 8 − 2 / 2 = 7.
    found = spread([[1.0, 3.0], [5.0, 7.0]])
    assert found.within == pytest.approx(math.sqrt(2))
    assert found.between == pytest.approx(math.sqrt(7))
    assert found.reliability == pytest.approx(7 / 9)


def test_architectures_that_only_differ_by_chance_do_not_differ() -> None:
    found = spread([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    assert found.between == 0
    assert found.reliability == 0


def test_no_variance_at_all_has_no_share() -> None:
    assert math.isnan(spread([[1.0, 1.0], [1.0, 1.0]]).reliability)


def test_what_was_put_in_is_found_again() -> None:
    rng = np.random.default_rng(0)
    values_BS = rng.normal(0, 3, (4000, 1)) + rng.normal(0, 2, (4000, 3))
    found = spread(values_BS)
    assert found.between == pytest.approx(3, rel=0.05)
    assert found.within == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [[1.0, 2.0]], [1.0, 2.0]])
def test_one_seed_or_one_architecture_is_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least two of each"):
        spread(values)
