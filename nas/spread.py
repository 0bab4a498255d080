"""How much architectures differ, beside how much one architecture differs from itself.

A ranking of retrained architectures means something where the former exceeds the latter: with
another seed the same architecture ends elsewhere.

Shape legend: B architectures, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a measurement, in its unit.

    Attributes:
        between: of the architectures' true means, by analysis of variance.
        within: of one architecture over seeds.
    """

    between: float
    within: float

    @property
    def reliability(self) -> float:
        """The share of variance that is the architectures', 0 to 1: the intraclass correlation.

        Of a single retraining each; with means over S seeds `within` shrinks by √S.
        """
        total = self.between**2 + self.within**2
        return self.between**2 / total if total else math.nan


def spread(values_BS: Sequence[Sequence[float]] | npt.NDArray[np.floating]) -> Spread:
    """One-way analysis of variance with random effects (Searle, 1971).

    Args:
        values_BS: a measurement of every architecture with every seed, at least two of each.

    Raises:
        ValueError: another shape.
    """
    values = np.asarray(values_BS, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(
            f"expected [architectures, seeds], at least two of each, got {list(values.shape)}: "
            "retrain every architecture with several seeds."
        )
    num_seeds = values.shape[1]
    within = values.var(axis=1, ddof=1).mean()
    between = values.mean(axis=1).var(ddof=1) - within / num_seeds
    return Spread(math.sqrt(max(0.0, between)), math.sqrt(within))
