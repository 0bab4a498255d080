"""Rank correlation: does an indicator order architectures as retraining does (Fig. 6)?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Scores = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """A number and the interval that holds it with some confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrapped:
    """A statistic with its values in R resamples of the architectures.

    Attributes:
        value: of all architectures.
        resampled_R: of each resample; NaN where it is not defined.
    """

    value: float
    resampled_R: npt.NDArray[np.float64]

    def __sub__(self, other: Bootstrapped) -> Bootstrapped:
        """The difference of two statistics of the same resamples."""
        return Bootstrapped(self.value - other.value, self.resampled_R - other.resampled_R)

    def interval(self, level: float = 0.95) -> Interval:
        """The percentile interval; resamples without a value are left out."""
        if np.isnan(self.resampled_R).all():
            return Interval(self.value, float("nan"), float("nan"))
        low, high = np.nanquantile(self.resampled_R, [(1 - level) / 2, (1 + level) / 2])
        return Interval(self.value, float(low), float(high))


def kendall_tau(a: Scores, b: Scores) -> float:
    """Kendall's τ-b of two equally long lists of scores, from −1 to 1; ties are allowed for.

    NaN if one of the lists is constant, because then no pair has an order to agree on. Raises
    ValueError for lists of different lengths, with fewer than two scores, or with NaN in them.
    """
    a_B, b_B = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a_B.ndim != 1 or a_B.shape != b_B.shape:
        raise ValueError(
            f"expected two lists of the same length, got shapes {list(a_B.shape)} and "
            f"{list(b_B.shape)}: give one score per architecture in each."
        )
    if len(a_B) < 2:
        raise ValueError(f"a rank correlation needs at least 2 architectures, got {len(a_B)}.")
    if np.isnan(a_B).any() or np.isnan(b_B).any():
        raise ValueError("a score is NaN: leave that architecture out of both lists.")
    if np.ptp(a_B) == 0 or np.ptp(b_B) == 0:
        return float("nan")

    from scipy.stats import kendalltau

    return float(kendalltau(a_B, b_B, variant="b").statistic)


def bootstrap(
    statistic: Callable[[IntArray], float],
    num: int,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
) -> Bootstrapped:
    """A statistic of `num` architectures, and of as many that are drawn from them with return.

    `statistic` takes the indices of architectures. Two statistics are compared architecture by
    architecture if their generators begin in the same state.
    """
    draws_RB = rng.integers(num, size=(num_resamples, num))
    return Bootstrapped(
        statistic(np.arange(num)), np.array([statistic(draw_B) for draw_B in draws_RB])
    )


def bootstrap_tau(
    a: Scores,
    b: Scores,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
) -> Bootstrapped:
    """Kendall's τ-b in resamples of the architectures; raises ValueError as `kendall_tau`."""
    a_B, b_B = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    kendall_tau(a_B, b_B)  # lists that are none are refused before they are drawn from
    return bootstrap(
        lambda draw_B: kendall_tau(a_B[draw_B], b_B[draw_B]),
        len(a_B),
        rng,
        num_resamples=num_resamples,
    )


def cost_bins(costs: Scores, num_bins: int) -> IntArray:
    """The bin [B] of every architecture, 0 for the cheapest: bins of equal numbers, as far as ties
    and remainders allow.

    Equal costs share a bin. Raises ValueError for fewer than one bin.
    """
    if num_bins < 1:
        raise ValueError(f"the number of bins is {num_bins}; give at least 1.")
    costs_B = np.asarray(costs, dtype=np.float64)
    inner = np.quantile(costs_B, np.linspace(0, 1, num_bins + 1)[1:-1])
    return np.searchsorted(inner, costs_B, side="left").astype(np.int64)


def tau_within(a: Scores, b: Scores, bins: IntArray) -> float:
    """Kendall's τ-b over the pairs of architectures that share a bin.

    With bins of FLOPs: does the indicator order networks of about one size? An indicator that only
    measures size has nothing left to say there. NaN where no such pair has an order in both lists.
    """
    a_B, b_B = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    first, second = np.triu_indices(len(a_B), k=1)
    same = bins[first] == bins[second]
    sign_a = np.sign(a_B[first] - a_B[second])[same]
    sign_b = np.sign(b_B[first] - b_B[second])[same]
    untied = np.count_nonzero(sign_a) * np.count_nonzero(sign_b)
    return float(sign_a @ sign_b / np.sqrt(untied)) if untied else float("nan")
