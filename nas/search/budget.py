"""Budgets: which architectures are legal.

A budget is an additive cost with limits. Searchers take several at once (FLOPs, parameters,
measured latency); an architecture is legal when it meets all of them. Legality never scores
anything.

Shape legend: B architectures, L layers, N candidate operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import numpy.typing as npt

from nas.cost import CostTable
from nas.space import Architecture, SearchSpace

BoolArray = npt.NDArray[np.bool_]


class InfeasibleBudgetError(ValueError):
    """No architecture meets the budgets; the message says how far off they are."""


@dataclass(frozen=True, eq=False)
class Budget:
    """A cost and its limits: `min_cost` <= cost <= `max_cost`, both ends legal."""

    cost: CostTable
    _: KW_ONLY
    min_cost: float = -math.inf
    max_cost: float = math.inf

    def __post_init__(self) -> None:
        table_LN = self.cost.table_LN
        if table_LN.ndim != 2 or table_LN.size == 0:
            raise ValueError(
                f"budget {self.name!r}: the table must have shape [layers, candidates], "
                f"got {list(table_LN.shape)}."
            )
        if np.isinf(table_LN).any() or not math.isfinite(self.cost.constant):
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

    @property
    def name(self) -> str:
        """Name of the cost."""
        return self.cost.name

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return not (math.isinf(self.min_cost) and math.isinf(self.max_cost))

    def allows(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> BoolArray:
        """Which of B architectures lie within the limits, shape [B]."""
        cost_B = self.cost.of_many(archs)
        return (self.min_cost <= cost_B) & (cost_B <= self.max_cost)

    def rounding(self) -> float:
        """More than the rounding error of any sum of these costs, in any order of adding."""
        extremes_L2 = self.cost.extremes_L2
        scale = abs(self.cost.constant) + float(np.abs(extremes_L2).max(axis=1).sum())
        return 8 * (len(extremes_L2) + 2) * float(np.finfo(np.float64).eps) * scale

    def description(self) -> str:
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
        least, greatest = budget.cost.minimum, budget.cost.maximum
        if least > budget.max_cost:
            raise InfeasibleBudgetError(
                f"no architecture has {budget.description()}: the cheapest possible one has "
                f"{format_cost(least)}; raise the upper limit to at least that."
            )
        if greatest < budget.min_cost:
            raise InfeasibleBudgetError(
                f"no architecture has {budget.description()}: the most expensive one has "
                f"{format_cost(greatest)}; lower the lower limit to at most that."
            )


def jointly_infeasible(budgets: Sequence[Budget]) -> InfeasibleBudgetError:
    """The error for limits that are reachable one by one and not together."""
    ranges = "; ".join(
        f"{budget.name} ranges from {format_cost(budget.cost.minimum)} (cheapest possible) to "
        f"{format_cost(budget.cost.maximum)}"
        for budget in budgets
    )
    together = " together" if len(budgets) > 1 else ""
    limits = " and ".join(budget.description() for budget in budgets if budget.limited)
    return InfeasibleBudgetError(
        f"no architecture has {limits}{together}; over the whole space {ranges}: widen a limit."
    )


def check_budgets(space: SearchSpace, budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """The budgets, after a check that there is one and that their tables describe this space."""
    if not budgets:
        raise ValueError("give at least one budget: its cost is what the front is drawn over.")
    exists_LN = np.zeros((len(space.layers), space.num_candidates), dtype=np.bool_)
    for index in space.searched_layers:
        exists_LN[index, : len(space.layers[index].candidates)] = True
    for budget in budgets:
        table_LN = budget.cost.table_LN
        if not np.array_equal(~np.isnan(table_LN), exists_LN):
            raise ValueError(
                f"budget {budget.name!r}: its table of shape {list(table_LN.shape)} does not "
                f"have a number for exactly the choices of space {space.name!r} "
                f"(shape {list(exists_LN.shape)}): compute it for this space."
            )
    return tuple(budgets)


def format_cost(cost: float) -> str:
    """All digits, and millions in brackets where that is easier to read."""
    if not math.isfinite(cost):
        return str(cost)
    text = str(int(cost)) if float(cost).is_integer() else repr(float(cost))
    return f"{text} ({cost / 1e6:.1f} M)" if abs(cost) >= 1e6 else text
