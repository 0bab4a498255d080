"""Rank correlation: does an indicator order architectures as retraining does (Fig. 6)?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def kendall_tau(
    a: Sequence[float] | npt.NDArray[np.floating],
    b: Sequence[float] | npt.NDArray[np.floating],
) -> float:
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
