"""Kendall's τ against its definition and against hand-computed cases with ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas.ranking import kendall_tau


def tau_b(a: list[float], b: list[float]) -> float:
    """The definition: concordant less discordant pairs over the geometric mean of untied pairs."""
    concordance, untied_a, untied_b = 0.0, 0, 0
    for i, j in itertools.combinations(range(len(a)), 2):
        sign_a, sign_b = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
        concordance += float(sign_a * sign_b)
        untied_a += int(sign_a != 0)
        untied_b += int(sign_b != 0)
    return concordance / math.sqrt(untied_a * untied_b)


def test_hand_computed() -> None:
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    # Pairs: (1,2) is tied in a, the two others agree: 2 / sqrt(2 * 3).
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))


def test_equals_the_definition_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 25)).astype(float).tolist()
        assert kendall_tau(a, b) == pytest.approx(tau_b(a, b))


def test_equals_scipy_on_a_hundred_architectures() -> None:
    from scipy.stats import kendalltau

    a, b = np.random.default_rng(1).standard_normal((2, 100))
    assert kendall_tau(a, a + b) == pytest.approx(float(kendalltau(a, a + b).statistic))


def test_constant_scores_have_no_order() -> None:
    assert math.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        kendall_tau([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least 2"):
        kendall_tau([1], [1])
    with pytest.raises(ValueError, match="NaN"):
        kendall_tau([1, math.nan], [1, 2])
