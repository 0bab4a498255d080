"""Rank correlation: does an indicator order architectures as retraining does (Fig. 6)?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """A number and the interval that holds it with some confidence."""

    value: float
    low: float
    high: float


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


def bootstrap_tau(
    a: Scores,
    b: Scores,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Kendall's τ-b with its percentile bootstrap interval: architectures are drawn with return.

    Resamples in which one of the lists is constant have no τ and are left out. Raises ValueError as
    `kendall_tau`.
    """
    a_B, b_B = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    tau = kendall_tau(a_B, b_B)
    draws = rng.integers(len(a_B), size=(num_resamples, len(a_B)))
    taus = np.array([kendall_tau(a_B[draw], b_B[draw]) for draw in draws])
    if np.isnan(taus).all():
        return Interval(tau, float("nan"), float("nan"))
    low, high = np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])
    return Interval(tau, float(low), float(high))


def cost_bins(costs: Scores, num_bins: int) -> npt.NDArray[np.int64]:
    """The bin [B] of every architecture, 0 for the cheapest: bins of equal numbers, as far as ties
    and remainders allow.

    Equal costs share a bin. Raises ValueError for fewer than one bin.
    """
    if num_bins < 1:
        raise ValueError(f"the number of bins is {num_bins}; give at least 1.")
    costs_B = np.asarray(costs, dtype=np.float64)
    inner = np.quantile(costs_B, np.linspace(0, 1, num_bins + 1)[1:-1])
    return np.searchsorted(inner, costs_B, side="left").astype(np.int64)


def tau_within(a: Scores, b: Scores, bins: npt.NDArray[np.int64]) -> float:
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
