"""Early-bird characteristics: when do the ranks of the candidates stop changing (section 3.4.1)?

The paper ranks each layer's candidates by their BN score in every epoch of supernet training, puts
the layers' ranks one after the other, and shows the L2 distances between epochs (Fig. 4): ranks
settle long before training ends. `EarlyBirdStop` turns that into a rule. It is the criterion of
Early-Bird Tickets (You et al., ICLR 2020), which the paper builds on: the distance from the present
epoch to each of the last few is small. The paper itself uses a fixed number of epochs.

Shape legend: E epochs, L layers, N candidate operations, R ranks (the choices that exist).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
RankArray = npt.NDArray[np.int64]


def rank_vector(scores_LN: FloatArray) -> RankArray:
    """The layers' ranks one after the other, shape [R]; rank 1 is the highest score of its layer.

    Choices that do not exist (NaN) are left out. Of equal scores, the candidate with the lower
    index has the better rank. Raises ValueError if the scores are not a table.
    """
    scores_LN = np.asarray(scores_LN, dtype=np.float64)
    if scores_LN.ndim != 2:
        raise ValueError(
            f"scores must have shape [layers, candidates], got {list(scores_LN.shape)}."
        )
    # NaN sorts last, so that a double argsort numbers the existing choices 0, 1, 2, ...
    order_LN = np.argsort(-scores_LN, axis=1, kind="stable")
    ranks_LN = np.argsort(order_LN, axis=1, kind="stable") + 1
    ranks_R: RankArray = ranks_LN[~np.isnan(scores_LN)].astype(np.int64)
    return ranks_R


def max_rank_distance(scores_LN: FloatArray) -> float:
    """Largest L2 distance that two rank vectors of such a table can have: all layers reversed.

    With n candidates, rank i against rank n + 1 − i gives Σ (n + 1 − 2i)² = n(n² − 1)/3 per layer,
    and by the rearrangement inequality no permutation gives more.
    """
    num_L = (~np.isnan(np.asarray(scores_LN, dtype=np.float64))).sum(axis=1)
    return math.sqrt(float((num_L * (num_L**2 - 1)).sum()) / 3)


def distance_matrix(scores_ELN: FloatArray) -> FloatArray:
    """L2 distances between the epochs' rank vectors, shape [E, E] (Fig. 4 before normalising).

    Raises ValueError if the epochs do not agree on which choices exist.
    """
    scores_ELN = np.asarray(scores_ELN, dtype=np.float64)
    if scores_ELN.ndim != 3 or len(scores_ELN) == 0:
        raise ValueError(
            f"scores must have shape [epochs, layers, candidates], got {list(scores_ELN.shape)}."
        )
    missing_ELN = np.isnan(scores_ELN)
    if (missing_ELN != missing_ELN[0]).any():
        raise ValueError("the epochs' scores disagree on which choices exist (NaN).")
    ranks_ER = np.stack([rank_vector(scores_LN) for scores_LN in scores_ELN])
    return np.stack([np.sqrt(((ranks_ER - ranks_R) ** 2).sum(axis=1)) for ranks_R in ranks_ER])


def similarity(distances_EE: FloatArray) -> FloatArray:
    """Fig. 4's similarity, 1 − distance / largest distance, from 0 to 1.

    The largest distance is the matrix's own, as in the figure. All 1 if nothing ever differs.
    """
    largest = distances_EE.max()
    return 1.0 - distances_EE / largest if largest > 0 else np.ones_like(distances_EE)


class EarlyBirdStop:
    """Says when supernet training may end.

    That is when the rank vector's distance to each of the last `window` epochs, as a share of the
    largest possible distance, is at most `threshold`. The first `window` epochs never end it.
    """

    def __init__(self, window: int = 5, threshold: float = 0.1) -> None:
        """`window` in epochs, at least 1; `threshold` from 0 (no rank moved) to 1."""
        if window < 1:
            raise ValueError(f"window must be at least 1 epoch, got {window}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}.")
        self.window = window
        self.threshold = threshold
        self._exists_LN: npt.NDArray[np.bool_] | None = None
        self._recent: deque[RankArray] = deque(maxlen=window)

    def update(self, scores_LN: FloatArray) -> bool:
        """Take the scores after one more epoch; True if training may end now.

        Raises ValueError if other choices exist than in the epochs before.
        """
        ranks_R = rank_vector(scores_LN)
        exists_LN = ~np.isnan(np.asarray(scores_LN, dtype=np.float64))
        if self._exists_LN is None:
            self._exists_LN = exists_LN
        elif not np.array_equal(exists_LN, self._exists_LN):
            raise ValueError(
                "this epoch's scores disagree with earlier ones on which choices exist."
            )
        allowed = self.threshold * max_rank_distance(scores_LN)
        stable = len(self._recent) == self.window and all(
            math.sqrt(float(((ranks_R - past_R) ** 2).sum())) <= allowed for past_R in self._recent
        )
        self._recent.append(ranks_R)
        return stable

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return {
            "window": self.window,
            "threshold": self.threshold,
            "exists": None if self._exists_LN is None else self._exists_LN.tolist(),
            "recent": [ranks_R.tolist() for ranks_R in self._recent],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; ValueError if window or threshold differ."""
        if (state["window"], state["threshold"]) != (self.window, self.threshold):
            raise ValueError(
                f"the saved early-bird stop has window {state['window']} and threshold "
                f"{state['threshold']}, this one {self.window} and {self.threshold}."
            )
        exists = state["exists"]
        self._exists_LN = None if exists is None else np.array(exists, dtype=np.bool_)
        self._recent.clear()
        self._recent.extend(np.array(ranks, dtype=np.int64) for ranks in state["recent"])


def early_bird_epoch(scores_ELN: FloatArray, window: int = 5, threshold: float = 0.1) -> int | None:
    """0-based index of the first epoch after which training may end; None if ranks never settle."""
    stop = EarlyBirdStop(window, threshold)
    for epoch, scores_LN in enumerate(scores_ELN):
        if stop.update(scores_LN):
            return epoch
    return None
