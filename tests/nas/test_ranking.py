"""Kendall's τ against its definition and against hand-computed cases with ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas.ranking import bootstrap_tau, cost_bins, kendall_tau, tau_within


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
    assert math.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


def test_equals_the_definition_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 25)).astype(float).tolist()
        assert kendall_tau(a, b) == pytest.approx(tau_b(a, b))


def test_bad_input_is_refused() -> None:
    for a, b, message in (
        ([1, 2], [1, 2, 3], "same length"),
        ([1], [1], "at least 2"),
        ([1, math.nan], [1, 2], "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            kendall_tau(a, b)
    with pytest.raises(ValueError, match="number of bins is 0"):
        cost_bins([1, 2], 0)


def test_intervals_are_quantiles_over_the_same_resamples() -> None:
    """Of a τ, and of the difference of two whose generators begin alike."""
    rng = np.random.default_rng(3)
    a, b, noise = rng.standard_normal((3, 12))
    quality = a + 0.5 * noise
    one, other = (
        bootstrap_tau(scores, quality, np.random.default_rng(5), num_resamples=100)
        for scores in (a, b)
    )
    draws = np.random.default_rng(5).integers(12, size=(100, 12))
    taus, differences = [], []
    for draw in draws:
        taus.append(tau_b(a[draw].tolist(), quality[draw].tolist()))
        differences.append(taus[-1] - tau_b(b[draw].tolist(), quality[draw].tolist()))
    for result, value, resampled in (
        (one, kendall_tau(a, quality), taus),
        (one - other, kendall_tau(a, quality) - kendall_tau(b, quality), differences),
    ):
        interval = result.interval(0.9)
        assert interval.value == pytest.approx(value)
        expected = tuple(np.quantile(resampled, [0.05, 0.95]))
        assert (interval.low, interval.high) == pytest.approx(expected)
    nothing = (one - one).interval()
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_resamples_without_an_order_are_left_out() -> None:
    # Of two architectures half of the resamples hold one of them twice.
    result = bootstrap_tau([1, 2], [3, 4], np.random.default_rng(0), num_resamples=50).interval()
    assert (result.low, result.high) == pytest.approx((1, 1))
    constant = bootstrap_tau(
        [1, 1, 1], [1, 2, 3], np.random.default_rng(0), num_resamples=50
    ).interval()
    assert math.isnan(constant.value)
    assert math.isnan(constant.low)


def test_bins_hold_equal_numbers_in_the_order_of_cost() -> None:
    assert cost_bins([50, 10, 40, 20, 30, 60], 3).tolist() == [2, 0, 1, 0, 1, 2]
    assert cost_bins([5, 1, 4], 1).tolist() == [0, 0, 0]
    # Equal costs are not torn apart.
    assert cost_bins([1, 1, 1, 2], 2).tolist() == [0, 0, 0, 1]


def test_within_bins_only_pairs_of_one_bin_count() -> None:
    bins = np.array([0, 0, 0, 1, 1])
    # Bin 0: (1,2) and (1,3) agree, (2,3) disagrees; bin 1 disagrees: (2 - 1 - 1) / 4.
    assert tau_within([1, 2, 3, 9, 8], [1, 3, 2, 5, 6], bins) == pytest.approx(0)
    assert tau_within([1, 2, 3, 9, 8], [1, 3, 2, 6, 5], bins) == pytest.approx(2 / 4)
    # A tie in a: bin 0 has two untied pairs there and three in b.
    assert tau_within([1, 1, 2], [1, 2, 3], np.zeros(3, dtype=np.int64)) == pytest.approx(
        2 / math.sqrt(6)
    )
    assert math.isnan(tau_within([1, 2], [1, 2], np.array([0, 1])))
