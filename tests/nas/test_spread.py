"""Between and within: hand-computed, and estimated where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.spread import spread


def test_hand_computed() -> None:
    # Means 2 and 6, variance 8; within variances 2 and 2; between 8 − 2 / 2 = 7.
    result = spread([[1.0, 3.0], [5.0, 7.0]])
    assert result.within == pytest.approx(math.sqrt(2))
    assert result.between == pytest.approx(math.sqrt(7))
    assert result.reliability == pytest.approx(7 / 9)
    # Architectures that only differ by chance do not differ.
    by_chance = spread([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    assert (by_chance.between, by_chance.reliability) == (0, 0)
    assert math.isnan(spread([[1.0, 1.0], [1.0, 1.0]]).reliability)


def test_one_seed_or_one_architecture_is_refused() -> None:
    for values in ([[1.0], [2.0]], [[1.0, 2.0]], np.array([1.0, 2.0])):
        with pytest.raises(ValueError, match="at least two of each"):
            spread(values)
