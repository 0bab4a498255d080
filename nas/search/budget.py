"""Budgets: which architectures are legal.

A budget is an additive cost with limits. Searchers take several at once (FLOPs, parameters,
measured latency); an architecture is legal when it meets all of them. Legality never scores
anything.

Shape legend: B architectures, L layers, N candidate operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.cost import CostTable, FloatTable
from nas.space import Architecture, SearchSpace

BoolArray = npt.NDArray[np.bool_]


class InfeasibleBudgetError(ValueError):
    """No architecture meets the budgets; the message says how far off they are."""


@dataclass(frozen=True, eq=False)
class Budget:
    """`min_cost` <= `constant` + Σ over layers of `table_LN` <= `max_cost`, both ends legal.

    A choice that does not exist is NaN in the table; a layer fixed to the identity is a row of NaN.
    """

    name: str
    table_LN: FloatTable
    constant: float = 0.0
    min_cost: float = -math.inf
    max_cost: float = math.inf

    def __post_init__(self) -> None:
        table_LN = np.asarray(self.table_LN, dtype=np.float64)
        if table_LN.ndim != 2 or table_LN.size == 0:
            raise ValueError(
                f"budget {self.name!r}: the table must have shape [layers, candidates], "
                f"got {list(table_LN.shape)}."
            )
        if np.isinf(table_LN).any() or not math.isfinite(self.constant):
            raise ValueError(
                f"budget {self.name!r}: costs must be finite; mark a choice that does not exist "
                f"with NaN."
            )
        if math.isnan(self.min_cost) or math.isnan(self.max_cost):
            raise ValueError(
                f"budget {self.name!r}: a limit is NaN; give a number, or leave it out."
            )
        if self.min_cost > self.max_cost:
            raise ValueError(
                f"budget {self.name!r}: the lower limit {format_cost(self.min_cost)} is above the "
                f"upper limit {format_cost(self.max_cost)}."
            )
        object.__setattr__(self, "table_LN", table_LN)

    @classmethod
    def from_cost(
        cls, cost: CostTable, *, max_cost: float = math.inf, min_cost: float = -math.inf
    ) -> Budget:
        """Limits on a cost table."""
        return cls(cost.name, cost.table_LN, cost.constant, min_cost, max_cost)

    @cached_property
    def cost(self) -> CostTable:
        """The cost without its limits."""
        return CostTable(self.name, self.table_LN, self.constant)

    def allows(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> BoolArray:
        """Which of B architectures lie within the limits, shape [B]."""
        cost_B = self.cost.of_many(archs)
        return (self.min_cost <= cost_B) & (cost_B <= self.max_cost)

    def rounding(self) -> float:
        """More than the rounding error of any sum of these costs, in any order of adding."""
        scale = abs(self.constant) + float(np.abs(self.cost.extremes_L2).max(axis=1).sum())
        return 8 * (len(self.table_LN) + 2) * float(np.finfo(np.float64).eps) * scale

    def wish(self) -> str:
        """The limits in words."""
        low, high = format_cost(self.min_cost), format_cost(self.max_cost)
        if math.isinf(self.min_cost):
            return f"{self.name} of at most {high}"
        if math.isinf(self.max_cost):
            return f"{self.name} of at least {low}"
        return f"{self.name} between {low} and {high}"


def legal_mask(
    budgets: Sequence[Budget], archs: Sequence[Architecture] | npt.NDArray[np.integer]
) -> BoolArray:
    """Which of B architectures meet every budget, shape [B]."""
    allowed_B = np.ones(len(archs), dtype=np.bool_)
    for budget in budgets:
        allowed_B &= budget.allows(archs)
    return allowed_B


def check_reachable(budgets: Sequence[Budget]) -> None:
    """Raise InfeasibleBudgetError when one of the budgets alone rules out every architecture."""
    for budget in budgets:
        cheapest, dearest = budget.cost.minimum, budget.cost.maximum
        if cheapest > budget.max_cost:
            raise InfeasibleBudgetError(
                f"no architecture has {budget.wish()}: the cheapest possible one has "
                f"{format_cost(cheapest)}; raise the upper limit to at least that."
            )
        if dearest < budget.min_cost:
            raise InfeasibleBudgetError(
                f"no architecture has {budget.wish()}: the dearest possible one has "
                f"{format_cost(dearest)}; lower the lower limit to at most that."
            )


def jointly_infeasible(budgets: Sequence[Budget]) -> InfeasibleBudgetError:
    """The error for limits that are reachable one by one and not together."""
    ranges = "; ".join(
        f"{budget.name} ranges from {format_cost(budget.cost.minimum)} (cheapest possible) to "
        f"{format_cost(budget.cost.maximum)}"
        for budget in budgets
    )
    together = " together" if len(budgets) > 1 else ""
    wishes = " and ".join(budget.wish() for budget in budgets if limited(budget))
    return InfeasibleBudgetError(
        f"no architecture has {wishes}{together}; over the whole space {ranges}: widen a limit."
    )


def limited(budget: Budget) -> bool:
    """Whether the budget has a limit at all."""
    return not (math.isinf(budget.min_cost) and math.isinf(budget.max_cost))


def check_budgets(space: SearchSpace, budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """The budgets, after a check that there is one and that their tables describe this space."""
    if not budgets:
        raise ValueError("give at least one budget: its cost is what the front is drawn over.")
    exists_LN = np.zeros((len(space.layers), space.num_candidates), dtype=np.bool_)
    for index in space.searched_layers:
        exists_LN[index, : len(space.layers[index].candidates)] = True
    for budget in budgets:
        if budget.table_LN.shape != exists_LN.shape or not np.array_equal(
            ~np.isnan(budget.table_LN), exists_LN
        ):
            raise ValueError(
                f"budget {budget.name!r}: its table of shape {list(budget.table_LN.shape)} does "
                f"not have a number for exactly the choices of space {space.name!r} "
                f"(shape {list(exists_LN.shape)}): compute it for this space."
            )
    return tuple(budgets)


def format_cost(cost: float) -> str:
    """All digits, and millions in brackets where that is easier to read."""
    if not math.isfinite(cost):
        return str(cost)
    text = str(int(cost)) if float(cost).is_integer() else repr(float(cost))
    return f"{text} ({cost / 1e6:.1f} M)" if abs(cost) >= 1e6 else text
