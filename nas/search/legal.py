"""Legal architectures, drawn uniformly.

The paper's random baseline and the evolutionary search both need distinct architectures under the
budgets. Rejection is exact and fast while a fair share of the space is legal. When it is hopeless,
the legal architectures are counted by dynamic programming over the layers and drawn in proportion
to the counts, as Dyer proposed for the knapsack ("Approximate counting by dynamic programming",
STOC 2003): costs are rounded down to a grid fine enough to keep the number of states small, which
lets in a few architectures just over a limit, and those are rejected. Either way each draw is
uniform over the legal architectures that are not excluded.

Shape legend: B architectures, L layers, N candidate operations, S states, R limits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.cost import FloatTable
from nas.search.budget import (
    Budget,
    check_budgets,
    check_reachable,
    jointly_infeasible,
    legal_mask,
)
from nas.space import IDENTITY, Architecture, SearchSpace

IntArray = npt.NDArray[np.int64]

_MAX_STATES = 8192
_MAX_BATCHES = 200
_MAX_LISTED = 200_000


def draw_legal(
    space: SearchSpace,
    budgets: Sequence[Budget],
    rng: np.random.Generator,
    num: int,
    exclude: Collection[Architecture] = (),
) -> tuple[Architecture, ...]:
    """`num` distinct legal architectures, uniform over those not in `exclude`.

    Fewer, all that there are, if the budgets leave no more; see `LegalSampler.draw` for errors.
    """
    return LegalSampler(space, budgets).draw(rng, num, exclude)


class LegalSampler:
    """Draws legal architectures; keeps the counts that tight budgets need."""

    def __init__(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        self.space = space
        self.budgets = check_budgets(space, budgets)
        check_reachable(self.budgets)

    def draw(
        self, rng: np.random.Generator, num: int, exclude: Collection[Architecture] = ()
    ) -> tuple[Architecture, ...]:
        """`num` distinct legal architectures, uniform over those not in `exclude`, or all of them.

        Raises InfeasibleBudgetError if no architecture is legal, and ValueError if legal ones are
        so rare between several limits that they could not be found.
        """
        if num < 0:
            raise ValueError(f"the number of architectures must be at least 0, got {num}.")
        drawn: dict[Architecture, None] = {}
        excluded = set(exclude)
        if self._rejection_works and self._extend(drawn, excluded, num, rng, counted=False):
            return tuple(drawn)
        if self._counts.total <= min(_MAX_LISTED, 20 * (num + len(excluded)) + 1000):
            # So few that the last ones would hardly be hit: list them and shuffle.
            archs_BL = self._counts.list_all()
            archs_BL = archs_BL[legal_mask(self.budgets, archs_BL)]
            if not len(archs_BL):
                raise jointly_infeasible(self.budgets)
            archs = [tuple(arch) for arch in archs_BL.tolist()]
            rest = [arch for arch in archs if arch not in excluded and arch not in drawn]
            order = rng.permutation(len(rest))[: num - len(drawn)]
            return (*drawn, *(rest[index] for index in order.tolist()))
        if self._extend(drawn, excluded, num, rng, counted=True):
            return tuple(drawn)
        raise ValueError(
            f"legal architectures are too rare: drew {len(drawn)} of {num} with "
            f"{' and '.join(budget.description() for budget in self.budgets)}; widen a limit."
        )

    def is_legal(self, arch: Architecture) -> bool:
        """Whether one architecture meets every budget; many at once are faster in `legal_mask`."""
        for budget, rows in zip(self.budgets, self._rows, strict=True):
            cost = 0.0  # the same sum in the same order as `gather_sum`
            for choice, row in zip(arch, rows, strict=True):
                if choice != IDENTITY:
                    cost += row[choice]
            if not budget.min_cost <= budget.cost.constant + cost <= budget.max_cost:
                return False
        return True

    def _extend(
        self,
        drawn: dict[Architecture, None],
        excluded: set[Architecture],
        num: int,
        rng: np.random.Generator,
        *,
        counted: bool,
    ) -> bool:
        """Add distinct legal draws until there are `num` (True) or `_MAX_BATCHES` are over."""
        batch = max(256, 2 * num)
        for _ in range(_MAX_BATCHES):
            if len(drawn) >= num:
                break
            archs_BL = self._counts.sample(rng, batch) if counted else self._uniform(rng, batch)
            for arch in map(tuple, archs_BL[legal_mask(self.budgets, archs_BL)].tolist()):
                if len(drawn) < num and arch not in excluded:
                    drawn[arch] = None
        return len(drawn) >= num

    def _uniform(self, rng: np.random.Generator, num: int) -> IntArray:
        archs_BL = np.full((num, len(self.space.layers)), IDENTITY, dtype=np.int64)
        for layer in self.space.searched_layers:
            archs_BL[:, layer] = rng.integers(len(self.space.layers[layer].candidates), size=num)
        return archs_BL

    @cached_property
    def _rejection_works(self) -> bool:
        """Whether at least one architecture in 20 is legal, by a sample that is always the same.

        It must depend on space and budgets alone: a restored search has to draw as before.
        """
        probes_BL = self._uniform(np.random.default_rng(0), 2000)
        return float(legal_mask(self.budgets, probes_BL).mean()) >= 0.05

    @cached_property
    def _rows(self) -> list[list[list[float]]]:
        return [budget.cost.table_LN.tolist() for budget in self.budgets]

    @cached_property
    def _counts(self) -> _Counts:
        return _count(self.space, self.budgets)


@dataclass(frozen=True)
class _Counts:
    """For every layer, where each state's choices lead (−1: nowhere), and how many ways go on."""

    next_SN: tuple[IntArray | None, ...]  # None: fixed to the identity
    # From before layer l to the end; one entry more than layers. Each array ends with a 0 on top of
    # its states, which is what index −1 finds.
    ways_S: tuple[npt.NDArray[np.float64], ...]

    @property
    def total(self) -> float:
        """Number of architectures, those let in by rounding included."""
        return float(self.ways_S[0][0])

    def sample(self, rng: np.random.Generator, num: int) -> IntArray:
        """`num` independent uniform draws, shape [num, L]; none if there is nothing to draw."""
        if self.total == 0:
            num = 0
        archs_BL = np.full((num, len(self.next_SN)), IDENTITY, dtype=np.int64)
        state_B = np.zeros(num, dtype=np.int64)
        for layer, next_SN in enumerate(self.next_SN):
            if next_SN is None:
                continue
            next_BN = next_SN[state_B]
            ways_BN = self.ways_S[layer + 1][next_BN].cumsum(axis=1)
            needle_B = rng.random(num) * ways_BN[:, -1]
            choice_B = (ways_BN > needle_B[:, None]).argmax(axis=1)
            archs_BL[:, layer] = choice_B
            state_B = next_BN[np.arange(num), choice_B]
        return archs_BL

    def list_all(self) -> IntArray:
        """Every architecture, in lexicographic order."""
        archs_BL: IntArray = np.full((1, len(self.next_SN)), IDENTITY, dtype=np.int64)
        state_B: IntArray = np.zeros(1, dtype=np.int64)
        for layer, next_SN in enumerate(self.next_SN):
            if next_SN is None:
                continue
            next_BN = next_SN[state_B]
            parent_B, choice_B = np.nonzero(self.ways_S[layer + 1][next_BN] > 0)
            archs_BL = archs_BL[parent_B]
            archs_BL[:, layer] = choice_B
            state_B = next_BN[parent_B, choice_B]
        return archs_BL


