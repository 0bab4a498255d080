"""Which states of the dynamic program can be dropped: dominance, K deep.

`A` dominates `B` when it is at least as good in the score and in every column (less is better),
lies in the same group, and precedes `B` in the order (first column ascending, score descending,
index ascending). That is a strict partial order, and dropping is safe as long as K dominators stay.

Shape legend: S states, E extra columns, T states kept so far.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_CHUNK = 256


def undominated(
    score_S: FloatArray,
    cost_S: FloatArray,
    extra_ES: FloatArray,
    group_S: FloatArray | None,
    depth: int,
) -> IntArray:
    """Ascending indices of the states to keep: at least those with fewer than `depth` dominators.

    `group_S`, where given, must not decrease while `cost_S` grows.
    """
    order_S = np.lexsort((-score_S, cost_S))
    if len(extra_ES):
        kept_T = _by_counting(order_S, score_S, extra_ES, group_S, depth)
    else:
        kept_T = _by_peeling(order_S, score_S, group_S, depth)
    kept_T.sort()
    return kept_T


def _by_peeling(
    order_S: IntArray, score_S: FloatArray, group_S: FloatArray | None, depth: int
) -> IntArray:
    """Peel front after front, and drop what has `depth` dominators in the fronts peeled so far.

    In this order a state is undominated exactly if its score is above all earlier ones of its
    group, so one running maximum finds a front, in which scores ascend. A state that is left has as
    dominators the front's members before it, less those with a lower score, all of which come
    before it too.
    """
    value_S: npt.NDArray[np.float64 | np.int64] = score_S[order_S]
    if group_S is not None:
        # Ranks instead of scores, lifted group by group, make one running maximum do for all.
        ranks_S: IntArray = np.unique(value_S, return_inverse=True)[1]
        sorted_S = group_S[order_S]
        number_S = np.cumsum(np.diff(sorted_S, prepend=sorted_S[:1]) != 0)
        value_S = number_S * len(order_S) + ranks_S
    fronts = [order_S[:0]]
    left_S = order_S
    count_S: IntArray = np.zeros(len(order_S), dtype=np.intp)
    while len(left_S):
        running_S = np.maximum.accumulate(value_S)
        front_S = np.empty(len(left_S), dtype=np.bool_)
        front_S[0] = True
        np.greater(value_S[1:], running_S[:-1], out=front_S[1:])
        fronts.append(left_S[front_S])
        if depth == 1:
            break
        rest_S = ~front_S
        before_S = np.cumsum(front_S)[rest_S]
        lower_S = np.searchsorted(value_S[front_S], value_S[rest_S])
        count_S = count_S[rest_S] + before_S - lower_S
        open_S = count_S < depth
        left_S, value_S = left_S[rest_S][open_S], value_S[rest_S][open_S]
        count_S = count_S[open_S]
    return np.concatenate(fronts)


def _by_counting(
    order_S: IntArray,
    score_S: FloatArray,
    extra_ES: FloatArray,
    group_S: FloatArray | None,
    depth: int,
) -> IntArray:
    """Count dominators pairwise, chunk by chunk, against the states kept so far.

    Comparing with kept states is enough. Of a state's dominators, the first `depth` in order have
    all their own dominators among the ones before them, fewer than `depth`, so they were kept.
    """
    score_S, extra_ES = score_S[order_S], extra_ES[:, order_S]
    group_S = np.zeros(len(order_S)) if group_S is None else group_S[order_S]
    kept_T = np.empty(len(order_S), dtype=np.intp)  # positions in the order; the first num_kept
    num_kept = 0
    for start in range(0, len(order_S), _CHUNK):
        chunk = np.arange(start, min(start + _CHUNK, len(order_S)))
        # Groups ascend with the order: kept states of earlier groups cannot dominate this chunk.
        rivals = kept_T[:num_kept]
        rivals = rivals[np.searchsorted(group_S[rivals], group_S[start]) :]
        count = _dominates(rivals, chunk, score_S, extra_ES, group_S).sum(axis=0)
        chunk, count = chunk[count < depth], count[count < depth]
        count = count + np.triu(_dominates(chunk, chunk, score_S, extra_ES, group_S), 1).sum(axis=0)
        chunk = chunk[count < depth]
        kept_T[num_kept : num_kept + len(chunk)] = chunk
        num_kept += len(chunk)
    return order_S[kept_T[:num_kept]]


def _dominates(
    rivals: IntArray,
    chunk: IntArray,
    score_S: FloatArray,
    extra_ES: FloatArray,
    group_S: FloatArray,
) -> npt.NDArray[np.bool_]:
    """Whether rival (row) is as good as the chunk's state (column), given that it comes earlier."""
    as_good = score_S[rivals, None] >= score_S[chunk]
    as_good &= group_S[rivals, None] == group_S[chunk]
    for column_S in extra_ES:
        as_good &= column_S[rivals, None] <= column_S[chunk]
    return as_good
