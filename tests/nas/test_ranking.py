"""Kendall's τ against its definition and against hand-computed cases with ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas.ranking import bootstrap, bootstrap_tau, cost_bins, kendall_tau, tau_within


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


# --- intervals and bins ---


def test_an_interval_is_the_quantiles_of_resampled_taus() -> None:
    rng = np.random.default_rng(3)
    a, noise = rng.standard_normal((2, 12))
    b = a + noise
    found = bootstrap_tau(a, b, np.random.default_rng(5), num_resamples=400).interval(0.9)
    draws = np.random.default_rng(5).integers(12, size=(400, 12))
    taus = [tau_b(a[draw].tolist(), b[draw].tolist()) for draw in draws]
    assert found.value == pytest.approx(kendall_tau(a, b))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(taus, [0.05, 0.95])))


def test_equal_orders_have_no_uncertainty_but_for_ties() -> None:
    a = np.arange(10.0)
    found = bootstrap_tau(a, 2 * a, np.random.default_rng(0), num_resamples=200).interval()
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


def test_resamples_without_an_order_are_left_out() -> None:
    # Of two architectures half of the resamples hold one of them twice.
    found = bootstrap_tau([1, 2], [3, 4], np.random.default_rng(0), num_resamples=50).interval()
    assert (found.low, found.high) == pytest.approx((1, 1))
    constant = bootstrap_tau(
        [1, 1, 1], [1, 2, 3], np.random.default_rng(0), num_resamples=50
    ).interval()
    assert math.isnan(constant.value)
    assert math.isnan(constant.low)


def test_a_difference_is_that_of_the_same_architectures() -> None:
    rng = np.random.default_rng(3)
    a, b, noise = rng.standard_normal((3, 12))
    quality = a + 0.5 * noise
    one, other = (
        bootstrap_tau(scores, quality, np.random.default_rng(5), num_resamples=300)
        for scores in (a, b)
    )
    found = (one - other).interval(0.9)
    draws = np.random.default_rng(5).integers(12, size=(300, 12))
    differences = [
        tau_b(a[draw].tolist(), quality[draw].tolist())
        - tau_b(b[draw].tolist(), quality[draw].tolist())
        for draw in draws
    ]
    assert found.value == pytest.approx(kendall_tau(a, quality) - kendall_tau(b, quality))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.05, 0.95])))
    nothing = (one - one).interval()
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_any_statistic_is_that_of_the_architectures_drawn() -> None:
    values = np.array([1.0, 2.0, 4.0])
    found = bootstrap(lambda draw: float(values[draw].sum()), 3, np.random.default_rng(0))
    assert found.value == 7
    assert found.resampled_R.shape == (2000,)
    assert set(found.resampled_R.tolist()) == {3, 4, 5, 6, 7, 8, 9, 10, 12}  # 11 is no sum of three


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


def test_an_indicator_that_measures_size_says_nothing_within_sizes() -> None:
    sizes = np.repeat(np.arange(4.0), 10)
    accuracy = sizes + np.random.default_rng(0).random(40)
    assert kendall_tau(sizes, accuracy) > 0.8
    assert math.isnan(tau_within(sizes, accuracy, cost_bins(sizes, 4)))


def test_bins_need_a_number() -> None:
    with pytest.raises(ValueError, match="number of bins is 0"):
        cost_bins([1, 2], 0)