def _count(space: SearchSpace, budgets: Sequence[Budget]) -> _Counts:
    """Counts on the finest grid that needs no more than `_MAX_STATES` states after any layer."""
    limits = [(b, *limit) for b in budgets for limit in _excesses(b)]
    # A state is one int64, `bits` + 1 bits for each limit. Halving finds the largest that fits.
    transitions = None
    # Beyond 50, limit + 1 would be no float64 of its own.
    low, high = 1, min(50, 60 // max(1, len(limits)) - 1)
    while low <= high:
        bits = (low + high) // 2
        grid_RLN = [
            _rounded_down(excess_LN, room, 2**bits, budget.rounding())
            for budget, excess_LN, room in limits
        ]
        next_SN = _transitions(space, grid_RLN, bits)
        if next_SN is None:
            high = bits - 1
        else:
            transitions, low = next_SN, bits + 1
    if transitions is None:
        raise ValueError(
            f"{len(limits)} limits at once are too many to count legal architectures under; "
            f"drop some."
        )
    last_SN = next((layer_SN for layer_SN in reversed(transitions) if layer_SN is not None), None)
    num_last = 1 if last_SN is None else int(last_SN.max(initial=-1)) + 1
    ways_S = [np.append(np.ones(num_last), 0.0)]
    for layer_SN in reversed(transitions):
        if layer_SN is None:
            ways_S.append(ways_S[-1])
        else:
            ways_S.append(np.append(ways_S[-1][layer_SN].sum(axis=1), 0.0))
    return _Counts(transitions, tuple(reversed(ways_S)))


def _excesses(budget: Budget) -> list[tuple[FloatTable, float]]:
    """Each limit as (excess over the layer's best choice [L, N], how much may add up in all)."""
    extremes_L2 = budget.cost.extremes_L2
    limits = []
    if not math.isinf(budget.max_cost):
        room = budget.max_cost - budget.cost.minimum
        limits.append((budget.cost.table_LN - extremes_L2[:, :1], room))
    if not math.isinf(budget.min_cost):
        room = budget.cost.maximum - budget.min_cost
        limits.append((extremes_L2[:, 1:] - budget.cost.table_LN, room))
    return limits


def _rounded_down(excess_LN: FloatTable, room: float, limit: int, rounding: float) -> IntArray:
    """Excesses in units of `room` / `limit`, never more than they are; limit + 1 if over the room.

    Nothing legal is lost: `rounding` covers what floats may have added.
    """
    excess_LN = np.nan_to_num(np.maximum(excess_LN - rounding, 0.0))
    room += rounding
    units_LN = np.floor(excess_LN / room * limit * (1 - 1e-12))
    whole_LN: IntArray = np.minimum(units_LN, limit + 1).astype(np.int64)
    return whole_LN


def _transitions(
    space: SearchSpace, grid_RLN: Sequence[IntArray], bits: int
) -> tuple[IntArray | None, ...] | None:
    """Each layer's state transitions; None if there are more than `_MAX_STATES` states."""
    used_RS: IntArray = np.zeros((len(grid_RLN), 1), dtype=np.int64)
    next_SN: list[IntArray | None] = []
    for layer in range(len(space.layers)):
        if layer not in space.searched_layers:
            next_SN.append(None)
            continue
        num_choices = len(space.layers[layer].candidates)
        grid_RN = np.array([grid_LN[layer, :num_choices] for grid_LN in grid_RLN], dtype=np.int64)
        used_RSN = used_RS[:, :, None] + grid_RN.reshape(len(grid_RLN), 1, num_choices)
        open_SN = (used_RSN <= 2**bits).all(axis=0)
        key_M = np.zeros(int(open_SN.sum()), dtype=np.int64)
        for used_SN in used_RSN:
            key_M = (key_M << (bits + 1)) + used_SN[open_SN]
        _, first_S, state_M = np.unique(key_M, return_index=True, return_inverse=True)
        if len(first_S) > _MAX_STATES:
            return None
        layer_SN = np.full(open_SN.shape, -1, dtype=np.int64)
        layer_SN[open_SN] = state_M
        next_SN.append(layer_SN)
        used_RS = used_RSN[:, open_SN][:, first_S]
    return tuple(next_SN)
