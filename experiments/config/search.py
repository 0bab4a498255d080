"""The `search` and `correlate` sections: what ranks architectures, and what judges the ranking."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from experiments.config.section import Section, one_of
from nas.cost import CostTable, flops_table, params_table
from nas.indicators import INDICATORS
from nas.search import SEARCHERS, Budget, check_indicator
from nas.space import SearchSpace

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def _with_suffix(value: Any) -> Any:
    """Read `475M` as 475 000 000; leave everything else to the type."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kKmMgGbB])\s*", value)
        if match:
            return float(match[1]) * _SUFFIXES[match[2].lower()]
    return value


Count = Annotated[PositiveFloat, BeforeValidator(_with_suffix)]
IndicatorName = Annotated[str, one_of("indicator", tuple(INDICATORS))]


class EvolutionConfig(Section):
    """The evolutionary search of SPOS, as the paper uses it: 20 × 50 candidates.

    Random search takes its number of candidates from here too, so that both evaluate as many.
    """

    num_iterations: PositiveInt = Field(20, description="Generations.")
    population: PositiveInt = Field(50, description="Candidates of a generation.")
    num_parents: PositiveInt = Field(10, description="The best so far, from which children come.")
    num_mutations: NonNegativeInt = Field(25, description="Children by mutation.")
    num_crossovers: NonNegativeInt = Field(25, description="Children by crossover.")
    mutation_prob: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="Of each layer of a mutated child."
    )

    @model_validator(mode="after")
    def _children_fit(self) -> Self:
        if self.num_mutations + self.num_crossovers > self.population:
            raise ValueError(
                f"num_mutations ({self.num_mutations}) and num_crossovers "
                f"({self.num_crossovers}) must be no more than the population "
                f"({self.population}) together"
            )
        return self


class SearchConfig(Section):
    """What ranks architectures, what looks for the best one, and the budgets it has to keep.

    Without a `searcher`: exact search where the indicator is a sum over layers, else evolution.
    """

    indicator: IndicatorName = Field("bn", description=f"What ranks: {', '.join(INDICATORS)}.")
    searcher: Annotated[str, one_of("searcher", tuple(SEARCHERS))] = Field(
        "exact",
        description=f"What looks: {', '.join(SEARCHERS)}; if not given, exact where the "
        "indicator is a sum over layers, else evolution.",
    )
    max_flops: Count | None = Field(None, description="Most multiply-adds, such as 475M.")
    min_flops: Count | None = Field(None, description="Least multiply-adds.")
    max_params: Count | None = Field(None, description="Most parameters.")
    top_k: PositiveInt = Field(10, description="Architectures that the result names.")
    evolution: EvolutionConfig = Field(
        EvolutionConfig(), description="Of evolution, and of random search its candidates."
    )
    recalibration_images: PositiveInt = Field(
        25_600, description="Training images that batch norm is recalibrated with."
    )
    batch_size: PositiveInt = Field(256, description="Images that are scored at once.")

    @model_validator(mode="before")
    @classmethod
    def _with_searcher(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("searcher") is None:
            indicator = INDICATORS.get(str(values.get("indicator", "bn")))
            additive = indicator is None or indicator.additive
            return {**values, "searcher": "exact" if additive else "evolution"}
        return values

    def budgets(self, space: SearchSpace) -> tuple[Budget, ...]:
        """The limits over a space's costs; FLOPs first, the cost that fronts are drawn over."""
        flops = _budget(flops_table(space), self.min_flops, self.max_flops)
        if self.max_params is None:
            return (flops,)
        return flops, _budget(params_table(space), None, self.max_params)

    @model_validator(mode="after")
    def _searcher_fits_indicator(self) -> Self:
        check_indicator(self.searcher, self.indicator, additive=INDICATORS[self.indicator].additive)
        if self.min_flops and self.max_flops and self.min_flops > self.max_flops:
            raise ValueError(
                f"min_flops ({self.min_flops:g}) is above max_flops ({self.max_flops:g})"
            )
        return self


def _budget(cost: CostTable, low: float | None, high: float | None) -> Budget:
    return Budget(
        cost,
        min_cost=-math.inf if low is None else low,
        max_cost=math.inf if high is None else high,
    )


class RandomBaselineConfig(Section):
    """Random legal architectures, retrained; the best of them is the baseline (section 4.5.1)."""

    num_architectures: NonNegativeInt = Field(5, description="For every seed.")


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        raise ValueError("must name at least one indicator, and each once")
    return names


class CorrelateConfig(Section):
    """Which architectures are retrained, and whose ranking is compared (section 4.5.2, Fig. 6)."""

    num_architectures: Annotated[int, Field(ge=3)] = Field(
        40,
        description="Drawn at random, as many from every stratum of FLOPs, under the budgets of "
        "the search section.",
    )
    num_strata: PositiveInt = Field(
        4, description="Of equal width, between the least and the most FLOPs."
    )
    num_bins: PositiveInt = Field(
        4, description="Of equal numbers, within which indicators are judged apart from size."
    )
    indicators: Annotated[tuple[IndicatorName, ...], AfterValidator(_each_once)] = Field(
        ("bn", "accuracy", "flops", "params", "naswot", "synflow"), description="To compare."
    )
